//! An episode of CAVIA: the inner loop moves a context c, inputs that all examples share, so a step moves all rows of Z
//! alike. No Gram matrix is needed; with Wc (K x H) the weights of the context, phi the head, 1 a column of ones:
//!
//! ```text
//! Z_k     = Z_0 + 1 (c_k Wc)               delta_k = gradient of the head's mean support loss at (Z_k, phi)
//! s_k     = column sums of delta_k         c_{k+1} = c_k - a Wc s_k,   c_0 = 0
//! Z'      = Z'_0 + 1 (c_S Wc)              (eps, v) = gradient of the query loss at (Z', phi)
//! ```
//!
//! Back, with e the column sums of eps: Wc_bar = c_S^T e, c_bar = Wc e, u = 0, and for k = S-1..0
//!
//! ```text
//! g_bar   = -a c_bar                       Wc_bar += g_bar^T s_k
//! (dZ, dphi) = HVP of the head's support loss at (Z_k, phi) along (1 (g_bar Wc), 0)
//! u += dZ,   v += dphi                     d = column sums of dZ:  c_bar += Wc d,   Wc_bar += c_k^T d
//! ```
#![forbid(unsafe_code)]

use super::episode::Step;
use super::memory::Sizes;
use crate::backend::{Carver, Lane, matrix, matrix_mut};
use crate::cpu::KernelElement;
use crate::error::Result;
use crate::meta::{Order, Rates, cavia};
use crate::model::{MlpShape, Targets, mlp};

/// The pieces of one lane's memory.
pub(super) struct ContextMemory<'a, T> {
    /// Wc.
    weights: &'a mut [T],
    /// c_0..c_S where they are kept, otherwise the present one.
    contexts: &'a mut [T],
    /// The passes over the support set: all, or one that is computed again.
    passes: &'a mut [T],
    z: &'a mut [T],
    query: &'a mut [T],
    u: &'a mut [T],
    rz: &'a mut [T],
    scratch: &'a mut [T],
    /// Column sums, and what a context adds to each row of Z.
    sums: &'a mut [T],
    shift: &'a mut [T],
    c_bar: &'a mut [T],
    g_bar: &'a mut [T],
}

impl<'a, T> ContextMemory<'a, T> {
    pub fn lay_out(shape: &MlpShape, s: &Sizes, memory: &mut Carver<'a, T>) -> Self {
        let (h, k, back) = (shape.hidden(), s.inner.context, s.keeps_steps());
        let pass = |n, loss| mlp::Saved::<T>::len(shape, n, loss);
        Self {
            weights: memory.take(k * h),
            contexts: memory.take((s.inner.saved_steps + 1) * k),
            passes: memory.take(pass(s.n, s.support_loss) * if s.checkpoints > 0 { 1 } else { s.segment }),
            z: memory.take(s.n * h),
            query: memory.take(pass(s.m, s.query_loss)),
            u: memory.take_if(back, s.n * h),
            rz: memory.take_if(back, s.n * h),
            scratch: memory.take_if(back, mlp::scratch_len(shape, s.n)),
            sums: memory.take(h),
            shift: memory.take(h),
            c_bar: memory.take_if(back, k),
            g_bar: memory.take_if(back, k),
        }
    }
}

/// One episode: its targets and the model.
pub(super) struct Context<'a, T: KernelElement> {
    pub step: &'a Step<'a, T>,
    pub sizes: Sizes,
    pub support: Targets<'a>,
    pub query: Targets<'a>,
}

impl<T: KernelElement> Context<'_, T> {
    /// From Z_0 and Z'_0 to their adjoints in their places, the head's gradient and that of Wc (context x hidden). Returns
    /// the query loss.
    pub fn run(
        &self,
        lane: &mut Lane<T>,
        memory: &mut ContextMemory<T>,
        [z0, z0_query, out, head, weights_bar]: [&mut [T]; 5],
    ) -> Result<T> {
        let (shape, phi, k) = (&self.step.shapes.whole, self.step.head, self.sizes.inner.context);
        cavia::weights(shape, k, self.step.first, memory.weights);
        self.adapt(lane, memory, z0)?;
        let last = self.slot(self.step.inner.steps) * k;
        let (m, c, h) = (self.sizes.m, shape.outputs(), shape.hidden());
        let context = &memory.contexts[last..][..k];
        shift(lane, context, memory.weights, memory.shift)?;
        z0_query.chunks_exact_mut(h).try_for_each(|row| lane.axpy(T::ONE, memory.shift, row))?;
        let mut saved = mlp::Saved::lay_out(shape, m, self.sizes.query_loss, &mut Carver::over(memory.query));
        let targets = Some((&self.query, self.query.scale(m, c)));
        let loss = mlp::forward(lane, shape, phi, z0_query, targets, &mut saved)?;
        out.copy_from_slice(saved.out_slice());
        if self.step.inner.order == Order::Evaluate {
            return Ok(loss);
        }
        mlp::backward(lane, shape, phi, &mut saved, T::ONE, T::ZERO, Some(head))?;
        z0_query.copy_from_slice(saved.delta(shape));
        lane.col_sum(T::ONE, matrix(z0_query, m, h), T::ZERO, memory.sums)?;
        weights_bar.fill(T::ZERO);
        add_outer(lane, context, memory.sums, weights_bar)?;
        if self.sizes.keeps_steps() {
            self.sweep(lane, memory, z0, head, weights_bar)?;
            z0.copy_from_slice(memory.u);
        } else {
            z0.fill(T::ZERO);
        }
        Ok(loss)
    }

    /// Where c_k lies among the kept ones.
    fn slot(&self, k: usize) -> usize {
        if self.sizes.keeps_steps() { k } else { 0 }
    }

    fn rate(&self) -> T {
        match self.step.inner.rates {
            Rates::Same(lr) => T::from_f64(lr),
            // Refused when the loop was validated.
            _ => T::ZERO,
        }
    }

    fn adapt(&self, lane: &mut Lane<T>, memory: &mut ContextMemory<T>, z0: &[T]) -> Result<()> {
        let (k, h) = (self.sizes.inner.context, self.step.shapes.whole.hidden());
        memory.contexts.fill(T::ZERO);
        for step in 0..self.step.inner.steps {
            self.support_pass(lane, memory, z0, step)?;
            let (from, to) = (self.slot(step) * k, self.slot(step + 1) * k);
            memory.contexts.copy_within(from..from + k, to);
            let (weights, next) = (matrix(memory.weights, k, h), &mut memory.contexts[to..][..k]);
            lane.gemm_nt(-self.rate(), matrix(memory.sums, 1, h), weights, T::ONE, matrix_mut(next, 1, k))?;
        }
        Ok(())
    }

    /// The pass over the support set at c_step; leaves s_step in `sums`.
    fn support_pass(&self, lane: &mut Lane<T>, memory: &mut ContextMemory<T>, z0: &[T], step: usize) -> Result<()> {
        let (shape, phi) = (&self.step.shapes.whole, self.step.head);
        let (n, h, k) = (self.sizes.n, shape.hidden(), self.sizes.inner.context);
        shift(lane, &memory.contexts[self.slot(step) * k..][..k], memory.weights, memory.shift)?;
        memory.z.copy_from_slice(z0);
        memory.z.chunks_exact_mut(h).try_for_each(|row| lane.axpy(T::ONE, memory.shift, row))?;
        let mut saved = saved(shape, &self.sizes, memory.passes, self.pass(step));
        let targets = Some((&self.support, self.support.scale(n, shape.outputs())));
        mlp::forward(lane, shape, phi, memory.z, targets, &mut saved)?;
        mlp::backward(lane, shape, phi, &mut saved, T::ONE, T::ZERO, None)?;
        lane.col_sum(T::ONE, matrix(saved.delta(shape), n, h), T::ZERO, memory.sums)
    }

    /// Which pass is that of a step.
    fn pass(&self, step: usize) -> usize {
        if self.sizes.keeps_steps() && self.sizes.checkpoints == 0 { step } else { 0 }
    }

    /// The way back, with e in `sums`.
    fn sweep(
        &self,
        lane: &mut Lane<T>,
        memory: &mut ContextMemory<T>,
        z0: &[T],
        head: &mut [T],
        weights_bar: &mut [T],
    ) -> Result<()> {
        let (shape, phi) = (&self.step.shapes.whole, self.step.head);
        let (n, h, k) = (self.sizes.n, shape.hidden(), self.sizes.inner.context);
        let loss = (&self.support, self.support.scale(n, shape.outputs()));
        memory.u.fill(T::ZERO);
        memory.c_bar.fill(T::ZERO);
        back_shift(lane, memory.sums, memory.weights, memory.c_bar)?;
        for step in (0..self.step.inner.steps).rev() {
            if self.sizes.checkpoints > 0 {
                self.support_pass(lane, memory, z0, step)?;
            }
            let mut saved = saved(shape, &self.sizes, memory.passes, self.pass(step));
            lane.col_sum(T::ONE, matrix(saved.delta(shape), n, h), T::ZERO, memory.sums)?;
            memory.g_bar.fill(T::ZERO);
            lane.axpy(-self.rate(), memory.c_bar, memory.g_bar)?;
            add_outer(lane, memory.g_bar, memory.sums, weights_bar)?;
            shift(lane, memory.g_bar, memory.weights, memory.shift)?;
            memory.rz.chunks_exact_mut(h).for_each(|row| row.copy_from_slice(memory.shift));
            let along = mlp::Direction::Zero;
            mlp::rop(lane, shape, phi, loss, &mut saved, along, head, memory.rz, memory.scratch)?;
            lane.axpy(T::ONE, memory.rz, memory.u)?;
            lane.col_sum(T::ONE, matrix(memory.rz, n, h), T::ZERO, memory.sums)?;
            back_shift(lane, memory.sums, memory.weights, memory.c_bar)?;
            add_outer(lane, &memory.contexts[step * k..][..k], memory.sums, weights_bar)?;
        }
        Ok(())
    }
}

/// Pass `i` over the support set.
fn saved<'m, T>(shape: &MlpShape, s: &Sizes, passes: &'m mut [T], i: usize) -> mlp::Saved<'m, T> {
    let len = mlp::Saved::<T>::len(shape, s.n, s.support_loss);
    mlp::Saved::lay_out(shape, s.n, s.support_loss, &mut Carver::over(&mut passes[i * len..][..len]))
}

/// `dst = c Wc`.
fn shift<T: KernelElement>(lane: &mut Lane<T>, c: &[T], weights: &[T], dst: &mut [T]) -> Result<()> {
    let (k, h) = (c.len(), dst.len());
    lane.gemm_nn(T::ONE, matrix(c, 1, k), matrix(weights, k, h), T::ZERO, matrix_mut(dst, 1, h))
}

/// `c_bar += Wc sums`.
fn back_shift<T: KernelElement>(lane: &mut Lane<T>, sums: &[T], weights: &[T], c_bar: &mut [T]) -> Result<()> {
    let (k, h) = (c_bar.len(), sums.len());
    lane.gemm_nt(T::ONE, matrix(sums, 1, h), matrix(weights, k, h), T::ONE, matrix_mut(c_bar, 1, k))
}

/// `dst += c^T sums`, context x hidden.
fn add_outer<T: KernelElement>(lane: &mut Lane<T>, c: &[T], sums: &[T], dst: &mut [T]) -> Result<()> {
    let (k, h) = (c.len(), sums.len());
    lane.gemm_tn(T::ONE, matrix(c, 1, k), matrix(sums, 1, h), T::ONE, matrix_mut(dst, k, h))
}
