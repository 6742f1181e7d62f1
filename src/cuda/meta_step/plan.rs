//! The sizes of a meta-step on a device: every piece of memory, before any of it is taken.
#![forbid(unsafe_code)]

use crate::cuda::{Layout, Span};
use crate::error::{Error, Result};
use crate::meta::Limits;
use crate::model::{InputKind, MlpShape};

/// Threads of a block of the episode kernel, as its launch bounds say.
pub(super) const THREADS: u32 = 256;

/// Lanes of a warp.
const WARP: usize = 32;

/// A row stride that is odd, so that a column's elements lie in different banks of shared memory.
fn odd(n: usize) -> usize {
    n | 1
}

/// How far an episode is differentiated, as far as its memory depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Depth {
    /// Steps whose values are kept.
    pub saved: usize,
    /// Only the last layer is adapted, and there are others.
    pub frozen: bool,
}

/// Numbers in an episode's memory with n support and m query rows: the pieces of `Memory` in `kernels/episode.cu`.
pub(super) fn episode_len(shape: &MlpShape, n: usize, m: usize, depth: Depth) -> usize {
    let strides = shape.widths.iter().map(|&w| odd(w)).collect::<Vec<_>>();
    let (first, last) = (strides[0], strides[strides.len() - 1]);
    let hidden = strides[..strides.len() - 1].iter().sum::<usize>();
    // The gradients of layers 2 to L; without a head, of layer 1.
    let upper = if strides.len() > 1 { strides[1..].iter().sum() } else { first };
    let head = shape.widths.windows(2).map(|w| w[1] * (odd(w[0]) + 1)).sum::<usize>();
    let (slots, act_slots) = (depth.saved.max(1), if depth.frozen { 1 } else { depth.saved.max(1) });
    let gram = if depth.frozen { 0 } else { n * odd(n) + n * first };
    let steps = act_slots * n * hidden + slots * n * (last + upper);
    let scratch = (m * (hidden + last)).max(n * (first + hidden + upper));
    gram + steps + (depth.saved + 2) * head + m.max(WARP) + scratch
}

/// Where everything lies: first what is uploaded, then what only the device sees, last what is downloaded.
#[derive(Clone, Debug)]
pub(super) struct Spans {
    pub widths: Span,
    pub query_rows: Span,
    pub support_rows: Span,
    pub query_labels: Span,
    pub support_labels: Span,
    /// Dense inputs, or the bags' weights: query rows, then support rows.
    pub inputs: Span,
    /// For bags: where each row's entries begin, and the rows of `first` they name.
    pub offsets: Span,
    pub tokens: Span,
    /// For bags: the entries sorted by token: where each token's begin, their examples and weights.
    pub runs: Span,
    pub examples: Span,
    pub shares: Span,
    /// First layer's weights; of an embedding table the rows that occur.
    pub first: Span,
    pub bias: Span,
    pub head: Span,
    /// Z'_0, then Z_0; later their adjoints.
    pub z: Span,
    pub gram: Span,
    pub gram_query: Span,
    pub rows: Span,
    pub workspace: Span,
    /// The mean of `rows`; the first layer's gradient; losses, flags, outputs.
    pub mean: Span,
    pub losses: Span,
    pub finite: Span,
    pub out: Span,
    pub dfirst: Span,
}

/// The sizes of one meta-step.
#[derive(Clone, Debug)]
pub struct StepPlan {
    pub(super) shape: MlpShape,
    pub(super) limits: Limits,
    pub(super) spans: Spans,
    /// Bytes uploaded at most, from the start of the workspace.
    pub(super) uploaded: usize,
    /// Numbers in the memory of the largest episode.
    pub(super) episode_len: usize,
    /// Whether that is shared memory.
    pub(super) shared: bool,
    bytes: usize,
}

impl StepPlan {
    /// Plans for batches up to `limits` on a device whose blocks have `shared_limit` bytes of shared memory.
    ///
    /// # Errors
    /// [`Error::Config`] where sizes do not fit the kernels' 32-bit counts.
    pub fn new(shape: &MlpShape, limits: Limits, shared_limit: u32) -> Result<Self> {
        shape.validate()?;
        let depth = Depth { saved: limits.inner.saved_steps, frozen: limits.inner.last_layer && shape.layers() > 1 };
        let episode_len = episode_len(shape, limits.support, limits.query, depth);
        let shared = episode_len.checked_mul(size_of::<f32>()).is_some_and(|bytes| bytes <= shared_limit as usize);
        let mut layout = Layout::default();
        let (spans, uploaded) = spans(&mut layout, shape, &limits, if shared { 0 } else { episode_len });
        if layout.bytes() / size_of::<f32>() > i32::MAX as usize {
            let detail = format!("{} bytes; the kernels count up to 2^31 numbers", layout.bytes());
            return Err(Error::config("meta_batch", detail));
        }
        Ok(Self { shape: shape.clone(), limits, spans, uploaded, episode_len, shared, bytes: layout.bytes() })
    }

    /// The largest batch.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Bytes of device memory, taken once.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of shared memory a block of the episode kernel has; 0 where an episode lies in global memory.
    pub fn shared_bytes(&self) -> usize {
        if self.shared { self.episode_len * size_of::<f32>() } else { 0 }
    }

    /// Numbers of an episode's gradient without the first layer's weights.
    pub(super) fn row_len(&self) -> usize {
        self.shape.hidden() + self.shape.head_len()
    }
}

/// Cuts the workspace; returns the pieces and the bytes up to the last that is uploaded.
fn spans(layout: &mut Layout, shape: &MlpShape, limits: &Limits, global_len: usize) -> (Spans, usize) {
    let (t, h, c) = (limits.episodes, shape.hidden(), shape.outputs());
    let (support, query) = (t * limits.support, t * limits.query);
    let rows = support + query;
    let bag = shape.kind == InputKind::Bag;
    let of_bag = |count: usize| if bag { count } else { 0 };
    let table_rows = if bag { limits.row_count(shape) } else { shape.input };
    let row_len = h + shape.head_len();
    let mut take = |count: usize| layout.take::<u32>(count);
    let (widths, query_rows, support_rows) = (take(shape.layers()), take(t + 1), take(t + 1));
    let (query_labels, support_labels) = (take(query), take(support));
    let inputs = take(if bag { limits.nnz } else { rows * shape.input });
    let (offsets, tokens) = (take(of_bag(rows + 1)), take(of_bag(limits.nnz)));
    let (runs, examples, shares) = (take(of_bag(table_rows + 1)), take(of_bag(limits.nnz)), take(of_bag(limits.nnz)));
    let (first, bias, head) = (take(table_rows * h), take(h), take(shape.head_len()));
    let z = take(rows * h);
    let (gram, gram_query) = (take(support * limits.support), take(query * limits.support));
    let (grads, workspace) = (take(t * row_len), take(t * global_len));
    let (mean, losses, finite) = (take(row_len), take(t), take(t));
    let (out, dfirst) = (take(query * c), take(table_rows * h));
    let spans = Spans {
        widths,
        query_rows,
        support_rows,
        query_labels,
        support_labels,
        inputs,
        offsets,
        tokens,
        runs,
        examples,
        shares,
        first,
        bias,
        head,
        z,
        gram,
        gram_query,
        rows: grads,
        workspace,
        mean,
        losses,
        finite,
        out,
        dfirst,
    };
    let uploaded = spans.z.offset;
    (spans, uploaded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_few_shot_episode_fits_an_h100() {
        let shape = MlpShape { input: 256, kind: InputKind::Dense, widths: vec![128, 5] };
        let len = episode_len(&shape, 25, 75, Depth { saved: 5, frozen: false });
        assert!(len * 4 < 227 * 1024, "{} bytes", len * 4);
        assert_eq!(len * 4, 143_800);
    }
}
