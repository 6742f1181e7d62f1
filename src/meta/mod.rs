//! The meta-gradient: the gradient of the query loss after some steps of SGD on the support loss, with respect to the
//! weights those steps began with (Finn et al., "Model-agnostic meta-learning for fast adaptation of deep networks",
//! 2017, algorithm 1), exact to second order or to first.
//!
//! Two ways lead there and agree to rounding: [`GramSpace`], which never copies the first layer, and [`Dense`], the
//! plain form, which carries all weights through every step and serves as the reference.
#![forbid(unsafe_code)]

pub mod anil;
mod batch;
pub mod cavia;
mod dense;
mod engine;
pub mod fomaml;
mod gram_space;
pub mod imaml;
mod inner;
pub mod lslr;
pub mod maml;
pub mod maml_plus_plus;
pub mod meta_sgd;
mod operations;
mod plan;
pub mod proto_maml;
pub mod protonet;
pub mod reptile;
mod scatter;

pub use batch::{BatchTargets, EpisodeSet, Inputs, MetaBatch};
pub use dense::Dense;
pub use engine::{BoxedEngine, Engine, Explanation, PathChoice, choose};
pub use gram_space::GramSpace;
use gram_space::dot;
pub use inner::{Adapt, ConjugateGradient, InnerLoop, InnerMemory, Order, Rates, Start, Update};
pub use operations::Operations;
pub use plan::{Limits, Plan};

use crate::backend::prefer_huge_pages;
use crate::cpu::KernelElement;
use crate::error::{Error, Result};
use crate::model::{InputKind, MlpShape};

/// A meta-gradient: its first layer is dense, or the rows that occurred.
#[derive(Clone, Debug)]
pub struct MetaGradient<T> {
    /// For token bags: the rows of the embedding table that occurred, rising. Empty for dense inputs.
    pub rows: Vec<u32>,
    /// First layer: hidden x input, or one row of `hidden` elements for each of `rows`.
    pub first: Vec<T>,
    /// First layer's bias.
    pub bias: Vec<T>,
    /// Head, laid out as in [`Params`](crate::model::Params).
    pub head: Vec<T>,
    /// Mean query loss of each episode after adaptation. Not finite where an episode diverged.
    pub query_loss: Vec<T>,
    /// The gradient of the inner loop's learned rates, laid out as they are; empty where none is learned.
    pub rates: Vec<f64>,
    /// How each episode ended.
    pub outcomes: Vec<Outcome>,
}

/// How an episode ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// Adapted, with a finite loss.
    #[default]
    Adapted,
    /// The inner loop diverged: the query loss is not finite.
    Diverged,
    /// The conjugate-gradient method did not reach its tolerance.
    Unsolved,
}

impl Outcome {
    /// From whether everything is finite, and whether the linear system was solved.
    pub(crate) fn of(finite: bool, solved: bool) -> Self {
        match (finite, solved) {
            (false, _) => Outcome::Diverged,
            (true, false) => Outcome::Unsolved,
            (true, true) => Outcome::Adapted,
        }
    }
}

impl<T: KernelElement> MetaGradient<T> {
    /// A place for gradients of that shape, under the plan's limits; nothing grows later.
    pub fn new(shape: &MlpShape, limits: &Limits) -> Self {
        let first = match shape.kind {
            InputKind::Dense => shape.first_len(),
            InputKind::Bag => limits.row_count(shape) * shape.hidden(),
        };
        let first = vec![T::ZERO; first];
        prefer_huge_pages(&first);
        Self {
            rows: Vec::with_capacity(if shape.kind == InputKind::Bag { limits.row_count(shape) } else { 0 }),
            first,
            bias: vec![T::ZERO; shape.hidden()],
            head: vec![T::ZERO; shape.head_len()],
            query_loss: Vec::with_capacity(limits.episodes),
            rates: Vec::with_capacity(limits.inner.rates),
            outcomes: Vec::with_capacity(limits.episodes),
        }
    }

    /// Fails where the place is not made for that model and a batch touching up to `rows` embedding rows.
    pub(crate) fn check(&self, shape: &MlpShape, rows: usize) -> Result<()> {
        let first = match shape.kind {
            InputKind::Dense => shape.first_len(),
            InputKind::Bag => rows * shape.hidden(),
        };
        if self.first.len() >= first && self.bias.len() == shape.hidden() && self.head.len() == shape.head_len() {
            return Ok(());
        }
        Err(Error::shape("meta-gradient", format!("the place for it is not made for {shape:?} and {rows} rows")))
    }

    /// A place for losses alone, for [`Order::Evaluate`].
    pub fn without_storage() -> Self {
        Self {
            rows: Vec::new(),
            first: Vec::new(),
            bias: Vec::new(),
            head: Vec::new(),
            query_loss: Vec::new(),
            rates: Vec::new(),
            outcomes: Vec::new(),
        }
    }

    /// The mean over the episodes of the query loss.
    pub fn meta_loss(&self) -> f64 {
        let n = self.query_loss.len().max(1) as f64;
        self.query_loss.iter().map(|l| l.to_f64()).sum::<f64>() / n
    }

    /// Whether every value of the gradient is finite.
    pub fn is_finite(&self) -> bool {
        let hidden = self.bias.len();
        let first = if self.rows.is_empty() { &self.first[..] } else { &self.first[..self.rows.len() * hidden] };
        [first, &self.bias, &self.head].into_iter().flatten().all(|x| x.is_finite())
    }

    /// The first layer's gradient as a full matrix, whatever the kind of input.
    pub fn dense_first(&self, shape: &MlpShape) -> Vec<T> {
        if shape.kind == InputKind::Dense {
            return self.first.clone();
        }
        let hidden = shape.hidden();
        let mut full = vec![T::ZERO; shape.first_len()];
        for (&row, values) in self.rows.iter().zip(self.first.chunks_exact(hidden)) {
            full[row as usize * hidden..][..hidden].copy_from_slice(values);
        }
        full
    }
}
