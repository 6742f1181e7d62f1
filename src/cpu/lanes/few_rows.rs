//! A product with few rows over the examples, as the weight gradient of the layer with a class a column is: 5 classes by all
//! hidden units, a step an example. A GEMM tile of so few rows has too few sums for its beginning and end.
//!
//! M rows by V vectors are M V sums in registers; a step takes V loads and M broadcasts for M V FMAs. Of 32 registers V is 4 up to
//! 6 rows (24 sums, 4 vectors, 1 broadcast), 3 for more; of 16 it is 3 up to 4 rows (12 sums), 2 up to 6, 1 for more. Two FMAs a
//! cycle with a latency of 4 keep 8 sums busy, so 1 row has 4 vectors everywhere. One pass over B and C.

use super::Lanes;
use super::finish::load;
use crate::cpu::contract::Thin;
use crate::dtype::Element;

/// # Safety
/// The register's instructions are enabled and there; see [`few_rows`](crate::cpu::contract::Ops::few_rows).
#[inline(always)]
pub unsafe fn few_rows<L: Lanes>(t: &Thin<L::T>) {
    // SAFETY: the contract is passed on unchanged; the row count is m.
    unsafe {
        match (t.m, L::REGISTERS >= 32) {
            (1, _) => panels::<L, 1, 4>(t),
            (2, true) => panels::<L, 2, 4>(t),
            (2, false) => panels::<L, 2, 3>(t),
            (3, true) => panels::<L, 3, 4>(t),
            (3, false) => panels::<L, 3, 3>(t),
            (4, true) => panels::<L, 4, 4>(t),
            (4, false) => panels::<L, 4, 3>(t),
            (5, true) => panels::<L, 5, 4>(t),
            (5, false) => panels::<L, 5, 2>(t),
            (6, true) => panels::<L, 6, 4>(t),
            (6, false) => panels::<L, 6, 2>(t),
            (7, true) => panels::<L, 7, 3>(t),
            (7, false) => panels::<L, 7, 1>(t),
            (8, true) => panels::<L, 8, 3>(t),
            (8, false) => panels::<L, 8, 1>(t),
            _ => debug_assert_eq!(t.m, 0, "few rows are at most 8"),
        }
    }
}

/// All columns, V vectors at a time, then one.
///
/// # Safety
/// As [`few_rows`], and M = m.
#[inline(always)]
unsafe fn panels<L: Lanes, const M: usize, const V: usize>(t: &Thin<L::T>) {
    let mut j = 0;
    // SAFETY: columns from j on and below n.
    unsafe {
        while t.n - j >= V * L::N {
            panel::<L, M, V, true>(t, j);
            j += V * L::N;
        }
        while t.n - j >= L::N {
            panel::<L, M, 1, true>(t, j);
            j += L::N;
        }
        if j < t.n {
            panel::<L, M, 1, false>(t, j);
        }
    }
}

/// Columns `first ..`, V vectors of them; `FULL`: none is cut.
///
/// # Safety
/// As [`panels`]; V vectors of columns are left behind `first`, or if not `FULL` at least 1 column.
#[inline(always)]
unsafe fn panel<L: Lanes, const M: usize, const V: usize, const FULL: bool>(t: &Thin<L::T>, first: usize) {
    let left = t.n - first;
    // SAFETY: the caller's; row i < m, step p < k, columns below n.
    unsafe {
        let mut sums = [[L::splat(L::T::ZERO); V]; M];
        for q in 0..t.parts {
            let (mut a, mut b) = (t.a[q], t.b[q].add(first));
            for _ in 0..t.k {
                let mut row = [L::splat(L::T::ZERO); V];
                for (v, x) in row.iter_mut().enumerate() {
                    *x = load::<L, V, FULL>(b, left, v);
                }
                for (i, sums) in sums.iter_mut().enumerate() {
                    let x = L::splat(*a.add(i));
                    for (sum, row) in sums.iter_mut().zip(row) {
                        *sum = x.fma(row, *sum);
                    }
                }
                // Behind the last step these point outside, and are not read.
                (a, b) = (a.wrapping_add(t.a_cs), b.wrapping_add(t.b_rs));
            }
        }
        let alpha = L::splat(t.alpha);
        for (i, sums) in sums.iter().enumerate() {
            let c = t.c.add(i * t.c_rs + first);
            for (v, &sum) in sums.iter().enumerate() {
                let x = if t.adds { alpha.fma(sum, load::<L, V, FULL>(c, left, v)) } else { alpha.mul(sum) };
                let dst = c.add(v * L::N);
                if FULL { x.store(dst) } else { x.store_first(dst, left - v * L::N) }
            }
        }
    }
}
