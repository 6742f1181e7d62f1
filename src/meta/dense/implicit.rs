//! The implicit gradient in the plain form: conjugate gradients on (I + H / lambda) g = b over all weights. And the
//! Hessian product by itself.
#![forbid(unsafe_code)]

use super::steps::Direction;
use super::{Dense, Examples, flatten};
use crate::cpu::KernelElement;
use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::meta::{ConjugateGradient, InnerLoop, Limits, MetaBatch, Order, dot};
use crate::model::Params;

impl<T: KernelElement> Dense<T> {
    /// Replaces the query gradient in `v` by the solution; returns whether the residual fell below the tolerance.
    pub(super) fn implicit(
        &mut self,
        support: &Examples<T>,
        inner: &InnerLoop,
        solver: &ConjugateGradient,
    ) -> Result<bool> {
        let (at, over) = (inner.steps % 2, 1.0 / inner.proximal);
        let tolerance = solver.tolerance.max(if T::DTYPE == Dtype::F32 { 1e-6 } else { 1e-15 });
        let norm = dot(&self.v, &self.v);
        // Start at g = b: the residual is -H b / lambda. The direction is `m_bar`, the residual `pulled`.
        self.m_bar.copy_from_slice(&self.v);
        self.hessian_product(support, at, Direction::Velocity)?;
        self.pulled.fill(T::ZERO);
        self.lane.axpy(T::from_f64(-over), &self.hv, &mut self.pulled)?;
        self.m_bar.copy_from_slice(&self.pulled);
        let mut rr = dot(&self.pulled, &self.pulled);
        for _ in 0..solver.iterations {
            if rr <= tolerance * tolerance * norm {
                return Ok(true);
            }
            self.hessian_product(support, at, Direction::Velocity)?;
            let step = rr / (dot(&self.m_bar, &self.m_bar) + over * dot(&self.m_bar, &self.hv));
            if !step.is_finite() {
                return Ok(false);
            }
            self.lane.axpy(T::from_f64(step), &self.m_bar, &mut self.v)?;
            self.lane.axpy(T::from_f64(-step), &self.m_bar, &mut self.pulled)?;
            self.lane.axpy(T::from_f64(-step * over), &self.hv, &mut self.pulled)?;
            let next = dot(&self.pulled, &self.pulled);
            let turn = T::from_f64(next / rr);
            self.m_bar.iter_mut().zip(&self.pulled).for_each(|(p, &r)| *p = r + turn * *p);
            rr = next;
        }
        Ok(rr <= tolerance * tolerance * norm)
    }

    /// The mean over the episodes of (Hessian of the mean support loss at `params`) times `v`, written to `hv`, and each
    /// episode's support loss. Fails where the batch or `v` does not fit the model or the plan.
    pub fn support_hvp(
        &mut self,
        params: &Params<T>,
        batch: &MetaBatch<T>,
        v: &Params<T>,
        hv: &mut Params<T>,
        losses: &mut Vec<T>,
    ) -> Result<()> {
        let shape = self.shapes.whole.clone();
        let fits = params.shape == shape && v.shape == shape && hv.shape == shape;
        let plain = InnerLoop::sgd(0, 0.0, Order::Evaluate);
        if !fits || !self.limits.covers(&Limits::of(batch, &plain)) {
            return Err(Error::shape("hvp", "weights, direction or batch are not those the workspace was planned for"));
        }
        batch.validate(&shape)?;
        let (p, first, h) = (shape.len(), shape.first_len(), shape.hidden());
        flatten(params, &mut self.thetas[..p]);
        flatten(v, &mut self.m_bar);
        self.sum.fill(T::ZERO);
        losses.clear();
        let mean = T::ONE / T::from_f64(batch.episodes().max(1) as f64);
        for t in 0..batch.episodes() {
            let support = Examples { set: &batch.support, t, shape: &shape };
            losses.push(self.hessian_product(&support, 0, Direction::Velocity)?);
            self.lane.axpy(mean, &self.hv, &mut self.sum)?;
        }
        hv.first.copy_from_slice(&self.sum[..first]);
        hv.bias.copy_from_slice(&self.sum[first..first + h]);
        hv.head.copy_from_slice(&self.sum[first + h..]);
        Ok(())
    }
}
