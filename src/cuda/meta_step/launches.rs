//! The launches of a meta-step: which kernels run on what, from first layer to mean gradient. They depend on a batch's sizes
//! and the inner loop's settings alone, not on what is in memory, so one recording serves every batch of those sizes.

use std::ops::Range;

use super::plan::{StepPlan, THREADS};
use crate::cuda::{Args, Device, Form, Gemm, Launch, Operand, Precision, Span};
use crate::error::{Error, Result};
use crate::meta::{Adapt, InnerLoop, MetaBatch, Order, Rates};
use crate::model::InputKind;

/// All that the launches depend on beside the plan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Work {
    pub episodes: usize,
    pub query: usize,
    pub support: usize,
    steps: usize,
    lr: f32,
    order: Order,
    last_layer: bool,
}

impl Work {
    /// Of a batch under an inner loop with one rate.
    pub fn of(batch: &MetaBatch<f32>, inner: &InnerLoop) -> Result<Self> {
        let Rates::Same(lr) = inner.rates else { return Err(Error::config("rates", "one is needed")) };
        Ok(Self {
            episodes: batch.episodes(),
            query: batch.query.inputs.rows(),
            support: batch.support.inputs.rows(),
            steps: inner.steps,
            lr: lr as f32,
            order: inner.order,
            last_layer: inner.adapt == Adapt::Last,
        })
    }

    /// Whether there is a gradient to fetch.
    pub fn has_gradient(&self) -> bool {
        self.order != Order::Evaluate
    }

    /// The stacked rows (queries, then supports) whose inputs enter the first layer's gradient.
    pub fn used_rows(&self) -> Range<usize> {
        let all = self.query + self.support;
        match self.order {
            Order::Second if self.steps > 0 => 0..all,
            Order::Displacement => self.query..all,
            _ => 0..self.query,
        }
    }

    /// `Order` in `kernels/episode.cu`.
    fn order_number(&self) -> i32 {
        match self.order {
            Order::Second => 0,
            Order::First => 1,
            Order::Displacement => 2,
            Order::Evaluate | Order::Implicit(_) => 3,
        }
    }
}

/// A plan's memory at an address.
#[derive(Clone, Copy)]
pub(super) struct Launches<'a> {
    pub plan: &'a StepPlan,
    pub base: u64,
    pub precision: Precision,
    pub work: Work,
}

impl Launches<'_> {
    /// All of them, one behind the other; there is at least one episode.
    pub fn all<D: Device>(&self, device: &mut D) -> Result<()> {
        self.first_layer(device)?;
        self.grams(device)?;
        self.episodes(device)?;
        if self.work.has_gradient() { self.gather(device) } else { Ok(()) }
    }

    /// Z = X W1^T + b1 of all query and support rows.
    fn first_layer<D: Device>(&self, device: &mut D) -> Result<()> {
        let (base, spans, shape) = (self.base, &self.plan.spans, &self.plan.shape);
        let (rows, h, d) = (self.work.query + self.work.support, shape.hidden(), shape.input);
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
            return unsafe { device.launch(&launch, &args) };
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
        unsafe { gemm.run(device) }
    }

    /// G and G' of each episode, where the first layer is adapted.
    fn grams<D: Device>(&self, device: &mut D) -> Result<()> {
        let frozen = self.work.last_layer && self.plan.shape.layers() > 1;
        if frozen || self.work.steps == 0 {
            return Ok(());
        }
        let (base, spans, limits) = (self.base, &self.plan.spans, &self.plan.limits);
        let n = limits.support;
        let sides = [
            (spans.query_rows, 0, spans.gram_query, limits.query),
            (spans.support_rows, self.work.query, spans.gram, limits.support),
        ];
        let launches = sides.map(|(rows, skipped, dst, m)| {
            let args = Args::new().ptr(rows.at(base)).ptr(spans.support_rows.at(base));
            match self.plan.shape.kind {
                InputKind::Dense => {
                    let at = |skipped: usize| spans.inputs.at(base) + (4 * skipped * self.plan.shape.input) as u64;
                    let args = args.ptr(at(skipped)).ptr(at(self.work.query)).i32(self.plan.shape.input as i32);
                    let tiles = m.div_ceil(32) * n.div_ceil(32);
                    let grid = [tiles.max(1) as u32, self.work.episodes as u32, 1];
                    let launch = Launch { kernel: "gram", grid, block: [THREADS, 1, 1], shared: 0 };
                    (launch, args.ptr(dst.at(base)).i64((m * n) as i64))
                }
                InputKind::Bag => {
                    let bags = |args: Args, skipped: usize| {
                        let offsets = spans.offsets.at(base) + 4 * skipped as u64;
                        args.ptr(offsets).ptr(spans.tokens.at(base)).ptr(spans.inputs.at(base))
                    };
                    let args = bags(bags(args, skipped), self.work.query);
                    let grid = [(m * n).div_ceil(128).max(1) as u32, self.work.episodes as u32, 1];
                    let launch = Launch { kernel: "gram_bags", grid, block: [128, 1, 1], shared: 0 };
                    (launch, args.ptr(dst.at(base)).i64((m * n) as i64))
                }
            }
        });
        launches.iter().try_for_each(|(launch, args)| {
            // SAFETY: row bounds lie within the uploaded inputs; an episode's matrix has at most m x n elements.
            unsafe { device.launch(launch, args) }
        })
    }

    /// All inner steps, query passes and sweeps.
    pub fn episodes<D: Device>(&self, device: &mut D) -> Result<()> {
        let (base, spans, limits, shape) = (self.base, &self.plan.spans, &self.plan.limits, &self.plan.shape);
        let z_support = spans.z.at(base) + (4 * self.work.query * shape.hidden()) as u64;
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
            .i32(self.work.steps as i32)
            .f32(self.work.lr)
            .i32(self.work.order_number())
            .i32(i32::from(self.work.last_layer))
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
        let launch = Launch { kernel, grid: [self.work.episodes as u32, 1, 1], block: [THREADS, 1, 1], shared };
        // SAFETY: every piece has the plan's size, which covers the batch (checked); labels are classes (validated).
        unsafe { device.launch(&launch, &args) }
    }

    /// dW1, and the mean of the episodes' rows.
    fn gather<D: Device>(&self, device: &mut D) -> Result<()> {
        let (base, spans, shape) = (self.base, &self.plan.spans, &self.plan.shape);
        let used = self.work.used_rows();
        let (h, d, mean) = (shape.hidden(), shape.input, 1.0 / self.work.episodes as f32);
        if shape.kind == InputKind::Bag {
            let args = Args::new()
                .ptr(spans.runs.at(base))
                .ptr(spans.examples.at(base))
                .ptr(spans.shares.at(base))
                .ptr(spans.z.at(base))
                .i32(h as i32)
                .ptr(0)
                .ptr(spans.dfirst.at(base));
            // For as many rows as there may be: those that this batch has not are empty runs.
            let rows = self.plan.table[0];
            if rows > 0 {
                // SAFETY: runs, examples and shares were uploaded for these rows; examples are rows of `z`.
                unsafe { device.launch(&row_launch("bag_f32", rows, h), &args)? };
            }
        } else {
            let at = |span: Span, ld: usize| {
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
            unsafe { gemm.run(device)? };
        }
        let len = self.plan.row_len();
        let args = Args::new()
            .i32(self.work.episodes as i32)
            .i64(len as i64)
            .f32(mean)
            .ptr(spans.rows.at(base))
            .ptr(spans.mean.at(base));
        let blocks = len.div_ceil(THREADS as usize) as u32;
        let launch = Launch { kernel: "sum_rows", grid: [blocks, 1, 1], block: [THREADS, 1, 1], shared: 0 };
        // SAFETY: the episode kernel wrote `episodes` rows of `len` numbers; `mean` has `len`.
        unsafe { device.launch(&launch, &args) }
    }
}

/// A block for each of `rows`, threads for their columns.
fn row_launch(kernel: &'static str, rows: usize, columns: usize) -> Launch {
    let threads = columns.next_multiple_of(32).min(256) as u32;
    Launch { kernel, grid: [rows as u32, 1, 1], block: [threads, 1, 1], shared: 0 }
}
