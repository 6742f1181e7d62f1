//! `metaglot bench meta --device cuda:0`: one meta-step on a GPU, beside what the same GPU can do.
#![forbid(unsafe_code)]

use serde_json::Value;

use super::problem::Problem;
use crate::cpu::Cpu;
#[cfg(feature = "cuda")]
use crate::cuda::{Cuda, MetaStep, PeakSizes, Peaks, StepTimes, step_bytes};
#[cfg(feature = "cuda")]
use crate::error::Error;
use crate::error::Result;
use crate::meta::InnerLoop;
#[cfg(feature = "cuda")]
use crate::meta::{Limits, MetaGradient, Operations};

/// Times a meta-step; every number under its name.
#[cfg(feature = "cuda")]
pub fn measure(number: usize, cpu: &Cpu, problem: &Problem<f32>, inner: &InnerLoop, reps: usize) -> Result<Value> {
    let (batch, shape) = (problem.batch()?, &problem.params.shape);
    let (limits, tasks) = (Limits::of(&batch, inner), batch.episodes() as f64);
    let mut gradient = MetaGradient::new(shape, &limits);
    let mut cuda = Cuda::new(number)?;
    let (name, peaks) = (cuda.name()?, Peaks::measure(&mut cuda, PeakSizes::LARGE)?);
    let mut step = MetaStep::new(cuda, shape, limits)?.with_host(cpu);
    let times = cpu.install(|| StepTimes::measure(&mut step, &problem.params, &batch, inner, &mut gradient, reps))?;
    if !gradient.is_finite() {
        return Err(Error::config("bench meta", "the gradient is not finite: a smaller --inner-lr is needed"));
    }
    let (operations, bytes) = (Operations::of(shape, &batch, inner).gram, step_bytes(shape, &batch));
    Ok(serde_json::json!({
        "device": format!("cuda:{number}"), "name": name, "threads": cpu.thread_count(), "reps": reps, "meta_loss": gradient.meta_loss(),
        "step_s": times.step, "device_s": times.device, "episodes_s": times.episodes,
        "tasks_per_s": tasks / times.step, "device_tasks_per_s": tasks / times.device,
        "episodes_tasks_per_s": tasks / times.episodes, "shared_bytes": step.plan().shared_bytes(),
        "operations": operations, "peak_gflops": peaks.operations / 1e9,
        "peak_fraction": operations as f64 / times.device / peaks.operations,
        "bytes": bytes, "peak_gbytes": peaks.bytes / 1e9, "bandwidth_fraction": bytes as f64 / times.device / peaks.bytes,
        "peak_bytes": step.plan().bytes(),
    }))
}

/// Refuses.
#[cfg(not(feature = "cuda"))]
pub fn measure(number: usize, _: &Cpu, _: &Problem<f32>, _: &InnerLoop, _: usize) -> Result<Value> {
    Err(crate::cli::device::not_built(number))
}

/// The same to be read.
pub fn text(found: &Value) -> String {
    let number = |key: &str| found[key].as_f64().unwrap_or(f64::NAN);
    format!(
        "device      {} ({})\n\
         step        {:.3} ms: {:.0} tasks/s, copies and host included\n\
         kernels     {:.3} ms: {:.0} tasks/s; {:.1} G/s are {:.0}% of the measured peak of {:.0}; \
         {:.1} GB/s are {:.0}% of the measured {:.0}\n\
         episodes    {:.3} ms: {:.0} tasks/s in the launches of all inner steps\n\
         bytes       {:.0} on the device",
        found["device"].as_str().unwrap_or_default(),
        found["name"].as_str().unwrap_or_default(),
        1e3 * number("step_s"),
        number("tasks_per_s"),
        1e3 * number("device_s"),
        number("device_tasks_per_s"),
        number("peak_fraction") * number("peak_gflops"),
        100.0 * number("peak_fraction"),
        number("peak_gflops"),
        number("bandwidth_fraction") * number("peak_gbytes"),
        100.0 * number("bandwidth_fraction"),
        number("peak_gbytes"),
        1e3 * number("episodes_s"),
        number("episodes_tasks_per_s"),
        number("peak_bytes"),
    )
}
