//! `metaglot grad`: the meta-gradient of a problem in a file, as a file.
#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::device::{DeviceArg, GpuEngine};
use super::{cpu, output_error, train};
use crate::case::{Algorithm, Answer, Case, solve, solve_with};
use crate::cpu::{Cpu, KernelElement};
use crate::error::{Error, Result};
use crate::meta::{Explanation, Operations, Outcome, PathChoice};

const EXAMPLE: &str = "\
The gradient has the layout of the weights: grad.{l}.weight and grad.{l}.bias, with meta_loss and query_loss; \
examples/check_gradient.py compares it with JAX's.

Example:
  metaglot case problem.safetensors --dims 7,17,3,6
  metaglot grad problem.safetensors --algorithm maml --out gradient.safetensors --explain";

/// Compute the meta-gradient of a problem in a file.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub struct Grad {
    /// A problem, from `metaglot case` or any other program
    #[arg(value_name = "CASE")]
    case: PathBuf,
    /// What to compute
    #[arg(long, value_enum)]
    algorithm: AlgorithmArg,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The type to compute in, and to write: f64, or on a GPU f32, unless said otherwise
    #[arg(long, value_enum)]
    dtype: Option<DtypeArg>,
    /// Where: cpu, or an NVIDIA GPU by its number, as in cuda:0 (f32; maml, fomaml, anil and reptile; a build with CUDA)
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    device: DeviceArg,
    /// How: without copies of the first layer, in the plain form, or as the engine chooses
    #[arg(long, value_enum, default_value = "auto")]
    path: PathArg,
    /// Threads; 0: one for each core. The result does not depend on it
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
    /// Say which path was taken and why, the operations of each, and the bytes planned
    #[arg(long)]
    explain: bool,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// What to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AlgorithmArg {
    /// Through every inner step, second order included
    Maml,
    /// The query gradient at the adapted weights
    Fomaml,
    /// Only the last layer is adapted
    Anil,
    /// The initial weights minus the adapted ones
    Reptile,
    /// By the implicit function theorem, at the end of a proximal descent
    Imaml,
    /// A rate for every weight; also its gradient
    Metasgd,
    /// Class centroids, no inner step
    Protonet,
    /// The last layer starts at class centroids
    Protomaml,
    /// The support loss's Hessian times the vector v
    Hvp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum DtypeArg {
    F32,
    F64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum PathArg {
    Auto,
    Gram,
    Dense,
}

impl PathArg {
    pub(super) fn choice(self) -> PathChoice {
        match self {
            PathArg::Auto => PathChoice::Auto,
            PathArg::Gram => PathChoice::Gram,
            PathArg::Dense => PathChoice::Dense,
        }
    }
}

/// Fails for what a GPU has not.
pub(super) fn refuse_on_gpu(double: bool, path: PathArg) -> Result<()> {
    match (double, path) {
        (true, _) => Err(Error::config("--dtype", "GPUs compute in f32 here")),
        (_, PathArg::Dense) => Err(Error::config("--path", "GPUs compute in Gram space here")),
        _ => Ok(()),
    }
}

impl Grad {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<()> {
        let case = Case::open(&self.case)?;
        match (self.device, self.dtype) {
            (DeviceArg::Cuda(number), _) => self.compute_on_gpu(number, &case, out),
            (DeviceArg::Cpu, Some(DtypeArg::F32)) => self.compute::<f32>(&case, out),
            (DeviceArg::Cpu, _) => self.compute::<f64>(&case, out),
        }
    }

    fn cpu(&self) -> Result<Cpu> {
        cpu()?.threads(if self.threads == 0 { train::num_threads() } else { self.threads })
    }

    fn compute_on_gpu(&self, number: usize, case: &Case, out: &mut dyn Write) -> Result<()> {
        refuse_on_gpu(self.dtype == Some(DtypeArg::F64), self.path)?;
        let cpu = self.cpu()?;
        let answer = solve_with::<f32>(case, self.algorithm(), |batch, limits, inner| {
            let GpuEngine { engine, name, bytes } = GpuEngine::new(number, &cpu, case.shape(), limits)?;
            let operations = Operations::of(case.shape(), batch, inner);
            let reason = format!("the only way on {} ({name})", self.device);
            Ok((engine, Explanation { path: "gram", reason, operations, bytes }))
        })?;
        answer.save(&self.out)?;
        self.print(&answer, out).map_err(output_error)
    }

    fn compute<T: KernelElement>(&self, case: &Case, out: &mut dyn Write) -> Result<()> {
        let answer = solve::<T>(&self.cpu()?, case, self.algorithm(), self.path.choice())?;
        answer.save(&self.out)?;
        self.print(&answer, out).map_err(output_error)
    }

    fn algorithm(&self) -> Algorithm {
        match self.algorithm {
            AlgorithmArg::Maml => Algorithm::Maml,
            AlgorithmArg::Fomaml => Algorithm::Fomaml,
            AlgorithmArg::Anil => Algorithm::Anil,
            AlgorithmArg::Reptile => Algorithm::Reptile,
            AlgorithmArg::Imaml => Algorithm::Imaml,
            AlgorithmArg::Metasgd => Algorithm::MetaSgd,
            AlgorithmArg::Protonet => Algorithm::ProtoNet,
            AlgorithmArg::Protomaml => Algorithm::ProtoMaml,
            AlgorithmArg::Hvp => Algorithm::Hvp,
        }
    }

    fn print<T: KernelElement>(&self, answer: &Answer<T>, out: &mut dyn Write) -> io::Result<()> {
        let ended = |wanted| answer.outcomes.iter().enumerate().filter(move |(_, o)| **o == wanted).map(|(t, _)| t);
        let (name, mean) =
            (if self.algorithm == AlgorithmArg::Hvp { "support_loss" } else { "meta_loss" }, answer.mean_loss());
        if self.json {
            let diverged: Vec<usize> = ended(Outcome::Diverged).collect();
            let unsolved: Vec<usize> = ended(Outcome::Unsolved).collect();
            let mut object = json!({"algorithm": answer.algorithm.name(), "dtype": T::DTYPE.name(), name: mean});
            object[answer.losses.0] = answer.losses.1.iter().map(|loss| loss.to_f64()).collect();
            object["diverged"] = diverged.into();
            object["unsolved"] = unsolved.into();
            let path = &answer.path;
            object["path"] = path.path.into();
            object["reason"] = path.reason.clone().into();
            object["operations_gram"] = path.operations.gram.into();
            object["operations_dense"] = path.operations.dense.into();
            object["bytes"] = path.bytes.into();
            return writeln!(out, "{object}");
        }
        writeln!(out, "{name} {mean}")?;
        for t in ended(Outcome::Diverged) {
            writeln!(out, "task {t} diverged: its query loss is {}", answer.losses.1[t])?;
        }
        for t in ended(Outcome::Unsolved) {
            writeln!(out, "task {t} is not solved: the conjugate gradients did not reach their tolerance")?;
        }
        if self.explain { writeln!(out, "{}", answer.path) } else { Ok(()) }
    }
}
