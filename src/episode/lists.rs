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

impl ListSpec {
    /// Texts an episode needs.
    fn texts(&self) -> usize {
        self.support.saturating_add(self.query)
    }
}

/// The lists whose first rows have one text id, as rows of candidates.
type Text = Vec<Range<usize>>;

/// Draws episodes of candidate lists from a ranking dataset, all of different texts.
///
/// A list with several right candidates is one about the first of them. A list is trained on only if training may use
/// each of its rows; it is validated on if its first row is of that part.
pub struct ListSource<'a> {
    data: &'a Dataset,
    spec: ListSpec,
    /// For each part: a language's texts, each with its lists.
    pools: [Vec<Vec<Text>>; 2],
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
        let pools = [Part::Train, Part::Valid].map(|part| pools(data, groups, split.rows(part), part, &spec));
        if pools[0].is_empty() {
            let detail = format!("no training language has {} texts with a list and its right candidate", spec.texts());
            return Err(Error::config("episodes", detail));
        }
        let longest = groups.windows(2).map(|g| (g[1] - g[0]) as usize).max().unwrap_or(0);
        let rows = pools[0].iter().flatten().flatten().flat_map(Clone::clone);
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
        for i in list.clone() {
            row.clear();
            let values = &signals[i * width..(i + 1) * width];
            row.extend(values.iter().zip(&self.mean).zip(&self.scale).map(|((x, m), s)| (x - m) * s));
            set.push_dense(row);
        }
        let positive = self.data.labels()[list.clone()].iter().position(|&label| label == 1);
        set.end_list(positive.expect("a pool's list has a right candidate") as u32);
    }
}

/// The lists with a right candidate, by language and text of their first row; languages with enough texts.
fn pools(data: &Dataset, groups: &[u64], rows: &[u32], part: Part, spec: &ListSpec) -> Vec<Vec<Text>> {
    let mut member = vec![false; data.len()];
    rows.iter().for_each(|&r| member[r as usize] = true);
    let mut index: BTreeMap<u16, BTreeMap<u32, Text>> = BTreeMap::new();
    for group in groups.windows(2) {
        let (first, end) = (group[0] as usize, group[1] as usize);
        let inside = match part {
            Part::Train => member[first..end].iter().all(|&m| m),
            Part::Valid => member[first],
        };
        if inside && data.labels()[first + 1..end].contains(&1) {
            let texts = index.entry(data.languages()[first]).or_default();
            texts.entry(data.text_ids()[first]).or_default().push(first + 1..end);
        }
    }
    let languages = index.into_values().map(|texts| texts.into_values().collect::<Vec<_>>());
    languages.filter(|texts| texts.len() >= spec.texts()).collect()
}

/// Mean and 1 / standard deviation of each column over some rows; a constant column gets a factor of 0.
fn standardisation(signals: &[f32], width: usize, rows: impl Iterator<Item = usize> + Clone) -> (Vec<f32>, Vec<f32>) {
    let n = rows.clone().count().max(1) as f64;
    let moment = |f: &dyn Fn(usize, f64) -> f64| {
        let mut sum = vec![0.0f64; width];
        for i in rows.clone() {
            let values = &signals[i * width..(i + 1) * width];
            values.iter().enumerate().for_each(|(j, &x)| sum[j] += f(j, f64::from(x)));
        }
        sum.into_iter().map(|s| s / n).collect::<Vec<_>>()
    };
    // In two passes: the difference of mean square and squared mean loses all digits of a column far from 0.
    let mean = moment(&|_, x| x);
    let variance = moment(&|j, x| (x - mean[j]).powi(2));
    let varies = |(v, m): (&f64, &f64)| v.sqrt() > (1e-6 * m.abs()).max(f64::from(f32::MIN_POSITIVE));
    let scale = variance.iter().zip(&mean).map(|(v, m)| if varies((v, m)) { (1.0 / v.sqrt()) as f32 } else { 0.0 });
    (mean.iter().map(|&m| m as f32).collect(), scale.collect())
}

impl EpisodeSource for ListSource<'_> {
    fn draw(&self, part: Part, seed: u64, step: u64, batch: &mut EpisodeBatch) -> Result<()> {
        let pools = &self.pools[part as usize];
        if pools.is_empty() {
            let detail = format!("no language has {} texts with lists", self.spec.texts());
            return Err(Error::config("valid_languages", detail));
        }
        batch.clear();
        batch.targets = TargetKind::Lists;
        let mut row = Vec::with_capacity(self.mean.len());
        for episode in 0..self.spec.meta_batch as u64 {
            let number = episode + if part == Part::Valid { 1 << 32 } else { 0 };
            let mut rng = Rng::new(seed, step, number, Purpose::Episode);
            let mut texts: Vec<&Text> = pools[rng.below(pools.len())].iter().collect();
            let (k, q) = (self.spec.support, self.spec.query);
            rng.choose_front(&mut texts, k + q);
            for (i, text) in texts[..k + q].iter().enumerate() {
                let set = if i < k { &mut batch.support } else { &mut batch.query };
                self.push(&text[rng.below(text.len())], &mut row, set);
            }
            batch.support.end_episode();
            batch.query.end_episode();
        }
        Ok(())
    }

    fn limits(&self) -> Limits {
        let rows = |lists: usize| lists * self.longest;
        let (support, query) = (rows(self.spec.support), rows(self.spec.query));
        Limits { episodes: self.spec.meta_batch, support, query, nnz: 0, pairs: false, ..Limits::default() }
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
