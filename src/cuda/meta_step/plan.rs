//! The sizes of a meta-step on a device: every piece of memory, before any of it is taken.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::room::{Room, Sizes};
use crate::cuda::layout::ALIGN;
use crate::cuda::{Layout, Span};
use crate::error::{Error, Result};
use crate::meta::Limits;
use crate::model::{InputKind, MlpShape};

/// Threads of a block of the episode kernel, as its launch bounds say; and where two blocks have room on a multiprocessor half
/// as many, as its registers are enough for no more.
const THREADS: u32 = 512;

/// Bytes of a multiprocessor's shared memory that are taken beside each block's own.
const BESIDE: u128 = 1024;

/// The kernels count in 32 bits with a sign.
const MOST: usize = i32::MAX as usize;

/// Episodes whose gradients one thread adds up, before the sums are added up.
pub(super) const GROUP: usize = 64;

/// Blocks that the first layer's gradient is spread over, where it has rows for as many: two on each of an H100's 132
/// multiprocessors.
const GRADIENT_BLOCKS: usize = 264;

/// Fewest rows of a part of that gradient: as many numbers are read for it as it has itself, or more.
const LEAST_PART: usize = 128;

/// Lanes of a warp.
const WARP: u128 = 32;

/// From one row to the next in an episode's shared memory: `stride` in `kernels/product.cuh`.
fn stride(n: usize) -> u128 {
    4 * (n.div_ceil(4) as u128 | 1)
}

/// Numbers in the shared memory of an episode of the largest size: the pieces of `Memory` in `kernels/episode.cu`, behind the
/// layers' table. In a type that sizes below 2^31 cannot overflow.
pub(super) fn episode_len(shape: &MlpShape, limits: &Limits) -> u128 {
    let (n, m, saved) = (limits.support as u128, limits.query as u128, limits.inner.saved_steps as u128);
    let (layers, widths) = (shape.layers(), &shape.widths);
    let frozen = limits.inner.last_layer && layers > 1;
    let (first, last) = (stride(widths[0]), stride(widths[layers - 1]));
    let all = widths.iter().map(|&width| stride(width)).sum::<u128>();
    // The layers whose gradients are kept: 2 to L, or without a head the first.
    let upper = if layers > 1 { all - first } else { all };
    let whole4 = |n: u128| n.next_multiple_of(4);
    let head = (1..layers).map(|l| widths[l] as u128 * stride(widths[l - 1]) + whole4(widths[l] as u128)).sum::<u128>();
    let (slots, act_slots) = (saved.max(1), if frozen { 1 } else { saved.max(1) });
    let gram = if frozen { 0 } else { (n + m) * stride(limits.support) + n * first };
    let steps = act_slots * n * (all - last) + slots * n * (last + upper);
    let scratch = (m * all).max(n * (first + all - last + upper));
    let tables = 4 * (layers as u128 + 1) + 16;
    tables + gram + steps + (slots + 3) * head + whole4(m.max(WARP)) + scratch
}

/// Numbers that a batch of the largest size takes where its episodes do not fit shared memory.
pub(super) fn batch_len(shape: &MlpShape, limits: &Limits) -> u128 {
    let sizes = Sizes {
        episodes: limits.episodes,
        support: limits.episodes.saturating_mul(limits.support),
        query: limits.episodes.saturating_mul(limits.query),
        saved: limits.inner.saved_steps,
        frozen: limits.inner.last_layer && shape.layers() > 1,
    };
    Room::new(shape, sizes).len()
}

/// From one row of a Gram matrix to the next: rows begin at multiples of 16 bytes.
fn gram_ld(limits: &Limits) -> usize {
    limits.support.next_multiple_of(4)
}

/// Rows of a part of the first layer's gradient, a product whose sums are long and whose result is small: parts are made side by
/// side, then added up in their order. No part of a batch has more.
fn part_rows([h, d]: [usize; 2], rows: usize) -> usize {
    let tiles = h.div_ceil(128) * d.div_ceil(128);
    rows.div_ceil((GRADIENT_BLOCKS / tiles.max(1)).max(1)).max(LEAST_PART)
}

/// Where everything lies: first what is uploaded, then what only the device sees, last what is downloaded.
#[derive(Clone, Copy, Debug)]
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
    pub bias: Span,
    pub head: Span,
    /// First layer's weights; of an embedding table the rows that occur. The last that is uploaded.
    pub first: Span,
    /// Z'_0, then Z_0; later their adjoints.
    pub z: Span,
    pub gram: Span,
    pub gram_query: Span,
    pub rows: Span,
    /// Sums of groups of `rows`, where there are several groups; parts of `dfirst`, where there are several.
    pub groups: Span,
    pub parts: Span,
    pub workspace: Span,
    /// Losses, whether each row is finite, outputs; the mean of `rows`; the first layer's gradient. All downloaded.
    pub losses: Span,
    pub finite: Span,
    pub out: Span,
    pub mean: Span,
    pub dfirst: Span,
}

/// The sizes of one meta-step.
#[derive(Clone, Debug)]
pub struct StepPlan {
    pub(super) shape: MlpShape,
    pub(super) limits: Limits,
    pub(super) spans: Spans,
    /// Rows and columns of the first layer's weights; of an embedding table the rows that occur at most.
    pub(super) table: [usize; 2],
    /// Rows of a part of the first layer's gradient, at most.
    pub(super) part_rows: usize,
    /// Whether an episode fits a block's shared memory.
    pub(super) shared: bool,
    /// Threads of a block that has one.
    pub(super) threads: u32,
    /// Numbers that all inner steps take: those of the largest episode in shared memory, else of the whole batch.
    pub(super) steps_len: usize,
    bytes: usize,
}

impl StepPlan {
    /// Plans for batches up to `limits` on a device whose blocks have `shared_limit` bytes of shared memory.
    ///
    /// # Errors
    /// [`Error::Config`] where sizes do not fit the kernels' 32-bit counts.
    pub fn new(shape: &MlpShape, limits: Limits, shared_limit: u32) -> Result<Self> {
        shape.validate()?;
        let too_large = |bytes: u128| {
            Err(Error::config(
                "meta_batch",
                format!("{bytes} bytes on the device; its kernels count up to 2^31 numbers"),
            ))
        };
        let sizes = [limits.episodes, limits.support, limits.query, limits.nnz, limits.inner.saved_steps, shape.input];
        if let Some(&size) = sizes.iter().chain(&shape.widths).find(|&&size| size > MOST) {
            return too_large(4 * size as u128);
        }
        let table = match shape.kind {
            InputKind::Dense => [shape.hidden(), shape.input],
            InputKind::Bag => [limits.row_count(shape), shape.hidden()],
        };
        let (episode, most) = (4 * episode_len(shape, &limits), u128::from(shared_limit));
        let shared = episode <= most;
        let threads = if 2 * (episode + BESIDE) <= most + BESIDE { THREADS / 2 } else { THREADS };
        let steps_len = if shared { episode_len(shape, &limits) } else { batch_len(shape, &limits) };
        let rows = limits.episodes.saturating_mul(limits.support + limits.query);
        let part_rows = part_rows(table, rows);
        // One more for what is left over.
        let parts = match (shape.kind, rows.div_ceil(part_rows)) {
            (InputKind::Dense, parts) if parts > 1 => parts + 1,
            _ => 0,
        };
        let (spans, numbers) = spans(shape, &limits, table, parts, if shared { 0 } else { steps_len });
        if numbers > MOST as u128 {
            return too_large(4 * numbers);
        }
        let (bytes, steps_len) = (4 * numbers as usize, steps_len as usize);
        Ok(Self { shape: shape.clone(), limits, spans, table, part_rows, shared, threads, steps_len, bytes })
    }

    /// The largest batch.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Bytes of device memory, taken once.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of shared memory a block of the episode kernel has; 0 where that is too little for an episode, and inner steps are
    /// launches over all of them.
    pub fn shared_bytes(&self) -> usize {
        if self.shared { self.steps_len * size_of::<f32>() } else { 0 }
    }

    /// Whether the inner steps of batches with these limits, of whatever settings, fit the memory there is for them.
    pub(super) fn fits(&self, found: &Limits) -> bool {
        let len = if self.shared { episode_len(&self.shape, found) } else { batch_len(&self.shape, found) };
        len <= self.steps_len as u128
    }

    /// From one row of a Gram matrix to the next.
    pub(super) fn gram_ld(&self) -> usize {
        gram_ld(&self.limits)
    }

    /// Bytes of all that is uploaded, from the workspace's start, where `rows` rows of the first layer are there.
    pub(super) fn uploaded(&self, rows: usize) -> usize {
        self.spans.first.offset + 4 * rows * self.table[1]
    }

    /// Bytes of the workspace that are downloaded, where the first layer's gradient has `rows` rows; `None`: no gradient is.
    pub(super) fn downloaded(&self, rows: Option<usize>) -> Range<usize> {
        let Spans { losses, out, dfirst, .. } = self.spans;
        losses.offset..rows.map_or(out.offset + out.bytes, |rows| dfirst.offset + 4 * rows * self.table[1])
    }

    /// Numbers of an episode's gradient without the first layer's weights.
    pub(super) fn row_len(&self) -> usize {
        self.shape.hidden() + self.shape.head_len()
    }
}

/// Cuts the workspace; returns the pieces, and how many numbers they hold with the gaps between. Where that is more than
/// [`MOST`] the pieces mean nothing.
fn spans(shape: &MlpShape, limits: &Limits, table: [usize; 2], parts: usize, steps_len: u128) -> (Spans, u128) {
    let [t, s, q, nnz] = [limits.episodes, limits.support, limits.query, limits.nnz].map(|size| size as u128);
    let (h, c, head) = (shape.hidden() as u128, shape.outputs() as u128, shape.head_len() as u128);
    let [table_rows, columns] = table.map(|size| size as u128);
    let (support, query) = (t * s, t * q);
    let (rows, gram_ld) = (support + query, gram_ld(limits) as u128);
    let bag = shape.kind == InputKind::Bag;
    let of_bag = |count: u128| if bag { count } else { 0 };
    let (mut layout, mut numbers) = (Layout::default(), 0);
    let mut take = |count: u128| {
        let gap = (ALIGN / 4) as u128;
        numbers += count.next_multiple_of(gap);
        layout.take::<u32>(count.min(MOST as u128) as usize)
    };
    let spans = Spans {
        widths: take(shape.layers() as u128),
        query_rows: take(t + 1),
        support_rows: take(t + 1),
        query_labels: take(query),
        support_labels: take(support),
        inputs: take(if bag { nnz } else { rows * shape.input as u128 }),
        offsets: take(of_bag(rows + 1)),
        tokens: take(of_bag(nnz)),
        runs: take(of_bag(table_rows + 1)),
        examples: take(of_bag(nnz)),
        shares: take(of_bag(nnz)),
        bias: take(h),
        head: take(head),
        first: take(table_rows * columns),
        z: take(rows * h),
        gram: take(support * gram_ld),
        gram_query: take(query * gram_ld),
        rows: take(t * (h + head)),
        groups: take(if limits.episodes > GROUP { limits.episodes.div_ceil(GROUP) as u128 * (h + head) } else { 0 }),
        parts: take(if parts > 1 { parts as u128 * table_rows * columns } else { 0 }),
        workspace: take(steps_len),
        losses: take(t),
        finite: take(t),
        out: take(query * c),
        mean: take(h + head),
        dfirst: take(table_rows * columns),
    };
    (spans, numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::InnerMemory;

    #[test]
    fn the_usual_few_shot_episode_fits_an_h100() {
        let shape = MlpShape { input: 256, kind: InputKind::Dense, widths: vec![128, 5] };
        let inner = InnerMemory { saved_steps: 5, ..InnerMemory::default() };
        let limits = Limits { episodes: 1, support: 25, query: 75, inner, ..Limits::default() };
        let len = episode_len(&shape, &limits);
        assert!(len * 4 < 227 * 1024, "{} bytes", len * 4);
        assert_eq!(len * 4, 167_392);
    }

    #[test]
    fn episodes_of_which_two_fit_a_multiprocessor_have_half_the_threads() {
        let inner = InnerMemory { saved_steps: 5, ..InnerMemory::default() };
        let limits = Limits { episodes: 4, support: 25, query: 75, inner, ..Limits::default() };
        let threads = |widths: [usize; 2], limit: u32| {
            let shape = MlpShape { input: 64, kind: InputKind::Dense, widths: widths.to_vec() };
            let plan = StepPlan::new(&shape, limits, limit).unwrap();
            (plan.threads, plan.shared_bytes())
        };
        // An H100's multiprocessor has 228 KiB, a block of it at most 227.
        let h100 = 227 << 10;
        assert_eq!(threads([128, 5], h100), (512, 167_392));
        let (half, bytes) = threads([64, 5], h100);
        assert_eq!(half, 256);
        // Two of them and what lies beside fit this, and no less.
        let just = 2 * (bytes as u32 + 1024) - 1024;
        assert_eq!([just, just - 1].map(|limit| threads([64, 5], limit).0), [256, 512]);
    }

    #[test]
    fn sizes_beyond_the_kernels_counts_are_refused() {
        let shape = MlpShape { input: 256, kind: InputKind::Dense, widths: vec![128, 5] };
        let good = Limits { episodes: 4, support: 25, query: 75, ..Limits::default() };
        assert!(StepPlan::new(&shape, good, 1 << 16).is_ok());
        for bad in [
            Limits { episodes: 1 << 30, ..good },
            Limits { support: usize::MAX, ..good },
            Limits { support: 1 << 30, query: 1 << 30, ..good },
        ] {
            let error = StepPlan::new(&shape, bad, 1 << 16).unwrap_err();
            assert_eq!(error.code(), 3, "{bad:?}: {error}");
        }
    }
}
