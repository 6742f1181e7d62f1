//! AVX2 and FMA: replaces what is faster here, inherits the rest from scalar.

mod bag;
mod elementwise;
mod gemm;
mod pack;
mod rows;
mod softmax_xent;

use super::Isa;
use super::contract::{Kernels, Ops};
use super::scalar;
pub(super) use rows::Rows;

/// The table for machines with AVX2 and FMA.
pub const KERNELS: Kernels = Kernels {
    isa: Isa::Avx2,
    f32: Ops {
        gemm: gemm::F32_6X16,
        gather_sum: bag::f32_gather_sum,
        relu: elementwise::relu::<f32>,
        relu_mask: elementwise::relu_mask::<f32>,
        softmax_xent: softmax_xent::f32_softmax_xent,
        axpy: elementwise::axpy::<f32>,
        col_sum: elementwise::col_sum::<f32>,
        sgd: elementwise::sgd::<f32>,
        adamw: elementwise::adamw::<f32>,
        ..scalar::KERNELS.f32
    },
    f64: Ops {
        gemm: gemm::F64_6X8,
        gather_sum: elementwise::gather_sum::<f64>,
        relu: elementwise::relu::<f64>,
        relu_mask: elementwise::relu_mask::<f64>,
        axpy: elementwise::axpy::<f64>,
        col_sum: elementwise::col_sum::<f64>,
        sgd: elementwise::sgd::<f64>,
        adamw: elementwise::adamw::<f64>,
        ..scalar::KERNELS.f64
    },
};
