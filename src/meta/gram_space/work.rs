//! A chunk's episodes, of which each lane takes some, with the memory that belongs to them, until none is left.
//!
//! Were they cut into equal shares beforehand, all would wait for the slowest thread: on shared machines it took 5 to 30% longer
//! than another (`benches/README.md`, "Two threads"). No bit depends on which lane takes an episode.
#![forbid(unsafe_code)]

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::episode::{Rows, Step};
use crate::backend::{Lane, Team, split_slice, take};
use crate::cpu::KernelElement;
use crate::error::Result;
use crate::meta::Outcome;

/// Episodes and their part of the workspace.
pub(super) struct Work<'a, T> {
    pub episodes: Range<usize>,
    pub z_support: &'a mut [T],
    pub z_query: &'a mut [T],
    pub out: &'a mut [T],
    /// Each episode's gradient beside the first layer's weights.
    pub rows: &'a mut [T],
    pub losses: &'a mut [T],
    pub outcomes: &'a mut [Outcome],
}

impl<'a, T: KernelElement> Work<'a, T> {
    /// Takes the first `episodes`; `row_len` is the length of one of [`Work::rows`].
    fn take(&mut self, step: &Step<T>, row_len: usize, episodes: usize) -> Work<'a, T> {
        let Range { start, end } = self.episodes;
        let middle = start + episodes;
        let (batch, shape) = (step.batch, &step.shapes.whole);
        let support = batch.support.rows[middle] - batch.support.rows[start];
        let query = batch.query.rows[middle] - batch.query.rows[start];
        self.episodes = middle..end;
        Work {
            episodes: start..middle,
            z_support: take(&mut self.z_support, support * shape.hidden()),
            z_query: take(&mut self.z_query, query * shape.hidden()),
            out: take(&mut self.out, query * shape.outputs()),
            rows: take(&mut self.rows, episodes * row_len),
            losses: take(&mut self.losses, episodes),
            outcomes: take(&mut self.outcomes, episodes),
        }
    }

    /// One lane's episodes, one after the other.
    fn run(mut self, lane: &mut Lane<T>, step: &Step<T>, row_len: usize, scratch: &mut [T]) -> Result<()> {
        while !self.episodes.is_empty() {
            let one = self.take(step, row_len, 1);
            let rows = Rows { z: one.z_support, z_query: one.z_query, out: one.out, gradient: one.rows };
            (one.losses[0], one.outcomes[0]) = step.episode(lane, one.episodes.start, rows, scratch)?;
        }
        Ok(())
    }
}

/// What a lane does first with the episodes it takes.
pub(super) type Forward<'a, T> = &'a (dyn Fn(&mut Lane<T>, &mut Work<T>) -> Result<()> + Sync);

/// Runs `first` on one lane, and all of `work` on all lanes, each with its part of `scratch`.
pub(super) fn run<T: KernelElement>(
    team: &mut Team<T>,
    step: &Step<T>,
    row_len: usize,
    work: Work<T>,
    scratch: &mut [T],
    forward: Option<Forward<T>>,
    first: impl FnOnce() + Send,
) -> Result<()> {
    let lanes = team.len();
    let (left, first) = (Mutex::new(work), Mutex::new(Some(first)));
    let next = || {
        let mut left = lock(&left);
        let episodes = match (left.episodes.len(), forward) {
            (all, _) if lanes == 1 => all,
            (some, None) => some.min(1),
            // Many at first, as long products do more a second; few at last, so that all lanes end at about the same time.
            (some, Some(_)) => some.div_ceil(2 * lanes),
        };
        left.take(step, row_len, episodes)
    };
    team.spread(scratch, split_slice, |lane, scratch| {
        let first = lock(&first).take();
        if let Some(first) = first {
            first();
        }
        loop {
            let mut taken = next();
            if taken.episodes.is_empty() {
                return Ok(());
            }
            if let Some(forward) = forward {
                forward(lane, &mut taken)?;
            }
            taken.run(lane, step, row_len, scratch)?;
        }
    })
}

/// A lane that panics ends the whole step, so that what it leaves is never read.
fn lock<W>(mutex: &Mutex<W>) -> MutexGuard<'_, W> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
