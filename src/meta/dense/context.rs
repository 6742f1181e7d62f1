//! CAVIA in the plain form: every pass goes through the first layer, with the context c as inputs of every example (letters
//! as in `gram_space::context`).
//!
//! ```text
//! z = x W1^T + 1 (c Wc) + b1       dW1 = dz^T x,  dWc = c^T (column sums of dz),  dc = Wc (column sums of dz)
//! ```
#![forbid(unsafe_code)]

use super::steps::pass;
use super::{Dense, Examples, flatten};
use crate::backend::matrix;
use crate::cpu::KernelElement;
use crate::error::Result;
use crate::meta::{InnerLoop, MetaBatch, Order, Rates, cavia};
use crate::model::{MlpShape, Params, mlp};

/// Lengths of the vectors the context needs: all c_k, Wc, one pair of row and context sums.
pub(super) fn len(shape: &MlpShape, context: usize, kept_steps: usize) -> usize {
    if context == 0 {
        0
    } else {
        (kept_steps + 1) * context + context * shape.hidden() + 2 * (shape.hidden() + context)
    }
}

impl<T: KernelElement> Dense<T> {
    /// Leaves the episode's gradient in `v`; returns its query loss.
    pub(super) fn context_episode(
        &mut self,
        params: &Params<T>,
        batch: &MetaBatch<T>,
        inner: &InnerLoop,
        t: usize,
    ) -> Result<T> {
        let shape = self.shapes.whole.clone();
        let sets = [&batch.support, &batch.query].map(|set| Examples { set, t, shape: &shape });
        flatten(params, &mut self.thetas[..shape.len()]);
        let mut memory = std::mem::take(&mut self.context);
        let loss = self.context_steps(params, sets, inner, &mut memory);
        self.context = memory;
        loss
    }

    fn context_steps(
        &mut self,
        params: &Params<T>,
        [support, query]: [Examples<T>; 2],
        inner: &InnerLoop,
        memory: &mut [T],
    ) -> Result<T> {
        let (shape, k) = (support.shape, inner.context());
        let kept = usize::from(inner.keeps_steps());
        let (contexts, rest) = memory.split_at_mut((kept * inner.steps + 1) * k);
        let (weights, rest) = rest.split_at_mut(k * shape.hidden());
        let (sums, rest) = rest.split_at_mut(shape.hidden());
        let (shift, rest) = rest.split_at_mut(shape.hidden());
        let (dc, c_bar) = rest[..2 * k].split_at_mut(k);
        cavia::weights(shape, k, |i| params.first[i], weights);
        contexts.fill(T::ZERO);
        let Rates::Same(lr) = inner.rates else { unreachable!("validated: one rate") };
        let lr = T::from_f64(lr);
        for step in 0..inner.steps {
            let c = &contexts[kept * step * k..][..k];
            times(c, weights, shift);
            self.context_pass(&support, shift, sums)?;
            products(weights, sums, dc);
            for i in 0..k {
                contexts[kept * (step + 1) * k + i] = contexts[kept * step * k + i] - lr * dc[i];
            }
        }
        let c = &contexts[kept * inner.steps * k..][..k];
        times(c, weights, shift);
        let loss = self.context_pass(&query, shift, sums)?;
        self.keep_outputs(&query);
        self.v.copy_from_slice(&self.g);
        add_outer(shape, c, sums, &mut self.v);
        if inner.order == Order::Second {
            products(weights, sums, c_bar);
            for step in (0..inner.steps).rev() {
                let c = &contexts[step * k..][..k];
                times(c, weights, shift);
                self.context_pass(&support, shift, sums)?;
                let g_bar = &mut *dc;
                g_bar.iter_mut().zip(&*c_bar).for_each(|(g, &c)| *g = -lr * c);
                add_outer(shape, g_bar, sums, &mut self.v);
                times(g_bar, weights, shift);
                self.context_hessian_product(&support, shift, sums)?;
                self.lane.axpy(T::ONE, &self.hv, &mut self.v)?;
                add_outer(shape, c, sums, &mut self.v);
                products(weights, sums, dc);
                c_bar.iter_mut().zip(&*dc).for_each(|(c, &d)| *c += d);
            }
        }
        Ok(loss)
    }

    /// The loss of a set with `shift` added to each row of z; the weights' gradient goes to `g` (0 for Wc), the column sums
    /// of dz to `sums`.
    fn context_pass(&mut self, examples: &Examples<T>, shift: &[T], sums: &mut [T]) -> Result<T> {
        let (shape, n, h) = (examples.shape, examples.len(), examples.shape.hidden());
        let theta = &self.thetas[..shape.len()];
        let z = &mut self.z[..n * h];
        examples.forward(&mut self.lane, theta, z)?;
        z.chunks_exact_mut(h).try_for_each(|row| self.lane.axpy(T::ONE, shift, row))?;
        let targets = examples.set.targets(examples.t);
        let loss = Some((&targets, targets.scale(n, shape.outputs())));
        let (mut saved, front) = (pass(&mut self.saved, examples), shape.first_len() + h);
        let loss = mlp::forward(&mut self.lane, shape, &theta[front..], z, loss, &mut saved)?;
        let head = Some(&mut self.g[front..]);
        mlp::backward(&mut self.lane, shape, &theta[front..], &mut saved, T::ONE, T::ZERO, head)?;
        examples.gradient(&mut self.lane, saved.delta(shape), &mut self.g)?;
        self.lane.col_sum(T::ONE, matrix(saved.delta(shape), n, h), T::ZERO, sums)?;
        Ok(loss)
    }

    /// After [`Dense::context_pass`] on the same set: `hv` = the Hessian product along `shift` on every row of z, first the
    /// part of x, with the column sums of dz in `sums`.
    fn context_hessian_product(&mut self, examples: &Examples<T>, shift: &[T], sums: &mut [T]) -> Result<()> {
        let (shape, n, h) = (examples.shape, examples.len(), examples.shape.hidden());
        let targets = examples.set.targets(examples.t);
        let loss = (&targets, targets.scale(n, shape.outputs()));
        let (mut saved, front) = (pass(&mut self.saved, examples), shape.first_len() + h);
        let rz = &mut self.z[..n * h];
        rz.chunks_exact_mut(h).for_each(|row| row.copy_from_slice(shift));
        let (phi, head) = (&self.thetas[front..shape.len()], &mut self.hv[front..]);
        head.fill(T::ZERO);
        let along = mlp::Direction::Zero;
        mlp::rop(&mut self.lane, shape, phi, loss, &mut saved, along, head, rz, &mut self.scratch)?;
        examples.gradient(&mut self.lane, rz, &mut self.hv)?;
        self.lane.col_sum(T::ONE, matrix(rz, n, h), T::ZERO, sums)
    }
}

/// `dst = c Wc`.
fn times<T: KernelElement>(c: &[T], weights: &[T], dst: &mut [T]) {
    dst.fill(T::ZERO);
    for (&c, row) in c.iter().zip(weights.chunks_exact(dst.len())) {
        dst.iter_mut().zip(row).for_each(|(d, &w)| *d += c * w);
    }
}

/// `dst = Wc sums`.
fn products<T: KernelElement>(weights: &[T], sums: &[T], dst: &mut [T]) {
    for (d, row) in dst.iter_mut().zip(weights.chunks_exact(sums.len())) {
        *d = row.iter().zip(sums).fold(T::ZERO, |sum, (&w, &s)| sum + w * s);
    }
}

/// Adds c^T sums to the context's weights at the front of `v`.
fn add_outer<T: KernelElement>(shape: &MlpShape, c: &[T], sums: &[T], v: &mut [T]) {
    for (i, &c_i) in c.iter().enumerate() {
        for (unit, &s) in sums.iter().enumerate() {
            v[cavia::place(shape, c.len(), i, unit)] += c_i * s;
        }
    }
}
