//! N-way K-shot episodes from labelled texts: within one language, or with queries in another.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{EpisodeBatch, EpisodeSource, Part, Split, TargetKind};
use crate::dataset::{BagRef, Dataset, NO_LABEL};
use crate::error::{Error, Result};
use crate::meta::Limits;
use crate::model::{InputKind, MlpShape};
use crate::rng::{Purpose, Rng};

/// The sizes of an episode and of a meta-batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelledSpec {
    /// Classes in an episode.
    pub n_way: usize,
    /// Support examples of each class.
    pub k_shot: usize,
    /// Query examples of each class.
    pub queries: usize,
    /// Episodes in a meta-batch.
    pub meta_batch: usize,
    /// Share of the training episodes whose queries are in another language than their support.
    pub cross_lingual: f64,
    /// Share of a training text's tokens that are left out, others scaled up to make good.
    pub dropout: f64,
}

impl LabelledSpec {
    fn validate(&self) -> Result<()> {
        if self.n_way < 2 || self.queries == 0 || self.meta_batch == 0 {
            let detail = format!("at least 2 ways, 1 query and 1 episode are needed: {self:?}");
            return Err(Error::config("episodes", detail));
        }
        if !(0.0..=1.0).contains(&self.cross_lingual) || !(0.0..1.0).contains(&self.dropout) {
            return Err(Error::config("episodes", format!("shares lie in [0, 1]: {self:?}")));
        }
        Ok(())
    }
}

/// The rows of one class in one language.
type Pool = Vec<u32>;

/// Draws N-way K-shot episodes. Labels are the dataset's own numbers, so what was learned of a class carries over.
pub struct LabelledSource<'a> {
    data: &'a Dataset,
    spec: LabelledSpec,
    /// For each part: a language's classes with their rows; only classes with enough rows, languages with enough
    /// classes.
    pools: [Vec<Vec<(u32, Pool)>>; 2],
    longest: usize,
}

impl<'a> LabelledSource<'a> {
    /// Indexes the dataset. Fails where no language of the training part has `n_way` classes with
    /// `k_shot + queries` texts, or the dataset has no labels.
    pub fn new(data: &'a Dataset, split: &Split, spec: LabelledSpec) -> Result<Self> {
        spec.validate()?;
        let pools = [Part::Train, Part::Valid].map(|part| pools(data, split.rows(part), &spec));
        if pools[0].is_empty() {
            let need = spec.k_shot + spec.queries;
            let detail = format!(
                "no training language has {} classes with {need} texts each ({} support, {} query)",
                spec.n_way, spec.k_shot, spec.queries
            );
            return Err(Error::config("episodes", detail));
        }
        let longest = (0..data.len()).map(|i| data.row(i).tokens.len()).max().unwrap_or(0);
        Ok(Self { data, spec, pools, longest })
    }

    /// Languages of that part an episode can be drawn from.
    pub fn languages(&self, part: Part) -> usize {
        self.pools[part as usize].len()
    }

    fn episode(&self, part: Part, rng: &mut Rng, dropout: &mut Rng, batch: &mut EpisodeBatch) {
        let languages = &self.pools[part as usize];
        let support = &languages[rng.below(languages.len())];
        let cross = part == Part::Train && rng.unit() < self.spec.cross_lingual;
        let query = if cross { &languages[rng.below(languages.len())] } else { support };
        let mut classes: Vec<u32> = shared_classes(support, query);
        let ways = self.spec.n_way.min(classes.len());
        rng.choose_front(&mut classes, ways);
        let share = if part == Part::Train { self.spec.dropout } else { 0.0 };
        let (k, q) = (self.spec.k_shot, self.spec.queries);
        for &class in &classes[..ways] {
            let mut rows = rows_of(support, class).to_vec();
            rng.choose_front(&mut rows, k + q);
            for &row in &rows[..k] {
                self.push(row, class, share, dropout, &mut batch.support);
            }
            let queries =
                if cross { self.other_texts(&rows[..k], rows_of(query, class), rng) } else { rows[k..].to_vec() };
            for &row in queries.iter().take(q) {
                self.push(row, class, share, dropout, &mut batch.query);
            }
        }
        batch.support.end_episode();
        batch.query.end_episode();
    }

    /// Rows of another language in random order, without translations of the support texts.
    fn other_texts(&self, support: &[u32], rows: &[u32], rng: &mut Rng) -> Vec<u32> {
        let ids = self.data.text_ids();
        let taken: Vec<u32> = support.iter().map(|&r| ids[r as usize]).collect();
        let mut rows: Vec<u32> = rows.iter().copied().filter(|&r| !taken.contains(&ids[r as usize])).collect();
        rng.shuffle(&mut rows);
        rows
    }

    fn push(&self, row: u32, class: u32, dropout: f64, rng: &mut Rng, set: &mut super::SetBuffer) {
        let bag = self.data.row(row as usize);
        set.push_bag(entries(bag, dropout, rng));
        set.label(class);
    }
}

/// A row's tokens and weights, each token left out with probability `dropout`.
pub(super) fn entries<'a>(
    bag: BagRef<'a>,
    dropout: f64,
    rng: &'a mut Rng,
) -> impl Iterator<Item = (u32, f32)> + use<'a> {
    let scale = (1.0 / (1.0 - dropout)) as f32;
    let weight = move |i: usize| bag.weights.map_or(1.0, |w| w[i].to_f32());
    let kept = move |_: &(usize, &u32)| dropout == 0.0 || rng.unit() >= dropout;
    bag.tokens.iter().enumerate().filter(kept).map(move |(i, &token)| (token, weight(i) * scale))
}

/// The languages of some rows, each with its classes that have enough of them.
fn pools(data: &Dataset, rows: &[u32], spec: &LabelledSpec) -> Vec<Vec<(u32, Pool)>> {
    let mut index: BTreeMap<u16, BTreeMap<u32, Pool>> = BTreeMap::new();
    for &row in rows {
        let (language, label) = (data.languages()[row as usize], data.labels()[row as usize]);
        if label != NO_LABEL {
            index.entry(language).or_default().entry(label).or_default().push(row);
        }
    }
    let enough = |pool: &Pool| pool.len() >= spec.k_shot + spec.queries;
    let classes = |c: BTreeMap<u32, Pool>| c.into_iter().filter(|(_, pool)| enough(pool)).collect::<Vec<_>>();
    index.into_values().map(classes).filter(|c| c.len() >= spec.n_way).collect()
}

fn shared_classes(a: &[(u32, Pool)], b: &[(u32, Pool)]) -> Vec<u32> {
    a.iter().map(|&(c, _)| c).filter(|c| b.iter().any(|(d, _)| d == c)).collect()
}

fn rows_of(language: &[(u32, Pool)], class: u32) -> &[u32] {
    &language[language.binary_search_by_key(&class, |&(c, _)| c).expect("a shared class")].1
}

impl EpisodeSource for LabelledSource<'_> {
    fn draw(&self, part: Part, seed: u64, step: u64, batch: &mut EpisodeBatch) -> Result<()> {
        if self.pools[part as usize].is_empty() {
            let detail = format!("no language has {} classes with enough texts", self.spec.n_way);
            return Err(Error::config(format!("{part:?}").to_lowercase(), detail));
        }
        batch.clear();
        batch.targets = TargetKind::Classes;
        for episode in 0..self.spec.meta_batch as u64 {
            // Validation episodes have numbers of their own, so that they are other ones than training's.
            let number = episode + if part == Part::Valid { 1 << 32 } else { 0 };
            let mut rng = Rng::new(seed, step, number, Purpose::Episode);
            let mut dropout = Rng::new(seed, step, number, Purpose::Dropout);
            self.episode(part, &mut rng, &mut dropout, batch);
        }
        Ok(())
    }

    fn limits(&self) -> Limits {
        let (support, query) = (self.spec.n_way * self.spec.k_shot, self.spec.n_way * self.spec.queries);
        let nnz = self.spec.meta_batch * (support + query) * self.longest;
        Limits { episodes: self.spec.meta_batch, support, query, nnz, inner_steps: 0, pairs: false }
    }

    fn check_shape(&self, shape: &MlpShape) -> Result<()> {
        let (labels, vocabulary) = (self.data.label_names().len(), self.data.vocabulary() as usize);
        if shape.kind == InputKind::Bag && shape.input == vocabulary && shape.outputs() >= labels {
            return Ok(());
        }
        let detail = format!("{shape:?} does not take {vocabulary} tokens to {labels} classes");
        Err(Error::shape("classification model", detail))
    }

    fn describe(&self) -> String {
        let s = &self.spec;
        format!("{} episodes of {}-way {}-shot with {} queries a class", s.meta_batch, s.n_way, s.k_shot, s.queries)
    }
}
