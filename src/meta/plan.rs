//! How much memory a meta-step needs, known before anything runs.
#![forbid(unsafe_code)]

use super::scatter::Scatter;
use super::{InnerLoop, InnerMemory, MetaBatch, gram_space};
use crate::backend::{Lines, Team};
use crate::cpu::{Cpu, KernelElement};
use crate::error::{Error, Result};
use crate::model::MlpShape;

/// The largest meta-batch a workspace is made for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Episodes in a meta-batch.
    pub episodes: usize,
    /// Support examples of one episode.
    pub support: usize,
    /// Query examples of one episode.
    pub query: usize,
    /// Stored (token, weight) pairs of the whole batch, support and query together; 0 for dense inputs.
    pub nnz: usize,
    /// Stored pairs of one episode's support set.
    pub support_nnz: usize,
    /// Stored pairs of one episode's query set.
    pub query_nnz: usize,
    /// Whether the loss is over pairs: its score matrices grow with the square of the rows.
    pub pairs: bool,
    /// What the inner loop keeps.
    pub inner: InnerMemory,
    /// Keep the state of every sqrt(steps)-th inner step only and compute the steps between again on the way back:
    /// less memory for many steps, the same bits, about one more forward pass.
    pub recompute: bool,
    /// Episodes in memory at once, 0: all; the same bits whatever it is.
    pub task_chunk: usize,
}

impl Limits {
    /// The limits that one given batch just meets.
    pub fn of<T: KernelElement>(batch: &MetaBatch<T>, inner: &InnerLoop) -> Self {
        let most = |rows: &[usize]| rows.windows(2).map(|w| w[1] - w[0]).max().unwrap_or(0);
        let pairs = |t: &super::BatchTargets| matches!(t, super::BatchTargets::Pairs);
        Self {
            episodes: batch.episodes(),
            support: most(batch.support.rows),
            query: most(batch.query.rows),
            nnz: batch.support.inputs.nnz() + batch.query.inputs.nnz(),
            support_nnz: batch.support.most_nnz(),
            query_nnz: batch.query.most_nnz(),
            pairs: pairs(&batch.support.targets) || pairs(&batch.query.targets),
            inner: InnerMemory::of(inner),
            ..Self::default()
        }
    }

    /// Whether the sets of a batch with limits `other` fit in.
    pub fn covers(&self, other: &Limits) -> bool {
        other.episodes <= self.episodes
            && other.support <= self.support
            && other.query <= self.query
            && other.nnz <= self.nnz
            && other.support_nnz <= self.support_nnz
            && other.query_nnz <= self.query_nnz
            && (self.pairs || !other.pairs)
    }

    /// Episodes in memory at once.
    pub(crate) fn chunk(&self) -> usize {
        if self.task_chunk == 0 { self.episodes } else { self.task_chunk.min(self.episodes) }.max(1)
    }

    /// Stored pairs of one chunk.
    pub(crate) fn chunk_nnz(&self) -> usize {
        self.nnz.min(self.chunk().saturating_mul(self.support_nnz + self.query_nnz))
    }

    /// Rows of an embedding table one batch can touch.
    pub(crate) fn row_count(&self, shape: &MlpShape) -> usize {
        self.nnz.saturating_add(self.inner.context).min(shape.input)
    }

    /// Elements a loss over n rows of c outputs may keep.
    pub(crate) fn loss_len(&self, n: usize, c: usize) -> usize {
        if self.pairs { n * c + 5 * (n / 2) * (n / 2) } else { n * c }
    }
}

/// A model's shape and its parts: the layers below the last, and the last on the activations before it.
#[derive(Clone, Debug)]
pub(crate) struct Shapes {
    pub whole: MlpShape,
    /// Not there for a single layer.
    pub body: Option<MlpShape>,
    pub last: MlpShape,
}

impl Shapes {
    pub(crate) fn new(shape: &MlpShape) -> Self {
        let (whole, layers) = (shape.clone(), shape.layers());
        if layers < 2 {
            return Self { last: whole.clone(), body: None, whole };
        }
        let body = MlpShape { widths: shape.widths[..layers - 1].to_vec(), ..*shape };
        let last = MlpShape { input: 1, widths: shape.widths[layers - 2..].to_vec(), ..*shape };
        Self { whole, body: Some(body), last }
    }

    pub(crate) fn bytes(&self) -> usize {
        let shapes = [Some(&self.whole), self.body.as_ref(), Some(&self.last)];
        shapes.into_iter().flatten().map(|s| size_of_val(&s.widths[..])).sum()
    }
}

/// The sizes of one workspace: every byte it will take, before anything is allocated.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(crate) limits: Limits,
    pub(crate) shapes: Shapes,
    /// Elements one lane needs for one episode at a time.
    pub(crate) lane_len: usize,
    /// Elements of the pre-activations (later their adjoints) of one chunk's query and support rows.
    pub(crate) z_len: usize,
    /// Elements of the query outputs of the whole batch.
    pub(crate) out_len: usize,
    /// Elements of one episode's gradient beside the first layer's weights, as [`row_len`] says.
    pub(crate) row_len: usize,
    pub(crate) lanes: usize,
    bytes: usize,
}

impl Plan {
    /// Plans a Gram-space workspace for elements of type `T` on the threads of `cpu`. Fails where the sizes overflow.
    pub fn new<T: KernelElement>(cpu: &Cpu, shape: &MlpShape, limits: Limits) -> Result<Self> {
        shape.validate()?;
        let shapes = Shapes::new(shape);
        let (lanes, chunk) = (cpu.thread_count(), limits.chunk());
        let lane_len = gram_space::lane_len(&shapes, &limits);
        let z_len = product(&[chunk, limits.support + limits.query, shape.hidden()])?;
        let out_len = product(&[limits.episodes, limits.query, shape.outputs()])?;
        let row_len = row_len(shape, &limits.inner);
        let [scratch, z] = [product(&[lanes, lane_len])?, z_len].map(Lines::<T>::planned_len);
        let elements = [scratch, z, out_len, product(&[chunk, row_len])?, limits.inner.rates];
        let elements = elements.into_iter().try_fold(0, usize::checked_add).ok_or_else(overflow)?;
        let bytes = product(&[elements, size_of::<T>()])?
            + Team::<T>::planned_bytes(cpu)
            + Scatter::<T>::planned_bytes(shape, &limits)
            + shapes.bytes();
        Ok(Self { limits, shapes, lane_len, z_len, out_len, row_len, lanes, bytes })
    }

    /// The largest batch.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Bytes the workspace allocates, all at once; a meta-step allocates nothing more.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Elements of one episode's gradient beside the first layer's weights: its bias, the head, the rates, the weights of a
/// context.
pub(crate) fn row_len(shape: &MlpShape, inner: &InnerMemory) -> usize {
    shape.hidden() + shape.head_len() + inner.rates + inner.context * shape.hidden()
}

pub(crate) fn product(factors: &[usize]) -> Result<usize> {
    factors.iter().try_fold(1usize, |product, &f| product.checked_mul(f)).ok_or_else(overflow)
}

pub(crate) fn overflow() -> Error {
    Error::config("meta_batch", "the memory plan overflows")
}
