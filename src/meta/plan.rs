//! How much memory a meta-step needs, known before anything runs.
#![forbid(unsafe_code)]

use super::{InnerLoop, InnerMemory, MetaBatch};
use crate::cpu::KernelElement;
use crate::error::{Error, Result};
use crate::model::{InputKind, MlpShape, mlp};

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
            pairs: pairs(&batch.support.targets) || pairs(&batch.query.targets),
            inner: InnerMemory::of(inner),
            ..Self::default()
        }
    }

    /// Whether a batch with limits `other` fits in.
    pub fn covers(&self, other: &Limits) -> bool {
        other.episodes <= self.episodes
            && other.support <= self.support
            && other.query <= self.query
            && other.nnz <= self.nnz
            && (self.pairs || !other.pairs)
            && self.inner.covers(&other.inner)
    }

    /// Rows of an embedding table one batch can touch.
    pub(crate) fn row_count(&self, shape: &MlpShape) -> usize {
        self.nnz.min(shape.input)
    }

    /// Elements a loss over n rows of c outputs may keep.
    fn loss_len(&self, n: usize, c: usize) -> usize {
        if self.pairs { n * c + 5 * (n / 2) * (n / 2) } else { n * c }
    }
}

/// The sizes of one workspace, in elements and bytes.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(crate) limits: Limits,
    pub(crate) shape: MlpShape,
    pub(crate) lanes: usize,
    /// Elements one lane needs for one episode at a time.
    pub(crate) lane_len: usize,
    /// Elements of pre-activations (later their gradients) of all support and query rows.
    pub(crate) z_len: usize,
    /// Elements of the query outputs.
    pub(crate) out_len: usize,
    /// Elements of the head's gradient, an episode each.
    pub(crate) head_len: usize,
}

impl Plan {
    /// Plans a Gram-space workspace for `lanes` threads. Fails where the sizes overflow.
    pub fn new(shape: &MlpShape, limits: Limits, lanes: usize) -> Result<Self> {
        shape.validate()?;
        let (n, m, h, c) = (limits.support, limits.query, shape.hidden(), shape.outputs());
        let head = shape.head_len();
        let step = mlp::Saved::<f32>::len(shape, n, limits.loss_len(n, c));
        let query = mlp::Saved::<f32>::len(shape, m, limits.loss_len(m, c));
        // G, G', the sum of the deltas, c - a G u; the saved steps and heads; the query pass; the R-operator's scratch.
        let fixed = n * n + m * n + 2 * n * h + query + mlp::scratch_len(shape, n);
        let lane_len = limits.inner.saved_steps * step + (limits.inner.saved_steps + 1) * head + fixed;
        let z_len = limits.episodes.checked_mul((n + m) * h);
        let head_len = limits.episodes.checked_mul(head);
        let (Some(z_len), Some(head_len)) = (z_len, head_len) else {
            return Err(Error::config("meta_batch", "the memory plan overflows"));
        };
        let out_len = limits.episodes * m * c;
        Ok(Self { limits, shape: shape.clone(), lanes, lane_len, z_len, out_len, head_len })
    }

    /// The largest batch.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Bytes of a workspace with elements of type `T`, without packing space of the lanes.
    pub fn bytes<T>(&self) -> usize {
        let scatter = if self.shape.kind == InputKind::Bag {
            2 * self.limits.nnz * super::scatter::entry_bytes::<T>()
        } else {
            0
        };
        (self.lanes * self.lane_len + self.z_len + self.out_len + self.head_len) * size_of::<T>() + scatter
    }
}
