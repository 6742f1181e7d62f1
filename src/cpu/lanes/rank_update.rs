//! A product with few steps, as the gradient through a layer with a class a column is: 5 classes times 5 rows of weights.
//! A GEMM tile has a beginning and an end as long as its steps there.
//!
//! The right factors, K rows by two vectors, stay in registers while all rows of A pass: a row takes K broadcasts for 2 K FMAs,
//! and its old values, mask and result 6 accesses more. Of 32 registers they take 20 at most; 16 hold 5 rows, and what is
//! beyond is on the stack, an operand of its FMA: still faster than one vector, which takes as many broadcasts for half of the
//! FMAs. A row's sums are two chains of K steps; rows do not wait for one another, so the core runs those of several at once.
//! One pass over A a panel, one over everything else.

use super::Lanes;
use super::finish::load;
use crate::cpu::contract::LowRank;
use crate::dtype::Element;

/// # Safety
/// The register's instructions are enabled and there; see [`RankUpdate`](crate::cpu::contract::RankUpdate).
#[inline(always)]
pub unsafe fn rank_update<L: Lanes>(r: &LowRank<L::T>) {
    // SAFETY: the contract is passed on unchanged; the counts given are those of `r`.
    unsafe {
        match (r.parts, r.k) {
            (1, 1) => panels::<L, 1, 1>(r),
            (1, 2) => panels::<L, 1, 2>(r),
            (1, 3) => panels::<L, 1, 3>(r),
            (1, 4) => panels::<L, 1, 4>(r),
            (1, 5) => panels::<L, 1, 5>(r),
            (1, 6) => panels::<L, 1, 6>(r),
            (1, 7) => panels::<L, 1, 7>(r),
            (1, 8) => panels::<L, 1, 8>(r),
            (1, 9) => panels::<L, 1, 9>(r),
            (1, 10) => panels::<L, 1, 10>(r),
            (2, 1) => panels::<L, 2, 1>(r),
            (2, 2) => panels::<L, 2, 2>(r),
            (2, 3) => panels::<L, 2, 3>(r),
            (2, 4) => panels::<L, 2, 4>(r),
            (2, 5) => panels::<L, 2, 5>(r),
            _ => panels::<L, 0, 0>(r),
        }
    }
}

/// All columns, a panel at a time.
///
/// # Safety
/// As [`rank_update`]; P and K are its counts of products and of steps.
#[inline(always)]
unsafe fn panels<L: Lanes, const P: usize, const K: usize>(r: &LowRank<L::T>) {
    debug_assert!(r.parts * r.k == P * K, "a rank of at most 10");
    let mut j = 0;
    // SAFETY: columns from j on and below n.
    unsafe {
        while r.n - j >= 2 * L::N {
            panel::<L, P, K, 2, true>(r, j);
            j += 2 * L::N;
        }
        while r.n - j >= L::N {
            panel::<L, P, K, 1, true>(r, j);
            j += L::N;
        }
        if j < r.n {
            panel::<L, P, K, 1, false>(r, j);
        }
    }
}

/// Columns `first ..`, V vectors of them; `FULL`: none is cut.
///
/// # Safety
/// As [`panels`]; V vectors of columns are left behind `first`, or if not `FULL` at least 1 column.
#[inline(always)]
unsafe fn panel<L: Lanes, const P: usize, const K: usize, const V: usize, const FULL: bool>(
    r: &LowRank<L::T>,
    first: usize,
) {
    let left = r.n - first;
    // SAFETY: the caller's; row i < m, step p < k, columns below n.
    unsafe {
        let zero = L::splat(L::T::ZERO);
        let mut b = [[[zero; V]; K]; P];
        for (q, b) in b.iter_mut().enumerate() {
            for (p, b) in b.iter_mut().enumerate() {
                let row = r.b[q].add(p * r.b_rs + first);
                for (v, b) in b.iter_mut().enumerate() {
                    *b = load::<L, V, FULL>(row, left, v);
                }
            }
        }
        let alpha = L::splat(r.alpha);
        for i in 0..r.m {
            let mut sums = [zero; V];
            for (q, b) in b.iter().enumerate() {
                let a = r.a[q].add(i * r.a_rs);
                for (p, b) in b.iter().enumerate() {
                    let x = L::splat(*a.add(p));
                    for (sum, &b) in sums.iter_mut().zip(b) {
                        *sum = x.fma(b, *sum);
                    }
                }
            }
            let c = r.c.add(i * r.c_rs + first);
            for (v, x) in sums.iter_mut().enumerate() {
                let old = if r.adds { load::<L, V, FULL>(c, left, v) } else { zero };
                *x = match r.mask.is_null() {
                    true => alpha.fma(*x, old),
                    false => {
                        let mask = load::<L, V, FULL>(r.mask.add(i * r.mask_rs + first), left, v);
                        alpha.fma_where_positive(*x, old, mask)
                    }
                };
                let dst = c.add(v * L::N);
                if FULL { x.store(dst) } else { x.store_first(dst, left - v * L::N) }
            }
        }
    }
}
