//! The meta-gradient in Gram space: exact, without a copy of the first layer.
//!
//! Support inputs X (N x D), query inputs X' (M x D), first layer W1 (H x D), b1; phi = all later layers, the head;
//! inner rate a; Z = first-layer pre-activations on the support set (N x H); delta = dLoss/dZ. The gradient of W1 on
//! the support set is delta^T X, so an inner step changes Z by a product with a small matrix:
//!
//! ```text
//! G  = X  X^T + 1      (N x N)      the "+ 1" carries the bias b1 along
//! G' = X' X^T + 1      (M x N)
//! Z_0 = X W1^T + b1,   Z'_0 = X' W1^T + b1
//! step k = 0..S-1:     (delta_k, dphi_k) = gradient of the head's mean loss at (Z_k, phi_k)
//!                      Z_{k+1} = Z_k - a G delta_k        phi_{k+1} = phi_k - a dphi_k
//! query:               Z' = Z'_0 - a G' (delta_0 + ... + delta_{S-1});  (eps, v) = gradient at (Z', phi_S)
//! ```
//!
//! Reverse sweep: the adjoint of delta_k is c - a G u, that of dphi_k is -a v, and the head's gradient map has a
//! symmetric Jacobian, its Hessian; so each step needs one Hessian-vector product of the head alone:
//!
//! ```text
//! c = -a G'^T eps,   u = 0 (N x H)
//! k = S-1..0:          (dZ, dphi) = HVP of the head's support loss at (Z_k, phi_k) along (c - a G u, -a v)
//!                      u += dZ,  v += dphi
//! meta-gradient:       dW1 = eps^T X' + u^T X      db1 = column sums of eps and u      dphi = v
//! ```
//!
//! What else an [`InnerLoop`] asks for (velocities, decay, other rates, a loss after every step, the implicit gradient) keeps
//! the first layer in the span of W_0 and the support inputs; `steps`, `sweep` and `implicit` have its algebra.
//!
//! Passes over memory: the inputs are read once for Z_0 and Z'_0 of all episodes (one product), once for G and G', and
//! once for dW1. Everything between is per episode and stays in one thread's cache.
#![forbid(unsafe_code)]

mod context;
mod episode;
mod first_layer;
mod implicit;
mod memory;
mod pieces;
mod rates;
mod steps;
mod sweep;
mod work;

pub(in crate::meta) use episode::lane_len;
pub(in crate::meta) use rates::dot;

use std::ops::Range;

use super::plan::row_len;
use super::scatter::Scatter;
use super::{InnerLoop, InnerMemory, Limits, MetaBatch, MetaGradient, Order, Outcome, Plan, cavia};
use crate::backend::{Lines, Team, matrix, matrix_mut, prefer_huge_pages};
use crate::cpu::{Cpu, KernelElement, StoredElement};
use crate::error::{Error, Result};
use crate::model::{InputKind, MlpShape, Params};
use crate::view::MatRef;
use episode::Step;
use first_layer::By;
use pieces::Pieces;
use rates::scale;
use work::{Forward, Work};

/// Computes meta-gradients in Gram space; owns all memory they need.
pub struct GramSpace<T: KernelElement> {
    plan: Plan,
    team: Team<T>,
    /// Pre-activations of a chunk's query rows, then of its support rows; after the sweep their adjoints eps and u. One
    /// table, so that a token's gradient can be summed over both.
    z: Lines<T>,
    /// Outputs of all query rows.
    out: Vec<T>,
    /// Each episode's gradient of the first layer's bias, the head and the rates, for a chunk.
    rows: Vec<T>,
    /// The mean of the rates' part.
    rates: Vec<T>,
    /// Each lane's memory for the episode it works on.
    scratch: Lines<T>,
    scatter: Scatter<T>,
    /// Where the last batch's query rows end.
    out_rows: usize,
}

/// Episodes in memory at once.
struct Chunk<T> {
    episodes: Range<usize>,
    /// All that the gradient is the mean of.
    all: Range<usize>,
    /// Their mean's factor.
    mean: T,
}

impl<T> Chunk<T> {
    fn is_first(&self) -> bool {
        self.episodes.start == self.all.start
    }

    fn is_all(&self) -> bool {
        self.episodes == self.all
    }
}

/// The rows of an embedding table that the gradient has: the tokens that were sorted, and those of a context.
fn find_rows<T: KernelElement>(scatter: &Scatter<T>, shape: &MlpShape, inner: &InnerLoop, rows: &mut Vec<u32>) {
    scatter.rows(rows);
    rows.extend(cavia::rows(shape, inner.context()));
}

impl<T: KernelElement> GramSpace<T> {
    /// Allocates everything for batches up to `limits`, on the threads of `cpu`.
    pub fn new(cpu: &Cpu, shape: &MlpShape, limits: Limits) -> Result<Self> {
        let plan = Plan::new::<T>(cpu, shape, limits)?;
        let zeros = |n: usize| {
            let memory = vec![T::ZERO; n];
            prefer_huge_pages(&memory);
            memory
        };
        Ok(Self {
            team: Team::new(cpu),
            z: Lines::zeros(plan.z_len),
            out: zeros(plan.out_len),
            rows: zeros(limits.chunk() * plan.row_len),
            rates: zeros(limits.inner.rates),
            scratch: Lines::zeros(plan.lanes * plan.lane_len),
            scatter: Scatter::new(shape, &limits),
            out_rows: 0,
            plan,
        })
    }

    /// The sizes it was made for.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Outputs (logits, scores, embeddings) of the last batch's query rows after adaptation, stacked.
    pub fn query_outputs(&self) -> MatRef<'_, T> {
        matrix(&self.out, self.out_rows, self.plan.shapes.whole.outputs())
    }

    /// Adapts `params` to each episode's support set, measures the query loss, and (unless the order is
    /// [`Order::Evaluate`]) writes the mean meta-gradient over the episodes to `gradient`.
    ///
    /// Fails where the batch does not fit the model or the plan, or the loop does not fit Gram space. Allocates nothing.
    pub fn run<S: StoredElement<T>>(
        &mut self,
        params: &Params<T, S>,
        batch: &MetaBatch<T>,
        inner: &InnerLoop,
        gradient: &mut MetaGradient<T>,
    ) -> Result<()> {
        self.run_episodes(params, batch, inner, 0..batch.episodes(), gradient)
    }

    /// The same for some episodes of the batch alone: the gradient is their mean. One episode at a time gives each one's
    /// own meta-gradient, to be added up elsewhere.
    pub fn run_episodes<S: StoredElement<T>>(
        &mut self,
        params: &Params<T, S>,
        batch: &MetaBatch<T>,
        inner: &InnerLoop,
        episodes: Range<usize>,
        gradient: &mut MetaGradient<T>,
    ) -> Result<()> {
        self.check(&params.shape, batch, inner, &episodes)?;
        let shape = &params.shape;
        gradient.query_loss.clear();
        gradient.query_loss.resize(episodes.len(), T::ZERO);
        gradient.outcomes.clear();
        gradient.outcomes.resize(episodes.len(), Outcome::Adapted);
        let mean = T::ONE / T::from_f64(episodes.len().max(1) as f64);
        self.out_rows = batch.query.rows[episodes.end] - batch.query.rows[episodes.start];
        if inner.order != Order::Evaluate {
            gradient.check(shape, Limits::of(batch, inner).row_count(shape))?;
            self.begin_gradient(batch, inner, &episodes, gradient);
        }
        // Dense inputs' part takes the factor with the shorter of its operands and its result, to which a context adds its own.
        let support = batch.support.rows[episodes.end] - batch.support.rows[episodes.start];
        let late = self.out_rows + support >= shape.input && InnerMemory::of(inner).context == 0;
        let factor = if late { T::ONE } else { mean };
        let len = self.plan.limits.chunk();
        for start in episodes.clone().step_by(len) {
            let chunk = Chunk { episodes: start..episodes.end.min(start + len), all: episodes.clone(), mean };
            self.adapt(params, batch, inner, factor, &chunk, gradient)?;
            if inner.order != Order::Evaluate {
                self.add_first(batch, inner, &chunk, gradient)?;
                self.add_rows(shape, &InnerMemory::of(inner), &chunk, gradient)?;
            }
        }
        if shape.kind == InputKind::Dense && late && inner.order != Order::Evaluate {
            scale(mean, &mut gradient.first);
        }
        gradient.rates.clear();
        if inner.order != Order::Evaluate {
            gradient.rates.extend(self.rates[..inner.rates.len()].iter().map(|r| r.to_f64()));
        }
        Ok(())
    }

    fn check(&self, shape: &MlpShape, batch: &MetaBatch<T>, inner: &InnerLoop, episodes: &Range<usize>) -> Result<()> {
        if *shape != self.plan.shapes.whole {
            return Err(Error::shape("meta-step", "the weights are of another shape than the workspace"));
        }
        batch.validate(shape)?;
        inner.validate(shape)?;
        cavia::check_examples(batch, shape, inner.context())?;
        if let Some(why) = inner.needs_plain_form() {
            return Err(Error::config("inner loop", format!("it does not fit Gram space: {why}")));
        }
        if episodes.start > episodes.end || episodes.end > batch.episodes() {
            return Err(Error::shape("meta-step", format!("episodes {episodes:?} of {}", batch.episodes())));
        }
        let (planned, found) = (&self.plan.limits, Limits::of(batch, inner));
        let found = Limits { recompute: planned.recompute, task_chunk: planned.task_chunk, ..found };
        let fits = planned.covers(&found)
            && lane_len(&self.plan.shapes, &found) <= self.plan.lane_len
            && inner.rates.len() <= planned.inner.rates;
        if fits {
            return Ok(());
        }
        Err(Error::shape("meta-step", format!("{found:?} exceeds the plan's {planned:?}")))
    }

    /// Zeroes what is summed up; of bags that come in several chunks, finds the rows of the embedding table that occur.
    fn begin_gradient(
        &mut self,
        batch: &MetaBatch<T>,
        inner: &InnerLoop,
        episodes: &Range<usize>,
        gradient: &mut MetaGradient<T>,
    ) {
        gradient.bias.fill(T::ZERO);
        gradient.head.fill(T::ZERO);
        self.rates.fill(T::ZERO);
        gradient.rows.clear();
        let shape = &self.plan.shapes.whole;
        if shape.kind == InputKind::Dense {
            return gradient.first.fill(T::ZERO);
        }
        let chunks = episodes.len().div_ceil(self.plan.limits.chunk());
        if chunks != 1 {
            self.scatter.clear();
            Pieces::of(batch, inner, episodes.clone()).bags().for_each(|(bags, _)| self.scatter.push_tokens(&bags));
            self.scatter.sort(shape.input);
            find_rows(&self.scatter, shape, inner, &mut gradient.rows);
        }
        if chunks == 0 {
            gradient.first[..gradient.rows.len() * shape.hidden()].fill(T::ZERO);
        }
    }

    /// The chunk's first layer and its episodes, spread over the lanes. The entries of bags are sorted meanwhile.
    fn adapt<S: StoredElement<T>>(
        &mut self,
        params: &Params<T, S>,
        batch: &MetaBatch<T>,
        inner: &InnerLoop,
        factor: T,
        chunk: &Chunk<T>,
        gradient: &mut MetaGradient<T>,
    ) -> Result<()> {
        let (shape, part, first) = (&params.shape, &chunk.episodes, chunk.all.start);
        let (h, c) = (shape.hidden(), shape.outputs());
        let rows = |set: &[usize], range: &Range<usize>| set[range.end] - set[range.start];
        let (nq, ns) = (rows(batch.query.rows, part), rows(batch.support.rows, part));
        let before = rows(batch.query.rows, &(first..part.start));
        let row_len = row_len(shape, &InnerMemory::of(inner));
        let (z_query, z_support) = self.z[..(nq + ns) * h].split_at_mut(nq * h);
        let own = part.start - first..part.end - first;
        let mut work = Work {
            episodes: part.clone(),
            z_support,
            z_query,
            out: &mut self.out[before * c..(before + nq) * c],
            rows: &mut self.rows[..part.len() * row_len],
            losses: &mut gradient.query_loss[own.clone()],
            outcomes: &mut gradient.outcomes[own],
        };
        let first = |i: usize| params.first[i].widen();
        let (shapes, limits) = (&self.plan.shapes, &self.plan.limits);
        let step = Step { first: &first, head: &params.head, shapes, batch, inner, limits, factor };
        let forward = |mut by: By<T>, work: &mut Work<T>| {
            let z = [&mut *work.z_query, &mut *work.z_support];
            by.forward(params, batch, inner.reads_support(), &work.episodes, z)
        };
        let each_lanes_own = first_layer::is_each_lanes_own(shape, part.len(), self.plan.lanes);
        if !each_lanes_own {
            forward(By::Team(&mut self.team), &mut work)?;
        }
        let on_lane: Forward<T> = &|lane, work| forward(By::Lane(lane), work);
        let on_lane = each_lanes_own.then_some(on_lane);
        let (scatter, rows) = (&mut self.scatter, &mut gradient.rows);
        let sort_entries = || {
            if shape.kind == InputKind::Dense || inner.order == Order::Evaluate {
                return;
            }
            scatter.clear();
            Pieces::of(batch, inner, part.clone()).bags().for_each(|(bags, at)| scatter.push(&bags, at, chunk.mean));
            scatter.sort(shape.input);
            if chunk.is_all() {
                find_rows(scatter, shape, inner, rows);
            }
            scatter.find_runs(rows);
        };
        work::run(&mut self.team, &step, row_len, work, &mut self.scratch, on_lane, sort_entries)
    }

    /// dW1 += mean * (eps^T X' + u^T X) of each episode of a chunk, one after the other, from what the episodes left in `z`: the
    /// adjoints, for dense inputs times the factor of the mean, unless that comes last.
    fn add_first(
        &mut self,
        batch: &MetaBatch<T>,
        inner: &InnerLoop,
        chunk: &Chunk<T>,
        gradient: &mut MetaGradient<T>,
    ) -> Result<()> {
        let (shape, h) = (&self.plan.shapes.whole, self.plan.shapes.whole.hidden());
        let rows = |set: &[usize]| set[chunk.episodes.end] - set[chunk.episodes.start];
        let dz = matrix(&self.z, rows(batch.query.rows) + rows(batch.support.rows), h);
        if shape.kind == InputKind::Dense {
            let pieces = Pieces::of(batch, inner, chunk.episodes.clone());
            let dw = matrix_mut(&mut gradient.first, h, shape.input);
            return self.team.add_products(pieces.len(), |i| pieces.dense(i, dz), dw);
        }
        let sums = matrix_mut(&mut gradient.first, gradient.rows.len(), h);
        if chunk.is_first() {
            self.scatter.write(&mut self.team, dz, sums, &mut self.scratch)
        } else {
            self.scatter.add(&mut self.team, dz, sums)
        }
    }

    /// Adds the mean of the episodes' rows to bias, head, rates and the weights of a context, one after the other.
    fn add_rows(
        &mut self,
        shape: &MlpShape,
        inner: &InnerMemory,
        chunk: &Chunk<T>,
        gradient: &mut MetaGradient<T>,
    ) -> Result<()> {
        let (h, mean) = (shape.hidden(), chunk.mean);
        for row in self.rows.chunks_exact(row_len(shape, inner)).take(chunk.episodes.len()) {
            let lane = self.team.lane();
            let (bias, row) = row.split_at(h);
            let (head, row) = row.split_at(shape.head_len());
            let (rates, context) = row.split_at(inner.rates);
            lane.axpy(mean, bias, &mut gradient.bias)?;
            lane.axpy(mean, head, &mut gradient.head)?;
            lane.axpy(mean, rates, &mut self.rates[..inner.rates])?;
            for (i, weights) in context.chunks_exact(h).enumerate() {
                add_context(shape, inner.context, i, mean, weights, gradient);
            }
        }
        Ok(())
    }
}

/// Adds `mean` times the gradient of the weights of context input `i` to the first layer's.
fn add_context<T: KernelElement>(
    shape: &MlpShape,
    context: usize,
    i: usize,
    mean: T,
    weights: &[T],
    gradient: &mut MetaGradient<T>,
) {
    // Of an embedding table the gradient holds the rows that occur, those of the context last.
    let before = if shape.kind == InputKind::Bag { (shape.input - gradient.rows.len()) * shape.hidden() } else { 0 };
    for (unit, &w) in weights.iter().enumerate() {
        gradient.first[cavia::place(shape, context, i, unit) - before] += mean * w;
    }
}
