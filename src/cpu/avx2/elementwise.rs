//! Operations without a reduction inside a vector: the scalar loops, compiled for AVX2 and FMA.
//!
//! The compiler turns them into full-width vector code by itself, so writing intrinsics would only repeat the loop.

use crate::cpu::contract::AdamwStep;
use crate::cpu::scalar;
use crate::dtype::{Element, Stored};

/// # Safety
/// AVX2, FMA and F16C are there; see [`GatherSum`](crate::cpu::contract::GatherSum).
#[target_feature(enable = "avx2,fma,f16c")]
#[expect(clippy::too_many_arguments, reason = "the contract's operands")]
pub unsafe fn gather_sum<T: Element, S: Stored<T>>(
    len: usize,
    index: *const u32,
    weights: *const T,
    table: *const S,
    ld: usize,
    n: usize,
    init: *const T,
    dst: *mut T,
) {
    // SAFETY: the contract is passed on unchanged.
    unsafe { scalar::gather_sum_loop::<T, S, true>(len, index, weights, table, ld, n, init, dst) }
}

/// # Safety
/// AVX2 and FMA are there; `n` elements of `src` are readable and of `dst` writable.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn relu<T: Element>(n: usize, src: *const T, dst: *mut T) {
    // SAFETY: the contract is passed on unchanged.
    unsafe { scalar::relu_loop(n, src, dst) }
}

/// # Safety
/// AVX2 and FMA are there; `n` elements of `a` are readable and of `d` writable.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn relu_mask<T: Element>(n: usize, a: *const T, d: *mut T) {
    // SAFETY: the contract is passed on unchanged.
    unsafe { scalar::relu_mask_loop(n, a, d) }
}

/// # Safety
/// AVX2 and FMA are there; `n` elements of `x` are readable and of `y` writable; they do not overlap.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn axpy<T: Element>(n: usize, alpha: T, x: *const T, y: *mut T) {
    // SAFETY: the contract is passed on unchanged.
    unsafe { scalar::axpy_loop::<T, true>(n, alpha, x, y) }
}

/// # Safety
/// AVX2 and FMA are there; `m` rows of `n` elements of `src` are readable, `n` elements of `dst` writable.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn col_sum<T: Element>(m: usize, n: usize, alpha: T, src: *const T, ld: usize, beta: T, dst: *mut T) {
    // SAFETY: the contract is passed on unchanged.
    unsafe { scalar::col_sum_loop::<T, true>(m, n, alpha, src, ld, beta, dst) }
}

/// # Safety
/// AVX2 and FMA are there; `n` elements of `g` (unless null) are readable, of `v` and `w` writable; none overlap.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn sgd<T: Element>(n: usize, lr: T, momentum: T, weight_decay: T, g: *const T, v: *mut T, w: *mut T) {
    // SAFETY: the contract is passed on unchanged.
    unsafe { scalar::sgd_loop(n, lr, momentum, weight_decay, g, v, w) }
}

/// # Safety
/// AVX2 and FMA are there; `n` elements of `g` (unless null) are readable, of `m`, `v`, `w` writable; none overlap.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn adamw<T: Element>(n: usize, s: &AdamwStep<T>, g: *const T, m: *mut T, v: *mut T, w: *mut T) {
    // SAFETY: the contract is passed on unchanged.
    unsafe { scalar::adamw_loop(n, s, g, m, v, w) }
}
