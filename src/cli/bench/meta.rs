//! `metaglot bench meta`: one meta-step.
#![forbid(unsafe_code)]

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::meta_gpu;
use super::problem::{Problem, Sizes};
use super::timing::{Times, peak_gflops};
use crate::case::Case;
use crate::cli::device::DeviceArg;
use crate::cli::grad::{DtypeArg, PathArg, refuse_on_gpu};
use crate::cli::{cpu, output_error};
use crate::cpu::KernelElement;
use crate::error::{Error, Result};
use crate::meta::{InnerLoop, Limits, MetaGradient, Order, choose};
use crate::model::{InputKind, MlpShape};

/// Time one meta-step of MAML.
#[derive(Args, Debug)]
pub struct Meta {
    /// A problem from `metaglot case`, with its steps and rate, in place of the sizes
    #[arg(long, value_name = "FILE", conflicts_with_all = ["input", "hidden", "classes", "support", "query", "tasks",
        "steps", "inner_lr", "bag"])]
    case: Option<PathBuf>,
    /// Inputs
    #[arg(long, value_name = "D", default_value_t = 256)]
    input: usize,
    /// Outputs of the hidden layers
    #[arg(long, value_name = "H", value_delimiter = ',', default_value = "128")]
    hidden: Vec<usize>,
    /// Classes
    #[arg(long, value_name = "C", default_value_t = 5)]
    classes: usize,
    /// Support examples of a task
    #[arg(long, value_name = "N", default_value_t = 25)]
    support: usize,
    /// Query examples of a task
    #[arg(long, value_name = "M", default_value_t = 75)]
    query: usize,
    /// Tasks
    #[arg(long, value_name = "T", default_value_t = 32)]
    tasks: usize,
    /// Steps of the inner loop
    #[arg(long, value_name = "S", default_value_t = 5)]
    steps: usize,
    /// Its rate
    #[arg(long, value_name = "RATE", default_value_t = 0.01)]
    inner_lr: f64,
    /// Token bags in place of dense inputs: the first layer is an embedding table
    #[arg(long, requires = "vocabulary", conflicts_with = "input")]
    bag: bool,
    /// Rows of the table
    #[arg(long, value_name = "V", requires = "bag")]
    vocabulary: Option<usize>,
    /// Different tokens of an example
    #[arg(long, value_name = "N", default_value_t = 60, requires = "bag")]
    tokens: usize,
    /// Threads; with a GPU those that lay batches out for it
    #[arg(long, value_name = "K", default_value_t = 1)]
    threads: usize,
    /// Where: cpu, or an NVIDIA GPU by its number, as in cuda:0 (f32; a build with CUDA)
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    device: DeviceArg,
    /// 2: exact; 1: FOMAML
    #[arg(long, value_name = "1|2", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=2))]
    order: u8,
    /// In Gram space, in the plain form, or as the engine chooses
    #[arg(long, value_enum, default_value = "auto")]
    path: PathArg,
    /// The type to compute in
    #[arg(long, value_enum, default_value = "f32")]
    dtype: DtypeArg,
    /// Timed repetitions, after two that are not counted
    #[arg(long, value_name = "R", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..))]
    reps: u32,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl Meta {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<()> {
        if let DeviceArg::Cuda(number) = self.device {
            refuse_on_gpu(self.dtype == DtypeArg::F64, self.path)?;
            let (problem, steps, lr) = self.problem::<f32>()?;
            let object = meta_gpu::measure(
                number,
                &cpu()?.threads(self.threads)?,
                &problem,
                &self.inner(steps, lr),
                self.reps as usize,
            )?;
            let text = if self.json { object.to_string() } else { meta_gpu::text(&object) };
            return writeln!(out, "{text}").map_err(output_error);
        }
        match self.dtype {
            DtypeArg::F32 => self.measure::<f32>(out),
            DtypeArg::F64 => self.measure::<f64>(out),
        }
    }

    fn measure<T: KernelElement>(&self, out: &mut dyn Write) -> Result<()> {
        let (problem, steps, lr) = self.problem::<T>()?;
        let (cpu, batch) = (cpu()?.threads(self.threads)?, problem.batch()?);
        let inner = self.inner(steps, lr);
        let (limits, shape) = (Limits::of(&batch, &inner), &problem.params.shape);
        let mut gradient = MetaGradient::<T>::new(shape, &limits);
        let gradient_bytes = (gradient.first.len() + gradient.bias.len() + gradient.head.len()) * size_of::<T>();
        let (mut engine, found) = choose(&cpu, &batch, shape, limits, &inner, self.path.choice())?;
        let peak = peak_gflops::<T>(&cpu);
        let times = cpu
            .install(|| Times::of(self.reps as usize, || engine.run(&problem.params, &batch, &inner, &mut gradient)))?;
        if !gradient.is_finite() {
            return Err(Error::config("bench meta", "the gradient is not finite: a smaller --inner-lr is needed"));
        }
        let operations = if found.path == "gram" { found.operations.gram } else { found.operations.dense };
        let gflops = operations as f64 / times.median() / 1e9;
        let bytes = found.bytes + gradient_bytes + problem.bytes();
        let (median, min, max) = (times.median(), times.min(), times.max());
        let object = json!({
            "median_s": median, "min_s": min, "max_s": max, "reps": self.reps, "operations": operations,
            "peak_gflops": peak, "peak_fraction": gflops / peak, "peak_bytes": bytes, "path": found.path,
            "threads": self.threads, "isa": cpu.isa().name(), "dtype": T::DTYPE.name(), "meta_loss": gradient.meta_loss(),
        });
        if self.json {
            return writeln!(out, "{object}").map_err(output_error);
        }
        let (isa, path, threads) = (cpu.isa().name(), found.path, self.threads);
        let text = format!(
            "median      {:.3} ms (from {:.3} to {:.3}, {} repetitions; {path}, {isa}, {threads} threads)\n\
             operations  {operations}: {gflops:.1} G/s, {:.0}% of the measured peak of {peak:.1}\n\
             bytes       {bytes}: workspace, weights, gradient and examples",
            median * 1e3,
            min * 1e3,
            max * 1e3,
            self.reps,
            100.0 * gflops / peak,
        );
        writeln!(out, "{text}").map_err(output_error)
    }

    fn inner(&self, steps: usize, lr: f64) -> InnerLoop<'static> {
        InnerLoop::sgd(steps, lr, if self.order == 2 { Order::Second } else { Order::First })
    }

    /// The problem, its steps and their rate.
    fn problem<T: KernelElement>(&self) -> Result<(Problem<T>, usize, f64)> {
        if let Some(file) = &self.case {
            let case = Case::open(file)?;
            return Ok((Problem::of_case(&case), case.inner_steps, case.inner_lr));
        }
        let (kind, input) = match self.vocabulary {
            Some(vocabulary) => (InputKind::Bag, vocabulary),
            None => (InputKind::Dense, self.input),
        };
        if kind == InputKind::Bag && !(1..=input).contains(&self.tokens) {
            return Err(Error::config("--tokens", format!("{} of a vocabulary of {input}", self.tokens)));
        }
        if [self.tasks, self.support, self.query].contains(&0) {
            return Err(Error::config("bench meta", "at least one task, support and query example are needed"));
        }
        let shape = MlpShape { input, kind, widths: self.hidden.iter().copied().chain([self.classes]).collect() };
        shape.validate()?;
        let Self { tasks, support, query, tokens, .. } = *self;
        Ok((Problem::random(&Sizes { shape, tasks, support, query, tokens })?, self.steps, self.inner_lr))
    }
}
