//! The meta-gradient in the plain form: every inner step has its own copy of all weights.
//!
//! ```text
//! m_{k+1}     = mu m_k + g(theta_k) + w theta_k + l (theta_k - theta_0)      g = gradient of the support loss
//! theta_{k+1} = theta_k - A_k m_{k+1}
//! v = gradient of the query loss at theta_S
//! k = S-1..0:  A_bar_k = -v * m_{k+1}        m_bar = mu m_bar - A_k v
//!              v += (w + l) m_bar + H(theta_k) m_bar        theta_0_bar -= l m_bar        H = Hessian of the support loss
//! ```
//!
//! It is the reference for Gram space, and what remains where that form does not hold. Episodes run one after the other
//! on one thread. Micro-batches are not cut here: the sums are the same.
#![forbid(unsafe_code)]

mod adam;
mod context;
mod examples;
mod implicit;
mod steps;

use super::plan::{Shapes, overflow, product};
use super::{InnerLoop, Inputs, Limits, MetaBatch, MetaGradient, Order, Outcome, cavia};
use crate::backend::{Lane, matrix};
use crate::cpu::{Cpu, KernelElement};
use crate::error::{Error, Result};
use crate::model::{InputKind, MlpShape, Params, mlp};
use crate::view::MatRef;
use examples::Examples;

/// Computes meta-gradients in the plain form; owns all memory they need.
pub struct Dense<T: KernelElement> {
    shapes: Shapes,
    limits: Limits,
    lane: Lane<T>,
    /// theta_0..theta_S where they are kept, otherwise two in turn; each first layer, bias, head.
    thetas: Vec<T>,
    /// theta_0 with the last layer's start.
    start: Vec<T>,
    /// What each kept step leaves: m_{k+1}; with Adam also its second moment and g(theta_k).
    history: Vec<T>,
    /// The gradient of a set; a velocity and its second moment, their adjoints; the adjoint of theta; a Hessian product.
    g: Vec<T>,
    m: Vec<T>,
    s: Vec<T>,
    m_bar: Vec<T>,
    s_bar: Vec<T>,
    v: Vec<T>,
    hv: Vec<T>,
    /// theta_0_bar by the proximal pull.
    pulled: Vec<T>,
    /// A_k, and where in the learned rates each weight's is.
    alpha: Vec<T>,
    place: Vec<u32>,
    /// Sum over the episodes, and of the rates' gradients.
    sum: Vec<T>,
    rates: Vec<f64>,
    /// One set's pre-activations of the first layer, or their tangent; the last hidden layer's.
    z: Vec<T>,
    acts: Vec<T>,
    /// The context's vectors.
    context: Vec<T>,
    saved: Vec<T>,
    scratch: Vec<T>,
    out: Vec<T>,
    out_rows: usize,
}

/// Lengths of a workspace's vectors.
struct Lens {
    p: usize,
    thetas: usize,
    history: usize,
    place: usize,
    rows: usize,
    saved: usize,
    context: usize,
    out: usize,
}

impl Lens {
    fn new(shape: &MlpShape, limits: &Limits) -> Result<Self> {
        let (p, steps, rows) = (shape.len(), limits.inner.saved_steps, limits.support.max(limits.query));
        let inner = &limits.inner;
        let kept = if inner.adam { 3 } else { usize::from(inner.rates > 0) };
        Ok(Self {
            p,
            thetas: product(&[p, if steps > 0 { steps.checked_add(1).ok_or_else(overflow)? } else { 2 }])?,
            history: product(&[p, steps, kept])?,
            place: if inner.rates > 0 { p } else { 0 },
            rows,
            context: context::len(shape, inner.context, steps),
            saved: mlp::Saved::<f32>::len(shape, rows, limits.loss_len(rows, shape.outputs())),
            out: product(&[limits.episodes, limits.query, shape.outputs()])?,
        })
    }
}

impl<T: KernelElement> Dense<T> {
    /// Allocates everything for batches up to `limits`; uses one thread of `cpu`.
    pub fn new(cpu: &Cpu, shape: &MlpShape, limits: Limits) -> Result<Self> {
        shape.validate()?;
        let lens = Lens::new(shape, &limits)?;
        let zeros = |n: usize| vec![T::ZERO; n];
        let p = lens.p;
        Ok(Self {
            lane: Lane::new(cpu),
            thetas: zeros(lens.thetas),
            start: zeros(p),
            history: zeros(lens.history),
            g: zeros(p),
            m: zeros(p),
            s: zeros(p),
            m_bar: zeros(p),
            s_bar: zeros(p),
            v: zeros(p),
            hv: zeros(p),
            pulled: zeros(p),
            alpha: zeros(p),
            place: vec![0; lens.place],
            sum: zeros(p),
            rates: vec![0.0; limits.inner.rates],
            z: zeros(lens.rows * shape.hidden()),
            acts: zeros(lens.rows * shape.widths.iter().max().copied().unwrap_or(0)),
            context: zeros(lens.context),
            saved: zeros(lens.saved),
            scratch: zeros(mlp::scratch_len(shape, lens.rows)),
            out: zeros(lens.out),
            out_rows: 0,
            shapes: Shapes::new(shape),
            limits,
        })
    }

    /// Bytes that [`Dense::new`] allocates.
    pub fn planned_bytes(cpu: &Cpu, shape: &MlpShape, limits: &Limits) -> Result<usize> {
        let lens = Lens::new(shape, limits)?;
        let widest = shape.widths.iter().max().copied().unwrap_or(0);
        let rows = lens.rows * (shape.hidden() + widest) + mlp::scratch_len(shape, lens.rows);
        let elements = [lens.thetas, product(&[lens.p, 11])?, lens.history, rows, lens.saved, lens.context, lens.out];
        let elements = elements.into_iter().try_fold(0, usize::checked_add).ok_or_else(overflow)?;
        let others = lens.place * size_of::<u32>() + limits.inner.rates * size_of::<f64>();
        Ok(product(&[elements, size_of::<T>()])? + others + Lane::<T>::planned_bytes(cpu) + Shapes::new(shape).bytes())
    }

    /// Outputs of the last batch's query rows after adaptation, stacked.
    pub fn query_outputs(&self) -> MatRef<'_, T> {
        matrix(&self.out, self.out_rows, self.shapes.whole.outputs())
    }

    /// The same as [`GramSpace::run`](super::GramSpace::run), by carrying all weights.
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
        self.sum.fill(T::ZERO);
        self.rates.fill(0.0);
        self.place_rates(inner);
        gradient.query_loss.clear();
        gradient.outcomes.clear();
        self.out_rows = 0;
        for t in 0..batch.episodes() {
            let (loss, solved) = self.episode(params, batch, inner, t)?;
            let finite = loss.is_finite() && (inner.order == Order::Evaluate || self.v.iter().all(|x| x.is_finite()));
            gradient.query_loss.push(loss);
            gradient.outcomes.push(Outcome::of(finite, solved));
            self.lane.axpy(T::ONE, &self.v, &mut self.sum)?;
        }
        gradient.rates.clear();
        if inner.order != Order::Evaluate {
            self.write_mean(batch, inner, gradient);
            let mean = 1.0 / batch.episodes().max(1) as f64;
            gradient.rates.extend(self.rates[..inner.rates.len()].iter().map(|r| r * mean));
        }
        Ok(())
    }

    fn check(&self, params: &Params<T>, batch: &MetaBatch<T>, inner: &InnerLoop) -> Result<()> {
        let shape = &self.shapes.whole;
        if params.shape != *shape {
            return Err(Error::shape("meta-step", "the weights are of another shape than the workspace"));
        }
        batch.validate(shape)?;
        inner.validate(shape)?;
        cavia::check_examples(batch, shape, inner.context())?;
        let (found, planned) = (Limits::of(batch, inner), &self.limits);
        let (needs, has) = (Lens::new(shape, &found)?, Lens::new(shape, planned)?);
        let fits = planned.covers(&found)
            && needs.thetas <= has.thetas
            && needs.history <= has.history
            && needs.place <= has.place
            && needs.context <= has.context
            && inner.rates.len() <= planned.inner.rates;
        if fits {
            return Ok(());
        }
        Err(Error::shape("meta-step", format!("{found:?} exceeds the plan's {planned:?}")))
    }

    /// Divides the sum by the number of episodes and lays it out as the gradient; of an embedding table only the rows
    /// that occur.
    fn write_mean(&self, batch: &MetaBatch<T>, inner: &InnerLoop, gradient: &mut MetaGradient<T>) {
        let (shape, h) = (&self.shapes.whole, self.shapes.whole.hidden());
        let mean = T::ONE / T::from_f64(batch.episodes().max(1) as f64);
        let scaled = |dst: &mut [T], src: &[T]| dst.iter_mut().zip(src).for_each(|(d, &s)| *d = s * mean);
        let (first, rest) = self.sum.split_at(shape.first_len());
        scaled(&mut gradient.bias, &rest[..h]);
        scaled(&mut gradient.head, &rest[h..]);
        gradient.rows.clear();
        if shape.kind == InputKind::Dense {
            return scaled(&mut gradient.first, first);
        }
        // The gradient has room for all different rows, not for all tokens: repetitions go whenever it is full.
        let room = gradient.first.len() / h;
        let mut add = |row: u32| {
            if gradient.rows.len() >= room {
                gradient.rows.sort_unstable();
                gradient.rows.dedup();
            }
            if gradient.rows.len() < room {
                gradient.rows.push(row);
            }
        };
        for set in [&batch.query, &batch.support] {
            if let Inputs::Bags(bags) = &set.inputs {
                (0..bags.rows()).for_each(|i| bags.row(i).0.iter().for_each(|&token| add(token)));
            }
        }
        cavia::rows(shape, inner.context()).for_each(add);
        gradient.rows.sort_unstable();
        gradient.rows.dedup();
        for (&row, dst) in gradient.rows.iter().zip(gradient.first.chunks_exact_mut(h)) {
            scaled(dst, &first[row as usize * h..][..h]);
        }
    }
}

/// First layer, bias, head, one after the other.
fn flatten<T: KernelElement>(params: &Params<T>, dst: &mut [T]) {
    let (first, rest) = dst.split_at_mut(params.first.len());
    first.copy_from_slice(&params.first);
    rest[..params.bias.len()].copy_from_slice(&params.bias);
    rest[params.bias.len()..].copy_from_slice(&params.head);
}
