//! An owned meta-batch: stacked rows of several episodes, filled row by row, lent out as a view.
#![forbid(unsafe_code)]

use std::ops::Range;

use crate::error::Result;
use crate::meta::{BatchTargets, EpisodeSet, Inputs, MetaBatch};
use crate::model::{InputKind, MlpShape};
use crate::view::{Bags, MatRef};

/// Which loss a batch's targets are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetKind {
    /// A class a row.
    Classes,
    /// Lists of scored rows, one right.
    Lists,
    /// Left sides, then right sides.
    Pairs,
}

/// One side of a meta-batch: the support sets or the query sets of its episodes.
#[derive(Clone, Debug)]
pub struct SetBuffer {
    rows: Vec<usize>,
    tokens: Vec<u32>,
    weights: Vec<f32>,
    offsets: Vec<usize>,
    dense: Vec<f32>,
    labels: Vec<u32>,
    lists: Vec<usize>,
    positives: Vec<u32>,
    list_bounds: Vec<usize>,
    count: usize,
}

impl Default for SetBuffer {
    fn default() -> Self {
        Self {
            rows: vec![0],
            tokens: Vec::new(),
            weights: Vec::new(),
            offsets: vec![0],
            dense: Vec::new(),
            labels: Vec::new(),
            lists: vec![0],
            positives: Vec::new(),
            list_bounds: vec![0],
            count: 0,
        }
    }
}

impl SetBuffer {
    /// Forgets all rows, keeps the memory.
    pub fn clear(&mut self) {
        for boundaries in [&mut self.rows, &mut self.offsets, &mut self.lists, &mut self.list_bounds] {
            boundaries.truncate(1);
        }
        self.tokens.clear();
        self.weights.clear();
        self.dense.clear();
        self.labels.clear();
        self.positives.clear();
        self.count = 0;
    }

    /// Adds a row that is a token bag.
    pub fn push_bag(&mut self, entries: impl Iterator<Item = (u32, f32)>) {
        for (token, weight) in entries {
            self.tokens.push(token);
            self.weights.push(weight);
        }
        self.offsets.push(self.tokens.len());
        self.count += 1;
    }

    /// Adds a dense row.
    pub fn push_dense(&mut self, row: &[f32]) {
        self.dense.extend_from_slice(row);
        self.count += 1;
    }

    /// The class of the row added last.
    pub fn label(&mut self, class: u32) {
        self.labels.push(class);
    }

    /// Ends a list of rows, of which number `positive` is right.
    pub fn end_list(&mut self, positive: u32) {
        self.lists.push(self.count);
        self.positives.push(positive);
    }

    /// Ends an episode.
    pub fn end_episode(&mut self) {
        self.rows.push(self.count);
        self.list_bounds.push(self.positives.len());
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Every token that occurs, with repetitions.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// As the meta-gradient takes it, for a model of that shape. Fails where rows are not what the model takes.
    pub fn view(&self, shape: &MlpShape, targets: TargetKind) -> Result<EpisodeSet<'_, f32>> {
        let inputs = match shape.kind {
            InputKind::Dense => Inputs::Dense(MatRef::new(&self.dense, self.count, shape.input)?),
            InputKind::Bag => Inputs::Bags(Bags::new(&self.tokens, &self.weights, &self.offsets, shape.input)?),
        };
        let targets = match targets {
            TargetKind::Classes => BatchTargets::Classes(&self.labels),
            TargetKind::Pairs => BatchTargets::Pairs,
            TargetKind::Lists => {
                BatchTargets::Lists { offsets: &self.lists, positives: &self.positives, episodes: &self.list_bounds }
            }
        };
        Ok(EpisodeSet { inputs, rows: &self.rows, targets })
    }

    /// How many predictions are right, of how many, given the outputs of all rows. A class is predicted among those
    /// that occur in its episode. A tie is wrong: a model that answers alike everywhere has learned nothing.
    fn hits(&self, outputs: MatRef<f32>, targets: TargetKind) -> (usize, usize) {
        let (mut hits, mut all) = (0, 0);
        for t in 0..self.rows.len() - 1 {
            let rows = self.rows[t]..self.rows[t + 1];
            let (h, n) = match targets {
                TargetKind::Classes => self.class_hits(outputs, rows),
                TargetKind::Lists => self.list_hits(outputs, t),
                TargetKind::Pairs => pair_hits(outputs, rows),
            };
            hits += h;
            all += n;
        }
        (hits, all)
    }

    fn class_hits(&self, outputs: MatRef<f32>, rows: Range<usize>) -> (usize, usize) {
        let mut classes = self.labels[rows.clone()].to_vec();
        classes.sort_unstable();
        classes.dedup();
        let right = |&i: &usize| {
            let logits = outputs.row(i);
            let own = self.labels[i];
            classes.iter().all(|&c| c == own || logits[c as usize] < logits[own as usize])
        };
        (rows.clone().filter(right).count(), rows.len())
    }

    fn list_hits(&self, outputs: MatRef<f32>, t: usize) -> (usize, usize) {
        let lists = self.list_bounds[t]..self.list_bounds[t + 1];
        let right = |&l: &usize| {
            let rows = self.lists[l]..self.lists[l + 1];
            let positive = rows.start + self.positives[l] as usize;
            let score = |i: usize| outputs.row(i)[0];
            rows.into_iter().all(|i| i == positive || score(i) < score(positive))
        };
        (lists.clone().filter(right).count(), lists.len())
    }
}

/// A left side is right if its own right side has a larger product with it than any other.
fn pair_hits(outputs: MatRef<f32>, rows: Range<usize>) -> (usize, usize) {
    let half = rows.len() / 2;
    let product = |i: usize, j: usize| -> f32 {
        let (a, b) = (outputs.row(rows.start + i), outputs.row(rows.start + half + j));
        a.iter().zip(b).map(|(x, y)| x * y).sum()
    };
    let right = |&i: &usize| (0..half).all(|j| j == i || product(i, j) < product(i, i));
    ((0..half).filter(right).count(), half)
}

/// Support and query sets of the same episodes.
#[derive(Clone, Debug)]
pub struct EpisodeBatch {
    /// What the inner loop learns from.
    pub support: SetBuffer,
    /// What the outer loss is measured on.
    pub query: SetBuffer,
    /// Which loss.
    pub targets: TargetKind,
}

impl EpisodeBatch {
    /// An empty batch for that kind of targets.
    pub fn new(targets: TargetKind) -> Self {
        Self { support: SetBuffer::default(), query: SetBuffer::default(), targets }
    }

    /// Forgets all rows, keeps the memory.
    pub fn clear(&mut self) {
        self.support.clear();
        self.query.clear();
    }

    /// As the meta-gradient takes it.
    pub fn view(&self, shape: &MlpShape) -> Result<MetaBatch<'_, f32>> {
        Ok(MetaBatch { support: self.support.view(shape, self.targets)?, query: self.query.view(shape, self.targets)? })
    }

    /// How many query predictions are right, of how many.
    pub fn hits(&self, query_outputs: MatRef<f32>) -> (usize, usize) {
        self.query.hits(query_outputs, self.targets)
    }
}
