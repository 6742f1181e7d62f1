//! AVX2, FMA and F16C: a version of every operation.

mod bag;
mod entries;
mod gemm;
mod lanes;
mod pack;
mod rows;
mod sums;
mod tails;
mod widen;

use std::arch::x86_64::{__m256, __m256d};

use half::{bf16, f16};

use super::Isa;
use super::contract::{HalfOps, Kernels, Ops};
pub(super) use rows::Rows;
pub(super) use sums::Sums;

/// The table for machines with AVX2, FMA and F16C.
pub const KERNELS: Kernels = Kernels {
    isa: Isa::Avx2,
    f32: Ops {
        gemm: gemm::F32_6X16,
        few_columns: entries::few_columns::<Wide32>,
        rank_update: entries::rank_update::<Wide32>,
        few_rows: entries::few_rows::<Wide32>,
        gather_sum: bag::f32_gather_sum::<f32>,
        relu: entries::relu::<f32>,
        relu_mask: entries::relu_mask::<f32>,
        softmax_xent: entries::softmax_xent::<Wide32, Wide32>,
        softmax_xent_rop: entries::softmax_xent_rop::<Wide32, Wide32>,
        axpy: entries::axpy::<f32>,
        axpby: entries::axpby::<f32>,
        col_sum: entries::col_sum::<Wide32>,
        sgd: entries::sgd::<f32>,
        adamw: entries::adamw::<f32>,
        fma_chains: entries::chains::<Wide32>(),
    },
    f64: Ops {
        gemm: gemm::F64_6X8,
        few_columns: entries::few_columns::<Wide64>,
        rank_update: entries::rank_update::<Wide64>,
        few_rows: entries::few_rows::<Wide64>,
        gather_sum: entries::gather_sum::<f64, f64>,
        relu: entries::relu::<f64>,
        relu_mask: entries::relu_mask::<f64>,
        softmax_xent: entries::softmax_xent::<Wide64, Wide64>,
        softmax_xent_rop: entries::softmax_xent_rop::<Wide64, Wide64>,
        axpy: entries::axpy::<f64>,
        axpby: entries::axpby::<f64>,
        col_sum: entries::col_sum::<Wide64>,
        sgd: entries::sgd::<f64>,
        adamw: entries::adamw::<f64>,
        fma_chains: entries::chains::<Wide64>(),
    },
    half: HalfOps {
        pack_f16: pack::f32_pack::<f16>,
        pack_bf16: pack::f32_pack::<bf16>,
        gather_sum_f16: bag::f32_gather_sum::<f16>,
        gather_sum_bf16: bag::f32_gather_sum::<bf16>,
    },
};

/// The register of each type.
type Wide32 = __m256;
type Wide64 = __m256d;
