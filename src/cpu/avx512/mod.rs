//! AVX-512 (F, BW, DQ, VL): replaces what is faster here, inherits the rest from AVX2.
//!
//! A row of logits that fits into half a register is left to one: a level less to add up.
//!
//! AVX512-BF16 is not used: `vdpbf16ps` wants both operands in bf16 and takes denormals as zero. Here bf16 is how weights are
//! stored; they meet f32 rows, and a product has the bits of the widened operands.

mod entries;
mod gemm;
mod lanes;
mod pack;
mod sums;
mod transposition;

use std::arch::x86_64::{__m256, __m256d, __m512, __m512d};

use super::Isa;
use super::avx2;
use super::contract::{Kernels, Ops};

/// The table for machines with AVX-512.
pub const KERNELS: Kernels = Kernels {
    isa: Isa::Avx512,
    f32: Ops {
        gemm: gemm::F32_14X32,
        few_columns: entries::few_columns::<Wide32>,
        rank_update: entries::rank_update::<Wide32>,
        few_rows: entries::few_rows::<Wide32>,
        relu: entries::relu::<f32>,
        relu_mask: entries::relu_mask::<f32>,
        softmax_xent: entries::softmax_xent::<Wide32, __m256>,
        softmax_xent_rop: entries::softmax_xent_rop::<Wide32, __m256>,
        axpy: entries::axpy::<f32>,
        axpby: entries::axpby::<f32>,
        col_sum: entries::col_sum::<Wide32>,
        sgd: entries::sgd::<f32>,
        adamw: entries::adamw::<f32>,
        fma_chains: entries::chains::<Wide32>(),
        ..avx2::KERNELS.f32
    },
    f64: Ops {
        gemm: gemm::F64_14X16,
        few_columns: entries::few_columns::<Wide64>,
        rank_update: entries::rank_update::<Wide64>,
        few_rows: entries::few_rows::<Wide64>,
        gather_sum: entries::gather_sum::<f64, f64>,
        relu: entries::relu::<f64>,
        relu_mask: entries::relu_mask::<f64>,
        softmax_xent: entries::softmax_xent::<Wide64, __m256d>,
        softmax_xent_rop: entries::softmax_xent_rop::<Wide64, __m256d>,
        axpy: entries::axpy::<f64>,
        axpby: entries::axpby::<f64>,
        col_sum: entries::col_sum::<Wide64>,
        sgd: entries::sgd::<f64>,
        adamw: entries::adamw::<f64>,
        fma_chains: entries::chains::<Wide64>(),
    },
    ..avx2::KERNELS
};

/// The register of each type.
type Wide32 = __m512;
type Wide64 = __m512d;
