//! Column sums with the sums in registers: every element of `src` is read once and `dst` once, where adding row after
//! row to `dst` would read and write it m times.
//!
//! Four vectors of columns at a time: four chains of additions, as many as an addition takes cycles.

use super::{Lanes, load_vector, store_vector};
use crate::dtype::Element;

/// # Safety
/// The register's instructions are enabled and there; see [`Ops::col_sum`](crate::cpu::contract::Ops::col_sum).
#[inline(always)]
pub unsafe fn col_sum<L: Lanes>(
    m: usize,
    n: usize,
    alpha: L::T,
    src: *const L::T,
    ld: usize,
    beta: L::T,
    dst: *mut L::T,
) {
    let vectors = n.div_ceil(L::N);
    let mut v = 0;
    // SAFETY: the vectors given lie in a row: v + 4 or v + 1 is at most their number.
    unsafe {
        while v + 4 <= vectors {
            columns::<L, 4>((m, n), alpha, (src, ld), beta, dst, v);
            v += 4;
        }
        while v < vectors {
            columns::<L, 1>((m, n), alpha, (src, ld), beta, dst, v);
            v += 1;
        }
    }
}

/// Vectors `first .. first + V` of the columns.
///
/// # Safety
/// As [`col_sum`], and a row has those vectors.
#[inline(always)]
unsafe fn columns<L: Lanes, const V: usize>(
    (m, n): (usize, usize),
    alpha: L::T,
    (src, ld): (*const L::T, usize),
    beta: L::T,
    dst: *mut L::T,
    first: usize,
) {
    // SAFETY: i < m and the vectors lie in the row.
    unsafe {
        let mut sums = [L::splat(L::T::ZERO); V];
        for i in 0..m {
            for (v, sum) in sums.iter_mut().enumerate() {
                *sum = sum.add(load_vector(src.add(i * ld), n, first + v, L::T::ZERO));
            }
        }
        for (v, sum) in sums.iter().enumerate() {
            let mut x = sum.mul(L::splat(alpha));
            if beta != L::T::ZERO {
                x = L::splat(beta).fma(load_vector(dst, n, first + v, L::T::ZERO), x);
            }
            store_vector(x, dst, n, first + v);
        }
    }
}
