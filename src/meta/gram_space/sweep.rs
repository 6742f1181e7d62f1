//! The way back: exact second order, one Hessian-vector product of the head a step.
//!
//! A bar is the adjoint, the derivative of the query loss; the head's gradient map has a symmetric Jacobian, its Hessian.
//! From C_bar = -G'^T eps and phi_bar = v at step S, for k = S-1..0 (letters as in `steps`):
//!
//! ```text
//! A_bar_k     = column sums of C_bar * E_{k+1},  -(v * m_{k+1})
//! E_bar       = mu E_bar + C_bar A_k              m_bar = mu m_bar - A_k v
//! C_bar      -= (w + l) E_bar                     v    += (w + l) m_bar,   phi_0_bar -= l m_bar
//! (dZ, dphi)  = HVP of the head's support loss at (Z_k, phi_k) along (E_bar, m_bar)
//! C_bar      -= G dZ                              v    += dphi,            u += p_k dZ
//! ```
//!
//! u is the adjoint of Z_0, p_S eps that of Z'_0. In first order the inner gradients are constants, and only the first line
//! remains.
//!
//! For plain SGD (E_bar, m_bar) = a (C_bar, -v) and C_bar = B - G u, where B is what the query losses added. So C_bar is
//! never kept: one product reads G, u and B and leaves G u - B, masked by the step's ReLU, where the Hessian product along
//! (G u - B, v) begins, which ends by adding -a times its parts to u and v.
#![forbid(unsafe_code)]

use super::memory::{Back, Memory, Slot, saved_pass, slot};
use super::rates::scale;
use super::steps::Core;
use crate::backend::{Finish, Form, Lane, Mask, matrix, matrix_mut};
use crate::cpu::KernelElement;
use crate::error::Result;
use crate::meta::Order;
use crate::model::mlp;

impl<T: KernelElement> Core<'_, T> {
    /// From `eps` and `v` (or what the slots hold) after [`Core::adapt`] to the adjoints `eps`, `v` and `u` of Z'_0, phi_0
    /// and Z_0; adds the rates' gradient to `rates`.
    pub fn sweep(&self, lane: &mut Lane<T>, memory: &mut Memory<T>, rates: &mut [T]) -> Result<()> {
        let back = &mut memory.back;
        [&mut *back.c_bar, back.e_bar, back.m_bar, back.pulled].into_iter().for_each(|x| x.fill(T::ZERO));
        self.add_query(lane, memory.eps, back.c_bar)?;
        let second = self.inner.order == Order::Second;
        let mut share = memory.state.shares.first().copied().unwrap_or(T::ONE);
        if second {
            scale(share, memory.eps);
        }
        let last = self.sizes.checkpoints;
        for (i, segment) in self.segments().enumerate().rev() {
            if i < last {
                memory.restore(self.shape, i);
                self.run(lane, memory, segment.clone())?;
            }
            for k in segment.clone().rev() {
                let Memory { slots, pass, v, u, eps, back, .. } = memory;
                let mut slot = slot(self.shape, &self.sizes, slots, pass, k - segment.start);
                self.add_step_loss(lane, &slot, share, [eps, v], back)?;
                self.add_rates_gradient(k, &slot, back.c_bar, v, rates)?;
                if second {
                    self.sweep_step(lane, k, &mut slot, [v, u], back)?;
                    share = slot.share.first().copied().unwrap_or(T::ONE);
                }
            }
        }
        if !memory.back.pulled.is_empty() && second {
            lane.axpy(T::ONE, memory.back.pulled, memory.v)?;
        }
        Ok(())
    }

    /// `c_bar -= G'^T eps`.
    fn add_query(&self, lane: &mut Lane<T>, eps: &[T], c_bar: &mut [T]) -> Result<()> {
        let Some((_, gram_query)) = self.grams else { return Ok(()) };
        let (m, n, h) = (gram_query.rows(), gram_query.cols(), self.shape.hidden());
        lane.gemm_tn(-T::ONE, gram_query, matrix(eps, m, h), T::ONE, matrix_mut(c_bar, n, h))
    }

    /// Adds the gradient of the query loss after the slot's step, where there is one; `share` is p after that step.
    fn add_step_loss(
        &self,
        lane: &mut Lane<T>,
        slot: &Slot<T>,
        share: T,
        [eps, v]: [&mut [T]; 2],
        back: &mut Back<T>,
    ) -> Result<()> {
        if slot.eps.is_empty() {
            return Ok(());
        }
        self.add_query(lane, slot.eps, back.c_bar)?;
        lane.axpy(T::ONE, slot.dphi_query, v)?;
        lane.axpy(if self.inner.order == Order::Second { share } else { T::ONE }, slot.eps, eps)
    }

    fn add_rates_gradient(&self, k: usize, slot: &Slot<T>, c_bar: &[T], v: &[T], rates: &mut [T]) -> Result<()> {
        if self.sizes.inner.rates == 0 {
            return Ok(());
        }
        let first = [c_bar, &*slot.coefficient_velocity];
        self.rates.add_gradient(self.shape, k, first, [v, slot.head_velocity], rates)
    }

    /// Back over step k.
    fn sweep_step(
        &self,
        lane: &mut Lane<T>,
        k: usize,
        slot: &mut Slot<T>,
        [v, u]: [&mut [T]; 2],
        back: &mut Back<T>,
    ) -> Result<()> {
        if let (Some(rate), false) = (self.rates.single(), self.sizes.forms_velocities()) {
            return self.plain_adjoints(lane, k, rate, slot, [v, u], back);
        }
        self.velocity_adjoints(lane, k, v, back)?;
        back.rz.copy_from_slice(back.e_bar);
        self.hessian_product(lane, slot, mlp::Direction::Along(back.m_bar), v, back.rz, back.scratch)?;
        lane.axpy(slot.share.first().copied().unwrap_or(T::ONE), back.rz, u)?;
        match self.grams {
            Some((gram, _)) if k > 0 => {
                let (n, h) = (gram.rows(), self.shape.hidden());
                lane.gemm_nn(-T::ONE, gram, matrix(back.rz, n, h), T::ONE, matrix_mut(back.c_bar, n, h))
            }
            _ => Ok(()),
        }
    }

    /// Back over step k of plain SGD.
    fn plain_adjoints(
        &self,
        lane: &mut Lane<T>,
        k: usize,
        rate: T,
        slot: &mut Slot<T>,
        [v, u]: [&mut [T]; 2],
        back: &mut Back<T>,
    ) -> Result<()> {
        let (n, h) = (self.sizes.n, self.shape.hidden());
        let mut saved = saved_pass(slot.pass, self.shape, &self.support, n);
        let first = mlp::tangent(self.shape, n, back.scratch);
        let mask = saved.first_acts(self.shape);
        match self.grams {
            Some((gram, _)) if k + 1 < self.inner.steps => {
                let old = Some(matrix(back.c_bar, n, h));
                let finish = Finish { old, mask: mask.map(Mask::Result), ..Finish::scaled(T::ONE, -T::ONE) };
                lane.product(Form::Nn, gram, matrix(u, n, h), matrix_mut(first, n, h), finish)?;
            }
            // u is still 0.
            _ => {
                lane.axpby(-T::ONE, back.c_bar, T::ZERO, first)?;
                saved.mask_tangent(lane, self.shape, first)?;
            }
        }
        let (loss, factors) = ((&self.support, self.support_scale()), [-rate, T::ONE]);
        mlp::rop_to(lane, self.shape, slot.phi, loss, &mut saved, mlp::Direction::Own, (v, u), factors, back.scratch)
    }

    /// E_bar and m_bar of step k, and what decay passes on to C_bar, v and phi_0.
    fn velocity_adjoints(&self, lane: &mut Lane<T>, k: usize, v: &mut [T], back: &mut Back<T>) -> Result<()> {
        let (momentum, decay) = self.inner.momentum_and_decay();
        let [mu, w, l] = [momentum, decay, self.inner.proximal].map(T::from_f64);
        if self.grams.is_some() {
            self.rates.scale_first(lane, k, (mu, self.shape.hidden()), back.c_bar, back.e_bar)?;
        }
        self.rates.subtract_head(lane, self.shape, k, mu, v, back.m_bar)?;
        if self.sizes.inner.decay {
            lane.axpy(-(w + l), back.e_bar, back.c_bar)?;
            lane.axpy(w + l, back.m_bar, v)?;
            lane.axpy(-l, back.m_bar, back.pulled)?;
        }
        Ok(())
    }

    /// The Hessian of the support loss at the slot's step along (`rz`, `direction`): the first part replaces `rz`, the
    /// head's part is added to `v`. Micro-batches are passed through again, each for itself.
    pub fn hessian_product(
        &self,
        lane: &mut Lane<T>,
        slot: &mut Slot<T>,
        direction: mlp::Direction<T>,
        v: &mut [T],
        rz: &mut [T],
        scratch: &mut [T],
    ) -> Result<()> {
        let h = self.shape.hidden();
        for rows in self.sizes.passes() {
            let targets = self.rows(&rows)?;
            let loss = (&targets, self.support_scale());
            let mut saved = saved_pass(slot.pass, self.shape, &targets, rows.len());
            let own = rows.start * h..rows.end * h;
            if self.sizes.inner.micro_batch > 0 {
                mlp::forward(lane, self.shape, slot.phi, &slot.z[own.clone()], Some(loss), &mut saved)?;
                mlp::backward(lane, self.shape, slot.phi, &mut saved, T::ONE, T::ZERO, None)?;
            }
            mlp::rop(lane, self.shape, slot.phi, loss, &mut saved, direction, v, &mut rz[own], scratch)?;
        }
        Ok(())
    }
}
