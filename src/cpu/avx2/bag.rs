//! Gather-and-sum for AVX2: rows of the table added up in registers, 64 columns at a time.
//!
//! 8 accumulators + 1 broadcast weight; 8 FMAs per 8 loads (folded into the FMA), so the loads of the gathered rows are
//! the limit. Accumulating in memory instead, row by row, would add a load and a store to each.

use std::arch::x86_64::*;

use super::entries;

/// # Safety
/// AVX2 and FMA are there; see [`Ops::gather_sum`](crate::cpu::contract::Ops::gather_sum).
#[target_feature(enable = "avx2,fma")]
#[expect(clippy::too_many_arguments, reason = "the contract's operands")]
pub unsafe fn f32_gather_sum(
    len: usize,
    index: *const u32,
    weights: *const f32,
    table: *const f32,
    ld: usize,
    n: usize,
    init: *const f32,
    dst: *mut f32,
) {
    let mut h = 0;
    // SAFETY: h + 64 <= n (or 8, or the tail below n): the contract makes those columns of `init`, `dst` and every
    // row named by `index` valid.
    unsafe {
        let from = |h: usize| if init.is_null() { init } else { init.add(h) };
        while h + 64 <= n {
            columns::<8>(len, index, weights, table.add(h), ld, from(h), dst.add(h));
            h += 64;
        }
        while h + 8 <= n {
            columns::<1>(len, index, weights, table.add(h), ld, from(h), dst.add(h));
            h += 8;
        }
        if h < n {
            entries::gather_sum::<f32>(len, index, weights, table.add(h), ld, n - h, from(h), dst.add(h));
        }
    }
}

/// `V` vectors of columns.
///
/// # Safety
/// AVX2 and FMA are there; `8 * V` elements of `init` (unless null), `dst` and each gathered row are valid.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn columns<const V: usize>(
    len: usize,
    index: *const u32,
    weights: *const f32,
    table: *const f32,
    ld: usize,
    init: *const f32,
    dst: *mut f32,
) {
    let mut acc = [_mm256_setzero_ps(); V];
    // SAFETY: j < len and v < V; the caller vouches for the elements.
    unsafe {
        if !init.is_null() {
            for (v, sum) in acc.iter_mut().enumerate() {
                *sum = _mm256_loadu_ps(init.add(8 * v));
            }
        }
        for j in 0..len {
            let weight = _mm256_broadcast_ss(&*weights.add(j));
            let row = table.add(*index.add(j) as usize * ld);
            for (v, sum) in acc.iter_mut().enumerate() {
                *sum = _mm256_fmadd_ps(weight, _mm256_loadu_ps(row.add(8 * v)), *sum);
            }
        }
        for (v, &sum) in acc.iter().enumerate() {
            _mm256_storeu_ps(dst.add(8 * v), sum);
        }
    }
}
