//! What the first layer's gradient is summed over: the rows of the episodes' sets and the adjoints that belong to them.
#![forbid(unsafe_code)]

use std::ops::Range;

use crate::cpu::KernelElement;
use crate::meta::{EpisodeSet, InnerLoop, Inputs, MetaBatch, Order, Start};
use crate::view::{Bags, MatRef};

#[derive(Clone, Copy)]
enum Side {
    Query,
    Support,
}

/// The sum dW1 = eps^T X' + u^T X of some episodes, piece by piece: of each episode the query rows, then the support rows, or one
/// of the two alone.
pub(super) struct Pieces<'a, T: KernelElement> {
    batch: &'a MetaBatch<'a, T>,
    episodes: Range<usize>,
    sides: &'static [Side],
}

impl<'a, T: KernelElement> Pieces<'a, T> {
    /// Those of some of the batch's episodes.
    pub fn of(batch: &'a MetaBatch<'a, T>, inner: &InnerLoop, episodes: Range<usize>) -> Self {
        let support = match inner.order {
            Order::Second | Order::First if inner.start == Start::Prototypes => true,
            Order::Second => inner.steps > 0,
            Order::Implicit(_) | Order::Displacement => true,
            Order::First | Order::Evaluate => false,
        };
        let sides: &[_] = match (inner.order != Order::Displacement, support) {
            (true, true) => &[Side::Query, Side::Support],
            (true, false) => &[Side::Query],
            (false, _) => &[Side::Support],
        };
        Self { batch, episodes, sides }
    }

    pub fn len(&self) -> usize {
        self.episodes.len() * self.sides.len()
    }

    /// A piece's set, its rows there, and where those of the adjoints begin: all queries of the episodes, then all supports.
    fn get(&self, i: usize) -> (&'a EpisodeSet<'a, T>, Range<usize>, usize) {
        let (t, side) = (self.episodes.start + i / self.sides.len(), self.sides[i % self.sides.len()]);
        let rows_before = |set: &EpisodeSet<T>| set.rows[t] - set.rows[self.episodes.start];
        let (query, support) = (&self.batch.query, &self.batch.support);
        match side {
            Side::Query => (query, query.range(t), rows_before(query)),
            Side::Support => {
                let queries = query.rows[self.episodes.end] - query.rows[self.episodes.start];
                (support, support.range(t), queries + rows_before(support))
            }
        }
    }

    /// A piece of dense inputs: its rows of the adjoints `dz`, and its inputs.
    pub fn dense<'v>(&self, i: usize, dz: MatRef<'v, T>) -> (MatRef<'v, T>, MatRef<'a, T>) {
        let (set, rows, at) = self.get(i);
        let Inputs::Dense(x) = set.inputs else { unreachable!("validated: dense inputs") };
        (dz.rows_range(at, at + rows.len()), x.rows_range(rows.start, rows.end))
    }

    /// The pieces' bags, each with where its rows of the adjoints begin.
    pub fn bags(&self) -> impl Iterator<Item = (Bags<'a, T>, usize)> {
        (0..self.len()).map(|i| {
            let (set, rows, at) = self.get(i);
            let Inputs::Bags(bags) = set.inputs else { unreachable!("validated: token bags") };
            (bags.rows_range(rows.start, rows.end), at)
        })
    }
}
