//! Episodes of translation pairs: rows of two languages with the same text id.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::labelled::entries;
use super::{EpisodeBatch, EpisodeSource, Part, SetBuffer, Split, TargetKind};
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::meta::Limits;
use crate::model::{InputKind, MlpShape};
use crate::rng::{Purpose, Rng};

/// The sizes of an episode and of a meta-batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairSpec {
    /// Pairs of a support set.
    pub support: usize,
    /// Pairs of a query set.
    pub query: usize,
    /// Episodes in a meta-batch.
    pub meta_batch: usize,
    /// Share of a training text's tokens that are left out.
    pub dropout: f64,
    /// The language of the right sides; none: any two languages make an episode.
    pub pivot: Option<String>,
}

/// Two languages and the rows that are translations of each other: (left, right).
type PairPool = Vec<(u32, u32)>;

/// Draws episodes of translation pairs; the left language is the one to be retrieved from.
pub struct PairSource<'a> {
    data: &'a Dataset,
    spec: PairSpec,
    pools: [Vec<PairPool>; 2],
    longest: usize,
}

impl<'a> PairSource<'a> {
    /// Finds the pairs of every two languages. Fails where no two training languages share enough texts, or the pivot
    /// is unknown.
    pub fn new(data: &'a Dataset, split: &Split, spec: PairSpec) -> Result<Self> {
        if spec.query < 2 || spec.meta_batch == 0 || !(0.0..1.0).contains(&spec.dropout) {
            return Err(Error::config(
                "episodes",
                format!("at least 2 query pairs and 1 episode are needed: {spec:?}"),
            ));
        }
        let pivot = match &spec.pivot {
            None => None,
            Some(name) => match data.language_names().iter().position(|n| n == name) {
                Some(number) => Some(number as u16),
                None => return Err(Error::config("pivot", format!("`{name}` is not in the dataset"))),
            },
        };
        let need = spec.support.saturating_add(spec.query);
        let train = pools(data, split.rows(Part::Train), &[], pivot, need);
        // A validation language is paired with training languages' rows of the texts set aside.
        let valid = pools(data, split.rows(Part::Valid), &split.aside, pivot, need);
        if train.is_empty() {
            let detail = format!("no two training languages share {need} texts (by their id)");
            return Err(Error::config("episodes", detail));
        }
        let longest = (0..data.len()).map(|i| data.row(i).tokens.len()).max().unwrap_or(0);
        Ok(Self { data, spec, pools: [train, valid], longest })
    }

    /// Language pairs of that part.
    pub fn languages(&self, part: Part) -> usize {
        self.pools[part as usize].len()
    }

    fn push_side(&self, rows: impl Iterator<Item = u32>, dropout: f64, rng: &mut Rng, set: &mut SetBuffer) {
        rows.for_each(|row| set.push_bag(entries(self.data.row(row as usize), dropout, rng)));
    }
}

/// Every ordered pair of languages (left from `rows`; right from `rows`, or from `others` where there are any) with at
/// least `need` shared texts.
fn pools(data: &Dataset, rows: &[u32], others: &[u32], pivot: Option<u16>, need: usize) -> Vec<PairPool> {
    let index = |rows: &[u32]| {
        let mut map: BTreeMap<u16, HashMap<u32, u32>> = BTreeMap::new();
        for &row in rows {
            let language = map.entry(data.languages()[row as usize]).or_default();
            language.entry(data.text_ids()[row as usize]).or_insert(row);
        }
        map
    };
    let left = index(rows);
    let right = if others.is_empty() { left.clone() } else { index(others) };
    let mut pools = Vec::new();
    for (a, left_texts) in &left {
        for (b, right_texts) in &right {
            if a == b || pivot.is_some_and(|p| p != *b) {
                continue;
            }
            let shared = left_texts.iter().filter_map(|(id, &l)| right_texts.get(id).map(|&r| (l, r)));
            let mut pool: PairPool = shared.collect();
            // A hash map has no order of its own.
            pool.sort_unstable();
            if pool.len() >= need {
                pools.push(pool);
            }
        }
    }
    pools
}

impl EpisodeSource for PairSource<'_> {
    fn draw(&self, part: Part, seed: u64, step: u64, batch: &mut EpisodeBatch) -> Result<()> {
        let pools = &self.pools[part as usize];
        if pools.is_empty() {
            let need = self.spec.support + self.spec.query;
            return Err(Error::config("valid_languages", format!("no two languages share {need} texts")));
        }
        batch.clear();
        batch.targets = TargetKind::Pairs;
        let (k, q) = (self.spec.support, self.spec.query);
        let share = if part == Part::Train { self.spec.dropout } else { 0.0 };
        for episode in 0..self.spec.meta_batch as u64 {
            let number = episode + if part == Part::Valid { 1 << 32 } else { 0 };
            let mut rng = Rng::new(seed, step, number, Purpose::Episode);
            let mut dropout = Rng::new(seed, step, number, Purpose::Dropout);
            let mut pairs = pools[rng.below(pools.len())].clone();
            rng.choose_front(&mut pairs, k + q);
            for (range, set) in [(0..k, &mut batch.support), (k..k + q, &mut batch.query)] {
                self.push_side(pairs[range.clone()].iter().map(|p| p.0), share, &mut dropout, set);
                self.push_side(pairs[range].iter().map(|p| p.1), share, &mut dropout, set);
                set.end_episode();
            }
        }
        Ok(())
    }

    fn limits(&self) -> Limits {
        let (support, query) = (2 * self.spec.support, 2 * self.spec.query);
        let (support_nnz, query_nnz) = (support * self.longest, query * self.longest);
        let nnz = self.spec.meta_batch * (support_nnz + query_nnz);
        Limits {
            episodes: self.spec.meta_batch,
            support,
            query,
            nnz,
            support_nnz,
            query_nnz,
            pairs: true,
            ..Limits::default()
        }
    }

    fn check_shape(&self, shape: &MlpShape) -> Result<()> {
        let vocabulary = self.data.vocabulary() as usize;
        if shape.kind == InputKind::Bag && shape.input == vocabulary {
            return Ok(());
        }
        Err(Error::shape("translation model", format!("{shape:?} does not take {vocabulary} tokens")))
    }

    fn describe(&self) -> String {
        let s = &self.spec;
        format!("{} episodes of {} support and {} query pairs", s.meta_batch, s.support, s.query)
    }
}
