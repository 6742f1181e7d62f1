//! N-way K-shot episodes from labelled texts: within one language, or with queries in another.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashMap};

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
    /// Share of the training episodes whose queries are in another language than their support: one that has at least
    /// `n_way` classes in common with it.
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

    /// Texts of each class an episode needs.
    fn texts(&self) -> usize {
        self.k_shot.saturating_add(self.queries)
    }
}

/// The texts of one class in one language, each with its rows: those with one text id.
type Pool = Vec<Vec<u32>>;

/// A language's classes with their texts, rising.
type Language = Vec<(u32, Pool)>;

/// Draws N-way K-shot episodes. Labels are the dataset's own numbers, so what was learned of a class carries over.
///
/// The rows of an episode are all of different texts (by their id), in one language or two: a query is never the
/// translation of a support example. A text that has rows of several classes counts as one of the first alone.
pub struct LabelledSource<'a> {
    data: &'a Dataset,
    spec: LabelledSpec,
    /// For each part: only classes with enough texts, languages with enough classes.
    pools: [Vec<Language>; 2],
    /// Training languages, with those that share enough classes for a cross-lingual episode.
    partners: Vec<(usize, Vec<usize>)>,
    longest: usize,
}

impl<'a> LabelledSource<'a> {
    /// Indexes the dataset. Fails where no language of the training part has `n_way` classes with
    /// `k_shot + queries` texts, or the dataset has no labels.
    pub fn new(data: &'a Dataset, split: &Split, spec: LabelledSpec) -> Result<Self> {
        spec.validate()?;
        if data.labels().iter().all(|&label| label == NO_LABEL) {
            return Err(Error::config("dataset", "it has no labels to learn from"));
        }
        let pools = [Part::Train, Part::Valid].map(|part| pools(data, split.rows(part), &spec));
        if pools[0].is_empty() {
            let detail = format!(
                "no training language has {} classes with {} texts each ({} support, {} query)",
                spec.n_way,
                spec.texts(),
                spec.k_shot,
                spec.queries
            );
            return Err(Error::config("episodes", detail));
        }
        let partners = if spec.cross_lingual > 0.0 { partners(&pools[0], spec.n_way) } else { Vec::new() };
        if spec.cross_lingual > 0.0 && partners.is_empty() {
            let detail = format!("no two training languages have {} classes in common", spec.n_way);
            return Err(Error::config("cross_lingual", detail));
        }
        let longest = (0..data.len()).map(|i| data.row(i).tokens.len()).max().unwrap_or(0);
        Ok(Self { data, spec, pools, partners, longest })
    }

    /// Languages of that part an episode can be drawn from.
    pub fn languages(&self, part: Part) -> usize {
        self.pools[part as usize].len()
    }

    fn episode(&self, part: Part, rng: &mut Rng, dropout: &mut Rng, batch: &mut EpisodeBatch) {
        let languages = &self.pools[part as usize];
        let cross = part == Part::Train && rng.unit() < self.spec.cross_lingual;
        let (support, query) = if cross {
            let (language, others) = &self.partners[rng.below(self.partners.len())];
            (&languages[*language], &languages[others[rng.below(others.len())]])
        } else {
            let language = &languages[rng.below(languages.len())];
            (language, language)
        };
        let mut classes: Vec<u32> = shared_classes(support, query).collect();
        rng.choose_front(&mut classes, self.spec.n_way);
        let share = if part == Part::Train { self.spec.dropout } else { 0.0 };
        for &class in &classes[..self.spec.n_way] {
            let (shots, queries) = self.examples(texts_of(support, class), texts_of(query, class), cross, rng);
            shots.into_iter().for_each(|row| self.push(row, class, share, dropout, &mut batch.support));
            queries.into_iter().for_each(|row| self.push(row, class, share, dropout, &mut batch.query));
        }
        batch.support.end_episode();
        batch.query.end_episode();
    }

    /// A class's support and query rows, all of different texts.
    fn examples(&self, support: &Pool, query: &Pool, cross: bool, rng: &mut Rng) -> (Vec<u32>, Vec<u32>) {
        let (k, q) = (self.spec.k_shot, self.spec.queries);
        let one_of = |text: &&Vec<u32>, rng: &mut Rng| text[rng.below(text.len())];
        let mut texts: Vec<&Vec<u32>> = support.iter().collect();
        rng.choose_front(&mut texts, if cross { k } else { k + q });
        let shots: Vec<u32> = texts[..k].iter().map(|text| one_of(text, rng)).collect();
        let mut others = texts.split_off(k);
        if cross {
            let id = |row: u32| self.data.text_ids()[row as usize];
            // Leaves at least q: every pool has k + q texts.
            others = query.iter().filter(|text| !shots.iter().any(|&row| id(row) == id(text[0]))).collect();
            rng.choose_front(&mut others, q);
        }
        let queries = others[..q].iter().map(|text| one_of(text, rng)).collect();
        (shots, queries)
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

/// The languages of some rows, each with its classes that have enough texts.
fn pools(data: &Dataset, rows: &[u32], spec: &LabelledSpec) -> Vec<Language> {
    let mut index: BTreeMap<u16, BTreeMap<u32, BTreeMap<u32, Vec<u32>>>> = BTreeMap::new();
    let mut class_of: HashMap<u32, u32> = HashMap::new();
    for &row in rows {
        let i = row as usize;
        let (language, label, text) = (data.languages()[i], data.labels()[i], data.text_ids()[i]);
        if label != NO_LABEL && *class_of.entry(text).or_insert(label) == label {
            let classes = index.entry(language).or_default();
            classes.entry(label).or_default().entry(text).or_default().push(row);
        }
    }
    let classes = |classes: BTreeMap<u32, BTreeMap<u32, Vec<u32>>>| -> Language {
        let enough = classes.into_iter().filter(|(_, texts)| texts.len() >= spec.texts());
        enough.map(|(label, texts)| (label, texts.into_values().collect())).collect()
    };
    index.into_values().map(classes).filter(|c| c.len() >= spec.n_way).collect()
}

/// Each language that shares `n_way` classes with others, and these.
fn partners(languages: &[Language], n_way: usize) -> Vec<(usize, Vec<usize>)> {
    let fits = |i: usize, j: usize| i != j && shared_classes(&languages[i], &languages[j]).count() >= n_way;
    let of = |i: usize| (i, (0..languages.len()).filter(|&j| fits(i, j)).collect::<Vec<_>>());
    (0..languages.len()).map(of).filter(|(_, others)| !others.is_empty()).collect()
}

fn position(language: &Language, class: u32) -> Option<usize> {
    language.binary_search_by_key(&class, |&(c, _)| c).ok()
}

fn shared_classes(a: &Language, b: &Language) -> impl Iterator<Item = u32> {
    a.iter().map(|&(c, _)| c).filter(|&c| position(b, c).is_some())
}

fn texts_of(language: &Language, class: u32) -> &Pool {
    &language[position(language, class).expect("a shared class")].1
}

impl EpisodeSource for LabelledSource<'_> {
    fn draw(&self, part: Part, seed: u64, step: u64, batch: &mut EpisodeBatch) -> Result<()> {
        if self.pools[part as usize].is_empty() {
            let detail = format!("no language has {} classes with enough texts", self.spec.n_way);
            return Err(Error::config("valid_languages", detail));
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
        let (support_nnz, query_nnz) = (support * self.longest, query * self.longest);
        let nnz = self.spec.meta_batch * (support_nnz + query_nnz);
        Limits {
            episodes: self.spec.meta_batch,
            support,
            query,
            nnz,
            support_nnz,
            query_nnz,
            pairs: false,
            ..Limits::default()
        }
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
