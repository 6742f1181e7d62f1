//! What a meta-step uploads, laid out here as it lies on the device.
#![forbid(unsafe_code)]

use std::ops::{DerefMut, Range};

use bytemuck::Pod;

use super::plan::StepPlan;
use crate::cuda::Span;
use crate::meta::{BatchTargets, EpisodeSet, Inputs, MetaBatch};
use crate::model::{InputKind, Params};

/// The host's side of the workspace: memory the device copies from.
pub(super) struct Staging<H> {
    bytes: H,
    /// The tokens that occur, rising: the rows of the table on the device.
    table: Vec<u32>,
    /// Those of them that have a gradient.
    pub rows: Vec<u32>,
}

impl<H: DerefMut<Target = [u8]>> Staging<H> {
    /// Space for the largest batch; `bytes` has room for all that is uploaded.
    pub fn new(plan: &StepPlan, bytes: H) -> Self {
        let tokens = if plan.shape.kind == InputKind::Bag { plan.limits.nnz } else { 0 };
        Self { bytes, table: Vec::with_capacity(tokens), rows: Vec::with_capacity(tokens) }
    }

    /// What is uploaded, and how many bytes of it.
    pub fn upload(&self, plan: &StepPlan) -> (&H, usize) {
        let rows = if plan.shape.kind == InputKind::Bag { self.table.len() } else { plan.table[0] };
        (&self.bytes, plan.uploaded(rows))
    }

    /// The words of a piece.
    fn piece<T: Pod>(&mut self, span: Span) -> &mut [T] {
        bytemuck::cast_slice_mut(&mut self.bytes[span.offset..][..span.bytes])
    }

    fn copy<T: Pod>(&mut self, span: Span, at: usize, src: &[T]) {
        self.piece(span)[at..at + src.len()].copy_from_slice(src);
    }

    fn copy_sizes(&mut self, span: Span, src: &[usize]) {
        self.piece::<i32>(span).iter_mut().zip(src).for_each(|(dst, &x)| *dst = x as i32);
    }

    /// Lays a batch out; `used` are the stacked rows whose inputs have a gradient.
    pub fn fill(&mut self, plan: &StepPlan, params: &Params<f32>, batch: &MetaBatch<f32>, used: Range<usize>) {
        let spans = &plan.spans;
        self.copy_sizes(spans.widths, &plan.shape.widths);
        self.copy_sizes(spans.query_rows, batch.query.rows);
        self.copy_sizes(spans.support_rows, batch.support.rows);
        for (span, set) in [(spans.query_labels, &batch.query), (spans.support_labels, &batch.support)] {
            if let BatchTargets::Classes(labels) = set.targets {
                self.copy(span, 0, labels);
            }
        }
        self.copy(spans.bias, 0, &params.bias);
        self.copy(spans.head, 0, &params.head);
        let sets = [&batch.query, &batch.support];
        match plan.shape.kind {
            InputKind::Dense => {
                self.dense_inputs(plan, sets);
                self.copy(spans.first, 0, &params.first);
            }
            InputKind::Bag => {
                self.bags(plan, sets);
                self.table_rows(plan, params);
                self.sort_entries(plan, sets, used, batch.episodes());
            }
        }
    }

    fn dense_inputs(&mut self, plan: &StepPlan, sets: [&EpisodeSet<f32>; 2]) {
        let mut at = 0;
        for set in sets {
            if let Inputs::Dense(x) = &set.inputs {
                for i in 0..x.rows() {
                    self.copy(plan.spans.inputs, at, x.row(i));
                    at += x.cols();
                }
            }
        }
    }

    /// The bags one after the other, tokens numbered among those that occur.
    fn bags(&mut self, plan: &StepPlan, sets: [&EpisodeSet<f32>; 2]) {
        let mut table = std::mem::take(&mut self.table);
        table.clear();
        each_bag(sets, |_, tokens, _| table.extend_from_slice(tokens));
        table.sort_unstable();
        table.dedup();
        let (spans, mut at) = (&plan.spans, 0);
        self.piece::<i32>(spans.offsets)[0] = 0;
        each_bag(sets, |row, tokens, weights| {
            self.copy(spans.inputs, at, weights);
            let own = &mut self.piece::<u32>(spans.tokens)[at..at + tokens.len()];
            own.iter_mut().zip(tokens).for_each(|(dst, token)| *dst = rank(&table, *token) as u32);
            at += tokens.len();
            self.piece::<i32>(spans.offsets)[row + 1] = at as i32;
        });
        self.table = table;
    }

    fn table_rows(&mut self, plan: &StepPlan, params: &Params<f32>) {
        let h = plan.shape.hidden();
        let bytes = 4 * self.table.len() * h;
        let dst = bytemuck::cast_slice_mut(&mut self.bytes[plan.spans.first.offset..][..bytes]);
        for (dst, &row) in dst.chunks_exact_mut(h).zip(&self.table) {
            dst.copy_from_slice(&params.first[row as usize * h..][..h]);
        }
    }

    /// The entries of the used rows by token, within a token in order of examples: a stable counting sort. Weights are
    /// divided by the number of episodes.
    fn sort_entries(&mut self, plan: &StepPlan, sets: [&EpisodeSet<f32>; 2], used: Range<usize>, episodes: usize) {
        let (spans, mean) = (&plan.spans, 1.0 / episodes.max(1) as f32);
        // Which tokens have a gradient.
        self.rows.clear();
        each_bag(sets, |row, tokens, _| {
            if used.contains(&row) {
                self.rows.extend_from_slice(tokens);
            }
        });
        self.rows.sort_unstable();
        self.rows.dedup();
        let rows = std::mem::take(&mut self.rows);
        let starts = self.piece::<i32>(spans.runs);
        starts[..=rows.len()].fill(0);
        each_bag(sets, |row, tokens, _| {
            if used.contains(&row) {
                tokens.iter().for_each(|t| starts[rank(&rows, *t) + 1] += 1);
            }
        });
        (0..rows.len()).for_each(|i| starts[i + 1] += starts[i]);
        each_bag(sets, |row, tokens, weights| {
            for (&token, &weight) in tokens.iter().zip(weights).filter(|_| used.contains(&row)) {
                let start = &mut self.piece::<i32>(spans.runs)[rank(&rows, token)];
                let to = *start as usize;
                *start += 1;
                self.piece::<u32>(spans.examples)[to] = row as u32;
                self.piece::<f32>(spans.shares)[to] = weight * mean;
            }
        });
        // Each start has moved to the next one's place; rows that no token has end where they begin.
        let starts = self.piece::<i32>(spans.runs);
        starts.copy_within(..rows.len(), 1);
        starts[0] = 0;
        let end = starts[rows.len()];
        starts[rows.len()..].fill(end);
        self.rows = rows;
    }
}

/// `f(stacked row, tokens, weights)` of all bags, queries first.
fn each_bag(sets: [&EpisodeSet<f32>; 2], mut f: impl FnMut(usize, &[u32], &[f32])) {
    let mut row = 0;
    for set in sets {
        if let Inputs::Bags(bags) = &set.inputs {
            for i in 0..bags.rows() {
                let (tokens, weights) = bags.row(i);
                f(row, tokens, weights);
                row += 1;
            }
        }
    }
}

/// Where a token stands among sorted ones that hold it.
fn rank(table: &[u32], token: u32) -> usize {
    table.partition_point(|&other| other < token)
}
