//! A meta-batch: the support and query sets of several episodes, their rows stacked.
#![forbid(unsafe_code)]

use std::ops::Range;

use crate::cpu::KernelElement;
use crate::error::{Error, Result};
use crate::model::{InputKind, MlpShape, Targets};
use crate::view::{Bags, MatRef};

/// The stacked rows of all episodes.
#[derive(Clone, Copy, Debug)]
pub enum Inputs<'a, T> {
    /// One dense row an example.
    Dense(MatRef<'a, T>),
    /// One token bag an example.
    Bags(Bags<'a, T>),
}

impl<T: KernelElement> Inputs<'_, T> {
    /// Number of examples.
    pub fn rows(&self) -> usize {
        match self {
            Inputs::Dense(x) => x.rows(),
            Inputs::Bags(x) => x.rows(),
        }
    }

    /// Features, or vocabulary.
    fn width(&self) -> usize {
        match self {
            Inputs::Dense(x) => x.cols(),
            Inputs::Bags(x) => x.vocabulary(),
        }
    }

    fn kind(&self) -> InputKind {
        match self {
            Inputs::Dense(_) => InputKind::Dense,
            Inputs::Bags(_) => InputKind::Bag,
        }
    }

    /// Stored (token, weight) pairs.
    pub fn nnz(&self) -> usize {
        match self {
            Inputs::Dense(_) => 0,
            Inputs::Bags(x) => x.nnz(),
        }
    }
}

/// Targets of the stacked rows.
#[derive(Clone, Copy, Debug)]
pub enum BatchTargets<'a> {
    /// The class of each row.
    Classes(&'a [u32]),
    /// List i is rows `offsets[i]..offsets[i+1]`; episode t has lists `episodes[t]..episodes[t+1]`.
    Lists {
        /// List boundaries in stacked rows.
        offsets: &'a [usize],
        /// The right row of each list, counted in its list.
        positives: &'a [u32],
        /// Boundaries of the episodes in lists.
        episodes: &'a [usize],
    },
    /// In each episode, row i of the first half belongs to row i of the second.
    Pairs,
    /// What each output of each row should be: rows x outputs.
    Values(&'a [f64]),
}

/// The support sets, or the query sets, of all episodes.
#[derive(Clone, Copy, Debug)]
pub struct EpisodeSet<'a, T> {
    /// The stacked rows.
    pub inputs: Inputs<'a, T>,
    /// Episode t has rows `rows[t]..rows[t+1]`.
    pub rows: &'a [usize],
    /// What the outputs should be.
    pub targets: BatchTargets<'a>,
}

impl<'a, T: KernelElement> EpisodeSet<'a, T> {
    /// Number of episodes.
    pub fn episodes(&self) -> usize {
        self.rows.len().saturating_sub(1)
    }

    /// The rows of episode t.
    pub fn range(&self, t: usize) -> Range<usize> {
        self.rows[t]..self.rows[t + 1]
    }

    /// Stored pairs of episode t; 0 for dense inputs.
    pub(crate) fn nnz_of(&self, t: usize) -> usize {
        match &self.inputs {
            Inputs::Dense(_) => 0,
            Inputs::Bags(x) => x.nnz_of(self.range(t)),
        }
    }

    /// The most stored pairs of one episode.
    pub(crate) fn most_nnz(&self) -> usize {
        match &self.inputs {
            Inputs::Dense(_) => 0,
            Inputs::Bags(x) => {
                let there = self.rows.windows(2).filter(|w| w[0] <= w[1] && w[1] <= x.rows());
                there.map(|w| x.nnz_of(w[0]..w[1])).max().unwrap_or(0)
            }
        }
    }

    /// The targets of episode t.
    pub(crate) fn targets(&self, t: usize) -> Targets<'a> {
        match self.targets {
            BatchTargets::Classes(labels) => Targets::Classes(&labels[self.range(t)]),
            BatchTargets::Lists { offsets, positives, episodes } => {
                let (from, to) = (episodes[t], episodes[t + 1]);
                Targets::Lists { offsets: &offsets[from..=to], positives: &positives[from..to], base: self.rows[t] }
            }
            BatchTargets::Pairs => Targets::Pairs,
            BatchTargets::Values(values) => {
                let (range, outputs) = (self.range(t), values.len().checked_div(self.inputs.rows()).unwrap_or(0));
                Targets::Values(&values[range.start * outputs..range.end * outputs])
            }
        }
    }

    fn validate(&self, shape: &MlpShape, what: &str) -> Result<()> {
        let (rows, width) = (self.inputs.rows(), self.inputs.width());
        let bounds_fit = self.rows.first() == Some(&0)
            && self.rows.last() == Some(&rows)
            && self.rows.windows(2).all(|w| w[0] <= w[1]);
        let episodes = self.episodes();
        let targets_fit = match self.targets {
            BatchTargets::Classes(labels) => labels.len() == rows,
            BatchTargets::Lists { offsets, positives, episodes: bounds } => {
                bounds.len() == episodes + 1
                    && bounds.windows(2).all(|w| w[0] <= w[1])
                    && bounds.last() == Some(&positives.len())
                    && offsets.len() == positives.len() + 1
            }
            BatchTargets::Pairs => true,
            BatchTargets::Values(values) => values.len() == rows * shape.outputs(),
        };
        if !bounds_fit || !targets_fit || self.inputs.kind() != shape.kind || width != shape.input {
            let detail = format!(
                "{what}: {rows} rows of {:?} width {width} in {episodes} episodes do not fit a model of {:?} width {}",
                self.inputs.kind(),
                shape.kind,
                shape.input
            );
            return Err(Error::shape("meta-batch", detail));
        }
        (0..episodes).try_for_each(|t| self.targets(t).validate(self.range(t).len(), shape.outputs()))
    }
}

/// Several episodes: support and query sets with the same number of episodes.
#[derive(Clone, Copy, Debug)]
pub struct MetaBatch<'a, T> {
    /// What the inner loop learns from.
    pub support: EpisodeSet<'a, T>,
    /// What the outer loss is measured on.
    pub query: EpisodeSet<'a, T>,
}

impl<T: KernelElement> MetaBatch<'_, T> {
    /// Number of episodes.
    pub fn episodes(&self) -> usize {
        self.support.episodes()
    }

    /// Compares everything with the model's shape.
    pub(crate) fn validate(&self, shape: &MlpShape) -> Result<()> {
        self.support.validate(shape, "support")?;
        self.query.validate(shape, "query")?;
        if self.support.episodes() != self.query.episodes() {
            let detail = format!("{} support sets, {} query sets", self.support.episodes(), self.query.episodes());
            return Err(Error::shape("meta-batch", detail));
        }
        Ok(())
    }
}
