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
//! Passes over memory: the inputs are read once for Z_0 and Z'_0 of all episodes (one product), once for G and G', and
//! once for dW1 (one product). Everything between is per episode and stays in one thread's cache.
#![forbid(unsafe_code)]

use super::scatter::Scatter;
use super::{InnerLoop, Inputs, Limits, MetaBatch, MetaGradient, Order, Plan};
use crate::backend::{Lane, Team, matrix, matrix_mut, take};
use crate::cpu::{Cpu, KernelElement};
use crate::error::{Error, Result};
use crate::model::{MlpShape, Params, mlp, saved_len};
use crate::view::{Bags, MatRef};

/// Computes meta-gradients in Gram space; owns all memory they need.
pub struct GramSpace<T: KernelElement> {
    plan: Plan,
    team: Team<T>,
    /// Pre-activations of all query rows, then of all support rows; after the sweep their adjoints eps and u. One
    /// table, so that a token's gradient can be summed over both.
    z: Vec<T>,
    /// Outputs of all query rows.
    out: Vec<T>,
    /// The head's gradient of each episode.
    heads: Vec<T>,
    /// Each lane's memory for the episode it works on.
    scratch: Vec<T>,
    scatter: Scatter<T>,
    /// Where the last batch's query rows end.
    out_rows: usize,
}

/// The part of a batch one lane works on: episodes and what belongs to them.
struct Work<'a, T> {
    first: usize,
    last: usize,
    z_support: &'a mut [T],
    z_query: &'a mut [T],
    out: &'a mut [T],
    heads: &'a mut [T],
    losses: &'a mut [T],
    scratch: &'a mut [T],
}

impl<T: KernelElement> GramSpace<T> {
    /// Allocates everything for batches up to `limits`, on the threads of `cpu`.
    pub fn new(cpu: &Cpu, shape: &MlpShape, limits: Limits) -> Result<Self> {
        let plan = Plan::new(shape, limits, cpu.thread_count())?;
        let zeros = |n: usize| vec![T::ZERO; n];
        Ok(Self {
            team: Team::new(cpu),
            z: zeros(plan.z_len),
            out: zeros(plan.out_len),
            heads: zeros(plan.head_len),
            scratch: zeros(plan.lanes * plan.lane_len),
            scatter: Scatter::new(limits.nnz),
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
        matrix(&self.out, self.out_rows, self.plan.shape.outputs())
    }

    /// Adapts `params` to each episode's support set, measures the query loss, and (unless the order is
    /// [`Order::Evaluate`]) writes the mean meta-gradient over the episodes to `gradient`.
    ///
    /// Fails where the batch does not fit the model or the plan. Allocates nothing.
    pub fn run(
        &mut self,
        params: &Params<T>,
        batch: &MetaBatch<T>,
        inner: &InnerLoop,
        gradient: &mut MetaGradient<T>,
    ) -> Result<()> {
        self.check(params, batch, inner)?;
        if inner.order != Order::Evaluate {
            gradient.check(&params.shape, Limits::of(batch, inner).row_count(&params.shape))?;
        }
        let (shape, h) = (&params.shape, params.shape.hidden());
        let (ns, nq) = (batch.support.inputs.rows(), batch.query.inputs.rows());
        let (z_query, z_support) = self.z[..(nq + ns) * h].split_at_mut(nq * h);
        first_forward(&mut self.team, params, &batch.query.inputs, z_query)?;
        first_forward(&mut self.team, params, &batch.support.inputs, z_support)?;
        self.out_rows = nq;
        gradient.query_loss.clear();
        gradient.query_loss.resize(batch.episodes(), T::ZERO);
        let work = Work {
            first: 0,
            last: batch.episodes(),
            z_support,
            z_query,
            out: &mut self.out[..nq * shape.outputs()],
            heads: &mut self.heads[..batch.episodes() * shape.head_len()],
            losses: &mut gradient.query_loss,
            scratch: &mut self.scratch,
        };
        let cut = |work, left, all| split(work, batch, shape, left, all);
        self.team.spread(work, cut, |lane, work| episodes(lane, params, batch, inner, work))?;
        if inner.order == Order::Evaluate {
            return Ok(());
        }
        self.first_gradient(params, batch, inner, gradient)?;
        let heads = matrix(&self.heads, batch.episodes(), shape.head_len());
        let mean = T::ONE / T::from_f64(batch.episodes().max(1) as f64);
        self.team.lane().col_sum(mean, heads, T::ZERO, &mut gradient.head)
    }

    fn check(&self, params: &Params<T>, batch: &MetaBatch<T>, inner: &InnerLoop) -> Result<()> {
        if params.shape != self.plan.shape {
            return Err(Error::shape("meta-step", "the weights are of another shape than the workspace"));
        }
        batch.validate(&params.shape)?;
        inner.validate(&params.shape, &self.plan.limits)?;
        let found = Limits::of(batch, inner);
        if self.plan.limits.covers(&found) {
            return Ok(());
        }
        Err(Error::shape("meta-step", format!("{found:?} exceeds the plan's {:?}", self.plan.limits)))
    }

    /// dW1 = (eps^T X' + u^T X) / T and db1, from what the episodes left in `z_query` and `z_support`.
    fn first_gradient(
        &mut self,
        params: &Params<T>,
        batch: &MetaBatch<T>,
        inner: &InnerLoop,
        gradient: &mut MetaGradient<T>,
    ) -> Result<()> {
        let (shape, h) = (&params.shape, params.shape.hidden());
        let mean = T::ONE / T::from_f64(batch.episodes().max(1) as f64);
        // Without a step nothing depends on the support set, and u was not computed.
        let second = inner.order == Order::Second && inner.steps > 0;
        let (nq, ns) = (batch.query.inputs.rows(), batch.support.inputs.rows());
        let (eps, u) = (matrix(&self.z, nq, h), matrix(&self.z[nq * h..], ns, h));
        self.team.lane().col_sum(mean, eps, T::ZERO, &mut gradient.bias)?;
        if second {
            self.team.lane().col_sum(mean, u, T::ONE, &mut gradient.bias)?;
        }
        match (&batch.query.inputs, &batch.support.inputs) {
            (Inputs::Dense(xq), Inputs::Dense(xs)) => {
                gradient.rows.clear();
                let mut dw = matrix_mut(&mut gradient.first, h, shape.input);
                self.team.gemm_tn(mean, eps, *xq, T::ZERO, dw)?;
                if second {
                    dw = matrix_mut(&mut gradient.first, h, shape.input);
                    self.team.gemm_tn(mean, u, *xs, T::ONE, dw)?;
                }
                Ok(())
            }
            (Inputs::Bags(xq), Inputs::Bags(xs)) => self.bag_gradient(xq, second.then_some(xs), mean, gradient),
            _ => Err(Error::shape("meta-step", "support and query inputs are of different kinds")),
        }
    }

    /// The embedding rows' gradient: the query entries' sums, then the support entries'.
    fn bag_gradient(
        &mut self,
        query: &Bags<T>,
        support: Option<&Bags<T>>,
        mean: T,
        gradient: &mut MetaGradient<T>,
    ) -> Result<()> {
        let h = self.plan.shape.hidden();
        let (nq, ns) = (query.rows(), support.map_or(0, |s| s.rows()));
        self.scatter.clear();
        self.scatter.push(query, 0, mean);
        if let Some(support) = support {
            self.scatter.push(support, nq, mean);
        }
        let dz = matrix(&self.z, nq + ns, h);
        self.scatter.sum(&mut self.team, query.vocabulary(), dz, &mut gradient.rows, &mut gradient.first)
    }
}

/// Z = X W1^T + b1 for all rows, on all threads.
fn first_forward<T: KernelElement>(
    team: &mut Team<T>,
    params: &Params<T>,
    inputs: &Inputs<T>,
    z: &mut [T],
) -> Result<()> {
    let (shape, h) = (&params.shape, params.shape.hidden());
    let z = matrix_mut(z, inputs.rows(), h);
    match inputs {
        Inputs::Dense(x) => team.linear(*x, matrix(&params.first, h, shape.input), &params.bias, z),
        Inputs::Bags(x) => team.bag_linear(x, matrix(&params.first, shape.input, h), &params.bias, z),
    }
}

/// Cuts off the work of the first `left` of `all` lanes.
fn split<'a, T: KernelElement>(
    w: Work<'a, T>,
    batch: &MetaBatch<T>,
    shape: &MlpShape,
    left: usize,
    all: usize,
) -> (Work<'a, T>, Work<'a, T>) {
    let middle = w.first + (w.last - w.first) * left / all;
    let support = batch.support.rows[middle] - batch.support.rows[w.first];
    let query = batch.query.rows[middle] - batch.query.rows[w.first];
    let (h, c, episodes) = (shape.hidden(), shape.outputs(), middle - w.first);
    let (zs, zs_rest) = w.z_support.split_at_mut(support * h);
    let (zq, zq_rest) = w.z_query.split_at_mut(query * h);
    let (out, out_rest) = w.out.split_at_mut(query * c);
    let (heads, heads_rest) = w.heads.split_at_mut(episodes * shape.head_len());
    let (losses, losses_rest) = w.losses.split_at_mut(episodes);
    let share = w.scratch.len() / all * left;
    let (scratch, scratch_rest) = w.scratch.split_at_mut(share);
    let front = Work { first: w.first, last: middle, z_support: zs, z_query: zq, out, heads, losses, scratch };
    let back = Work {
        first: middle,
        last: w.last,
        z_support: zs_rest,
        z_query: zq_rest,
        out: out_rest,
        heads: heads_rest,
        losses: losses_rest,
        scratch: scratch_rest,
    };
    (front, back)
}

/// One lane's episodes, one after the other.
fn episodes<T: KernelElement>(
    lane: &mut Lane<T>,
    params: &Params<T>,
    batch: &MetaBatch<T>,
    inner: &InnerLoop,
    mut work: Work<T>,
) -> Result<()> {
    let shape = &params.shape;
    for t in work.first..work.last {
        let (n, m) = (batch.support.range(t).len(), batch.query.range(t).len());
        let mut episode = Episode {
            params,
            batch,
            inner,
            t,
            z: take(&mut work.z_support, n * shape.hidden()),
            z_query: take(&mut work.z_query, m * shape.hidden()),
            out: take(&mut work.out, m * shape.outputs()),
            head: take(&mut work.heads, shape.head_len()),
        };
        work.losses[t - work.first] = episode.run(lane, work.scratch)?;
    }
    Ok(())
}

/// One episode's inner loop, query pass and reverse sweep.
struct Episode<'a, T: KernelElement> {
    params: &'a Params<T>,
    batch: &'a MetaBatch<'a, T>,
    inner: &'a InnerLoop<'a>,
    t: usize,
    /// In: Z_0 (N x H). Out: u.
    z: &'a mut [T],
    /// In: Z'_0 (M x H). Out: eps.
    z_query: &'a mut [T],
    /// Out: the query outputs.
    out: &'a mut [T],
    /// Out: v, the head's gradient.
    head: &'a mut [T],
}

impl<T: KernelElement> Episode<'_, T> {
    fn run(&mut self, lane: &mut Lane<T>, scratch: &mut [T]) -> Result<T> {
        let (shape, steps) = (&self.params.shape, self.inner.steps);
        let (n, m, h) = (self.z.len() / shape.hidden(), self.z_query.len() / shape.hidden(), shape.hidden());
        let mut rest = &mut scratch[..];
        let gram = take(&mut rest, n * n);
        let gram_query = take(&mut rest, m * n);
        self.grams(lane, gram, gram_query)?;
        let (gram, gram_query) = (matrix(gram, n, n), matrix(gram_query, m, n));
        let phis = take(&mut rest, (steps + 1) * shape.head_len());
        let delta_sum = take(&mut rest, n * h);
        let direction = take(&mut rest, n * h);
        let rop_scratch = take(&mut rest, mlp::scratch_len(shape, n));
        let support = self.batch.support.targets(self.t);
        let query = self.batch.query.targets(self.t);
        let mut saved_query = mlp::Saved::carve(shape, m, &query, &mut rest);
        let step_len = mlp::Saved::<T>::len(shape, n, saved_len(&support, n, shape.outputs()));
        let saved_steps = take(&mut rest, steps * step_len);

        self.inner_loop(lane, gram, phis, delta_sum, saved_steps, step_len)?;
        let loss = self.query_pass(lane, gram_query, phis, delta_sum, &mut saved_query)?;
        if self.inner.order == Order::Second && steps > 0 {
            self.reverse_sweep(lane, gram, gram_query, phis, delta_sum, direction, saved_steps, step_len, rop_scratch)?;
        }
        Ok(loss)
    }

    /// G = X X^T + 1 and G' = X' X^T + 1.
    fn grams(&self, lane: &mut Lane<T>, gram: &mut [T], gram_query: &mut [T]) -> Result<()> {
        let (rs, rq) = (self.batch.support.range(self.t), self.batch.query.range(self.t));
        let (n, m) = (rs.len(), rq.len());
        if self.inner.steps == 0 {
            return Ok(());
        }
        match (&self.batch.support.inputs, &self.batch.query.inputs) {
            (Inputs::Dense(xs), Inputs::Dense(xq)) => {
                let x = xs.rows_range(rs.start, rs.end);
                lane.gram(x, x, matrix_mut(gram, n, n))?;
                lane.gram(xq.rows_range(rq.start, rq.end), x, matrix_mut(gram_query, m, n))
            }
            (Inputs::Bags(xs), Inputs::Bags(xq)) => {
                lane.gram_bags(xs, rs.clone(), xs, rs.clone(), true, &mut matrix_mut(gram, n, n))?;
                lane.gram_bags(xq, rq, xs, rs, false, &mut matrix_mut(gram_query, m, n))
            }
            _ => Err(Error::shape("meta-step", "support and query inputs are of different kinds")),
        }
    }

    /// Steps 0..S: leaves each step's values in `saved_steps`, phi_0..phi_S in `phis`, the sum of the deltas, and Z_S.
    fn inner_loop(
        &mut self,
        lane: &mut Lane<T>,
        gram: MatRef<T>,
        phis: &mut [T],
        delta_sum: &mut [T],
        saved_steps: &mut [T],
        step_len: usize,
    ) -> Result<()> {
        let (shape, n, h) = (&self.params.shape, gram.rows(), self.params.shape.hidden());
        let targets = self.batch.support.targets(self.t);
        let rate = T::from_f64(self.inner.single_rate()?);
        let head = shape.head_len();
        phis[..head].copy_from_slice(&self.params.head);
        delta_sum.fill(T::ZERO);
        for k in 0..self.inner.steps {
            let mut step = &mut saved_steps[k * step_len..][..step_len];
            let mut saved = mlp::Saved::carve(shape, n, &targets, &mut step);
            let (phi, next) = phis[k * head..][..2 * head].split_at_mut(head);
            mlp::forward(lane, shape, phi, self.z, Some((&targets, targets.scale(n, shape.outputs()))), &mut saved)?;
            next.copy_from_slice(phi);
            mlp::backward(lane, shape, phi, &mut saved, -rate, T::ONE, next)?;
            let delta = saved.delta(shape);
            lane.axpy(T::ONE, delta, delta_sum)?;
            lane.gemm_nn(-rate, gram, matrix(delta, n, h), T::ONE, matrix_mut(self.z, n, h))?;
        }
        Ok(())
    }

    /// Z' = Z'_0 - a G' sum(delta); loss and outputs; eps replaces Z', v goes to `head`.
    fn query_pass(
        &mut self,
        lane: &mut Lane<T>,
        gram_query: MatRef<T>,
        phis: &[T],
        delta_sum: &[T],
        saved: &mut mlp::Saved<T>,
    ) -> Result<T> {
        let (shape, h) = (&self.params.shape, self.params.shape.hidden());
        let (m, n) = (gram_query.rows(), gram_query.cols());
        let rate = T::from_f64(self.inner.single_rate()?);
        let phi = &phis[self.inner.steps * shape.head_len()..];
        if self.inner.steps > 0 {
            lane.gemm_nn(-rate, gram_query, matrix(delta_sum, n, h), T::ONE, matrix_mut(self.z_query, m, h))?;
        }
        let targets = self.batch.query.targets(self.t);
        let loss =
            mlp::forward(lane, shape, phi, self.z_query, Some((&targets, targets.scale(m, shape.outputs()))), saved)?;
        for (i, row) in self.out.chunks_exact_mut(shape.outputs()).enumerate() {
            row.copy_from_slice(saved.out(shape).row(i));
        }
        if self.inner.order != Order::Evaluate {
            mlp::backward(lane, shape, phi, saved, T::ONE, T::ZERO, self.head)?;
            self.z_query.copy_from_slice(saved.delta(shape));
        }
        Ok(loss)
    }

    /// Leaves u in `z` and adds the head's second-order part to `head`. `delta_sum` becomes c.
    #[expect(clippy::too_many_arguments, reason = "the pieces of one episode's memory")]
    fn reverse_sweep(
        &mut self,
        lane: &mut Lane<T>,
        gram: MatRef<T>,
        gram_query: MatRef<T>,
        phis: &[T],
        c: &mut [T],
        direction: &mut [T],
        saved_steps: &mut [T],
        step_len: usize,
        scratch: &mut [T],
    ) -> Result<()> {
        let (shape, n, h) = (&self.params.shape, gram.rows(), self.params.shape.hidden());
        let targets = self.batch.support.targets(self.t);
        let rate = T::from_f64(self.inner.single_rate()?);
        let head = shape.head_len();
        let eps = matrix(self.z_query, gram_query.rows(), h);
        lane.gemm_tn(-rate, gram_query, eps, T::ZERO, matrix_mut(c, n, h))?;
        self.z.fill(T::ZERO);
        for k in (0..self.inner.steps).rev() {
            let mut step = &mut saved_steps[k * step_len..][..step_len];
            let mut saved = mlp::Saved::carve(shape, n, &targets, &mut step);
            direction.copy_from_slice(c);
            lane.gemm_nn(-rate, gram, matrix(self.z, n, h), T::ONE, matrix_mut(direction, n, h))?;
            let phi = &phis[k * head..][..head];
            let loss = (&targets, targets.scale(n, shape.outputs()));
            mlp::rop(lane, shape, phi, loss, &mut saved, mlp::Direction::Scaled(-rate), self.head, direction, scratch)?;
            lane.axpy(T::ONE, direction, self.z)?;
        }
        Ok(())
    }
}
