//! A meta-step on a device: one product for Z_0 and Z'_0 of all episodes, the Gram matrices, one launch for all that lies
//! between (`kernels/episode.cu`), or where an episode is too large for that one for each part of an inner step
//! (`kernels/grouped.cu`), one product (for bags one gather over sorted entries) for dW1, and the mean over the
//! episodes in their order. The algebra is that of [`GramSpace`](crate::meta::GramSpace), whose results it gives.
//!
//! Of an embedding table only the rows that occur are on the device: its memory and the time do not depend on the vocabulary; the
//! host keeps 8 bytes for each word.

mod entries;
mod launches;
mod plan;
mod room;
mod spread;
mod staging;
mod times;
mod wide;

pub use plan::StepPlan;
pub use times::{StepTimes, step_bytes};

use super::{Device, Precision};
use crate::backend::matrix;
use crate::cpu::Cpu;
use crate::error::{Error, Result};
use crate::meta::{
    Adapt, BatchTargets, Engine, InnerLoop, Limits, MetaBatch, MetaGradient, Order, Outcome, Rates, Start, Update,
};
use crate::model::{InputKind, MlpShape, Params};
use crate::view::MatRef;
use launches::{Launches, Work};
use staging::{Filling, Staging};

/// Computes meta-gradients on a device; owns all memory they need, there and here.
///
/// A step is an upload, in pieces where it is large, the launches and one download, and waits once. Its launches are recorded when the same sizes and
/// settings come a second time in a row, and then replayed as one; a steady state allocates nothing anywhere.
pub struct MetaStep<D: Device> {
    plan: StepPlan,
    memory: D::Buffer,
    staging: Staging<D::Host>,
    /// What is downloaded.
    results: D::Host,
    cpu: Cpu,
    precision: Precision,
    last: Option<Work>,
    recorded: Option<(Work, D::Graph)>,
    out_rows: usize,
    device: D,
}

impl<D: Device> MetaStep<D> {
    /// Takes the memory for batches up to `limits`.
    ///
    /// # Errors
    /// As [`StepPlan::new`], and where the device has too little memory.
    pub fn new(mut device: D, shape: &MlpShape, limits: Limits) -> Result<Self> {
        let plan = StepPlan::new(shape, limits, device.shared_limit())?;
        let memory = device.alloc(plan.bytes())?;
        Self::in_memory(device, plan, memory)
    }

    /// In memory the caller brings: at least [`StepPlan::bytes`] of `device`, whose start is a multiple of 256.
    ///
    /// # Errors
    /// [`Error::Layout`] where it is too small or not aligned, [`Error::Config`] where the plan is of a device with more
    /// shared memory.
    pub fn in_memory(mut device: D, plan: StepPlan, memory: D::Buffer) -> Result<Self> {
        let (address, bytes, wanted) = (device.address(&memory), device.bytes(&memory), plan.bytes());
        if bytes < wanted || !address.is_multiple_of(256) {
            let detail = format!("{bytes} bytes at {address:#x}; wanted {wanted} from a multiple of 256");
            return Err(Error::Layout { op: "meta-step", detail });
        }
        let (needed, limit) = (plan.shared_bytes(), device.shared_limit());
        if needed > limit as usize {
            return Err(Error::config("plan", format!("{needed} bytes of shared memory; this device has {limit}")));
        }
        let staging = Staging::new(&plan, device.alloc_host(plan.uploaded(plan.table[0]))?);
        let results = device.alloc_host(plan.downloaded(Some(plan.table[0])).len())?;
        let (precision, last, recorded) = (Precision::F32, None, None);
        Ok(Self { plan, memory, staging, results, cpu: Cpu::new(), precision, last, recorded, out_rows: 0, device })
    }

    /// Whose threads lay batches out for the device and take results from it; one thread unless said otherwise.
    pub fn with_host(mut self, cpu: &Cpu) -> Self {
        self.cpu = cpu.clone();
        self
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

    /// The device it runs on.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// Gives the device back.
    pub fn into_device(self) -> D {
        self.device
    }

    /// Outputs of the last batch's query rows after adaptation, stacked.
    pub fn query_outputs(&self) -> MatRef<'_, f32> {
        matrix(self.result(self.plan.spans.out), self.out_rows, self.plan.shape.outputs())
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
        let work = Work::of(batch, inner)?;
        if work.has_gradient() {
            gradient.check(&params.shape, self.plan.limits.row_count(&params.shape).min(batch_nnz(batch)))?;
        }
        if work.episodes == 0 {
            self.results.fill(0);
            self.staging.clear();
        } else {
            let begun = self.begin(params, batch, work);
            // Whatever was begun reads or writes memory of this value.
            self.device.synchronize()?;
            begun?;
        }
        self.collect(work, gradient);
        Ok(())
    }

    /// Runs the launches of the last batch again, all or those of the episodes alone, `times` times: for measurement. What
    /// the device holds then is no result.
    ///
    /// # Errors
    /// [`Error::Config`] where no batch was run, [`Error::Device`] where the device refuses.
    pub fn repeat(&mut self, times: usize, episodes_alone: bool) -> Result<()> {
        let work = self.last.ok_or_else(|| Error::config("repeat", "no batch was run"))?;
        for _ in 0..times {
            if episodes_alone {
                let (launches, device) = self.launches(work);
                launches.episodes(device)?;
            } else {
                self.compute(work)?;
            }
        }
        self.device.synchronize()
    }

    /// The launches of a batch, and what they run on.
    fn launches(&mut self, work: Work) -> (Launches<'_>, &mut D) {
        let base = self.device.address(&self.memory);
        (Launches { plan: &self.plan, base, precision: self.precision, work }, &mut self.device)
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
        if planned.covers(&found) && self.plan.fits(&found) && inner.steps <= i32::MAX as usize {
            return Ok(());
        }
        Err(Error::shape("meta-step", format!("{found:?} exceeds the plan's {planned:?}")))
    }

    /// Begins the copies and all work between.
    fn begin(&mut self, params: &Params<f32>, batch: &MetaBatch<f32>, work: Work) -> Result<()> {
        let filling = Filling { plan: &self.plan, cpu: &self.cpu, params, batch, used: work.used_rows() };
        let (device, memory) = (&mut self.device, &mut self.memory);
        // SAFETY: `run` waits before it returns, and nothing touches what is copied before that.
        self.staging.fill(&filling, |host, range| unsafe { device.upload_async(memory, host, range) })?;
        self.compute(work)?;
        let rows = if self.plan.shape.kind == InputKind::Bag { self.staging.rows().len() } else { self.plan.table[0] };
        let range = self.plan.downloaded(work.has_gradient().then_some(rows));
        // SAFETY: as above.
        unsafe { self.device.download_async(&self.memory, range, &mut self.results) }
    }

    /// The launches: replayed where they are recorded, recorded where they come a second time in a row.
    fn compute(&mut self, work: Work) -> Result<()> {
        let again = self.last.replace(work) == Some(work);
        if again && self.recorded.as_ref().is_none_or(|(of, _)| *of != work) {
            let (launches, device) = self.launches(work);
            let graph = device.record(|device| launches.all(device))?;
            self.recorded = Some((work, graph));
        }
        if let Some((of, graph)) = &self.recorded
            && *of == work
        {
            // SAFETY: the launches are those of this plan's memory, which is alive; see `Launches`.
            return unsafe { self.device.replay(graph) };
        }
        let (launches, device) = self.launches(work);
        launches.all(device)
    }

    /// A piece of what was downloaded.
    fn result<T: bytemuck::Pod>(&self, span: super::Span) -> &[T] {
        let at = span.offset - self.plan.spans.losses.offset;
        bytemuck::cast_slice(&self.results[at..at + span.bytes])
    }

    /// Results to where the caller wants them.
    fn collect(&mut self, work: Work, gradient: &mut MetaGradient<f32>) {
        let (spans, t, h) = (self.plan.spans, work.episodes, self.plan.shape.hidden());
        self.out_rows = work.query;
        gradient.rates.clear();
        gradient.query_loss.clear();
        gradient.query_loss.extend_from_slice(&self.result(spans.losses)[..t]);
        if work.has_gradient() {
            let mean = self.result::<f32>(spans.mean);
            gradient.bias.copy_from_slice(&mean[..h]);
            gradient.head.copy_from_slice(&mean[h..]);
            let bag = self.plan.shape.kind == InputKind::Bag;
            let len = if bag { self.staging.rows().len() * h } else { self.plan.shape.first_len() };
            spread::copy(&self.cpu, &self.result(spans.dfirst)[..len], &mut gradient.first[..len]);
            gradient.rows.clear();
            gradient.rows.extend_from_slice(self.staging.rows());
        }
        let flags = &self.result::<u32>(spans.finite)[..t];
        // An evaluation has no row that could be other than finite.
        let ends = gradient
            .query_loss
            .iter()
            .zip(flags)
            .map(|(loss, &good)| Outcome::of(loss.is_finite() && (good != 0 || !work.has_gradient()), true));
        gradient.outcomes.clear();
        gradient.outcomes.extend(ends);
    }
}

impl<D: Device> Engine<f32> for MetaStep<D> {
    fn run(
        &mut self,
        params: &Params<f32>,
        batch: &MetaBatch<f32>,
        inner: &InnerLoop,
        gradient: &mut MetaGradient<f32>,
    ) -> Result<()> {
        MetaStep::run(self, params, batch, inner, gradient)
    }

    fn query_outputs(&self) -> MatRef<'_, f32> {
        MetaStep::query_outputs(self)
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
