//! The meta-gradient in the plain form: every inner step has its own copy of all weights.
//!
//! ```text
//! theta_{k+1} = theta_k - a g(theta_k)         g = gradient of the support loss, k = 0..S-1
//! v = gradient of the query loss at theta_S
//! k = S-1..0:  v -= a H(theta_k) v             H = Hessian of the support loss
//! ```
//!
//! It is the reference for Gram space, and what remains where the Gram form does not hold. Episodes run one after the
//! other on one thread.
#![forbid(unsafe_code)]

use super::{EpisodeSet, InnerLoop, Inputs, Limits, MetaBatch, MetaGradient, Order};
use crate::backend::{Lane, matrix, matrix_mut};
use crate::cpu::{Cpu, KernelElement};
use crate::error::{Error, Result};
use crate::model::{InputKind, MlpShape, Params, mlp, saved_len};
use crate::view::MatRef;

/// Computes meta-gradients in the plain form; owns all memory they need.
pub struct Dense<T: KernelElement> {
    shape: MlpShape,
    limits: Limits,
    lane: Lane<T>,
    /// theta_0..theta_S, each first layer, bias, head.
    thetas: Vec<T>,
    /// The adjoint of theta, and a Hessian product.
    v: Vec<T>,
    hv: Vec<T>,
    /// Sum over the episodes.
    sum: Vec<T>,
    /// One set's pre-activations of the first layer, or their tangent.
    z: Vec<T>,
    saved: Vec<T>,
    scratch: Vec<T>,
    out: Vec<T>,
    out_rows: usize,
}

/// One episode's rows with the first layer's operations on them.
struct Examples<'a, T: KernelElement> {
    set: &'a EpisodeSet<'a, T>,
    t: usize,
    shape: &'a MlpShape,
}

impl<T: KernelElement> Examples<'_, T> {
    fn len(&self) -> usize {
        self.set.range(self.t).len()
    }

    /// z = x W1^T + b1 with the weights at the front of `theta`.
    fn forward(&self, lane: &mut Lane<T>, theta: &[T], z: &mut [T]) -> Result<()> {
        let (h, range) = (self.shape.hidden(), self.set.range(self.t));
        let (first, bias) = (&theta[..self.shape.first_len()], &theta[self.shape.first_len()..][..h]);
        match &self.set.inputs {
            Inputs::Dense(x) => {
                let w = matrix(first, h, self.shape.input);
                lane.linear(x.rows_range(range.start, range.end), w, bias, false, matrix_mut(z, range.len(), h))
            }
            Inputs::Bags(x) => range.zip(z.chunks_exact_mut(h)).try_for_each(|(i, row)| {
                let (tokens, weights) = x.row(i);
                lane.gather_sum(tokens, weights, matrix(first, self.shape.input, h), Some(bias), row)
            }),
        }
    }

    /// The first layer's part of a gradient: dW1 = dz^T x, db1 = column sums of dz, written to the front of `dtheta`.
    fn gradient(&self, lane: &mut Lane<T>, dz: &[T], dtheta: &mut [T]) -> Result<()> {
        let (h, range) = (self.shape.hidden(), self.set.range(self.t));
        let n = range.len();
        let (first, rest) = dtheta.split_at_mut(self.shape.first_len());
        lane.col_sum(T::ONE, matrix(dz, n, h), T::ZERO, &mut rest[..h])?;
        match &self.set.inputs {
            Inputs::Dense(x) => {
                let dw = matrix_mut(first, h, self.shape.input);
                lane.gemm_tn(T::ONE, matrix(dz, n, h), x.rows_range(range.start, range.end), T::ZERO, dw)
            }
            Inputs::Bags(x) => {
                first.fill(T::ZERO);
                range.zip(dz.chunks_exact(h)).try_for_each(|(i, row)| {
                    let (tokens, weights) = x.row(i);
                    let entries = tokens.iter().zip(weights);
                    entries.into_iter().try_for_each(|(&t, &w)| lane.axpy(w, row, &mut first[t as usize * h..][..h]))
                })
            }
        }
    }
}

impl<T: KernelElement> Dense<T> {
    /// Allocates everything for batches up to `limits`; uses one thread of `cpu`.
    pub fn new(cpu: &Cpu, shape: &MlpShape, limits: Limits) -> Result<Self> {
        shape.validate()?;
        let rows = limits.support.max(limits.query);
        let loss = rows * shape.outputs() + if limits.pairs { 5 * (rows / 2) * (rows / 2) } else { 0 };
        let zeros = |n: usize| vec![T::ZERO; n];
        Ok(Self {
            lane: Lane::new(cpu),
            thetas: zeros((limits.inner.saved_steps + 1) * shape.len()),
            v: zeros(shape.len()),
            hv: zeros(shape.len()),
            sum: zeros(shape.len()),
            z: zeros(rows * shape.hidden()),
            saved: zeros(mlp::Saved::<T>::len(shape, rows, loss)),
            scratch: zeros(mlp::scratch_len(shape, rows)),
            out: zeros(limits.episodes * limits.query * shape.outputs()),
            out_rows: 0,
            shape: shape.clone(),
            limits,
        })
    }

    /// Outputs of the last batch's query rows after adaptation, stacked.
    pub fn query_outputs(&self) -> MatRef<'_, T> {
        matrix(&self.out, self.out_rows, self.shape.outputs())
    }

    /// The same as [`GramSpace::run`](super::GramSpace::run), by carrying all weights.
    pub fn run(
        &mut self,
        params: &Params<T>,
        batch: &MetaBatch<T>,
        inner: &InnerLoop,
        gradient: &mut MetaGradient<T>,
    ) -> Result<()> {
        if params.shape != self.shape || !self.limits.covers(&Limits::of(batch, inner)) {
            return Err(Error::shape("meta-step", "weights or batch are not those the workspace was planned for"));
        }
        batch.validate(&params.shape)?;
        inner.validate(&params.shape, &self.limits)?;
        if inner.order != Order::Evaluate {
            gradient.check(&params.shape, Limits::of(batch, inner).row_count(&params.shape))?;
        }
        self.sum.fill(T::ZERO);
        gradient.query_loss.clear();
        self.out_rows = 0;
        for t in 0..batch.episodes() {
            let loss = self.episode(params, batch, inner, t)?;
            gradient.query_loss.push(loss);
            self.lane.axpy(T::ONE, &self.v, &mut self.sum)?;
        }
        if inner.order != Order::Evaluate {
            self.write_mean(batch, gradient);
        }
        Ok(())
    }

    /// Leaves the episode's meta-gradient in `v`; returns its query loss.
    fn episode(&mut self, params: &Params<T>, batch: &MetaBatch<T>, inner: &InnerLoop, t: usize) -> Result<T> {
        let (p, rate) = (self.shape.len(), T::from_f64(inner.single_rate()?));
        let shape = self.shape.clone();
        let support = Examples { set: &batch.support, t, shape: &shape };
        let query = Examples { set: &batch.query, t, shape: &shape };
        flatten(params, &mut self.thetas[..p]);
        for k in 0..inner.steps {
            self.loss_and_gradient(&support, k)?;
            let (theta, next) = self.thetas[k * p..][..2 * p].split_at_mut(p);
            next.copy_from_slice(theta);
            self.lane.axpy(-rate, &self.v, next)?;
        }
        let loss = self.loss_and_gradient(&query, inner.steps)?;
        self.keep_outputs(&query);
        if inner.order == Order::Second {
            for k in (0..inner.steps).rev() {
                self.hessian_product(&support, k)?;
                self.lane.axpy(-rate, &self.hv, &mut self.v)?;
            }
        }
        Ok(loss)
    }

    /// The loss of a set at theta_k; its gradient goes to `v`.
    fn loss_and_gradient(&mut self, examples: &Examples<T>, k: usize) -> Result<T> {
        let (shape, n) = (examples.shape, examples.len());
        let theta = &self.thetas[k * shape.len()..][..shape.len()];
        let z = &mut self.z[..n * shape.hidden()];
        examples.forward(&mut self.lane, theta, z)?;
        let targets = examples.set.targets(examples.t);
        let mut saved = mlp::Saved::carve(shape, n, &targets, &mut &mut self.saved[..]);
        let front = shape.first_len() + shape.hidden();
        let loss = mlp::forward(
            &mut self.lane,
            shape,
            &theta[front..],
            z,
            Some((&targets, targets.scale(n, shape.outputs()))),
            &mut saved,
        )?;
        let head = &mut self.v[front..];
        mlp::backward(&mut self.lane, shape, &theta[front..], &mut saved, T::ONE, T::ZERO, head)?;
        examples.gradient(&mut self.lane, saved.delta(shape), &mut self.v)?;
        Ok(loss)
    }

    /// `hv = H(theta_k) v` with H the Hessian of the set's loss.
    fn hessian_product(&mut self, examples: &Examples<T>, k: usize) -> Result<()> {
        let (shape, n) = (examples.shape, examples.len());
        let theta = &self.thetas[k * shape.len()..][..shape.len()];
        let z = &mut self.z[..n * shape.hidden()];
        let front = shape.first_len() + shape.hidden();
        examples.forward(&mut self.lane, theta, z)?;
        let targets = examples.set.targets(examples.t);
        let mut saved = mlp::Saved::carve(shape, n, &targets, &mut &mut self.saved[..]);
        mlp::forward(
            &mut self.lane,
            shape,
            &theta[front..],
            z,
            Some((&targets, targets.scale(n, shape.outputs()))),
            &mut saved,
        )?;
        // The gradient itself is not wanted here; its head part is written over below.
        mlp::backward(&mut self.lane, shape, &theta[front..], &mut saved, T::ONE, T::ZERO, &mut self.hv[front..])?;
        examples.forward(&mut self.lane, &self.v, z)?;
        // rop adds the product to the direction it is given, so the direction is subtracted again.
        self.hv.copy_from_slice(&self.v);
        let phi = &theta[front..];
        let (lane, hv) = (&mut self.lane, &mut self.hv[front..]);
        let loss = (&targets, targets.scale(n, shape.outputs()));
        mlp::rop(lane, shape, phi, loss, &mut saved, mlp::Direction::Scaled(T::ONE), hv, z, &mut self.scratch)?;
        self.lane.axpy(-T::ONE, &self.v[front..], &mut self.hv[front..])?;
        examples.gradient(&mut self.lane, z, &mut self.hv)
    }

    fn keep_outputs(&mut self, query: &Examples<T>) {
        let (n, c) = (query.len(), self.shape.outputs());
        let targets = query.set.targets(query.t);
        debug_assert!(saved_len(&targets, n, c) <= self.saved.len());
        let saved = mlp::Saved::carve(&self.shape, n, &targets, &mut &mut self.saved[..]);
        for i in 0..n {
            self.out[(self.out_rows + i) * c..][..c].copy_from_slice(saved.out(&self.shape).row(i));
        }
        self.out_rows += n;
    }

    /// Divides the sum by the number of episodes and lays it out as the gradient; of an embedding table only the rows
    /// that occur.
    fn write_mean(&self, batch: &MetaBatch<T>, gradient: &mut MetaGradient<T>) {
        let (shape, h) = (&self.shape, self.shape.hidden());
        let mean = T::ONE / T::from_f64(batch.episodes().max(1) as f64);
        let scaled = |dst: &mut [T], src: &[T]| dst.iter_mut().zip(src).for_each(|(d, &s)| *d = s * mean);
        let (first, rest) = self.sum.split_at(shape.first_len());
        scaled(&mut gradient.bias, &rest[..h]);
        scaled(&mut gradient.head, &rest[h..]);
        gradient.rows.clear();
        if shape.kind == InputKind::Dense {
            return scaled(&mut gradient.first, first);
        }
        for set in [&batch.query, &batch.support] {
            if let Inputs::Bags(bags) = &set.inputs {
                (0..bags.rows()).for_each(|i| gradient.rows.extend_from_slice(bags.row(i).0));
            }
        }
        gradient.rows.sort_unstable();
        gradient.rows.dedup();
        for (&row, dst) in gradient.rows.iter().zip(gradient.first.chunks_exact_mut(h)) {
            scaled(dst, &first[row as usize * h..][..h]);
        }
    }
}

impl<T: KernelElement> Dense<T> {
    /// The mean over the episodes of (Hessian of the mean support loss at `params`) times `v`, written to `hv`.
    /// Fails where the batch or `v` does not fit the model or the plan.
    pub fn support_hvp(
        &mut self,
        params: &Params<T>,
        batch: &MetaBatch<T>,
        v: &Params<T>,
        hv: &mut Params<T>,
    ) -> Result<()> {
        let fits = params.shape == self.shape && v.shape == self.shape && hv.shape == self.shape;
        if !fits || !self.limits.covers(&Limits::of(batch, &InnerLoop::sgd(0, 0.0, Order::Evaluate))) {
            return Err(Error::shape("hvp", "weights, direction or batch are not those the workspace was planned for"));
        }
        batch.validate(&params.shape)?;
        let shape = self.shape.clone();
        let (p, first, h) = (shape.len(), shape.first_len(), shape.hidden());
        flatten(params, &mut self.thetas[..p]);
        flatten(v, &mut self.v);
        self.sum.fill(T::ZERO);
        let mean = T::ONE / T::from_f64(batch.episodes().max(1) as f64);
        for t in 0..batch.episodes() {
            self.hessian_product(&Examples { set: &batch.support, t, shape: &shape }, 0)?;
            self.lane.axpy(mean, &self.hv, &mut self.sum)?;
        }
        hv.first.copy_from_slice(&self.sum[..first]);
        hv.bias.copy_from_slice(&self.sum[first..first + h]);
        hv.head.copy_from_slice(&self.sum[first + h..]);
        Ok(())
    }
}

/// First layer, bias, head, one after the other.
fn flatten<T: KernelElement>(params: &Params<T>, dst: &mut [T]) {
    let (first, rest) = dst.split_at_mut(params.first.len());
    first.copy_from_slice(&params.first);
    rest[..params.bias.len()].copy_from_slice(&params.bias);
    rest[params.bias.len()..].copy_from_slice(&params.head);
}
