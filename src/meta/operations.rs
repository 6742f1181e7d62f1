//! The floating-point operations of a meta-step, counted before it runs: what the choice of path rests on, and what a
//! measured time is compared with.
//!
//! A multiply-add is 2 operations. Products are counted, and, where the plain form passes over all weights, those passes;
//! activations, losses and other vectors of an episode's size are not. With N support and M query rows, E and E' their
//! stored inputs (N D and M D for dense rows), H the first layer's outputs, P the head's weights:
//!
//! ```text
//! a pass over the head: forward 2 P a row, backward 4 P, R-operator 12 P
//!
//! Gram space    once: 2 (E + E') H for Z_0 and Z'_0, as much for dW1 (E = 0 without a step); G and G'; G' delta and its transpose 4 N M H
//!               a step: 2 N^2 H + 6 N P forward, and in second order 2 N^2 H + 12 N P back
//! plain form    an episode: passes over all weights
//!               a step: 4 E H + 6 N P and the update of all weights; in second order 6 E H + 18 N P more
//! both          the query pass 6 M P; in the plain form also 4 E' H
//! ```
#![forbid(unsafe_code)]

use super::{Adapt, EpisodeSet, InnerLoop, Inputs, MetaBatch, Order};
use crate::cpu::KernelElement;
use crate::model::MlpShape;

/// Operations of one meta-step in either form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Operations {
    /// In Gram space.
    pub gram: u64,
    /// In the plain form.
    pub dense: u64,
    /// Of one plain gradient of the query loss, without an inner step: for comparison.
    pub joint: u64,
}

/// The sizes of one episode that the counts follow from.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    /// Support and query rows.
    n: u64,
    m: u64,
    /// Stored inputs of each.
    support: u64,
    query: u64,
    /// First layer's outputs, the head's weights, all weights.
    h: u64,
    head: u64,
    all: u64,
}

/// Passes over all weights that an episode of the plain form makes without a step: weights copied twice; velocity, adjoint
/// and gradient cleared; the gradient added to the adjoint; that compared with infinity and added to the batch's.
const EPISODE_PASSES: u64 = 8;
/// Passes over all weights that one step of the plain form makes forward: read gradient, form the velocity, copy, update;
/// and back: the velocity's adjoint, its product with the Hessian added.
const PASSES: [u64; 2] = [4, 4];

impl Operations {
    /// Of one batch under an inner loop.
    pub fn of<T: KernelElement>(shape: &MlpShape, batch: &MetaBatch<T>, inner: &InnerLoop) -> Self {
        let (h, head) = (shape.hidden() as u64, shape.head_len() as u64);
        let mut sum = Self::default();
        for t in 0..batch.episodes() {
            let (n, support) = size(&batch.support, t);
            let (m, query) = size(&batch.query, t);
            let sizes = Sizes { n, m, support, query, h, head, all: shape.len() as u64 };
            sum.gram += sizes.gram(inner);
            sum.dense += sizes.dense(inner);
            sum.joint += 4 * query * h + 6 * m * head;
        }
        sum
    }
}

/// Rows and stored inputs of episode `t`.
fn size<T: KernelElement>(set: &EpisodeSet<T>, t: usize) -> (u64, u64) {
    let range = set.range(t);
    let stored = match &set.inputs {
        Inputs::Dense(x) => range.len() * x.cols(),
        Inputs::Bags(x) => x.nnz_of(range.clone()),
    };
    (range.len() as u64, stored as u64)
}

impl Sizes {
    /// How often a support and a query pass over the head is made: (forward and backward, R-operators).
    fn passes(self, inner: &InnerLoop) -> (u64, u64) {
        let steps = inner.steps as u64;
        match inner.order {
            Order::Second => (steps, steps),
            // The solver's iterations are not known beforehand: as many as steps.
            Order::Implicit(_) => (steps + 1, steps),
            Order::First | Order::Displacement | Order::Evaluate => (steps, 0),
        }
    }

    fn gram(self, inner: &InnerLoop) -> u64 {
        let Self { n, m, query, h, head, .. } = self;
        let support = if inner.reads_support() { self.support } else { 0 };
        let (forward, back) = self.passes(inner);
        let first = 2 * (support + query) * h;
        let outer = if inner.order == Order::Evaluate { first } else { 2 * first };
        if inner.adapt != Adapt::All {
            return outer + (6 * n * forward + 12 * n * back + 6 * m) * head;
        }
        let grams = if inner.steps == 0 { 0 } else { support * n + 2 * query * n };
        let queries = if inner.steps == 0 { 0 } else { 2 * n * m * h * (1 + u64::from(back > 0)) };
        // Step 0 needs no product: its coefficients are 0.
        let steps = 2 * n * n * h * (forward.saturating_sub(1) + back.saturating_sub(1));
        outer + grams + queries + steps + (6 * n * forward + 12 * n * back + 6 * m) * head
    }

    fn dense(self, inner: &InnerLoop) -> u64 {
        let Self { n, m, support, query, h, head, all } = self;
        let (forward, back) = self.passes(inner);
        let passes = EPISODE_PASSES + PASSES[0] * forward + PASSES[1] * back;
        (4 * support * h + 6 * n * head) * forward
            + (6 * support * h + 18 * n * head) * back
            + 4 * query * h
            + 6 * m * head
            + passes * all
    }
}
