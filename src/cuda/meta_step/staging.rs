//! What a meta-step uploads, laid out here as it lies on the device, and sent piece by piece while the next is laid out.
#![forbid(unsafe_code)]

use std::ops::{DerefMut, Range};

use bytemuck::Pod;

use super::entries::{Entries, Sorted};
use super::plan::StepPlan;
use super::spread;
use crate::cpu::Cpu;
use crate::cuda::Span;
use crate::error::Result;
use crate::meta::{BatchTargets, EpisodeSet, Inputs, MetaBatch};
use crate::model::{InputKind, Params};
use crate::view::{Bags, MatRef};

/// Bytes that are laid out before they are sent, but for the last: a few beside all that a step uploads, and enough that sending one takes
/// longer than asking for it.
const PIECE: usize = 4 << 20;

/// The host's side of the workspace: memory the device copies from.
pub(super) struct Staging<H> {
    bytes: H,
    entries: Entries,
}

/// A batch as it is laid out.
pub(super) struct Filling<'a> {
    pub plan: &'a StepPlan,
    /// Whose threads do it.
    pub cpu: &'a Cpu,
    pub params: &'a Params<f32>,
    pub batch: &'a MetaBatch<'a, f32>,
    /// The stacked rows whose inputs have a gradient.
    pub used: Range<usize>,
}

impl<H: DerefMut<Target = [u8]>> Staging<H> {
    /// Space for the largest batch; `bytes` has room for all that is uploaded.
    pub fn new(plan: &StepPlan, bytes: H) -> Self {
        Self { bytes, entries: Entries::new(plan) }
    }

    /// Forgets the last batch.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// The rows of an embedding table that have a gradient, rising.
    pub fn rows(&self) -> &[u32] {
        self.entries.rows()
    }

    fn piece<T: Pod>(&mut self, span: Span) -> &mut [T] {
        words(&mut self.bytes, span)
    }

    fn copy<T: Pod>(&mut self, span: Span, src: &[T]) {
        self.piece(span)[..src.len()].copy_from_slice(src);
    }

    fn copy_sizes(&mut self, span: Span, src: &[usize]) {
        self.piece::<i32>(span).iter_mut().zip(src).for_each(|(dst, &x)| *dst = x as i32);
    }

    /// Lays a batch out. `send` is called for one range of the memory behind the other, which together are all that is uploaded;
    /// what it was called for is not written to any more.
    pub fn fill(&mut self, filling: &Filling, mut send: impl FnMut(&H, Range<usize>) -> Result<()>) -> Result<()> {
        let mut sent = 0;
        let mut end = 0;
        self.lay_out(filling, &mut |bytes, ready| {
            end = ready;
            if ready - sent < PIECE {
                return Ok(());
            }
            send(bytes, std::mem::replace(&mut sent, ready)..ready)
        })?;
        if sent < end { send(&self.bytes, sent..end) } else { Ok(()) }
    }

    /// Calls `ready` with a place before which all is laid out, now and then and at the end.
    fn lay_out(&mut self, filling: &Filling, ready: &mut impl FnMut(&H, usize) -> Result<()>) -> Result<()> {
        let Filling { plan, params, batch, .. } = filling;
        let spans = &plan.spans;
        self.copy_sizes(spans.widths, &plan.shape.widths);
        self.copy_sizes(spans.query_rows, batch.query.rows);
        self.copy_sizes(spans.support_rows, batch.support.rows);
        for (span, set) in [(spans.query_labels, &batch.query), (spans.support_labels, &batch.support)] {
            if let BatchTargets::Classes(labels) = set.targets {
                self.copy(span, labels);
            }
        }
        self.copy(spans.bias, &params.bias);
        self.copy(spans.head, &params.head);
        let sets = [&batch.query, &batch.support];
        match plan.shape.kind {
            InputKind::Dense => {
                self.dense_inputs(filling, sets.map(dense), ready)?;
                self.first(filling, plan.table[0], ready, |row| row)
            }
            InputKind::Bag => {
                self.bags(filling, sets.map(bags), ready)?;
                let table = std::mem::take(&mut self.entries.table);
                let sent = self.first(filling, table.len(), ready, |i| table[i] as usize);
                self.entries.table = table;
                sent
            }
        }
    }

    /// Entries one behind the other with their tokens' rows of the table, then sorted by those.
    fn bags(
        &mut self,
        filling: &Filling,
        sets: [Bags<f32>; 2],
        ready: &mut impl FnMut(&H, usize) -> Result<()>,
    ) -> Result<()> {
        let Filling { plan, cpu, batch, used, .. } = filling;
        let spans = &plan.spans;
        self.entries.count(cpu, sets, used.clone());
        let (mut at, mut row) = (0, 0);
        for set in sets {
            let ((tokens, weights), to) = (set.pairs(), at + set.nnz());
            spread::copy(cpu, weights, &mut self.piece(spans.inputs)[at..to]);
            let numbers = &mut words(&mut self.bytes, spans.tokens)[at..to];
            self.entries.numbers(cpu, tokens, numbers);
            let offsets = &mut self.piece::<i32>(spans.offsets)[row..];
            offsets[0] = at as i32;
            (0..set.rows()).for_each(|i| offsets[i + 1] = offsets[i] + set.row(i).0.len() as i32);
            (at, row) = (to, row + set.rows());
        }
        ready(&self.bytes, spans.runs.offset)?;
        let [tokens, runs, examples, shares] =
            pieces(&mut self.bytes, [spans.tokens, spans.runs, spans.examples, spans.shares]);
        let sorted = Sorted {
            runs: bytemuck::cast_slice_mut(runs),
            examples: bytemuck::cast_slice_mut(examples),
            shares: bytemuck::cast_slice_mut(shares),
        };
        let numbers: &[u32] = bytemuck::cast_slice(tokens);
        let mean = 1.0 / batch.episodes().max(1) as f32;
        self.entries.sort(cpu, sets, used.clone(), mean, numbers, sorted);
        ready(&self.bytes, spans.first.offset)
    }

    /// Rows of the first layer's weights, the `i`-th as `row` says.
    fn first(
        &mut self,
        filling: &Filling,
        rows: usize,
        ready: &mut impl FnMut(&H, usize) -> Result<()>,
        row: impl Fn(usize) -> usize + Sync,
    ) -> Result<()> {
        let (width, first) = (filling.plan.table[1], &filling.params.first);
        self.rows_of(filling.cpu, filling.plan.spans.first, [rows, width], ready, |i, dst| {
            dst.copy_from_slice(&first[row(i) * width..][..width]);
        })
    }

    /// A matrix with `width` numbers a row at the start of a piece of memory, rows laid out by all threads.
    fn rows_of(
        &mut self,
        cpu: &Cpu,
        span: Span,
        [rows, width]: [usize; 2],
        ready: &mut impl FnMut(&H, usize) -> Result<()>,
        row: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Result<()> {
        let (row_bytes, each) = (4 * width, (PIECE / (4 * width)).max(1));
        for from in (0..rows).step_by(each) {
            let to = rows.min(from + each);
            let range = span.offset + from * row_bytes..span.offset + to * row_bytes;
            let dst: &mut [f32] = bytemuck::cast_slice_mut(&mut self.bytes[range.clone()]);
            spread::each_run(cpu, dst, width, |first, run| {
                run.chunks_exact_mut(width).enumerate().for_each(|(i, dst)| row(from + first + i, dst));
            });
            ready(&self.bytes, range.end)?;
        }
        Ok(())
    }

    fn dense_inputs(
        &mut self,
        filling: &Filling,
        [query, support]: [MatRef<f32>; 2],
        ready: &mut impl FnMut(&H, usize) -> Result<()>,
    ) -> Result<()> {
        let sizes = [query.rows() + support.rows(), filling.plan.shape.input];
        self.rows_of(filling.cpu, filling.plan.spans.inputs, sizes, ready, |i, dst| {
            dst.copy_from_slice(if i < query.rows() { query.row(i) } else { support.row(i - query.rows()) });
        })
    }
}

fn dense<'a>(set: &EpisodeSet<'a, f32>) -> MatRef<'a, f32> {
    match set.inputs {
        Inputs::Dense(x) => x,
        Inputs::Bags(_) => unreachable!("validated"),
    }
}

fn bags<'a>(set: &EpisodeSet<'a, f32>) -> Bags<'a, f32> {
    match set.inputs {
        Inputs::Bags(x) => x,
        Inputs::Dense(_) => unreachable!("validated"),
    }
}

/// The words of a piece.
fn words<T: Pod>(bytes: &mut [u8], span: Span) -> &mut [T] {
    bytemuck::cast_slice_mut(&mut bytes[span.offset..][..span.bytes])
}

/// Several pieces, in the order they lie in.
fn pieces<const N: usize>(bytes: &mut [u8], spans: [Span; N]) -> [&mut [u8]; N] {
    let (mut rest, mut at) = (bytes, 0);
    spans.map(|span| {
        let (piece, behind) = std::mem::take(&mut rest)[span.offset - at..].split_at_mut(span.bytes);
        (rest, at) = (behind, span.offset + span.bytes);
        piece
    })
}

#[cfg(test)]
mod tests {
    use std::ops::Deref;

    use super::*;
    use crate::meta::{InnerLoop, Limits, Order};
    use crate::model::MlpShape;
    use crate::rng::{Purpose, Rng};

    struct Words(Vec<u64>);

    impl Deref for Words {
        type Target = [u8];
        fn deref(&self) -> &[u8] {
            bytemuck::cast_slice(&self.0)
        }
    }

    impl DerefMut for Words {
        fn deref_mut(&mut self) -> &mut [u8] {
            bytemuck::cast_slice_mut(&mut self.0)
        }
    }

    /// Several times [`PIECE`] of inputs: what is sent is all of it, in order, and final when it is sent.
    #[test]
    fn a_large_batch_is_sent_in_pieces_that_stay_as_they_were_sent() {
        let (seed, input, rows) = (5, 1500, [900, 1203]);
        let mut rng = Rng::new(seed, 0, 0, Purpose::Data);
        let x = rows.map(|rows| (0..rows * input).map(|_| rng.normal() as f32).collect::<Vec<_>>());
        let labels = rows.map(|rows| vec![1u32; rows]);
        let bounds = rows.map(|rows| [0, rows / 3, rows]);
        let set = |i: usize| EpisodeSet {
            inputs: Inputs::Dense(MatRef::new(&x[i], rows[i], input).unwrap()),
            rows: &bounds[i],
            targets: BatchTargets::Classes(&labels[i]),
        };
        let batch = MetaBatch { query: set(0), support: set(1) };
        let shape = MlpShape { input, kind: InputKind::Dense, widths: vec![700, 3] };
        let params = Params::<f32>::random(&shape, 1.0, seed).unwrap();
        let limits = Limits::of(&batch, &InnerLoop::sgd(1, 0.1, Order::Second));
        let plan = StepPlan::new(&shape, limits, 0).unwrap();
        let (spans, bytes) = (plan.spans, plan.uploaded(plan.table[0]));
        for threads in [1, 3] {
            let cpu = Cpu::new().threads(threads).unwrap();
            let mut staging = Staging::new(&plan, Words(vec![0; bytes.div_ceil(8)]));
            let mut sent = Vec::new();
            let mut ranges = Vec::new();
            let filling = Filling { plan: &plan, cpu: &cpu, params: &params, batch: &batch, used: 0..2103 };
            let filled = staging.fill(&filling, |host, range| {
                sent.extend_from_slice(&host[range.clone()]);
                ranges.push(range);
                Ok(())
            });
            filled.unwrap();
            let what = format!("seed {seed}, {threads} threads: {ranges:?}");
            assert!(ranges.len() > 2 && ranges[0].start == 0 && ranges[ranges.len() - 1].end == bytes, "{what}");
            assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start), "{what}");
            assert!(sent == staging.bytes[..bytes], "{what}: changed after it was sent");
            let mut numbers = |span, len| staging.piece::<f32>(span)[..len].to_vec();
            assert!(numbers(spans.inputs, 2103 * input) == x.concat(), "{what}: inputs");
            assert!(numbers(spans.first, 700 * input) == params.first, "{what}: first layer");
        }
    }
}
