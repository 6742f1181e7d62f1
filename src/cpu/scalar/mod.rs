//! The reference table: plain loops in plain Rust, for any machine.

mod activation;
mod bag;
mod fma_chains;
mod gemm;
mod reduce;
mod softmax_xent;
mod update;

use half::{bf16, f16};

use super::Isa;
use super::contract::{HalfOps, Kernels, Ops};
use crate::dtype::Element;

pub(super) use activation::{relu_loop, relu_mask_loop};
pub(super) use bag::gather_sum_loop;
#[cfg(target_arch = "aarch64")]
pub(super) use gemm::pack;
pub(super) use reduce::{axpby_loop, axpy_loop};
pub(super) use update::{adamw_loop, sgd_loop};

/// The reference table.
pub const KERNELS: Kernels = Kernels {
    isa: Isa::Scalar,
    f32: ops::<f32>(gemm::F32_4X8),
    f64: ops::<f64>(gemm::F64_4X8),
    half: HalfOps {
        pack_f16: gemm::pack::<f32, f16>,
        pack_bf16: gemm::pack::<f32, bf16>,
        gather_sum_f16: bag::gather_sum::<f32, f16>,
        gather_sum_bf16: bag::gather_sum::<f32, bf16>,
    },
};

const fn ops<T: Element>(gemm: super::contract::Gemm<T>) -> Ops<T> {
    Ops {
        gemm,
        few_columns: gemm::few_columns::<T>,
        rank_update: gemm::thin::<T>,
        few_rows: gemm::thin::<T>,
        gather_sum: bag::gather_sum::<T, T>,
        relu: activation::relu::<T>,
        relu_mask: activation::relu_mask::<T>,
        softmax_xent: softmax_xent::softmax_xent::<T>,
        softmax_xent_rop: softmax_xent::softmax_xent_rop::<T>,
        axpy: reduce::axpy::<T>,
        axpby: reduce::axpby::<T>,
        col_sum: reduce::col_sum::<T>,
        sgd: update::sgd::<T>,
        adamw: update::adamw::<T>,
        fma_chains: fma_chains::entry(),
    }
}
