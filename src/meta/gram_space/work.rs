//! A chunk of episodes cut into the lanes' shares: each lane gets neighbouring episodes and the memory that belongs to them.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::episode::{Rows, Step};
use crate::backend::{Lane, take};
use crate::cpu::KernelElement;
use crate::error::Result;
use crate::meta::Outcome;

/// The part of a chunk that some lanes work on.
pub(super) struct Work<'a, T> {
    pub episodes: Range<usize>,
    pub z_support: &'a mut [T],
    pub z_query: &'a mut [T],
    pub out: &'a mut [T],
    /// Each episode's gradient beside the first layer's weights.
    pub rows: &'a mut [T],
    pub losses: &'a mut [T],
    pub outcomes: &'a mut [Outcome],
    pub scratch: &'a mut [T],
}

/// Cuts off the work of the first `left` of `all` lanes; `row_len` is the length of one of [`Work::rows`].
pub(super) fn split<'a, T: KernelElement>(
    mut w: Work<'a, T>,
    step: &Step<T>,
    row_len: usize,
    left: usize,
    all: usize,
) -> (Work<'a, T>, Work<'a, T>) {
    let Range { start, end } = w.episodes;
    let middle = start + (end - start) * left / all;
    let (batch, shape, episodes) = (step.batch, &step.shapes.whole, middle - start);
    let support = batch.support.rows[middle] - batch.support.rows[start];
    let query = batch.query.rows[middle] - batch.query.rows[start];
    let scratch = w.scratch.len() / all * left;
    let front = Work {
        episodes: start..middle,
        z_support: take(&mut w.z_support, support * shape.hidden()),
        z_query: take(&mut w.z_query, query * shape.hidden()),
        out: take(&mut w.out, query * shape.outputs()),
        rows: take(&mut w.rows, episodes * row_len),
        losses: take(&mut w.losses, episodes),
        outcomes: take(&mut w.outcomes, episodes),
        scratch: take(&mut w.scratch, scratch),
    };
    (front, Work { episodes: middle..end, ..w })
}

/// One lane's episodes, one after the other.
pub(super) fn run<T: KernelElement>(lane: &mut Lane<T>, step: &Step<T>, row_len: usize, mut w: Work<T>) -> Result<()> {
    let shape = &step.shapes.whole;
    for (i, t) in w.episodes.clone().enumerate() {
        let (n, m) = (step.batch.support.range(t).len(), step.batch.query.range(t).len());
        let rows = Rows {
            z: take(&mut w.z_support, n * shape.hidden()),
            z_query: take(&mut w.z_query, m * shape.hidden()),
            out: take(&mut w.out, m * shape.outputs()),
            gradient: take(&mut w.rows, row_len),
        };
        (w.losses[i], w.outcomes[i]) = step.episode(lane, t, rows, w.scratch)?;
    }
    Ok(())
}
