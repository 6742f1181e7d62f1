//! The launches of a meta-step: which kernels run on what, from first layer to mean gradient. They depend on a batch's sizes
//! and the inner loop's settings alone, not on what is in memory, so one recording serves every batch of those sizes.

use std::ops::Range;

use super::plan::{GROUP, StepPlan};
use super::wide::Wide;
use crate::cuda::rows::{self, BagsAt, Grams};
use crate::cuda::{Args, Device, Form, Gemm, Launch, Operand, Precision, Span};
use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::meta::{Adapt, InnerLoop, MetaBatch, Order, Rates};
use crate::model::InputKind;

/// All that the launches depend on beside the plan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Work {
    pub episodes: usize,
    pub query: usize,
    pub support: usize,
    pub steps: usize,
    pub lr: f32,
    pub order: Order,
    pub last_layer: bool,
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
        let (count, h, d) = (self.work.query + self.work.support, shape.hidden(), shape.input);
        if count == 0 {
            return Ok(());
        }
        if shape.kind == InputKind::Bag {
            let table = (spans.first.at(base), Dtype::F32);
            let call = rows::bag(count, h, &self.bags(0), table, spans.bias.at(base), spans.z.at(base))?;
            // SAFETY: offsets, tokens and weights were uploaded for these rows, tokens name uploaded rows of the table,
            // and `z` has rows x h elements.
            return unsafe { call.run(device) };
        }
        let operand = |address, ld| Operand { address, ld, stride: 0 };
        let gemm = Gemm {
            form: Form::Nt,
            precision: self.precision,
            m: count,
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
        let (n, supports) = (limits.support, self.work.query);
        let sides = [
            (spans.query_rows, 0, spans.gram_query, limits.query),
            (spans.support_rows, supports, spans.gram, limits.support),
        ];
        for (bounds, first, dst, m) in sides {
            let grams = Grams {
                episodes: self.work.episodes,
                bounds: [bounds.at(base), spans.support_rows.at(base)],
                most: [m, n],
                dst: dst.at(base),
                ld: self.plan.gram_ld(),
            };
            let call = match self.plan.shape.kind {
                InputKind::Dense => {
                    let d = self.plan.shape.input;
                    let at = |row: usize| spans.inputs.at(base) + (4 * row * d) as u64;
                    rows::gram(&grams, at(first), at(supports), d)?
                }
                InputKind::Bag => rows::gram_bags(&grams, &self.bags(first), &self.bags(supports))?,
            };
            // SAFETY: row bounds lie within the uploaded inputs; a matrix has a row for each of its rows.
            unsafe { call.run(device)? };
        }
        Ok(())
    }

    /// The uploaded bags from row `first` on.
    fn bags(&self, first: usize) -> BagsAt {
        let (base, spans) = (self.base, &self.plan.spans);
        let offsets = spans.offsets.at(base) + 4 * first as u64;
        BagsAt { offsets, tokens: spans.tokens.at(base), weights: spans.inputs.at(base) }
    }

    /// All inner steps, query passes and sweeps.
    pub fn episodes<D: Device>(&self, device: &mut D) -> Result<()> {
        if self.plan.shared { self.episodes_alone(device) } else { Wide::new(self, device).run() }
    }

    /// The same in one launch, a block an episode.
    fn episodes_alone<D: Device>(&self, device: &mut D) -> Result<()> {
        let (base, spans, shape) = (self.base, &self.plan.spans, &self.plan.shape);
        let z_support = spans.z.at(base) + (4 * self.work.query * shape.hidden()) as u64;
        let args = Args::new()
            .ptr(spans.widths.at(base))
            .i32(shape.layers() as i32)
            .ptr(spans.support_rows.at(base))
            .ptr(spans.query_rows.at(base))
            .ptr(spans.support_labels.at(base))
            .ptr(spans.query_labels.at(base))
            .ptr(spans.gram.at(base))
            .ptr(spans.gram_query.at(base))
            .i32(self.plan.gram_ld() as i32)
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
        let (grid, shared) = ([self.work.episodes as u32, 1, 1], self.plan.shared_bytes() as u32);
        let launch = Launch { kernel: "episode_shared", grid, block: [self.plan.threads, 1, 1], shared };
        // SAFETY: every piece has the plan's size, which covers the batch (checked); labels are classes (validated).
        unsafe { device.launch(&launch, &args) }
    }

    /// dW1, and the mean of the episodes' rows.
    fn gather<D: Device>(&self, device: &mut D) -> Result<()> {
        match self.plan.shape.kind {
            InputKind::Dense => self.first_gradient(device)?,
            InputKind::Bag => self.table_gradient(device)?,
        }
        let (base, spans, t) = (self.base, &self.plan.spans, self.work.episodes);
        let (len, mean, dst) = (self.plan.row_len(), 1.0 / t as f32, spans.mean.at(base));
        if t <= GROUP {
            let call = rows::sum_rows(t, len, GROUP, mean, spans.rows.at(base), dst)?;
            // SAFETY: the episode kernel wrote `t` rows of `len` numbers; `mean` has `len`.
            return unsafe { call.run(device) };
        }
        let groups = t.div_ceil(GROUP);
        let by_group = rows::sum_rows(t, len, GROUP, mean, spans.rows.at(base), spans.groups.at(base))?;
        let all = rows::sum_rows(groups, len, groups, 1.0, spans.groups.at(base), dst)?;
        // SAFETY: as above; `groups` has a row for each group.
        unsafe { by_group.run(device).and_then(|()| all.run(device)) }
    }

    /// dW1 of an embedding table: a gather over the entries sorted by token.
    fn table_gradient<D: Device>(&self, device: &mut D) -> Result<()> {
        let (base, spans) = (self.base, &self.plan.spans);
        let (offsets, tokens) = (spans.runs.at(base), spans.examples.at(base));
        let runs = BagsAt { offsets, tokens, weights: spans.shares.at(base) };
        let z = (spans.z.at(base), Dtype::F32);
        // For as many rows as there may be: those that this batch has not are empty runs.
        let call = rows::bag(self.plan.table[0], self.plan.shape.hidden(), &runs, z, 0, spans.dfirst.at(base))?;
        // SAFETY: runs, examples and shares were uploaded for these rows; examples are rows of `z`.
        unsafe { call.run(device) }
    }

    /// dW1 = eps^T X' + u^T X over the mean, in parts of some rows where there are many.
    fn first_gradient<D: Device>(&self, device: &mut D) -> Result<()> {
        let (base, spans, shape) = (self.base, &self.plan.spans, &self.plan.shape);
        let used = self.work.used_rows();
        // Equal parts, so that none is alone on the device for long: what is left over is less than a row for each of them.
        let whole = used.len().div_ceil(self.plan.part_rows).max(1);
        let (each, left) = (used.len() / whole, used.len() % whole);
        let (h, d, mean) = (shape.hidden(), shape.input, 1.0 / self.work.episodes as f32);
        let last = usize::from(left > 0);
        let parts = whole + last;
        let dst = if parts > 1 { spans.parts.at(base) } else { spans.dfirst.at(base) };
        // The products of `batch` parts of k rows each, behind `before` parts.
        let products = |before: usize, batch: usize, k: usize| {
            let from = |span: Span, ld: usize| Operand {
                address: span.at(base) + (4 * (used.start + before * each) * ld) as u64,
                ld,
                stride: each * ld,
            };
            Gemm {
                form: Form::Tn,
                precision: self.precision,
                m: h,
                n: d,
                k,
                batch,
                alpha: mean,
                beta: 0.0,
                a: from(spans.z, h),
                b: from(spans.inputs, d),
                c: Operand { address: dst + (4 * before * h * d) as u64, ld: d, stride: h * d },
                bias: 0,
                relu: false,
            }
        };
        for (before, batch, k) in [(0, whole, each), (whole, last, left)] {
            // SAFETY: `used` are rows of `z` and of the inputs; `dfirst`, and each of the `parts`, has h x d elements.
            unsafe { products(before, batch, k).run(device)? };
        }
        if parts < 2 {
            return Ok(());
        }
        let call = rows::sum_rows(parts, h * d, parts, 1.0, dst, spans.dfirst.at(base))?;
        // SAFETY: as above.
        unsafe { call.run(device) }
    }
}
