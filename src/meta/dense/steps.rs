//! One episode in the plain form: the steps, the query loss, and the way back.
#![forbid(unsafe_code)]

use super::{Dense, Examples, flatten};
use crate::backend::{Carver, matrix};
use crate::cpu::KernelElement;
use crate::error::Result;
use crate::meta::{Adapt, InnerLoop, MetaBatch, Order, Rates, Start, Update, proto_maml};
use crate::model::{InputKind, Params, mlp, saved_len};

impl<T: KernelElement> Dense<T> {
    /// Leaves the episode's gradient in `v`; returns its query loss and whether a linear system, if any, was solved.
    pub(super) fn episode(
        &mut self,
        params: &Params<T>,
        batch: &MetaBatch<T>,
        inner: &InnerLoop,
        t: usize,
    ) -> Result<(T, bool)> {
        if inner.context() > 0 {
            return Ok((self.context_episode(params, batch, inner, t)?, true));
        }
        let shape = self.shapes.whole.clone();
        let support = Examples { set: &batch.support, t, shape: &shape };
        let query = Examples { set: &batch.query, t, shape: &shape };
        flatten(params, &mut self.start);
        if inner.start == Start::Prototypes {
            self.start_at_prototypes(&support)?;
        }
        [&mut self.m, &mut self.s].into_iter().for_each(|x| x.fill(T::ZERO));
        let p = shape.len();
        self.thetas[..p].copy_from_slice(&self.start);
        let (mut loss, mut total) = (T::ZERO, T::ZERO);
        self.v.fill(T::ZERO);
        for k in 0..=inner.steps {
            if k > 0 {
                self.step(&support, inner, k - 1)?;
            }
            let weight = T::from_f64(inner.step_weight(k));
            if k == inner.steps || weight != T::ZERO {
                loss = self.loss_and_gradient(&query, self.slot(inner, k))?;
                total += if weight == T::ZERO { T::ZERO } else { weight * loss };
                if inner.order == Order::First || k == inner.steps {
                    self.lane.axpy(weight, &self.g, &mut self.v)?;
                }
            }
        }
        self.keep_outputs(&query);
        let _ = loss;
        let mut solved = true;
        match &inner.order {
            Order::Second => self.sweep([&support, &query], inner)?,
            Order::First if !inner.rates.is_empty() => self.first_order_rates([&support, &query], inner)?,
            Order::Implicit(solver) => solved = self.implicit(&support, inner, solver)?,
            Order::Displacement => {
                let adapted = self.slot(inner, inner.steps) * p;
                self.v.copy_from_slice(&self.start);
                self.lane.axpy(-T::ONE, &self.thetas[adapted..][..p], &mut self.v)?;
            }
            Order::First | Order::Evaluate => {}
        }
        if inner.start == Start::Prototypes && matches!(inner.order, Order::Second | Order::First) {
            self.back_through_prototypes(&support)?;
        }
        Ok((total, solved))
    }

    /// Where theta_k lies.
    fn slot(&self, inner: &InnerLoop, k: usize) -> usize {
        if inner.keeps_steps() { k } else { k % 2 }
    }

    /// theta_{k+1} from theta_k.
    fn step(&mut self, support: &Examples<T>, inner: &InnerLoop, k: usize) -> Result<()> {
        let p = self.sum.len();
        let (from, to) = (self.slot(inner, k), self.slot(inner, k + 1));
        self.loss_and_gradient(support, from)?;
        self.fill_rates(inner, k);
        match inner.update {
            Update::Sgd { momentum, weight_decay } => {
                let [mu, w, l] = [momentum, weight_decay, inner.proximal].map(T::from_f64);
                let theta = &self.thetas[from * p..][..p];
                let rest = self.g.iter().zip(theta).zip(&self.start);
                for (m, ((&g, &theta), &start)) in self.m.iter_mut().zip(rest) {
                    *m = mu * *m + g + w * theta + l * (theta - start);
                }
            }
            Update::Adam { .. } => self.adam_moments(inner, k),
        }
        if !self.history.is_empty() && inner.keeps_steps() {
            self.keep_step(inner, k);
        }
        self.thetas.copy_within(from * p..(from + 1) * p, to * p);
        let next = &mut self.thetas[to * p..][..p];
        if let Update::Adam { .. } = inner.update {
            self.hv.iter_mut().enumerate().for_each(|(i, u)| *u = super::adam::update(inner, k, self.m[i], self.s[i]));
        } else {
            self.hv.copy_from_slice(&self.m);
        }
        next.iter_mut().zip(self.alpha.iter().zip(&self.hv)).for_each(|(w, (&a, &u))| *w -= a * u);
        Ok(())
    }

    /// Keeps m_{k+1}, and with Adam the second moment and the gradient.
    fn keep_step(&mut self, inner: &InnerLoop, k: usize) {
        let p = self.sum.len();
        let pieces: &[&Vec<T>] =
            if matches!(inner.update, Update::Adam { .. }) { &[&self.m, &self.s, &self.g] } else { &[&self.m] };
        for (i, piece) in pieces.iter().enumerate() {
            self.history[(k * pieces.len() + i) * p..][..p].copy_from_slice(piece);
        }
    }

    /// Back over all steps: from v at theta_S to v at theta_0.
    fn sweep(&mut self, [support, query]: [&Examples<T>; 2], inner: &InnerLoop) -> Result<()> {
        [&mut self.m_bar, &mut self.s_bar, &mut self.pulled].into_iter().for_each(|x| x.fill(T::ZERO));
        for k in (0..inner.steps).rev() {
            let weight = T::from_f64(inner.step_weight(k + 1));
            if k + 1 < inner.steps && weight != T::ZERO {
                self.loss_and_gradient(query, k + 1)?;
                self.lane.axpy(weight, &self.g, &mut self.v)?;
            }
            self.fill_rates(inner, k);
            self.add_rates_gradient(inner, k);
            match inner.update {
                Update::Sgd { momentum, weight_decay } => {
                    let [mu, w, l] = [momentum, weight_decay, inner.proximal].map(T::from_f64);
                    for (m, (&a, &v)) in self.m_bar.iter_mut().zip(self.alpha.iter().zip(&self.v)) {
                        *m = mu * *m - a * v;
                    }
                    self.hessian_product(support, k, Direction::Velocity)?;
                    self.lane.axpy(w + l, &self.m_bar, &mut self.v)?;
                    self.lane.axpy(-l, &self.m_bar, &mut self.pulled)?;
                }
                Update::Adam { .. } => {
                    self.adam_adjoints(inner, k);
                    self.hessian_product(support, k, Direction::Gradient)?;
                }
            }
            self.lane.axpy(T::ONE, &self.hv, &mut self.v)?;
        }
        self.lane.axpy(T::ONE, &self.pulled, &mut self.v)
    }

    /// The rates' gradient with everything else constant. `v` already holds all query gradients; each counts for the
    /// steps before it, so they are taken off again on the way back.
    fn first_order_rates(&mut self, [_, query]: [&Examples<T>; 2], inner: &InnerLoop) -> Result<()> {
        self.hv.copy_from_slice(&self.v);
        self.loss_and_gradient(query, inner.steps)?;
        self.v.fill(T::ZERO);
        self.lane.axpy(T::from_f64(inner.step_weight(inner.steps)), &self.g, &mut self.v)?;
        for k in (0..inner.steps).rev() {
            let weight = T::from_f64(inner.step_weight(k + 1));
            if k + 1 < inner.steps && weight != T::ZERO {
                self.loss_and_gradient(query, k + 1)?;
                self.lane.axpy(weight, &self.g, &mut self.v)?;
            }
            self.add_rates_gradient(inner, k);
        }
        self.v.copy_from_slice(&self.hv);
        Ok(())
    }

    /// The loss of a set at the weights in slot `i`; its gradient goes to `g`.
    fn loss_and_gradient(&mut self, examples: &Examples<T>, i: usize) -> Result<T> {
        let (shape, n) = (examples.shape, examples.len());
        let theta = &self.thetas[i * shape.len()..][..shape.len()];
        let z = &mut self.z[..n * shape.hidden()];
        examples.forward(&mut self.lane, theta, z)?;
        let targets = examples.set.targets(examples.t);
        let mut saved = pass(&mut self.saved, examples);
        let front = shape.first_len() + shape.hidden();
        let loss = Some((&targets, targets.scale(n, shape.outputs())));
        let loss = mlp::forward(&mut self.lane, shape, &theta[front..], z, loss, &mut saved)?;
        let head = Some(&mut self.g[front..]);
        mlp::backward(&mut self.lane, shape, &theta[front..], &mut saved, T::ONE, T::ZERO, head)?;
        examples.gradient(&mut self.lane, saved.delta(shape), &mut self.g)?;
        Ok(loss)
    }

    /// `hv = H x` with H the Hessian of the set's loss at the weights in slot `i`. Returns the loss there.
    pub(super) fn hessian_product(&mut self, examples: &Examples<T>, i: usize, along: Direction) -> Result<T> {
        let x = match along {
            Direction::Velocity => &self.m_bar,
            Direction::Gradient => &self.g,
        };
        let (shape, n) = (examples.shape, examples.len());
        let theta = &self.thetas[i * shape.len()..][..shape.len()];
        let z = &mut self.z[..n * shape.hidden()];
        let front = shape.first_len() + shape.hidden();
        examples.forward(&mut self.lane, theta, z)?;
        let targets = examples.set.targets(examples.t);
        let loss = (&targets, targets.scale(n, shape.outputs()));
        let mut saved = pass(&mut self.saved, examples);
        let value = mlp::forward(&mut self.lane, shape, &theta[front..], z, Some(loss), &mut saved)?;
        mlp::backward(&mut self.lane, shape, &theta[front..], &mut saved, T::ONE, T::ZERO, None)?;
        examples.forward(&mut self.lane, x, z)?;
        let (head, along) = (&mut self.hv[front..], mlp::Direction::Along(&x[front..]));
        head.fill(T::ZERO);
        mlp::rop(&mut self.lane, shape, &theta[front..], loss, &mut saved, along, head, z, &mut self.scratch)?;
        examples.gradient(&mut self.lane, z, &mut self.hv)?;
        Ok(value)
    }

    pub(super) fn keep_outputs(&mut self, query: &Examples<T>) {
        let (n, c) = (query.len(), query.shape.outputs());
        let saved = pass(&mut self.saved, query);
        for i in 0..n {
            self.out[(self.out_rows + i) * c..][..c].copy_from_slice(saved.out(query.shape).row(i));
        }
        self.out_rows += n;
    }

    /// Where in the learned rates each weight's lies, counted from the step's first.
    pub(super) fn place_rates(&mut self, inner: &InnerLoop) {
        let shape = &self.shapes.whole;
        let (first, h) = (shape.first_len(), shape.hidden());
        if inner.rates.is_empty() {
            return;
        }
        let units = matches!(inner.rates, Rates::Units(_));
        if let Rates::Weights(_) = inner.rates {
            self.place.iter_mut().enumerate().for_each(|(i, place)| *place = i as u32);
            return;
        }
        let unit_of = |i: usize| if shape.kind == InputKind::Dense { i / shape.input } else { i % h };
        for (i, place) in self.place[..first + h].iter_mut().enumerate() {
            *place = if !units {
                0
            } else if i < first {
                unit_of(i) as u32
            } else {
                (i - first) as u32
            };
        }
        let (mut below, head) = (h, &mut self.place[first + h..]);
        for layer in shape.head_layers() {
            for (j, place) in head[layer.weight.start..layer.bias.end].iter_mut().enumerate() {
                let weights = layer.inputs * layer.outputs;
                let unit = if j < weights { j / layer.inputs } else { j - weights };
                *place = if units { below + unit } else { layer.l - 1 } as u32;
            }
            below += layer.outputs;
        }
    }

    /// A_k; 0 where a weight is not adapted.
    fn fill_rates(&mut self, inner: &InnerLoop, k: usize) {
        match inner.rates {
            Rates::Same(lr) => self.alpha.fill(T::from_f64(lr)),
            Rates::Layers(rates) | Rates::Units(rates) | Rates::Weights(rates) => {
                let base = self.base(inner, k);
                let places = self.alpha.iter_mut().zip(&self.place);
                places.for_each(|(a, &place)| *a = T::from_f64(rates[base + place as usize]));
            }
        }
        let fixed = self.fixed(inner);
        self.alpha[..fixed].fill(T::ZERO);
    }

    /// The first rate of step k.
    fn base(&self, inner: &InnerLoop, k: usize) -> usize {
        if let Rates::Layers(_) = inner.rates { k * self.shapes.whole.layers() } else { 0 }
    }

    /// How many weights at the front are not adapted.
    fn fixed(&self, inner: &InnerLoop) -> usize {
        match (inner.adapt, &self.shapes.body) {
            (Adapt::Last, Some(_)) => self.sum.len() - self.shapes.last.head_len(),
            _ => 0,
        }
    }

    /// Adds -(v * update) of step k to the rates' gradient.
    fn add_rates_gradient(&mut self, inner: &InnerLoop, k: usize) {
        if inner.rates.is_empty() {
            return;
        }
        let (p, base, fixed) = (self.sum.len(), self.base(inner, k), self.fixed(inner));
        let adam = matches!(inner.update, Update::Adam { .. });
        let kept = if adam { 3 } else { 1 };
        for i in fixed..p {
            let m = self.history[k * kept * p + i];
            let update = if adam { super::adam::update(inner, k, m, self.history[(k * 3 + 1) * p + i]) } else { m };
            self.rates[base + self.place[i] as usize] -= (self.v[i] * update).to_f64();
        }
    }

    /// Replaces the last layer of `start` by the prototypes of the support set.
    fn start_at_prototypes(&mut self, support: &Examples<T>) -> Result<()> {
        self.body_forward(support)?;
        let last = self.start.len() - self.shapes.last.head_len();
        let width = self.shapes.last.hidden();
        let acts = matrix(&self.acts, support.len(), width);
        proto_maml::prototypes(acts, &support.set.targets(support.t), &mut self.start[last..])
    }

    /// The last hidden activations of the support set at `start`, into `acts`; the body's pass stays in `saved`.
    fn body_forward(&mut self, support: &Examples<T>) -> Result<()> {
        let Some(body) = &self.shapes.body else { return Ok(()) };
        let n = support.len();
        let z = &mut self.z[..n * body.hidden()];
        support.forward(&mut self.lane, &self.start, z)?;
        let front = support.shape.first_len() + support.shape.hidden();
        let phi = &self.start[front..front + body.head_len()];
        let mut saved = mlp::Saved::lay_out(body, n, 0, &mut Carver::over(&mut self.saved));
        mlp::forward(&mut self.lane, body, phi, z, None, &mut saved)?;
        self.lane.relu(saved.out_slice(), &mut self.acts[..n * body.outputs()])
    }

    /// Moves the last layer's adjoint in `v` through the prototypes to the body.
    fn back_through_prototypes(&mut self, support: &Examples<T>) -> Result<()> {
        self.body_forward(support)?;
        let Some(body) = &self.shapes.body else { return Ok(()) };
        let (n, width) = (support.len(), body.outputs());
        let last = self.v.len() - self.shapes.last.head_len();
        let front = support.shape.first_len() + support.shape.hidden();
        let mut saved = mlp::Saved::lay_out(body, n, 0, &mut Carver::over(&mut self.saved));
        let acts = &self.acts[..n * width];
        let targets = support.set.targets(support.t);
        proto_maml::back(width, &targets, &self.start[last..], &mut self.v[last..], saved.out_gradient(body))?;
        self.lane.relu_mask(acts, saved.out_gradient(body))?;
        let (phi, dphi) = (&self.start[front..front + body.head_len()], &mut self.v[front..front + body.head_len()]);
        mlp::backward(&mut self.lane, body, phi, &mut saved, T::ONE, T::ONE, Some(dphi))?;
        support.gradient(&mut self.lane, saved.delta(body), &mut self.hv)?;
        self.lane.axpy(T::ONE, &self.hv[..front], &mut self.v[..front])
    }
}

/// What a Hessian is multiplied with: `m_bar`, or `g`.
#[derive(Clone, Copy)]
pub(super) enum Direction {
    Velocity,
    Gradient,
}

/// The pass over a set.
pub(super) fn pass<'a, T: KernelElement>(memory: &'a mut [T], examples: &Examples<T>) -> mlp::Saved<'a, T> {
    let (targets, n) = (examples.set.targets(examples.t), examples.len());
    mlp::Saved::lay_out(examples.shape, n, saved_len(&targets, n, examples.shape.outputs()), &mut Carver::over(memory))
}
