//! The begin and the epilogue of a GEMM tile whose sums stand in registers: operation by operation over all of them, so that each is
//! asked for once a tile. Asked once a register, the questions took as long as the sums of a tile of 25 steps.

use super::Lanes;
use crate::cpu::contract::Tile;
use crate::dtype::Element;

/// Where the sums of `M` rows by `V` vectors begin.
///
/// # Safety
/// As [`finish`].
#[inline(always)]
pub unsafe fn begin<L: Lanes, const M: usize, const V: usize, const FULL: bool>(t: &Tile<L::T>) -> [[L; V]; M] {
    // SAFETY: the caller's; element (i, j) of C, i < M = m, j < n.
    unsafe {
        let mut sums = [[L::splat(L::T::ZERO); V]; M];
        if t.epilogue.chained {
            for (i, row) in sums.iter_mut().enumerate() {
                for (v, x) in row.iter_mut().enumerate() {
                    *x = load::<L, V, FULL>(t.c.add(i * t.c_rs), t.n, v);
                }
            }
        }
        sums
    }
}

/// Applies the epilogue to the sums of `M` rows by `V` vectors and stores them; `FULL`: no column is cut.
///
/// # Safety
/// The register's instructions are enabled and there; see [`Gemm::tile`](crate::cpu::contract::Gemm::tile); `M` is `t.m`,
/// and `t.n` is at least `V` vectors if `FULL`, otherwise it cuts the last one.
#[inline(always)]
pub unsafe fn finish<L: Lanes, const M: usize, const V: usize, const FULL: bool>(
    t: &Tile<L::T>,
    mut sums: [[L; V]; M],
) {
    let e = &t.epilogue;
    // SAFETY: the caller's; element (i, j) of what is not null, i < M = m, j < n.
    unsafe {
        if !e.mask.is_null() && !e.mask_result {
            mask::<L, M, V, FULL>(t, &mut sums);
        }
        let alpha = L::splat(e.alpha);
        // Where the old values are added as they are, so in most products, one operation does both.
        if e.beta != L::T::ONE && e.alpha != L::T::ONE {
            for x in sums.as_flattened_mut() {
                *x = alpha.mul(*x);
            }
        }
        if e.beta != L::T::ZERO {
            let (old, rs) = if e.old.is_null() { (t.c.cast_const(), t.c_rs) } else { (e.old, e.old_rs) };
            let beta = L::splat(e.beta);
            for (i, row) in sums.iter_mut().enumerate() {
                for (v, x) in row.iter_mut().enumerate() {
                    let old = load::<L, V, FULL>(old.add(i * rs), t.n, v);
                    *x = if e.beta == L::T::ONE { alpha.fma(*x, old) } else { beta.fma(old, *x) };
                }
            }
        }
        if !e.bias.is_null() {
            for row in &mut sums {
                for (v, x) in row.iter_mut().enumerate() {
                    *x = x.add(load::<L, V, FULL>(e.bias, t.n, v));
                }
            }
        }
        if e.relu {
            let zero = L::splat(L::T::ZERO);
            for x in sums.as_flattened_mut() {
                *x = zero.max(*x);
            }
        }
        if !e.mask.is_null() && e.mask_result {
            mask::<L, M, V, FULL>(t, &mut sums);
        }
        for (i, row) in sums.iter().enumerate() {
            for (v, &x) in row.iter().enumerate() {
                let dst = t.c.add(i * t.c_rs + v * L::N);
                if FULL || v + 1 < V { x.store(dst) } else { x.store_first(dst, t.n - v * L::N) }
            }
        }
    }
}

/// # Safety
/// As [`finish`], and there is a mask.
#[inline(always)]
unsafe fn mask<L: Lanes, const M: usize, const V: usize, const FULL: bool>(t: &Tile<L::T>, sums: &mut [[L; V]; M]) {
    let e = &t.epilogue;
    // SAFETY: element (i, j) of the mask, i < M = m, j < n.
    unsafe {
        for (i, row) in sums.iter_mut().enumerate() {
            for (v, x) in row.iter_mut().enumerate() {
                *x = x.where_positive(load::<L, V, FULL>(e.mask.add(i * e.mask_rs), t.n, v));
            }
        }
    }
}

/// Vector `v` of a row of n columns. With `FULL` known when compiled, unlike in `load_vector`.
///
/// # Safety
/// As [`finish`]; the row's elements are readable.
#[inline(always)]
pub(super) unsafe fn load<L: Lanes, const V: usize, const FULL: bool>(row: *const L::T, n: usize, v: usize) -> L {
    // SAFETY: only columns below n are read.
    unsafe {
        let src = row.add(v * L::N);
        if FULL || v + 1 < V { L::load(src) } else { L::load_first(src, n - v * L::N, L::T::ZERO) }
    }
}
