//! Translation by retrieval: the best of given candidates (a translation memory) for a text in a new language.
//!
//! An MLP does not write sentences; it maps texts of all languages into one space, where translations lie close. It is
//! trained by in-batch softmax over pairs, and adapts to K pairs of the new language by the same loss. Four views of a
//! source q and a candidate c are added up, x being unit-norm bags:
//!
//! - space:    cosine of the adapted model's embeddings of q and c, halved: it knows least of a far new language;
//! - surface:  cosine of x_q and x_c: names, numbers and loanwords in common;
//! - ridge:    y(q) = k(q)^T (K + lambda I)^-1 Y, the support targets (less the mean target m) weighted by how q resembles
//!   the support sources, K their Gram matrix; cosine of y(q) and x_c - m (kernel ridge regression, Saunders et al.,
//!   "Ridge regression learning algorithm in dual variables", 1998);
//! - length:   -((r - mu) / (sigma + 0.05))^2, not below -9, r = ln of the lengths' ratio, mu and sigma over the support.
//!
//! With several sources at once, a candidate's mean similarity to its 5 nearest sources is taken off each of the first
//! three: hubs, near to everything, stop being everyone's answer (CSLS; Conneau et al., "Word translation without
//! parallel data", 2018, eq. 1).
#![forbid(unsafe_code)]

use any_ascii::any_ascii;

use crate::checkpoint::Checkpoint;
use crate::cpu::Cpu;
use crate::episode::{SetBuffer, TargetKind};
use crate::error::{Error, Result};
use crate::meta::{GramSpace, InnerLoop, Limits, MetaBatch, MetaGradient};
use crate::model::Params;
use crate::text::{Bag, Featurizer, Idf};

/// What the shared space weighs beside the other views: 0.3 to 1 did equally well on average over related and unrelated
/// languages, less harms the related ones, more the unrelated.
const SPACE_WEIGHT: f64 = 0.5;
/// Ridge added to the support's Gram matrix, whose diagonal is 1.
const RIDGE: f64 = 0.3;
/// Sources whose mean similarity to a candidate is taken off.
const NEAREST: usize = 5;
/// With fewer sources than this, none is.
const SOURCES_FOR_HUBS: usize = 2 * NEAREST;
/// What a length's square deviation weighs, with hubs taken off and without.
const LENGTH_WEIGHT: (f64, f64) = (0.02, 0.04);
/// Rows embedded at once: the plan of a pair loss grows with their square.
const ROWS_AT_ONCE: usize = 512;

/// A text as the views need it.
#[derive(Clone, Debug)]
pub struct Sentence {
    bag: Bag,
    /// Romanised characters.
    length: usize,
}

/// A model that retrieves translations, on the threads of a [`Cpu`].
pub struct Translator {
    cpu: Cpu,
    params: Params<f32>,
    featurizer: Featurizer,
    idf: Option<Idf>,
    inner: InnerLoop<'static>,
}

impl Translator {
    /// Takes a translation model into use. Fails where the checkpoint is for another task or lacks a part.
    pub fn new(cpu: &Cpu, checkpoint: &Checkpoint) -> Result<Self> {
        super::expect_task(checkpoint, super::TRANSLATE)?;
        let (featurizer, idf) = super::text_pipeline(checkpoint)?;
        let inner = super::inner_loop(checkpoint)?;
        Ok(Self { cpu: cpu.clone(), params: checkpoint.params.clone(), featurizer, idf, inner })
    }

    /// Changes the inner loop that adapts the model: its steps, its rate; `None` keeps the training's.
    pub fn set_inner_loop(&mut self, steps: Option<usize>, lr: Option<f64>) {
        self.inner = self.inner.changed(steps, lr);
    }

    /// Texts as the model reads them, on all threads of the current pool.
    pub fn sentences(&self, texts: &[(&str, &str)]) -> Vec<Sentence> {
        let counts = self.featurizer.counts_batch(texts);
        let bags = counts.iter().map(|c| self.featurizer.bag(c, self.idf.as_ref()));
        bags.zip(texts).map(|(bag, (text, _))| Sentence { bag, length: any_ascii(text).len() }).collect()
    }

    /// The scores of each source for each candidate, higher is better.
    ///
    /// `pairs`: known translations of the new language, source and target; may be empty (nothing is adapted then).
    pub fn scores(
        &self,
        pairs: &[(Sentence, Sentence)],
        sources: &[Sentence],
        candidates: &[Sentence],
    ) -> Result<Vec<Vec<f64>>> {
        if sources.is_empty() || candidates.is_empty() {
            return Err(Error::config("translate", "at least one source and one candidate are needed"));
        }
        let hubs = sources.len() >= SOURCES_FOR_HUBS;
        let mut views = vec![self.space(pairs, sources, candidates)?, surface(sources, candidates)];
        if !pairs.is_empty() {
            views.push(ridge(pairs, sources, candidates));
        }
        if hubs {
            views.iter_mut().for_each(|view| take_hubs_off(view));
        }
        let weight = if hubs { LENGTH_WEIGHT.0 } else { LENGTH_WEIGHT.1 };
        let lengths = Lengths::of(pairs);
        let score = |i: usize, j: usize| {
            let length = lengths.as_ref().map_or(0.0, |l| l.score(&sources[i], &candidates[j]));
            views.iter().map(|v| v[i][j]).sum::<f64>() + weight * length
        };
        Ok((0..sources.len()).map(|i| (0..candidates.len()).map(|j| score(i, j)).collect()).collect())
    }

    /// The cosine of each source's and candidate's features: what retrieval without any training says.
    pub fn surface_similarity(sources: &[Sentence], candidates: &[Sentence]) -> Vec<Vec<f64>> {
        surface(sources, candidates)
    }

    /// Weighted cosines of the adapted embeddings.
    fn space(&self, pairs: &[(Sentence, Sentence)], s: &[Sentence], c: &[Sentence]) -> Result<Vec<Vec<f64>>> {
        let texts: Vec<&Bag> = s.iter().chain(c).map(|t| &t.bag).collect();
        let mut rows = Vec::with_capacity(texts.len());
        for chunk in texts.chunks(ROWS_AT_ONCE) {
            rows.extend(self.embed(pairs, chunk)?);
        }
        let (sources, candidates) = rows.split_at(s.len());
        let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
        Ok(sources.iter().map(|a| candidates.iter().map(|b| SPACE_WEIGHT * product(a, b)).collect()).collect())
    }

    /// Unit-norm embeddings after adaptation on the pairs.
    fn embed(&self, pairs: &[(Sentence, Sentence)], texts: &[&Bag]) -> Result<Vec<Vec<f64>>> {
        let (mut support, mut query) = (SetBuffer::default(), SetBuffer::default());
        pairs.iter().for_each(|(source, _)| super::push(&mut support, &source.bag));
        pairs.iter().for_each(|(_, target)| super::push(&mut support, &target.bag));
        support.end_episode();
        for bag in texts {
            super::push(&mut query, bag);
            query.label(0);
        }
        query.end_episode();
        let shape = &self.params.shape;
        let batch = MetaBatch {
            support: support.view(shape, TargetKind::Pairs)?,
            query: query.view(shape, TargetKind::Classes)?,
        };
        let steps = if pairs.is_empty() { 0 } else { self.inner.steps };
        let inner = InnerLoop { steps, ..self.inner };
        let mut gram = GramSpace::new(&self.cpu, shape, Limits::of(&batch, &inner))?;
        gram.run(&self.params, &batch, &inner, &mut MetaGradient::without_storage())?;
        let out = gram.query_outputs();
        Ok((0..out.rows()).map(|i| unit(out.row(i))).collect())
    }
}

fn unit(row: &[f32]) -> Vec<f64> {
    let norm = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    row.iter().map(|&x| if norm > 0.0 { f64::from(x) / norm } else { 0.0 }).collect()
}

/// The product of two sparse vectors.
fn dot(a: &Bag, b: &Bag) -> f64 {
    let (mut i, mut j, mut sum) = (0, 0, 0.0);
    while i < a.tokens.len() && j < b.tokens.len() {
        let (s, t) = (a.tokens[i], b.tokens[j]);
        if s == t {
            sum += f64::from(a.weights[i]) * f64::from(b.weights[j]);
        }
        i += usize::from(s <= t);
        j += usize::from(t <= s);
    }
    sum
}

fn surface(sources: &[Sentence], candidates: &[Sentence]) -> Vec<Vec<f64>> {
    sources.iter().map(|s| candidates.iter().map(|c| dot(&s.bag, &c.bag)).collect()).collect()
}

/// Cosines of y(q) and x_c - m.
fn ridge(pairs: &[(Sentence, Sentence)], sources: &[Sentence], candidates: &[Sentence]) -> Vec<Vec<f64>> {
    let n = pairs.len();
    let mut gram: Vec<Vec<f64>> =
        pairs.iter().map(|a| pairs.iter().map(|b| dot(&a.0.bag, &b.0.bag)).collect()).collect();
    (0..n).for_each(|i| gram[i][i] += RIDGE);
    let factor = cholesky(gram);
    let targets: Vec<&Bag> = pairs.iter().map(|p| &p.1.bag).collect();
    let others: Vec<&Bag> = candidates.iter().map(|c| &c.bag).collect();
    let mean = Mean::of(targets.iter().chain(&others).copied());
    let between = |a: &Bag, b: &Bag| dot(a, b) - mean.dot(a) - mean.dot(b) + mean.square;
    let known: Vec<Vec<f64>> = targets.iter().map(|a| targets.iter().map(|b| between(a, b)).collect()).collect();
    let wanted: Vec<Vec<f64>> = targets.iter().map(|a| others.iter().map(|b| between(a, b)).collect()).collect();
    let norms: Vec<f64> = others.iter().map(|c| between(c, c).max(0.0).sqrt()).collect();
    let answer = |q: &Sentence| {
        let alpha = solve(&factor, pairs.iter().map(|p| dot(&q.bag, &p.0.bag)).collect());
        let square: f64 = (0..n).map(|i| alpha[i] * (0..n).map(|j| alpha[j] * known[i][j]).sum::<f64>()).sum();
        let length = square.max(0.0).sqrt();
        let cosine = |j: usize| {
            let product: f64 = (0..n).map(|i| alpha[i] * wanted[i][j]).sum();
            if length * norms[j] > 1e-12 { product / (length * norms[j]) } else { 0.0 }
        };
        (0..others.len()).map(cosine).collect()
    };
    sources.iter().map(answer).collect()
}

/// The mean of some bags, as a dense vector.
struct Mean {
    values: Vec<f64>,
    square: f64,
}

impl Mean {
    fn of<'a>(bags: impl Iterator<Item = &'a Bag> + Clone) -> Self {
        let size = bags.clone().filter_map(|b| b.tokens.last()).max().map_or(0, |&t| t as usize + 1);
        let count = bags.clone().count().max(1) as f64;
        let mut values = vec![0.0; size];
        for bag in bags {
            bag.tokens.iter().zip(&bag.weights).for_each(|(&t, &w)| values[t as usize] += f64::from(w) / count);
        }
        let square = values.iter().map(|v| v * v).sum();
        Self { values, square }
    }

    fn dot(&self, bag: &Bag) -> f64 {
        bag.tokens.iter().zip(&bag.weights).map(|(&t, &w)| self.values[t as usize] * f64::from(w)).sum()
    }
}

/// The lower factor of a symmetric positive definite matrix. The ridge keeps every pivot above zero.
fn cholesky(mut a: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    for j in 0..a.len() {
        let (above, below) = a.split_at_mut(j);
        let pivot_row = &mut below[0];
        for k in 0..j {
            let product: f64 = (0..k).map(|p| pivot_row[p] * above[k][p]).sum();
            pivot_row[k] = (pivot_row[k] - product) / above[k][k];
        }
        let square: f64 = pivot_row[..j].iter().map(|x| x * x).sum();
        pivot_row[j] = (pivot_row[j] - square).sqrt();
    }
    a
}

/// Solves L L^T x = b by forward and back substitution.
fn solve(l: &[Vec<f64>], mut b: Vec<f64>) -> Vec<f64> {
    for i in 0..b.len() {
        let known: f64 = (0..i).map(|k| l[i][k] * b[k]).sum();
        b[i] = (b[i] - known) / l[i][i];
    }
    for i in (0..b.len()).rev() {
        let known: f64 = (i + 1..b.len()).map(|k| l[k][i] * b[k]).sum();
        b[i] = (b[i] - known) / l[i][i];
    }
    b
}

/// Takes off each candidate's mean similarity to its nearest sources.
fn take_hubs_off(view: &mut [Vec<f64>]) {
    for j in 0..view.first().map_or(0, Vec::len) {
        let mut column: Vec<f64> = view.iter().map(|row| row[j]).collect();
        column.sort_by(|a, b| b.total_cmp(a));
        let near = &column[..NEAREST.min(column.len())];
        let mean = near.iter().sum::<f64>() / near.len() as f64;
        view.iter_mut().for_each(|row| row[j] -= mean);
    }
}

/// Mean and deviation of the log ratio of a pair's lengths.
struct Lengths {
    mean: f64,
    deviation: f64,
}

impl Lengths {
    /// Of the support pairs; none if there are none.
    fn of(pairs: &[(Sentence, Sentence)]) -> Option<Self> {
        if pairs.is_empty() {
            return None;
        }
        let ratios: Vec<f64> = pairs.iter().map(|(s, t)| ratio(s, t)).collect();
        let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
        let variance = ratios.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / ratios.len() as f64;
        Some(Self { mean, deviation: variance.sqrt() })
    }

    fn score(&self, source: &Sentence, candidate: &Sentence) -> f64 {
        let z = (ratio(source, candidate) - self.mean) / (self.deviation + 0.05);
        -(z * z).min(9.0)
    }
}

/// ln of the ratio of the lengths, 3 characters added to each so that short texts count less.
fn ratio(source: &Sentence, target: &Sentence) -> f64 {
    ((target.length as f64 + 3.0) / (source.length as f64 + 3.0)).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cholesky_solves_a_system() {
        let a = vec![vec![4.0, 2.0, 0.4], vec![2.0, 5.0, 1.0], vec![0.4, 1.0, 3.0]];
        let x = solve(&cholesky(a.clone()), vec![1.0, -2.0, 0.5]);
        for (row, b) in a.iter().zip([1.0, -2.0, 0.5]) {
            let found: f64 = row.iter().zip(&x).map(|(a, x)| a * x).sum();
            assert!((found - b).abs() < 1e-12, "{found} is not {b}");
        }
    }

    #[test]
    fn a_hub_loses_what_it_has_over_others() {
        let mut view = vec![vec![0.9, 0.5], vec![0.9, 0.1]];
        take_hubs_off(&mut view);
        assert!(view[0][1] > view[0][0], "the second candidate is the first source's own: {view:?}");
    }
}
