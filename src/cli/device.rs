//! `--device`: where meta-gradients are computed.
#![forbid(unsafe_code)]

use std::fmt;
use std::str::FromStr;

use crate::cpu::Cpu;
#[cfg(feature = "cuda")]
use crate::cuda::{Cuda, MetaStep};
use crate::error::Result;
use crate::meta::{BoxedEngine, Limits};
use crate::model::MlpShape;

/// The CPU, or an NVIDIA GPU by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DeviceArg {
    Cpu,
    Cuda(usize),
}

impl FromStr for DeviceArg {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let number = text.strip_prefix("cuda:").and_then(|n| n.parse().ok());
        match (text, number) {
            ("cpu", _) => Ok(DeviceArg::Cpu),
            (_, Some(number)) => Ok(DeviceArg::Cuda(number)),
            _ => Err("wanted cpu or, say, cuda:0".to_string()),
        }
    }
}

impl fmt::Display for DeviceArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceArg::Cpu => f.write_str("cpu"),
            DeviceArg::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

/// A GPU's engine for batches up to some limits.
pub(super) struct GpuEngine {
    pub engine: BoxedEngine<'static, f32>,
    /// What the driver calls the GPU.
    pub name: String,
    /// Bytes it takes there.
    pub bytes: usize,
}

impl GpuEngine {
    #[cfg(feature = "cuda")]
    /// `cpu`: whose threads lay batches out for it.
    pub fn new(number: usize, cpu: &Cpu, shape: &MlpShape, limits: Limits) -> Result<Self> {
        let cuda = Cuda::new(number)?;
        let name = cuda.name()?;
        let step = MetaStep::new(cuda, shape, limits)?.with_host(cpu);
        let bytes = step.plan().bytes();
        Ok(Self { engine: Box::new(step), name, bytes })
    }

    #[cfg(not(feature = "cuda"))]
    pub fn new(number: usize, _: &Cpu, _: &MlpShape, _: Limits) -> Result<Self> {
        Err(not_built(number))
    }
}

/// The error of a program that has no kernels for GPUs.
#[cfg(not(feature = "cuda"))]
pub(super) fn not_built(number: usize) -> crate::Error {
    crate::Error::no_device(
        number,
        "this metaglot was built without CUDA; `cargo build --release --features cuda` has it",
    )
}
