//! The way forward: inner steps on the pre-activations, and the query pass.
//!
//! The first layer after k steps is p_k W_0 - C_k^T X, its velocity q_k W_0 + E_k^T X: scalars and N x H coefficients.
//! With momentum mu, weight decay w and a pull l to the initial weights,
//!
//! ```text
//! Z_k     = p_k Z_0 - G C_k                       (delta_k, g_k) = gradient of the head's mean loss at (Z_k, phi_k)
//! E_{k+1} = mu E_k + delta_k - (w + l) C_k        m_{k+1} = mu m_k + g_k + w phi_k + l (phi_k - phi_0)
//! q_{k+1} = mu q_k + w p_k + l (p_k - 1)
//! C_{k+1} = C_k + E_{k+1} A_k                     phi_{k+1} = phi_k - A_k m_{k+1}        p_{k+1} = p_k - a q_{k+1}
//! Z'      = p_S Z'_0 - G' C_S
//! ```
//!
//! and for plain SGD p = 1, E = delta, m = g, C_{k+1} = C_k + a delta_k, without a velocity in memory.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::memory::{Memory, Sizes, Slot, State, saved_pass, slot};
use super::rates::{StepRates, scale};
use crate::backend::{Carver, Finish, Form, Lane, matrix, matrix_mut};
use crate::cpu::KernelElement;
use crate::error::{Error, Result};
use crate::meta::{InnerLoop, Order};
use crate::model::{MlpShape, Targets, mlp};
use crate::view::MatRef;

/// One episode as seen from the first layer's pre-activations (with a frozen body: from the last hidden layer's).
pub(super) struct Core<'a, T> {
    pub shape: &'a MlpShape,
    pub inner: &'a InnerLoop<'a>,
    pub sizes: Sizes,
    pub rates: StepRates<'a>,
    pub support: Targets<'a>,
    pub query: Targets<'a>,
    /// G and G'; not there where the first layer is frozen.
    pub grams: Option<(MatRef<'a, T>, MatRef<'a, T>)>,
    pub z0: &'a [T],
    pub z0_query: &'a [T],
    pub phi0: &'a [T],
}

impl<T: KernelElement> Core<'_, T> {
    /// All steps and the query loss (or its weighted sum). Leaves the query outputs in `out`; unless it only evaluates,
    /// the query gradient in `eps` and `v`, or in the slots where there is a loss after every step.
    pub fn adapt(&self, lane: &mut Lane<T>, memory: &mut Memory<T>, out: &mut [T]) -> Result<T> {
        self.begin(memory);
        let mut loss = T::ZERO;
        for (i, segment) in self.segments().enumerate() {
            if i < self.sizes.checkpoints {
                memory.keep(self.shape, i);
            }
            loss += self.run(lane, memory, segment)?;
        }
        if self.inner.step_weights.is_empty() {
            loss = self.query_pass(lane, memory, self.inner.steps, T::ONE, None)?;
        }
        let query = self.saved_query(memory.query);
        let rows = out.chunks_exact_mut(self.shape.outputs()).enumerate();
        rows.for_each(|(i, row)| row.copy_from_slice(query.out(self.shape).row(i)));
        Ok(loss)
    }

    fn begin(&self, memory: &mut Memory<T>) {
        let state = &mut memory.state;
        state.c.fill(T::ZERO);
        state.phi.copy_from_slice(self.phi0);
        state.coefficient_velocity.fill(T::ZERO);
        state.head_velocity.fill(T::ZERO);
        if let [p, q] = state.shares {
            (*p, *q) = (T::ONE, T::ZERO);
        }
        memory.eps.fill(T::ZERO);
        memory.u.fill(T::ZERO);
        memory.v.fill(T::ZERO);
    }

    /// The steps cut where a state is kept; one piece where nothing is computed twice.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = Range<usize>> + ExactSizeIterator + use<T> {
        let steps = self.inner.steps;
        let length = if self.sizes.keeps_steps() { self.sizes.segment } else { steps.max(1) };
        (0..steps.div_ceil(length)).map(move |i| i * length..steps.min((i + 1) * length))
    }

    /// Steps `range`, with the query losses after them where those count. Returns their weighted sum.
    pub fn run(&self, lane: &mut Lane<T>, memory: &mut Memory<T>, range: Range<usize>) -> Result<T> {
        let mut loss = T::ZERO;
        for k in range.clone() {
            let i = if self.sizes.keeps_steps() { k - range.start } else { 0 };
            self.step(lane, memory, k, i)?;
            if !self.inner.step_weights.is_empty() {
                let weight = T::from_f64(self.inner.step_weights[k]);
                let kept = self.sizes.keeps_steps().then_some(i);
                loss += weight * self.query_pass(lane, memory, k + 1, weight, kept)?;
            }
        }
        Ok(loss)
    }

    /// Step k, whose values go to slot i.
    fn step(&self, lane: &mut Lane<T>, memory: &mut Memory<T>, k: usize, i: usize) -> Result<()> {
        let Memory { state, z, delta, slots, pass, .. } = memory;
        let mut slot = slot(self.shape, &self.sizes, slots, pass, i);
        slot.phi.copy_from_slice(state.phi);
        if let ([share], [p, _]) = (&mut *slot.share, &*state.shares) {
            *share = *p;
        }
        let gram = self.grams.map(|g| g.0);
        if let (Some(rate), false) = (self.rates.single(), self.sizes.forms_velocities()) {
            let mut saved = saved_pass(slot.pass, self.shape, &self.support, self.sizes.n);
            let (first, relu) = (saved.first_mut(self.shape), self.shape.layers() > 1);
            self.pre_activations(lane, gram, k, state, self.z0, first, relu)?;
            return self.plain_step(lane, rate, state, slot.phi, &mut saved);
        }
        self.pre_activations(lane, gram, k, state, self.z0, z, false)?;
        if !slot.z.is_empty() {
            slot.z.copy_from_slice(z);
        }
        self.velocity_step(lane, k, state, &mut slot, z, delta)
    }

    /// `z = p z0 - gram c`, after `k` steps; of that the positive part if `relu`. One pass over each of them.
    #[expect(clippy::too_many_arguments, reason = "the formula's operands")]
    pub fn pre_activations(
        &self,
        lane: &mut Lane<T>,
        gram: Option<MatRef<T>>,
        k: usize,
        state: &State<T>,
        z0: &[T],
        z: &mut [T],
        relu: bool,
    ) -> Result<()> {
        let share = state.shares.first().copied().unwrap_or(T::ONE);
        match gram {
            Some(gram) if k > 0 => {
                let h = self.shape.hidden();
                let (rows, c) = (gram.rows(), matrix(state.c, gram.cols(), h));
                let finish = Finish { old: Some(matrix(z0, rows, h)), relu, ..Finish::scaled(-T::ONE, share) };
                lane.product(Form::Nn, gram, c, matrix_mut(z, rows, h), finish)
            }
            // Before the first step, and where the first layer is frozen, the share is 1.
            _ if relu => lane.relu(z0, z),
            _ => {
                z.copy_from_slice(z0);
                Ok(())
            }
        }
    }

    /// A step of plain SGD from what `saved` holds of the first layer: C takes its gradient as it is formed.
    fn plain_step(
        &self,
        lane: &mut Lane<T>,
        rate: T,
        state: &mut State<T>,
        phi: &[T],
        saved: &mut mlp::Saved<T>,
    ) -> Result<()> {
        let loss = Some((&self.support, self.support_scale()));
        mlp::forward_from_first(lane, self.shape, phi, loss, saved)?;
        let first = match &mut *state.c {
            [] => mlp::FirstGradient::Unused,
            c => mlp::FirstGradient::AddedTo(c, rate),
        };
        mlp::backward_to(lane, self.shape, phi, saved, -rate, T::ONE, Some(state.phi), first)
    }

    fn velocity_step(
        &self,
        lane: &mut Lane<T>,
        k: usize,
        state: &mut State<T>,
        slot: &mut Slot<T>,
        z: &[T],
        delta: &mut [T],
    ) -> Result<()> {
        let (momentum, decay) = self.inner.momentum_and_decay();
        let [mu, w, l] = [momentum, decay, self.inner.proximal].map(T::from_f64);
        scale(mu, state.head_velocity);
        if self.sizes.inner.decay {
            lane.axpy(w + l, slot.phi, state.head_velocity)?;
            lane.axpy(-l, self.phi0, state.head_velocity)?;
        }
        self.support_gradient(lane, slot, z, delta, state.head_velocity)?;
        self.rates.subtract_head(lane, self.shape, k, T::ONE, state.head_velocity, state.phi)?;
        if self.grams.is_some() {
            let e = &mut *state.coefficient_velocity;
            if delta.is_empty() {
                let saved = saved_pass(slot.pass, self.shape, &self.support, self.sizes.n);
                lane.axpby(T::ONE, saved.delta(self.shape), mu, e)?;
            } else {
                lane.axpby(T::ONE, delta, mu, e)?;
            }
            if self.sizes.inner.decay {
                lane.axpy(-(w + l), state.c, e)?;
            }
            self.rates.scale_first(lane, k, (T::ONE, self.shape.hidden()), e, state.c)?;
        }
        if let ([p, q], Some(rate)) = (&mut *state.shares, self.rates.single::<T>()) {
            *q = mu * *q + w * *p + l * (*p - T::ONE);
            *p -= rate * *q;
        }
        if self.sizes.inner.rates > 0 {
            slot.coefficient_velocity.copy_from_slice(state.coefficient_velocity);
            slot.head_velocity.copy_from_slice(state.head_velocity);
        }
        Ok(())
    }

    /// Adds the head's gradient to `dphi`, over all rows or one micro-batch after the other; then delta's rows are
    /// gathered in `delta`.
    fn support_gradient(
        &self,
        lane: &mut Lane<T>,
        slot: &mut Slot<T>,
        z: &[T],
        delta: &mut [T],
        dphi: &mut [T],
    ) -> Result<()> {
        let h = self.shape.hidden();
        for rows in self.sizes.passes() {
            let targets = self.rows(&rows)?;
            let own = rows.start * h..rows.end * h;
            let loss = Some((&targets, self.support_scale()));
            let mut saved = saved_pass(slot.pass, self.shape, &targets, rows.len());
            mlp::forward(lane, self.shape, slot.phi, &z[own.clone()], loss, &mut saved)?;
            mlp::backward(lane, self.shape, slot.phi, &mut saved, T::ONE, T::ONE, Some(&mut *dphi))?;
            if !delta.is_empty() {
                delta[own].copy_from_slice(saved.delta(self.shape));
            }
        }
        Ok(())
    }

    /// 1 over the number of terms of the support loss, also where a pass holds only some of them.
    pub fn support_scale(&self) -> T {
        self.support.scale(self.sizes.n, self.shape.outputs())
    }

    /// The targets of some support rows.
    pub fn rows(&self, rows: &Range<usize>) -> Result<Targets<'_>> {
        if rows.len() == self.sizes.n {
            return Ok(self.support);
        }
        let refused = || Error::config("micro_batch", "this loss joins the rows of an episode: it can't be cut");
        self.support.rows(rows.clone(), self.shape.outputs()).ok_or_else(refused)
    }

    /// The query loss after `k` steps; its gradient, times `weight`, goes to slot `slot`, or is added to `eps` and `v`.
    fn query_pass(
        &self,
        lane: &mut Lane<T>,
        memory: &mut Memory<T>,
        k: usize,
        weight: T,
        slot_index: Option<usize>,
    ) -> Result<T> {
        let Memory { state, query, eps, v, slots, pass, .. } = memory;
        let mut saved = self.saved_query(query);
        let (first, relu) = (saved.first_mut(self.shape), self.shape.layers() > 1);
        self.pre_activations(lane, self.grams.map(|g| g.1), k, state, self.z0_query, first, relu)?;
        let targets = Some((&self.query, self.query.scale(self.sizes.m, self.shape.outputs())));
        let loss = mlp::forward_from_first(lane, self.shape, state.phi, targets, &mut saved)?;
        if matches!(self.inner.order, Order::Evaluate | Order::Displacement) {
            return Ok(loss);
        }
        let mut place = slot_index.map(|i| slot(self.shape, &self.sizes, slots, pass, i));
        let (beta, eps, v) = match &mut place {
            Some(slot) => (T::ZERO, &mut *slot.eps, &mut *slot.dphi_query),
            None => (T::ONE, &mut **eps, &mut **v),
        };
        scale(beta, eps);
        let first = mlp::FirstGradient::AddedTo(eps, weight);
        mlp::backward_to(lane, self.shape, state.phi, &mut saved, weight, beta, Some(v), first)?;
        Ok(loss)
    }

    fn saved_query<'m>(&self, memory: &'m mut [T]) -> mlp::Saved<'m, T> {
        mlp::Saved::lay_out(self.shape, self.sizes.m, self.sizes.query_loss, &mut Carver::over(memory))
    }
}
