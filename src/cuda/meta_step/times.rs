//! How long a meta-step takes on a device, and what it moves at least.
#![forbid(unsafe_code)]

use std::time::Instant;

use super::MetaStep;
use crate::cuda::Device;
use crate::error::Result;
use crate::meta::{InnerLoop, Inputs, MetaBatch, MetaGradient};
use crate::model::{MlpShape, Params};

/// Seconds of one batch's meta-step: means over some repetitions, after two that are not counted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepTimes {
    /// All of it: laying the batch out, copies, launches, waiting.
    pub step: f64,
    /// Its launches, one batch behind the other.
    pub device: f64,
    /// The launches of all inner steps, query passes and sweeps alone: one where an episode fits shared memory.
    pub episodes: f64,
}

impl StepTimes {
    /// Measures; `gradient` is that of the last step.
    ///
    /// # Errors
    /// Those of [`MetaStep::run`].
    pub fn measure<D: Device>(
        step: &mut MetaStep<D>,
        params: &Params<f32>,
        batch: &MetaBatch<f32>,
        inner: &InnerLoop,
        gradient: &mut MetaGradient<f32>,
        repetitions: usize,
    ) -> Result<Self> {
        let mean = |work: &mut dyn FnMut(usize) -> Result<()>| {
            work(2)?;
            let start = Instant::now();
            work(repetitions)?;
            Ok(start.elapsed().as_secs_f64() / repetitions as f64)
        };
        Ok(Self {
            step: mean(&mut |times| (0..times).try_for_each(|_| step.run(params, batch, inner, gradient)))?,
            device: mean(&mut |times| step.repeat(times, false))?,
            episodes: mean(&mut |times| step.repeat(times, true))?,
        })
    }
}

/// Bytes that a meta-step with a gradient reads and writes in device memory if everything between the launches goes through
/// it once: the inputs (of a bag: its entries and the rows they name) twice, W1 and dW1, Z and its adjoint written and read,
/// G and G' written and read.
pub fn step_bytes(shape: &MlpShape, batch: &MetaBatch<f32>) -> usize {
    let h = shape.hidden();
    let (mut inputs, mut rows) = (0, 0);
    for set in [&batch.query, &batch.support] {
        rows += set.inputs.rows();
        inputs += match &set.inputs {
            Inputs::Dense(x) => 4 * x.rows() * x.cols(),
            Inputs::Bags(x) => (8 + 4 * h) * x.nnz(),
        };
    }
    let grams = |t| batch.support.range(t).len() * (batch.support.range(t).len() + batch.query.range(t).len());
    let first = match &batch.query.inputs {
        Inputs::Dense(_) => shape.first_len(),
        Inputs::Bags(_) => 0,
    };
    2 * inputs + 4 * (2 * first + 4 * rows * h + 2 * (0..batch.episodes()).map(grams).sum::<usize>())
}
