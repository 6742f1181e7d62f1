//! One episode: from its rows of Z_0 and Z'_0 to their adjoints and its row of gradients.
//!
//! With only the last layer adapted (ANIL) the layers below, the body, are passed once forward and once back, and the
//! inner loop runs on the last layer alone, whose inputs do not change: no Gram matrix is needed.
#![forbid(unsafe_code)]

use super::context::{Context, ContextMemory};
use super::memory::{Memory, Sizes};
use super::rates::{StepRates, scale};
use super::steps::Core;
use crate::backend::{BagIndex, Carver, Lane, matrix, matrix_mut};
use bytemuck::cast_slice_mut;

use crate::cpu::KernelElement;
use crate::error::{Error, Result};
use crate::meta::plan::Shapes;
use crate::meta::{InnerLoop, InnerMemory, Inputs, Limits, MetaBatch, Order, Outcome, Start, proto_maml};
use crate::model::{InputKind, Targets, mlp, saved_len};

/// What all episodes of a meta-step share.
pub(super) struct Step<'a, T: KernelElement> {
    /// The first layer's elements, widened from whatever they are stored in.
    pub first: &'a (dyn Fn(usize) -> T + Sync),
    /// The initial head: theta without the first layer.
    pub head: &'a [T],
    pub shapes: &'a Shapes,
    pub batch: &'a MetaBatch<'a, T>,
    pub inner: &'a InnerLoop<'a>,
    pub limits: &'a Limits,
    /// What dense inputs' adjoints are multiplied with.
    pub factor: T,
}

/// One episode's rows of the workspace.
pub(super) struct Rows<'a, T> {
    /// In: Z_0 (N x H). Out: its adjoint u, for dense inputs times the step's factor.
    pub z: &'a mut [T],
    /// In: Z'_0 (M x H). Out: its adjoint eps, likewise.
    pub z_query: &'a mut [T],
    /// Out: the query outputs.
    pub out: &'a mut [T],
    /// Out: the gradient of the first layer's bias, of the head, and of the rates.
    pub gradient: &'a mut [T],
}

/// The pieces of one lane's memory.
struct LaneMemory<'a, T> {
    gram: &'a mut [T],
    gram_query: &'a mut [T],
    /// Numbers of an index of bags, u32 in the place of elements.
    index: &'a mut [T],
    /// The body's passes over both sets, where it is frozen; over the support set for prototypes.
    body: &'a mut [T],
    body_query: &'a mut [T],
    /// The head with prototypes, and the activations they are made of.
    phi0: &'a mut [T],
    acts: &'a mut [T],
    core: Memory<'a, T>,
}

impl<'a, T: Copy> LaneMemory<'a, T> {
    fn lay_out(shapes: &Shapes, s: &Sizes, memory: &mut Carver<'a, T>) -> Self {
        let (frozen, prototypes) = (s.inner.last_layer, s.inner.prototypes);
        let body = |rows| match &shapes.body {
            Some(body) if frozen || prototypes => mlp::Saved::<T>::len(body, rows, 0),
            _ => 0,
        };
        Self {
            gram: memory.take_if(!frozen, s.n * s.n),
            gram_query: memory.take_if(!frozen, s.m * s.n),
            index: memory.take_if(!frozen, BagIndex::<T>::memory_len(s.pairs)),
            body: memory.take(body(s.n)),
            body_query: memory.take_if(frozen, body(s.m)),
            phi0: memory.take_if(prototypes, shapes.whole.head_len()),
            acts: memory.take_if(prototypes, s.n * shapes.last.hidden()),
            core: Memory::lay_out(if frozen { &shapes.last } else { &shapes.whole }, s, memory),
        }
    }
}

/// Elements of one lane's memory under a plan's limits.
pub(in crate::meta) fn lane_len(shapes: &Shapes, limits: &Limits) -> usize {
    let c = shapes.whole.outputs();
    let [support, query] = [limits.support, limits.query].map(|n| (n, limits.loss_len(n, c)));
    let pairs = [limits.support_nnz, limits.query_nnz];
    let inner = memory_of(shapes, limits.inner);
    let sizes = Sizes::new(inner, limits.recompute, support, query).with_pairs(pairs);
    let mut memory = Carver::<u8>::counting();
    if limits.inner.context > 0 {
        ContextMemory::lay_out(&shapes.whole, &sizes, &mut memory);
    } else {
        LaneMemory::lay_out(shapes, &sizes, &mut memory);
    }
    memory.used()
}

/// What the loop needs on these shapes: the last layer of one is all of them.
fn memory_of(shapes: &Shapes, inner: InnerMemory) -> InnerMemory {
    InnerMemory { last_layer: inner.last_layer && shapes.body.is_some(), ..inner }
}

impl<T: KernelElement> Step<'_, T> {
    /// Runs episode `t`; returns its query loss.
    pub fn episode(&self, lane: &mut Lane<T>, t: usize, rows: Rows<T>, scratch: &mut [T]) -> Result<(T, Outcome)> {
        let (support, query) = (self.batch.support.targets(t), self.batch.query.targets(t));
        let (h, c) = (self.shapes.whole.hidden(), self.shapes.whole.outputs());
        let (n, m) = (rows.z.len() / h, rows.z_query.len() / h);
        let kept = |targets: &Targets, n| (n, saved_len(targets, n, c));
        let inner = memory_of(self.shapes, InnerMemory::of(self.inner));
        let pairs = [&self.batch.support, &self.batch.query].map(|set| set.nnz_of(t));
        let sizes = Sizes::new(inner, self.limits.recompute, kept(&support, n), kept(&query, m)).with_pairs(pairs);
        let Rows { z, z_query, out, gradient } = rows;
        let (bias, rest) = gradient.split_at_mut(h);
        let (head, rest) = rest.split_at_mut(self.shapes.whole.head_len());
        let (rates, weights_bar) = rest.split_at_mut(self.inner.rates.len());
        rates.fill(T::ZERO);
        let pieces = [&mut *z, &mut *z_query, out, &mut *head];
        let mut memory = Carver::over(scratch);
        let (loss, solved) = if inner.context > 0 {
            let mut memory = ContextMemory::lay_out(&self.shapes.whole, &sizes, &mut memory);
            let [z, z_query, out, head] = pieces;
            let context = Context { step: self, sizes, support, query };
            (context.run(lane, &mut memory, [z, z_query, out, head, weights_bar])?, true)
        } else {
            let mut memory = LaneMemory::lay_out(self.shapes, &sizes, &mut memory);
            self.weights_episode(lane, t, sizes, [support, query], &mut memory, pieces, rates)?
        };
        lane.col_sum(T::ONE, matrix(z, n, h), T::ZERO, bias)?;
        lane.col_sum(T::ONE, matrix(z_query, m, h), T::ONE, bias)?;
        if self.shapes.whole.kind == InputKind::Dense && self.inner.order != Order::Evaluate {
            [z, z_query].into_iter().for_each(|adjoint| scale(self.factor, adjoint));
        }
        let finite = loss.is_finite() && (self.inner.order == Order::Evaluate || head.iter().all(|x| x.is_finite()));
        Ok((loss, Outcome::of(finite, solved)))
    }

    /// An episode whose weights are adapted: all layers, or the last.
    #[expect(clippy::too_many_arguments, reason = "one episode's operands")]
    fn weights_episode(
        &self,
        lane: &mut Lane<T>,
        t: usize,
        sizes: Sizes,
        targets: [Targets; 2],
        memory: &mut LaneMemory<T>,
        [z, z_query, out, head]: [&mut [T]; 4],
        rates: &mut [T],
    ) -> Result<(T, bool)> {
        if sizes.inner.last_layer {
            self.last_layer(lane, sizes, targets, memory, [z, z_query, out, head, rates])
        } else {
            self.all_layers(lane, t, sizes, targets, memory, [z, z_query, out, head, rates])
        }
    }

    /// Every layer is adapted: the first in Gram space.
    fn all_layers(
        &self,
        lane: &mut Lane<T>,
        t: usize,
        sizes: Sizes,
        [support, query]: [Targets; 2],
        memory: &mut LaneMemory<T>,
        [z, z_query, out, head, rates]: [&mut [T]; 5],
    ) -> Result<(T, bool)> {
        let (n, m) = (sizes.n, sizes.m);
        self.grams(lane, t, memory.index, &mut memory.gram[..n * n], &mut memory.gram_query[..m * n])?;
        if sizes.inner.implicit {
            self.query_gram(lane, t, memory.index, memory.core.back.query_gram)?;
        }
        let phi0 = self.start(lane, &support, z, memory)?;
        let phi0 = if phi0 { &*memory.phi0 } else { self.head };
        let core = Core {
            shape: &self.shapes.whole,
            inner: self.inner,
            sizes,
            rates: StepRates::new(self.inner, &self.shapes.whole, &self.shapes.whole),
            support,
            query,
            grams: Some((matrix(memory.gram, n, n), matrix(memory.gram_query, m, n))),
            z0: z,
            z0_query: z_query,
            phi0,
        };
        let result = core.run_order(lane, &mut memory.core, out, rates)?;
        let core = &memory.core;
        head.copy_from_slice(core.v);
        z_query.copy_from_slice(core.eps);
        copy_or_clear(core.u, z);
        if sizes.inner.prototypes && matches!(self.inner.order, Order::Second | Order::First) {
            self.back_through_start(lane, &support, memory, head, z)?;
        }
        Ok(result)
    }

    /// The last layer alone is adapted: the body forward, the loop on its outputs, the body back.
    fn last_layer(
        &self,
        lane: &mut Lane<T>,
        sizes: Sizes,
        [support, query]: [Targets; 2],
        memory: &mut LaneMemory<T>,
        [z, z_query, out, head, rates]: [&mut [T]; 5],
    ) -> Result<(T, bool)> {
        let (Some(body), last) = (&self.shapes.body, &self.shapes.last) else { return Ok((T::ZERO, true)) };
        let phi = self.head;
        let (body_phi, last_phi) = phi.split_at(body.head_len());
        let mut passes = [
            mlp::Saved::lay_out(body, sizes.n, 0, &mut Carver::over(memory.body)),
            mlp::Saved::lay_out(body, sizes.m, 0, &mut Carver::over(memory.body_query)),
        ];
        for (pass, z) in passes.iter_mut().zip([&*z, &*z_query]) {
            mlp::forward(lane, body, body_phi, z, None, pass)?;
        }
        let [z0, z0_query] = passes.each_ref().map(|pass| pass.out_slice());
        let (whole, width) = (memory.phi0.len(), last.hidden());
        let phi0 = &mut memory.phi0[whole.saturating_sub(last_phi.len())..];
        if sizes.inner.prototypes {
            lane.relu(z0, memory.acts)?;
            proto_maml::prototypes(matrix(memory.acts, sizes.n, width), &support, phi0)?;
        }
        let rates_of = StepRates::new(self.inner, &self.shapes.whole, last);
        let core = Core {
            shape: last,
            inner: self.inner,
            sizes,
            rates: rates_of,
            support,
            query,
            grams: None,
            z0,
            z0_query,
            phi0: if sizes.inner.prototypes { phi0 } else { last_phi },
        };
        let result = core.run_order(lane, &mut memory.core, out, rates)?;
        if sizes.inner.prototypes && matches!(self.inner.order, Order::Second | Order::First) {
            let [v, u, dacts] = [&mut *memory.core.v, &mut *memory.core.u, &mut *memory.core.z];
            proto_maml::back(width, &support, phi0, v, dacts)?;
            lane.relu_mask(memory.acts, dacts)?;
            lane.axpy(T::ONE, dacts, u)?;
        }
        let (body_head, last_head) = head.split_at_mut(body.head_len());
        last_head.copy_from_slice(memory.core.v);
        body_head.fill(T::ZERO);
        for (pass, (adjoint, z)) in passes.iter_mut().zip([(&*memory.core.u, z), (&*memory.core.eps, z_query)]) {
            if adjoint.is_empty() || self.inner.order == Order::Evaluate {
                z.fill(T::ZERO);
                continue;
            }
            pass.set_out_gradient(body, adjoint);
            mlp::backward(lane, body, body_phi, pass, T::ONE, T::ONE, Some(body_head))?;
            z.copy_from_slice(pass.delta(body));
        }
        Ok(result)
    }

    /// Puts the head with prototypes into memory, if the episode starts there; returns whether it does.
    fn start(&self, lane: &mut Lane<T>, support: &Targets, z: &[T], memory: &mut LaneMemory<T>) -> Result<bool> {
        let (true, Some(body)) = (self.inner.start == Start::Prototypes, &self.shapes.body) else { return Ok(false) };
        let (body_phi, _) = self.head.split_at(body.head_len());
        let n = z.len() / body.hidden();
        let mut pass = mlp::Saved::lay_out(body, n, 0, &mut Carver::over(memory.body));
        mlp::forward(lane, body, body_phi, z, None, &mut pass)?;
        lane.relu(pass.out_slice(), memory.acts)?;
        memory.phi0.copy_from_slice(self.head);
        let last = &mut memory.phi0[body.head_len()..];
        proto_maml::prototypes(matrix(memory.acts, n, body.outputs()), support, last)?;
        Ok(true)
    }

    /// Moves the last layer's adjoint in `head` through the prototypes: to the body's part of `head` and to `u`.
    fn back_through_start(
        &self,
        lane: &mut Lane<T>,
        support: &Targets,
        memory: &mut LaneMemory<T>,
        head: &mut [T],
        u: &mut [T],
    ) -> Result<()> {
        let Some(body) = &self.shapes.body else { return Ok(()) };
        let n = u.len() / body.hidden();
        let mut pass = mlp::Saved::lay_out(body, n, 0, &mut Carver::over(memory.body));
        let (dphi, last_bar) = head.split_at_mut(body.head_len());
        let last = &memory.phi0[body.head_len()..];
        proto_maml::back(body.outputs(), support, last, last_bar, pass.out_gradient(body))?;
        lane.relu_mask(memory.acts, pass.out_gradient(body))?;
        let body_phi = &self.head[..body.head_len()];
        mlp::backward(lane, body, body_phi, &mut pass, T::ONE, T::ONE, Some(dphi))?;
        lane.axpy(T::ONE, pass.delta(body), u)
    }

    /// G = X X^T + 1 and G' = X' X^T + 1.
    fn grams(&self, lane: &mut Lane<T>, t: usize, index: &mut [T], gram: &mut [T], gram_query: &mut [T]) -> Result<()> {
        let (rs, rq) = (self.batch.support.range(t), self.batch.query.range(t));
        let (n, m) = (rs.len(), rq.len());
        if self.inner.steps == 0 {
            return Ok(());
        }
        match (&self.batch.support.inputs, &self.batch.query.inputs) {
            (Inputs::Dense(xs), Inputs::Dense(xq)) => {
                let x = xs.rows_range(rs.start, rs.end);
                lane.gram_symmetric(x, matrix_mut(gram, n, n))?;
                lane.gram(xq.rows_range(rq.start, rq.end), x, matrix_mut(gram_query, m, n))
            }
            (Inputs::Bags(xs), Inputs::Bags(xq)) => {
                let x = xs.rows_range(rs.start, rs.end);
                let index = BagIndex::new(x, cast_slice_mut(index))?;
                index.gram(&x, matrix_mut(gram, n, n))?;
                index.gram(&xq.rows_range(rq.start, rq.end), matrix_mut(gram_query, m, n))
            }
            _ => Err(Error::shape("meta-step", "support and query inputs are of different kinds")),
        }
    }

    /// X' X'^T + 1.
    fn query_gram(&self, lane: &mut Lane<T>, t: usize, index: &mut [T], gram: &mut [T]) -> Result<()> {
        let rows = self.batch.query.range(t);
        let gram = matrix_mut(gram, rows.len(), rows.len());
        match &self.batch.query.inputs {
            Inputs::Dense(x) => {
                let x = x.rows_range(rows.start, rows.end);
                lane.gram_symmetric(x, gram)
            }
            Inputs::Bags(x) => {
                let x = x.rows_range(rows.start, rows.end);
                BagIndex::new(x, cast_slice_mut(index))?.gram(&x, gram)
            }
        }
    }
}

impl<T: KernelElement> Core<'_, T> {
    /// Adapts, then goes back as the order asks: leaves the adjoints in `eps`, `v` and `u`. Returns the query loss and
    /// whether the linear system, if there was one, was solved.
    fn run_order(
        &self,
        lane: &mut Lane<T>,
        memory: &mut Memory<T>,
        out: &mut [T],
        rates: &mut [T],
    ) -> Result<(T, bool)> {
        let loss = self.adapt(lane, memory, out)?;
        let mut solved = true;
        match &self.inner.order {
            Order::Second | Order::First if self.sizes.keeps_steps() => self.sweep(lane, memory, rates)?,
            Order::Second | Order::First | Order::Evaluate => {}
            Order::Implicit(solver) => solved = self.implicit(lane, memory, solver)?,
            Order::Displacement => self.displacement(lane, memory)?,
        }
        Ok((loss, solved))
    }

    /// theta - theta_S: W_0 - (W_0 - C^T X) = C^T X, so C takes the adjoint's place.
    fn displacement(&self, lane: &mut Lane<T>, memory: &mut Memory<T>) -> Result<()> {
        memory.u.copy_from_slice(memory.state.c);
        memory.v.copy_from_slice(self.phi0);
        lane.axpy(-T::ONE, memory.state.phi, memory.v)
    }
}

/// An empty source stands for zeros.
fn copy_or_clear<T: KernelElement>(src: &[T], dst: &mut [T]) {
    if src.is_empty() { scale(T::ZERO, dst) } else { dst.copy_from_slice(src) }
}
