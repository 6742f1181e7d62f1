//! The implicit gradient in Gram space: conjugate gradients on (I + H / lambda) g = b, b the query gradient at the
//! proximal problem's minimum (`meta::imaml` names the source).
//!
//! The first layer of b is eps^T X'; that of every product with H is a combination of support inputs, D^T X with D the
//! Hessian product's first part. So with g = b + y, (I + H / lambda) y = -H b / lambda has all its vectors in
//! coordinates (Y, y_phi), N x H coefficients and a head:
//!
//! ```text
//! direction of (Y, y_phi) in pre-activations: G Y            of b: G'^T eps
//! <(A, a), (B, b)> = sum of A * (G B) + a . b                |b|^2 = sum of eps * (X' X'^T + 1) eps + |v|^2
//! ```
//!
//! An iteration costs one R-pass of the head and one N x N x H product; the residual is that of the whole system.
#![forbid(unsafe_code)]

use super::memory::{Memory, Slot, saved_pass, slot};
use super::rates::dot;
use super::steps::Core;
use crate::backend::{Lane, matrix, matrix_mut};
use crate::cpu::KernelElement;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::meta::ConjugateGradient;
use crate::model::mlp;
use crate::view::MatRef;

/// The vectors of the method: residual r and direction p, each coefficients and head, and G times their coefficients.
struct Vectors<'v, T> {
    r: [&'v mut [T]; 2],
    p: [&'v mut [T]; 2],
    gr: &'v mut [T],
    gp: &'v mut [T],
    /// H p: in pre-activations' coordinates and head.
    hp: [&'v mut [T]; 2],
    scratch: &'v mut [T],
}

impl<T: KernelElement> Core<'_, T> {
    /// After [`Core::adapt`]: from the query gradient in `eps` and `v` to the implicit gradient in `eps`, `v` and `u`.
    /// Returns whether the residual fell below the tolerance.
    pub fn implicit(&self, lane: &mut Lane<T>, memory: &mut Memory<T>, solver: &ConjugateGradient) -> Result<bool> {
        let Some((gram, gram_query)) = self.grams else { return Ok(true) };
        self.linearize(lane, memory)?;
        let (n, m, h) = (self.sizes.n, self.sizes.m, self.shape.hidden());
        let Memory { slots, pass, eps, v, u, back, .. } = memory;
        let mut slot = slot(self.shape, &self.sizes, slots, pass, 0);
        lane.gemm_nn(
            T::ONE,
            matrix(back.query_gram, m, m),
            matrix(eps, m, h),
            T::ZERO,
            matrix_mut(back.query_product, m, h),
        )?;
        let norm = dot(eps, back.query_product) + dot(v, v);
        let [r, p] = &mut back.vectors;
        let ((r, r_head), (p, p_head)) = (r.split_at_mut(n * h), p.split_at_mut(n * h));
        let (gr, gp, scratch) = (&mut *back.c_bar, &mut *back.e_bar, &mut *back.scratch);
        let mut vectors =
            Vectors { r: [r, r_head], p: [p, p_head], gr, gp, hp: [&mut *back.rz, &mut *back.pulled], scratch };
        lane.gemm_tn(T::ONE, gram_query, matrix(eps, m, h), T::ZERO, matrix_mut(vectors.gp, n, h))?;
        vectors.p[1].copy_from_slice(v);
        self.solve(lane, gram, &mut slot, &mut vectors, [u, v], norm, solver)
    }

    /// One pass at the adapted weights, for the Hessian products that follow.
    fn linearize(&self, lane: &mut Lane<T>, memory: &mut Memory<T>) -> Result<()> {
        let Memory { state, z, slots, pass, .. } = memory;
        let slot = slot(self.shape, &self.sizes, slots, pass, 0);
        slot.phi.copy_from_slice(state.phi);
        self.pre_activations(lane, self.grams.map(|g| g.0), self.inner.steps, state, self.z0, z, false)?;
        if self.sizes.inner.micro_batch > 0 {
            slot.z.copy_from_slice(z);
            return Ok(());
        }
        let mut saved = saved_pass(slot.pass, self.shape, &self.support, self.sizes.n);
        mlp::forward(lane, self.shape, slot.phi, z, Some((&self.support, self.support_scale())), &mut saved)?;
        mlp::backward(lane, self.shape, slot.phi, &mut saved, T::ONE, T::ZERO, None)
    }

    /// With b's direction in `gp` and `p[1]`: adds y to `solution`, coefficients and head.
    #[expect(clippy::too_many_arguments, reason = "one system's operands")]
    fn solve(
        &self,
        lane: &mut Lane<T>,
        gram: MatRef<T>,
        slot: &mut Slot<T>,
        x: &mut Vectors<T>,
        solution: [&mut [T]; 2],
        norm: f64,
        solver: &ConjugateGradient,
    ) -> Result<bool> {
        let (n, h, over) = (self.sizes.n, self.shape.hidden(), 1.0 / self.inner.proximal);
        // Below some units in the last place of b, rounding decides.
        let tolerance = solver.tolerance.max(if T::DTYPE == Dtype::F32 { 1e-6 } else { 1e-15 });
        self.curvature(lane, slot, x)?;
        for ((r, p), hp) in x.r.iter_mut().zip(&mut x.p).zip(&x.hp) {
            r.iter_mut().zip(hp.iter()).for_each(|(r, &hp)| *r = T::from_f64(-over) * hp);
            p.copy_from_slice(r);
        }
        lane.gemm_nn(T::ONE, gram, matrix(x.r[0], n, h), T::ZERO, matrix_mut(x.gr, n, h))?;
        x.gp.copy_from_slice(x.gr);
        let mut rr = dot(x.r[0], x.gr) + dot(x.r[1], x.r[1]);
        let [y, y_head] = solution;
        for _ in 0..solver.iterations {
            if rr <= tolerance * tolerance * norm {
                return Ok(true);
            }
            self.curvature(lane, slot, x)?;
            let curved = dot(x.gp, x.hp[0]) + dot(x.p[1], x.hp[1]);
            let step = rr / (dot(x.gp, x.p[0]) + dot(x.p[1], x.p[1]) + over * curved);
            if !step.is_finite() {
                return Ok(false);
            }
            let (by, by_curved) = (T::from_f64(step), T::from_f64(-step * over));
            lane.axpy(by, x.p[0], y)?;
            lane.axpy(by, x.p[1], y_head)?;
            for ((r, p), hp) in x.r.iter_mut().zip(&x.p).zip(&x.hp) {
                lane.axpy(-by, p, r)?;
                lane.axpy(by_curved, hp, r)?;
            }
            lane.gemm_nn(T::ONE, gram, matrix(x.r[0], n, h), T::ZERO, matrix_mut(x.gr, n, h))?;
            let next = dot(x.r[0], x.gr) + dot(x.r[1], x.r[1]);
            let turn = T::from_f64(next / rr);
            let turned = |p: &mut [T], r: &[T]| p.iter_mut().zip(r).for_each(|(p, &r)| *p = r + turn * *p);
            turned(x.p[0], x.r[0]);
            turned(x.p[1], x.r[1]);
            turned(x.gp, x.gr);
            rr = next;
        }
        Ok(rr <= tolerance * tolerance * norm)
    }

    /// H p from p's direction in `gp` and `p[1]`.
    fn curvature(&self, lane: &mut Lane<T>, slot: &mut Slot<T>, x: &mut Vectors<T>) -> Result<()> {
        x.hp[0].copy_from_slice(x.gp);
        x.hp[1].fill(T::ZERO);
        let [first, head] = &mut x.hp;
        self.hessian_product(lane, slot, mlp::Direction::Along(x.p[1]), head, first, x.scratch)
    }
}
