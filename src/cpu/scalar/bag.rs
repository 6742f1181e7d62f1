//! Gather-and-sum: the token bag's forward pass, and over the transposed bags its gradient.

use crate::dtype::{Element, Stored};

/// # Safety
/// See [`GatherSum`](crate::cpu::contract::GatherSum).
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
    unsafe { gather_sum_loop::<T, S, false>(len, index, weights, table, ld, n, init, dst) }
}

/// The loop, with (`FMA`) or without fused multiply-add; an instruction set's table compiles it for itself.
///
/// # Safety
/// See [`GatherSum`](crate::cpu::contract::GatherSum).
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "the contract's operands")]
pub unsafe fn gather_sum_loop<T: Element, S: Stored<T>, const FMA: bool>(
    len: usize,
    index: *const u32,
    weights: *const T,
    table: *const S,
    ld: usize,
    n: usize,
    init: *const T,
    dst: *mut T,
) {
    for h in 0..n {
        // SAFETY: h < n elements of `init` (unless null) and `dst` are valid.
        unsafe { *dst.add(h) = if init.is_null() { T::ZERO } else { *init.add(h) } };
    }
    for j in 0..len {
        // SAFETY: j < len; the contract makes row index[j] of the table readable for n elements.
        let (row, weight) = unsafe { (table.add(*index.add(j) as usize * ld), *weights.add(j)) };
        for h in 0..n {
            // SAFETY: h < n elements of the row and of `dst`, which do not overlap.
            unsafe {
                let (x, sum) = ((*row.add(h)).widen(), *dst.add(h));
                *dst.add(h) = if FMA { weight.mul_add(x, sum) } else { weight * x + sum };
            }
        }
    }
}
