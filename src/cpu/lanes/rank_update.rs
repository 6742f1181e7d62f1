//! A product with few steps, as the gradient through the layer with a class a column is, a step a class. A GEMM tile's beginning
//! and end take longer than its steps there.
//!
//! The right factors, K rows by two vectors, stay in registers while all rows of A pass: a row takes K broadcasts for 2 K FMAs,
//! and its old values, mask and result 6 accesses more. Of 32 registers they take 20 at most; 16 hold 5 rows, and what is
//! beyond is on the stack, an operand of its FMA: still faster than one vector, which takes as many broadcasts for half of the
//! FMAs. A row's sums are two chains of K steps; rows do not wait for one another, so the core runs those of several at once.
//! One pass over A a panel, one over everything else.

use super::Lanes;
use super::finish::load;
use crate::cpu::contract::Thin;
use crate::dtype::Element;

/// # Safety
/// The register's instructions are enabled and there; see [`rank_update`](crate::cpu::contract::Ops::rank_update).
#[inline(always)]
pub unsafe fn rank_update<L: Lanes>(t: &Thin<L::T>) {
    // SAFETY: the contract is passed on unchanged; the counts given are those of `t`.
    unsafe {
        match (t.parts, t.k) {
            (1, 1) => panels::<L, 1, 1>(t),
            (1, 2) => panels::<L, 1, 2>(t),
            (1, 3) => panels::<L, 1, 3>(t),
            (1, 4) => panels::<L, 1, 4>(t),
            (1, 5) => panels::<L, 1, 5>(t),
            (1, 6) => panels::<L, 1, 6>(t),
            (1, 7) => panels::<L, 1, 7>(t),
            (1, 8) => panels::<L, 1, 8>(t),
            (1, 9) => panels::<L, 1, 9>(t),
            (1, 10) => panels::<L, 1, 10>(t),
            (2, 1) => panels::<L, 2, 1>(t),
            (2, 2) => panels::<L, 2, 2>(t),
            (2, 3) => panels::<L, 2, 3>(t),
            (2, 4) => panels::<L, 2, 4>(t),
            (2, 5) => panels::<L, 2, 5>(t),
            _ => panels::<L, 0, 0>(t),
        }
    }
}

/// All columns, a panel at a time.
///
/// # Safety
/// As [`rank_update`]; P and K are its counts of products and of steps.
#[inline(always)]
unsafe fn panels<L: Lanes, const P: usize, const K: usize>(t: &Thin<L::T>) {
    debug_assert!(t.parts * t.k == P * K, "a rank of at most 10");
    let mut j = 0;
    // SAFETY: columns from j on and below n.
    unsafe {
        while t.n - j >= 2 * L::N {
            panel::<L, P, K, 2, true>(t, j);
            j += 2 * L::N;
        }
        while t.n - j >= L::N {
            panel::<L, P, K, 1, true>(t, j);
            j += L::N;
        }
        if j < t.n {
            panel::<L, P, K, 1, false>(t, j);
        }
    }
}

/// Columns `first ..`, V vectors of them; `FULL`: none is cut.
///
/// # Safety
/// As [`panels`]; V vectors of columns are left behind `first`, or if not `FULL` at least 1 column.
#[inline(always)]
unsafe fn panel<L: Lanes, const P: usize, const K: usize, const V: usize, const FULL: bool>(
    t: &Thin<L::T>,
    first: usize,
) {
    let left = t.n - first;
    // SAFETY: the caller's; row i < m, step p < k, columns below n.
    unsafe {
        let zero = L::splat(L::T::ZERO);
        let mut b = [[[zero; V]; K]; P];
        for (q, b) in b.iter_mut().enumerate() {
            for (p, b) in b.iter_mut().enumerate() {
                let row = t.b[q].add(p * t.b_rs + first);
                for (v, b) in b.iter_mut().enumerate() {
                    *b = load::<L, V, FULL>(row, left, v);
                }
            }
        }
        let alpha = L::splat(t.alpha);
        for i in 0..t.m {
            let mut sums = [zero; V];
            for (q, b) in b.iter().enumerate() {
                let a = t.a[q].add(i * t.a_rs);
                for (p, b) in b.iter().enumerate() {
                    let x = L::splat(*a.add(p));
                    for (sum, &b) in sums.iter_mut().zip(b) {
                        *sum = x.fma(b, *sum);
                    }
                }
            }
            let c = t.c.add(i * t.c_rs + first);
            for (v, x) in sums.iter_mut().enumerate() {
                let mask = || load::<L, V, FULL>(t.mask.add(i * t.mask_rs + first), left, v);
                let old = || load::<L, V, FULL>(c, left, v);
                *x = match (t.adds, t.mask.is_null()) {
                    (true, true) => alpha.fma(*x, old()),
                    (true, false) => alpha.fma_where_positive(*x, old(), mask()),
                    (false, true) => alpha.mul(*x),
                    (false, false) => alpha.mul(*x).where_positive(mask()),
                };
                let dst = c.add(v * L::N);
                if FULL { x.store(dst) } else { x.store_first(dst, left - v * L::N) }
            }
        }
    }
}
