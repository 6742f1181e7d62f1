//! AVX-512 (F, BW, DQ, VL): replaces what is faster here, inherits the rest from AVX2.

mod gemm;
mod pack;

use super::Isa;
use super::avx2;
use super::contract::{Kernels, Ops};

/// The table for machines with AVX-512.
pub const KERNELS: Kernels = Kernels {
    isa: Isa::Avx512,
    f32: Ops { gemm: gemm::F32_14X32, ..avx2::KERNELS.f32 },
    f64: Ops { gemm: gemm::F64_14X16, ..avx2::KERNELS.f64 },
};
