//! CPU kernels: one contract, a table an instruction set, and the loops around the GEMM tile.

mod blocking;
pub mod contract;
mod scalar;
mod stream;
mod threads;

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod entries;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod lanes;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

use std::sync::Arc;

use crate::dtype::{Element, Stored};
use crate::error::{Error, Result};
use contract::{GatherSum, Kernels, Ops, Pack};
use half::{bf16, f16};

pub(crate) use blocking::{GemmOperands, add_products, gemm, moved, pack_len, part, symmetric_gemm};
pub(crate) use stream::{end_streams, stream};
pub(crate) use threads::join;

/// An instruction set the kernels are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Isa {
    /// Plain Rust: the reference.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ and VL beside all of AVX2's.
    Avx512,
    /// 64-bit Arm.
    Neon,
}

impl Isa {
    /// Every instruction set, slowest first.
    pub const ALL: [Isa; 4] = [Isa::Scalar, Isa::Avx2, Isa::Avx512, Isa::Neon];

    /// The name users and reports write.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Neon => "neon",
        }
    }

    /// The instruction set of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Isa::ALL.into_iter().find(|isa| isa.name() == name)
    }

    /// The table, or `None` where this machine lacks the instructions.
    pub fn kernels(self) -> Option<&'static Kernels> {
        static SCALAR: Kernels = scalar::KERNELS;
        match self {
            Isa::Scalar => Some(&SCALAR),
            Isa::Avx2 => avx2_kernels(),
            Isa::Avx512 => avx512_kernels(),
            Isa::Neon => neon_kernels(),
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn avx2_kernels() -> Option<&'static Kernels> {
    static AVX2: Kernels = avx2::KERNELS;
    let all = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
    all.then_some(&AVX2)
}

#[cfg(target_arch = "x86_64")]
fn avx512_kernels() -> Option<&'static Kernels> {
    static AVX512: Kernels = avx512::KERNELS;
    let all = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    // What it inherits needs AVX2's.
    (all && avx2_kernels().is_some()).then_some(&AVX512)
}

#[cfg(not(target_arch = "x86_64"))]
fn avx2_kernels() -> Option<&'static Kernels> {
    None
}

#[cfg(not(target_arch = "x86_64"))]
fn avx512_kernels() -> Option<&'static Kernels> {
    None
}

#[cfg(target_arch = "aarch64")]
fn neon_kernels() -> Option<&'static Kernels> {
    static NEON: Kernels = neon::KERNELS;
    std::arch::is_aarch64_feature_detected!("neon").then_some(&NEON)
}

#[cfg(not(target_arch = "aarch64"))]
fn neon_kernels() -> Option<&'static Kernels> {
    None
}

/// An element type with an entry in every table.
pub trait KernelElement: Element {
    /// This type's column of the table.
    fn ops(kernels: &'static Kernels) -> &'static Ops<Self>;
}

impl KernelElement for f32 {
    fn ops(kernels: &'static Kernels) -> &'static Ops<Self> {
        &kernels.f32
    }
}

impl KernelElement for f64 {
    fn ops(kernels: &'static Kernels) -> &'static Ops<Self> {
        &kernels.f64
    }
}

/// A type that a matrix can be stored in beside computations in `T`, with its entries in every table.
pub trait StoredElement<T: KernelElement>: Stored<T> {
    /// This type's packing of GEMM panels.
    fn pack(kernels: &'static Kernels) -> Pack<T, Self>;
    /// This type's gather-and-sum.
    fn gather_sum(kernels: &'static Kernels) -> GatherSum<T, Self>;
}

impl<T: KernelElement> StoredElement<T> for T {
    fn pack(kernels: &'static Kernels) -> Pack<T, T> {
        T::ops(kernels).gemm.pack
    }
    fn gather_sum(kernels: &'static Kernels) -> GatherSum<T, T> {
        T::ops(kernels).gather_sum
    }
}

impl StoredElement<f32> for f16 {
    fn pack(kernels: &'static Kernels) -> Pack<f32, f16> {
        kernels.half.pack_f16
    }
    fn gather_sum(kernels: &'static Kernels) -> GatherSum<f32, f16> {
        kernels.half.gather_sum_f16
    }
}

impl StoredElement<f32> for bf16 {
    fn pack(kernels: &'static Kernels) -> Pack<f32, bf16> {
        kernels.half.pack_bf16
    }
    fn gather_sum(kernels: &'static Kernels) -> GatherSum<f32, bf16> {
        kernels.half.gather_sum_bf16
    }
}

/// The chosen kernels and the threads to run them on. Cheap to clone; nothing asks the CPU again after construction.
///
/// Results do not depend on the number of threads: work is split over rows, columns and episodes, never over a sum.
#[derive(Clone)]
pub struct Cpu {
    kernels: &'static Kernels,
    threads: usize,
    pool: Option<Arc<rayon::ThreadPool>>,
}

impl Default for Cpu {
    fn default() -> Self {
        Self::new()
    }
}

impl Cpu {
    /// The fastest table this machine has, on one thread.
    pub fn new() -> Self {
        let kernels = Isa::ALL.into_iter().rev().find_map(Isa::kernels).expect("scalar is always there");
        Self { kernels, threads: 1, pool: None }
    }

    /// A given table, on one thread. Fails where the machine lacks the instructions.
    pub fn with_isa(isa: Isa) -> Result<Self> {
        let absent = || Error::Isa { name: isa.name().to_string(), detail: "this machine lacks it".to_string() };
        Ok(Self { kernels: isa.kernels().ok_or_else(absent)?, threads: 1, pool: None })
    }

    /// The table of that name, or the fastest where none is named: what a program's user may ask for. Fails for an unknown
    /// name and where the machine lacks the instructions.
    pub fn named(isa: Option<&str>) -> Result<Self> {
        let Some(name) = isa else { return Ok(Self::new()) };
        let unknown = || {
            let names = Isa::ALL.map(Isa::name).join(", ");
            Error::Isa { name: name.to_string(), detail: format!("unknown; there are {names}") }
        };
        Self::with_isa(Isa::from_name(name).ok_or_else(unknown)?)
    }

    /// The same kernels on `threads` threads. Fails for 0 or where the system gives no threads.
    pub fn threads(self, threads: usize) -> Result<Self> {
        if threads == 0 {
            return Err(Error::config("threads", "at least 1 is needed"));
        }
        let build = |n| rayon::ThreadPoolBuilder::new().num_threads(n).thread_name(|i| format!("metaglot-{i}")).build();
        let pool = match threads {
            1 => None,
            n => Some(Arc::new(build(n).map_err(|e| Error::config("threads", e.to_string()))?)),
        };
        // Waits until every thread runs: what a thread allocates when it starts does not fall into a later step.
        pool.iter().for_each(|pool| drop(pool.broadcast(|_| ())));
        Ok(Self { threads, pool, ..self })
    }

    /// Which table was chosen.
    pub fn isa(&self) -> Isa {
        self.kernels.isa
    }

    /// On how many threads work is spread.
    pub fn thread_count(&self) -> usize {
        self.threads
    }

    /// The table.
    pub(crate) fn kernels(&self) -> &'static Kernels {
        self.kernels
    }

    /// The operations for one element type.
    pub(crate) fn ops<T: KernelElement>(&self) -> &'static Ops<T> {
        T::ops(self.kernels)
    }
}

impl std::fmt::Debug for Cpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cpu({}, {} threads)", self.isa().name(), self.threads)
    }
}
