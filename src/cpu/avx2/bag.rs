//! Gather-and-sum for AVX2: rows of the table added up in registers, 64 columns at a time.
//!
//! 8 accumulators + 1 broadcast weight; 8 FMAs per 8 loads (folded into the FMA; for half storage a widening
//! conversion each, `vcvtph2ps` or a zero-extension and a shift), so the loads of the gathered rows are the limit.
//! Accumulating in memory instead, row by row, would add a load and a store to each.
//!
//! The rows of an embedding table lie anywhere in memory, where no hardware prefetcher finds them: row j + `AHEAD` is
//! asked for while row j is added.

use std::arch::x86_64::*;

use super::entries;
use super::widen::Widen;

/// How many rows ahead memory is asked for: about the latency of memory (100 ns) over the time one row takes (10 ns).
const AHEAD: usize = 8;
/// Bytes that come with one prefetch.
const LINE: usize = 64;

/// # Safety
/// AVX2, FMA and F16C are there; see [`GatherSum`](crate::cpu::contract::GatherSum).
#[target_feature(enable = "avx2,fma,f16c")]
#[expect(clippy::too_many_arguments, reason = "the contract's operands")]
pub unsafe fn f32_gather_sum<S: Widen>(
    len: usize,
    index: *const u32,
    weights: *const f32,
    table: *const S,
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
            columns::<S, 8>(len, index, weights, table.add(h), ld, from(h), dst.add(h));
            h += 64;
        }
        while h + 8 <= n {
            columns::<S, 1>(len, index, weights, table.add(h), ld, from(h), dst.add(h));
            h += 8;
        }
        if h < n {
            entries::gather_sum::<f32, S>(len, index, weights, table.add(h), ld, n - h, from(h), dst.add(h));
        }
    }
}

/// `V` vectors of columns.
///
/// # Safety
/// AVX2, FMA and F16C are there; `8 * V` elements of `init` (unless null), `dst` and each gathered row are valid.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn columns<S: Widen, const V: usize>(
    len: usize,
    index: *const u32,
    weights: *const f32,
    table: *const S,
    ld: usize,
    init: *const f32,
    dst: *mut f32,
) {
    let mut acc = [_mm256_setzero_ps(); V];
    // SAFETY: j < len and v < V; the caller vouches for the elements. A prefetch reads nothing.
    unsafe {
        if !init.is_null() {
            for (v, sum) in acc.iter_mut().enumerate() {
                *sum = _mm256_loadu_ps(init.add(8 * v));
            }
        }
        for j in 0..len {
            let ahead = table.wrapping_add(*index.add((j + AHEAD).min(len - 1)) as usize * ld).cast::<i8>();
            for line in 0..(8 * V * size_of::<S>()).div_ceil(LINE) {
                _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(line * LINE));
            }
            let weight = _mm256_broadcast_ss(&*weights.add(j));
            let row = table.add(*index.add(j) as usize * ld);
            for (v, sum) in acc.iter_mut().enumerate() {
                *sum = _mm256_fmadd_ps(weight, S::load8(row.add(8 * v)), *sum);
            }
        }
        for (v, &sum) in acc.iter().enumerate() {
            _mm256_storeu_ps(dst.add(8 * v), sum);
        }
    }
}
