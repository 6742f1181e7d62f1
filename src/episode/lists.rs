//! Episodes of lists: candidates with dense signals, one of them right; support and query lists of one language.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{EpisodeBatch, EpisodeSource, Part, SetBuffer, Split, TargetKind};
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::meta::Limits;
use crate::model::{InputKind, MlpShape};
use crate::rng::{Purpose, Rng};

/// The sizes of an episode and of a meta-batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListSpec {
    /// Lists of a support set.
    pub support: usize,
    /// Lists of a query set.
    pub query: usize,
    /// Episodes in a meta-batch.
    pub meta_batch: usize,
}

/// Draws episodes of candidate lists from a ranking dataset.
pub struct ListSource<'a> {
    data: &'a Dataset,
    spec: ListSpec,
    /// For each part: a language's lists, as rows of candidates.
    pools: [Vec<Vec<Range<usize>>>; 2],
    longest: usize,
    mean: Vec<f32>,
    scale: Vec<f32>,
}

impl<'a> ListSource<'a> {
    /// Indexes the dataset. Fails where it has no signals or no training language has enough lists.
    pub fn new(data: &'a Dataset, split: &Split, spec: ListSpec) -> Result<Self> {
        let (Some(groups), Some(signals)) = (data.groups(), data.signals()) else {
            return Err(Error::config("dataset", "it has no candidate lists; prepare it with a ranking task"));
        };
        if spec.query == 0 || spec.meta_batch == 0 {
            return Err(Error::config("episodes", format!("at least 1 query list and 1 episode are needed: {spec:?}")));
        }
        let width = data.signal_names().len();
        let pools = [Part::Train, Part::Valid].map(|part| pools(data, groups, split.rows(part), &spec));
        if pools[0].is_empty() {
            let detail = format!("no training language has {} lists with a right candidate", spec.support + spec.query);
            return Err(Error::config("episodes", detail));
        }
        let longest = groups.windows(2).map(|g| (g[1] - g[0]) as usize).max().unwrap_or(0);
        let rows = pools[0].iter().flatten().flat_map(Clone::clone);
        let (mean, scale) = standardisation(signals, width, rows);
        Ok(Self { data, spec, pools, longest, mean, scale })
    }

    /// Mean and inverse standard deviation of each signal over the training rows: what inputs are standardised by.
    pub fn standardisation(&self) -> (&[f32], &[f32]) {
        (&self.mean, &self.scale)
    }

    /// Languages of that part an episode can be drawn from.
    pub fn languages(&self, part: Part) -> usize {
        self.pools[part as usize].len()
    }

    fn push(&self, list: &Range<usize>, row: &mut Vec<f32>, set: &mut SetBuffer) {
        let (signals, width) = (self.data.signals().unwrap_or(&[]), self.mean.len());
        let mut positive = 0;
        for (j, i) in list.clone().enumerate() {
            row.clear();
            let values = &signals[i * width..(i + 1) * width];
            row.extend(values.iter().zip(&self.mean).zip(&self.scale).map(|((x, m), s)| (x - m) * s));
            set.push_dense(row);
            if self.data.labels()[i] == 1 {
                positive = j as u32;
            }
        }
        set.end_list(positive);
    }
}

/// The candidate rows of each list with a right one, by language; a list belongs to the part its first row is in.
fn pools(data: &Dataset, groups: &[u64], rows: &[u32], spec: &ListSpec) -> Vec<Vec<Range<usize>>> {
    let mut member = vec![false; data.len()];
    rows.iter().for_each(|&r| member[r as usize] = true);
    let mut index: BTreeMap<u16, Vec<Range<usize>>> = BTreeMap::new();
    for group in groups.windows(2) {
        let (first, end) = (group[0] as usize, group[1] as usize);
        if member[first] && data.labels()[first + 1..end].contains(&1) {
            index.entry(data.languages()[first]).or_default().push(first + 1..end);
        }
    }
    index.into_values().filter(|lists| lists.len() >= spec.support + spec.query).collect()
}

/// Mean and 1 / standard deviation of each column over some rows; a constant column gets a factor of 0.
fn standardisation(signals: &[f32], width: usize, rows: impl Iterator<Item = usize> + Clone) -> (Vec<f32>, Vec<f32>) {
    let (mut sum, mut squares, mut n) = (vec![0.0f64; width], vec![0.0f64; width], 0.0f64);
    for i in rows {
        n += 1.0;
        for (j, &x) in signals[i * width..(i + 1) * width].iter().enumerate() {
            sum[j] += f64::from(x);
            squares[j] += f64::from(x) * f64::from(x);
        }
    }
    let mean: Vec<f64> = sum.iter().map(|s| s / n.max(1.0)).collect();
    let variance = squares.iter().zip(&mean).map(|(q, m)| q / n.max(1.0) - m * m);
    let scale = variance.map(|v| if v > 1e-10 { (1.0 / v.sqrt()) as f32 } else { 0.0 }).collect();
    (mean.iter().map(|&m| m as f32).collect(), scale)
}

impl EpisodeSource for ListSource<'_> {
    fn draw(&self, part: Part, seed: u64, step: u64, batch: &mut EpisodeBatch) -> Result<()> {
        let pools = &self.pools[part as usize];
        if pools.is_empty() {
            let need = self.spec.support + self.spec.query;
            return Err(Error::config("valid_languages", format!("no language has {need} lists")));
        }
        batch.clear();
        batch.targets = TargetKind::Lists;
        let mut row = Vec::with_capacity(self.mean.len());
        for episode in 0..self.spec.meta_batch as u64 {
            let number = episode + if part == Part::Valid { 1 << 32 } else { 0 };
            let mut rng = Rng::new(seed, step, number, Purpose::Episode);
            let mut lists: Vec<&Range<usize>> = pools[rng.below(pools.len())].iter().collect();
            let (k, q) = (self.spec.support, self.spec.query);
            rng.choose_front(&mut lists, k + q);
            lists[..k].iter().for_each(|list| self.push(list, &mut row, &mut batch.support));
            lists[k..k + q].iter().for_each(|list| self.push(list, &mut row, &mut batch.query));
            batch.support.end_episode();
            batch.query.end_episode();
        }
        Ok(())
    }

    fn limits(&self) -> Limits {
        let rows = |lists: usize| lists * self.longest;
        let (support, query) = (rows(self.spec.support), rows(self.spec.query));
        Limits { episodes: self.spec.meta_batch, support, query, nnz: 0, inner_steps: 0, pairs: false }
    }

    fn check_shape(&self, shape: &MlpShape) -> Result<()> {
        let width = self.mean.len();
        if shape.kind == InputKind::Dense && shape.input == width && shape.outputs() == 1 {
            return Ok(());
        }
        Err(Error::shape("ranking model", format!("{shape:?} does not take {width} signals to one score")))
    }

    fn describe(&self) -> String {
        let s = &self.spec;
        format!("{} episodes of {} support and {} query lists", s.meta_batch, s.support, s.query)
    }
}
