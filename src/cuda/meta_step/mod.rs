//! A meta-step on a device: one product for Z_0 and Z'_0 of all episodes, the Gram matrices, one launch for all that lies
//! between (`kernels/episode.cu`), one product (for bags one gather over sorted entries) for dW1, and the mean over the
//! episodes in their order. The algebra is that of [`GramSpace`](crate::meta::GramSpace), whose results it gives.
//!
//! Of an embedding table only the rows that occur are on the device: memory and time do not depend on the vocabulary.

mod plan;
mod staging;

use std::ops::Range;

pub use plan::StepPlan;

use super::{Args, Device, Form, Gemm, Launch, Operand, Precision};
use crate::backend::matrix;
use crate::error::{Error, Result};
use crate::meta::{
    Adapt, BatchTargets, InnerLoop, Limits, MetaBatch, MetaGradient, Order, Outcome, Rates, Start, Update,
};
use crate::model::{InputKind, MlpShape, Params};
use crate::view::MatRef;
use plan::THREADS;
use staging::Staging;

/// Computes meta-gradients on a device; owns all memory they need, there and here.
pub struct MetaStep<D: Device> {
    device: D,
    plan: StepPlan,
    memory: D::Buffer,
    staging: Staging,
    precision: Precision,
    out_rows: usize,
}

/// One batch's sizes.
#[derive(Clone, Copy)]
struct Sizes {
    episodes: usize,
    query: usize,
    support: usize,
}

impl<D: Device> MetaStep<D> {
    /// Takes the memory for batches up to `limits`.
    ///
    /// # Errors
    /// As [`StepPlan::new`], and where the device has too little memory.
    pub fn new(mut device: D, shape: &MlpShape, limits: Limits) -> Result<Self> {
        let plan = StepPlan::new(shape, limits, device.shared_limit())?;
        let memory = device.alloc(plan.bytes())?;
        let staging = Staging::new(&plan);
        Ok(Self { device, plan, memory, staging, precision: Precision::F32, out_rows: 0 })
    }

    /// How the two large products are taken; f32 unless said otherwise.
    ///
    /// # Errors
    /// [`Error::Config`] for 16-bit precisions: the inputs are stored in f32.
    pub fn with_precision(mut self, precision: Precision) -> Result<Self> {
        if precision.bytes() != size_of::<f32>() {
            return Err(Error::config("precision", format!("{precision:?}; the inputs are f32")));
        }
        self.precision = precision;
        Ok(self)
    }

    /// The sizes it was made for.
    pub fn plan(&self) -> &StepPlan {
        &self.plan
    }

    /// Outputs of the last batch's query rows after adaptation, stacked.
    pub fn query_outputs(&self) -> MatRef<'_, f32> {
        matrix(&self.staging.out, self.out_rows, self.plan.shape.outputs())
    }

    /// What [`GramSpace::run`](crate::meta::GramSpace::run) does, for the settings the kernels have: classes as targets,
    /// plain steps at one rate, all layers or the last, orders second, first, displacement and evaluate.
    ///
    /// # Errors
    /// [`Error::Config`] for any other setting, [`Error::Shape`] where the batch does not fit model or plan, and
    /// [`Error::Device`] where the device refuses.
    pub fn run(
        &mut self,
        params: &Params<f32>,
        batch: &MetaBatch<f32>,
        inner: &InnerLoop,
        gradient: &mut MetaGradient<f32>,
    ) -> Result<()> {
        self.check(params, batch, inner)?;
        let sizes = Sizes {
            episodes: batch.episodes(),
            query: batch.query.inputs.rows(),
            support: batch.support.inputs.rows(),
        };
        if inner.order != Order::Evaluate {
            gradient.check(&params.shape, self.plan.limits.row_count(&params.shape).min(batch_nnz(batch)))?;
        }
        self.staging.fill(&self.plan, params, batch, used_rows(inner, sizes));
        self.device.upload(&mut self.memory, 0, self.staging.bytes())?;
        self.first_layer(sizes)?;
        self.grams(sizes, inner)?;
        self.episodes(sizes, inner)?;
        if inner.order != Order::Evaluate {
            self.gather(sizes, used_rows(inner, sizes))?;
        }
        self.collect(sizes, inner, gradient)
    }

    fn check(&self, params: &Params<f32>, batch: &MetaBatch<f32>, inner: &InnerLoop) -> Result<()> {
        if params.shape != self.plan.shape {
            return Err(Error::shape("meta-step", "the weights are of another shape than the workspace"));
        }
        batch.validate(&params.shape)?;
        inner.validate(&params.shape)?;
        if let Some(what) = unsupported(batch, inner) {
            return Err(Error::config("device", format!("the kernels have no {what}; the CPU has")));
        }
        let (planned, found) = (&self.plan.limits, Limits::of(batch, inner));
        let steps_fit = found.inner.saved_steps <= planned.inner.saved_steps
            && (planned.inner.last_layer == found.inner.last_layer || inner.order == Order::Evaluate);
        if planned.covers(&found) && steps_fit {
            return Ok(());
        }
        Err(Error::shape("meta-step", format!("{found:?} exceeds the plan's {planned:?}")))
    }

    fn base(&self) -> u64 {
        self.device.address(&self.memory)
    }

    /// Z = X W1^T + b1 of all query and support rows.
    fn first_layer(&mut self, sizes: Sizes) -> Result<()> {
        let (base, spans, shape) = (self.base(), &self.plan.spans, &self.plan.shape);
        let (rows, h, d) = (sizes.query + sizes.support, shape.hidden(), shape.input);
        if rows == 0 {
            return Ok(());
        }
        if shape.kind == InputKind::Bag {
            let args = Args::new()
                .ptr(spans.offsets.at(base))
                .ptr(spans.tokens.at(base))
                .ptr(spans.inputs.at(base))
                .ptr(spans.first.at(base))
                .i32(h as i32)
                .ptr(spans.bias.at(base))
                .ptr(spans.z.at(base));
            let launch = row_launch("bag_f32", rows, h);
            // SAFETY: offsets, tokens and weights were uploaded for these rows, tokens name uploaded rows of the table,
            // and `z` has rows x h elements.
            return unsafe { self.device.launch(&launch, &args) };
        }
        let operand = |address, ld| Operand { address, ld, stride: 0 };
        let gemm = Gemm {
            form: Form::Nt,
            precision: self.precision,
            m: rows,
            n: h,
            k: d,
            batch: 1,
            alpha: 1.0,
            beta: 0.0,
            a: operand(spans.inputs.at(base), d),
            b: operand(spans.first.at(base), d),
            c: operand(spans.z.at(base), h),
            bias: spans.bias.at(base),
            relu: false,
        };
        // SAFETY: the plan made the pieces of these sizes, and they do not overlap.
        unsafe { gemm.run(&mut self.device) }
    }

    /// G and G' of each episode, where the first layer is adapted.
    fn grams(&mut self, sizes: Sizes, inner: &InnerLoop) -> Result<()> {
        let frozen = inner.adapt == Adapt::Last && self.plan.shape.layers() > 1;
        if frozen || inner.steps == 0 || sizes.episodes == 0 {
            return Ok(());
        }
        let (base, spans, limits) = (self.base(), &self.plan.spans, &self.plan.limits);
        let n = limits.support;
        let sides = [
            (spans.query_rows, 0, spans.gram_query, limits.query),
            (spans.support_rows, sizes.query, spans.gram, limits.support),
        ];
        let launches = sides.map(|(rows, skipped, dst, m)| {
            let args = Args::new().ptr(rows.at(base)).ptr(spans.support_rows.at(base));
            match self.plan.shape.kind {
                InputKind::Dense => {
                    let at = |skipped: usize| spans.inputs.at(base) + (4 * skipped * self.plan.shape.input) as u64;
                    let args = args.ptr(at(skipped)).ptr(at(sizes.query)).i32(self.plan.shape.input as i32);
                    let tiles = m.div_ceil(32) * n.div_ceil(32);
                    let grid = [tiles.max(1) as u32, sizes.episodes as u32, 1];
                    let launch = Launch { kernel: "gram", grid, block: [THREADS, 1, 1], shared: 0 };
                    (launch, args.ptr(dst.at(base)).i64((m * n) as i64))
                }
                InputKind::Bag => {
                    let bags = |args: Args, skipped: usize| {
                        let offsets = spans.offsets.at(base) + 4 * skipped as u64;
                        args.ptr(offsets).ptr(spans.tokens.at(base)).ptr(spans.inputs.at(base))
                    };
                    let args = bags(bags(args, skipped), sizes.query);
                    let grid = [(m * n).div_ceil(128).max(1) as u32, sizes.episodes as u32, 1];
                    let launch = Launch { kernel: "gram_bags", grid, block: [128, 1, 1], shared: 0 };
                    (launch, args.ptr(dst.at(base)).i64((m * n) as i64))
                }
            }
        });
        launches.iter().try_for_each(|(launch, args)| {
            // SAFETY: row bounds lie within the uploaded inputs; an episode's matrix has at most m x n elements.
            unsafe { self.device.launch(launch, args) }
        })
    }

    /// All inner steps, query passes and sweeps.
    fn episodes(&mut self, sizes: Sizes, inner: &InnerLoop) -> Result<()> {
        let (base, spans, limits, shape) = (self.base(), &self.plan.spans, &self.plan.limits, &self.plan.shape);
        let Rates::Same(lr) = inner.rates else { return Err(Error::config("rates", "one is needed")) };
        let z_support = spans.z.at(base) + (4 * sizes.query * shape.hidden()) as u64;
        let args = Args::new()
            .ptr(spans.widths.at(base))
            .i32(shape.layers() as i32)
            .ptr(spans.support_rows.at(base))
            .ptr(spans.query_rows.at(base))
            .ptr(spans.support_labels.at(base))
            .ptr(spans.query_labels.at(base))
            .ptr(spans.gram.at(base))
            .i64((limits.support * limits.support) as i64)
            .ptr(spans.gram_query.at(base))
            .i64((limits.query * limits.support) as i64)
            .ptr(z_support)
            .ptr(spans.z.at(base))
            .ptr(spans.head.at(base))
            .i32(inner.steps as i32)
            .f32(lr as f32)
            .i32(order_number(inner.order))
            .i32(i32::from(inner.adapt == Adapt::Last))
            .ptr(spans.out.at(base))
            .ptr(spans.rows.at(base))
            .i32(self.plan.row_len() as i32)
            .ptr(spans.losses.at(base))
            .ptr(spans.finite.at(base));
        let (kernel, args) = if self.plan.shared {
            ("episode_shared", args)
        } else {
            ("episode_global", args.ptr(spans.workspace.at(base)).i64(self.plan.episode_len as i64))
        };
        let shared = self.plan.shared_bytes() as u32;
        let launch = Launch { kernel, grid: [sizes.episodes.max(1) as u32, 1, 1], block: [THREADS, 1, 1], shared };
        if sizes.episodes == 0 {
            return Ok(());
        }
        // SAFETY: every piece has the plan's size, which covers the batch (checked); labels are classes (validated).
        unsafe { self.device.launch(&launch, &args) }
    }

    /// dW1, and the mean of the episodes' rows.
    fn gather(&mut self, sizes: Sizes, used: Range<usize>) -> Result<()> {
        let (base, spans, shape) = (self.base(), &self.plan.spans, &self.plan.shape);
        let (h, d, mean) = (shape.hidden(), shape.input, 1.0 / sizes.episodes.max(1) as f32);
        if shape.kind == InputKind::Bag {
            let args = Args::new()
                .ptr(spans.runs.at(base))
                .ptr(spans.examples.at(base))
                .ptr(spans.shares.at(base))
                .ptr(spans.z.at(base))
                .i32(h as i32)
                .ptr(0)
                .ptr(spans.dfirst.at(base));
            let launch = row_launch("bag_f32", self.staging.rows.len(), h);
            if !self.staging.rows.is_empty() {
                // SAFETY: runs, examples and shares were uploaded for these rows; examples are rows of `z`.
                unsafe { self.device.launch(&launch, &args)? };
            }
        } else {
            let at = |span: super::Span, ld: usize| {
                let address = span.at(base) + (4 * used.start * ld) as u64;
                Operand { address, ld, stride: 0 }
            };
            let gemm = Gemm {
                form: Form::Tn,
                precision: self.precision,
                m: h,
                n: d,
                k: used.len(),
                batch: 1,
                alpha: mean,
                beta: 0.0,
                a: at(spans.z, h),
                b: at(spans.inputs, d),
                c: Operand { address: spans.dfirst.at(base), ld: d, stride: 0 },
                bias: 0,
                relu: false,
            };
            // SAFETY: `used` are rows of `z` and of the inputs; `dfirst` has h x d elements.
            unsafe { gemm.run(&mut self.device)? };
        }
        let len = self.plan.row_len();
        let args = Args::new()
            .i32(sizes.episodes as i32)
            .i64(len as i64)
            .f32(mean)
            .ptr(spans.rows.at(base))
            .ptr(spans.mean.at(base));
        let blocks = len.div_ceil(THREADS as usize) as u32;
        let launch = Launch { kernel: "sum_rows", grid: [blocks, 1, 1], block: [THREADS, 1, 1], shared: 0 };
        // SAFETY: the episode kernel wrote `episodes` rows of `len` numbers; `mean` has `len`.
        unsafe { self.device.launch(&launch, &args) }
    }

    /// Results to the host.
    fn collect(&mut self, sizes: Sizes, inner: &InnerLoop, gradient: &mut MetaGradient<f32>) -> Result<()> {
        let (spans, shape) = (&self.plan.spans, &self.plan.shape);
        let (t, h) = (sizes.episodes, shape.hidden());
        gradient.query_loss.clear();
        gradient.query_loss.resize(t, 0.0);
        gradient.rates.clear();
        self.out_rows = sizes.query;
        let mut fetch = |span: super::Span, dst: &mut [f32]| {
            self.device.download(&self.memory, span.offset, bytemuck::cast_slice_mut(dst))
        };
        fetch(spans.losses, &mut gradient.query_loss)?;
        fetch(spans.out, &mut self.staging.out[..sizes.query * shape.outputs()])?;
        let finite = &mut self.staging.finite[..t];
        finite.fill(1);
        if inner.order != Order::Evaluate {
            let mean = &mut self.staging.mean;
            fetch(spans.mean, mean)?;
            gradient.bias.copy_from_slice(&mean[..h]);
            gradient.head.copy_from_slice(&mean[h..]);
            let len = match shape.kind {
                InputKind::Dense => shape.first_len(),
                InputKind::Bag => self.staging.rows.len() * h,
            };
            fetch(spans.dfirst, &mut gradient.first[..len])?;
            self.device.download(&self.memory, spans.finite.offset, bytemuck::cast_slice_mut(finite))?;
            gradient.rows.clear();
            gradient.rows.extend_from_slice(&self.staging.rows);
        }
        gradient.outcomes.clear();
        let ends = gradient.query_loss.iter().zip(&self.staging.finite);
        gradient.outcomes.extend(ends.map(|(loss, &good)| Outcome::of(loss.is_finite() && good != 0, true)));
        Ok(())
    }
}

/// A block for each of `rows`, threads for their columns.
fn row_launch(kernel: &'static str, rows: usize, columns: usize) -> Launch {
    let threads = columns.next_multiple_of(32).min(256) as u32;
    Launch { kernel, grid: [rows as u32, 1, 1], block: [threads, 1, 1], shared: 0 }
}

/// `Order` in `kernels/episode.cu`.
fn order_number(order: Order) -> i32 {
    match order {
        Order::Second => 0,
        Order::First => 1,
        Order::Displacement => 2,
        Order::Evaluate | Order::Implicit(_) => 3,
    }
}

/// The stacked rows (queries, then supports) whose inputs enter the first layer's gradient.
fn used_rows(inner: &InnerLoop, sizes: Sizes) -> Range<usize> {
    let all = sizes.query + sizes.support;
    match inner.order {
        Order::Second if inner.steps > 0 => 0..all,
        Order::Displacement => sizes.query..all,
        _ => 0..sizes.query,
    }
}

fn batch_nnz(batch: &MetaBatch<f32>) -> usize {
    batch.query.inputs.nnz() + batch.support.inputs.nnz()
}

/// The first setting of the loop, or kind of target, that only the CPU has.
fn unsupported(batch: &MetaBatch<f32>, inner: &InnerLoop) -> Option<&'static str> {
    let classes = |t: &BatchTargets| matches!(t, BatchTargets::Classes(_));
    if !classes(&batch.support.targets) || !classes(&batch.query.targets) {
        return Some("loss but that of classes");
    }
    match inner.order {
        Order::Implicit(_) => return Some("implicit gradient"),
        Order::Second | Order::First | Order::Displacement | Order::Evaluate => {}
    }
    let refused = [
        (!matches!(inner.rates, Rates::Same(_)), "learned rates"),
        (inner.update != Update::PLAIN, "inner momentum, decay or Adam"),
        (inner.proximal != 0.0, "proximal pull"),
        (!matches!(inner.adapt, Adapt::All | Adapt::Last), "context"),
        (inner.start != Start::Learned, "start at prototypes"),
        (!inner.step_weights.is_empty(), "loss after every step"),
        (inner.micro_batch != 0, "micro-batches"),
    ];
    refused.into_iter().find(|(found, _)| *found).map(|(_, what)| what)
}
