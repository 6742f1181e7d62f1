//! A product with few columns, as the layer with a class a column is: dot products of rows with rows, summed in the lanes
//! of registers. A GEMM tile would be 5 of 16 columns wide, after a transposition of B.
//!
//! R rows of A by N columns: R N sums in registers, R + N loads for R N FMAs a vector of k. Of 16 registers R is 2 for 4 to 6
//! columns (8 to 12 chains; two FMAs a cycle with a latency of 4 keep 8 busy), 4 for fewer, 1 for more; of 32 it is 4 up to 5
//! columns, 3 up to 7, 2 for 8. With 64 steps and vectors of 16 adding up the lanes takes longer than the FMAs, so the sums' lanes are added
//! up together.

use super::{Lanes, load_vector};
use crate::cpu::contract::FewDots;
use crate::dtype::Element;

/// # Safety
/// The register's instructions are enabled and there; see [`FewColumns`](crate::cpu::contract::FewColumns).
#[inline(always)]
pub unsafe fn few_columns<L: Lanes>(f: &FewDots<L::T>) {
    // SAFETY: the contract is passed on unchanged; the column count is n.
    unsafe {
        match (f.n, L::REGISTERS >= 32) {
            (1, _) => rows::<L, 4, 1>(f),
            (2, _) => rows::<L, 4, 2>(f),
            (3, _) => rows::<L, 4, 3>(f),
            (4, true) => rows::<L, 4, 4>(f),
            (4, false) => rows::<L, 2, 4>(f),
            (5, true) => rows::<L, 4, 5>(f),
            (5, false) => rows::<L, 2, 5>(f),
            (6, true) => rows::<L, 3, 6>(f),
            (6, false) => rows::<L, 2, 6>(f),
            (7, true) => rows::<L, 3, 7>(f),
            (7, false) => rows::<L, 1, 7>(f),
            (8, true) => rows::<L, 2, 8>(f),
            (8, false) => rows::<L, 1, 8>(f),
            _ => debug_assert_eq!(f.n, 0, "few columns are at most 8"),
        }
    }
}

/// All rows, R at a time, the last ones singly.
///
/// # Safety
/// As [`few_columns`], and N = n.
#[inline(always)]
unsafe fn rows<L: Lanes, const R: usize, const N: usize>(f: &FewDots<L::T>) {
    let whole = f.m / R * R;
    // SAFETY: rows below m.
    unsafe {
        for i in (0..whole).step_by(R) {
            block::<L, R, N>(f, i);
        }
        for i in whole..f.m {
            block::<L, 1, N>(f, i);
        }
    }
}

/// Rows `first .. first + R`.
///
/// # Safety
/// As [`rows`], and those rows are below m.
#[inline(always)]
unsafe fn block<L: Lanes, const R: usize, const N: usize>(f: &FewDots<L::T>, first: usize) {
    // SAFETY: rows below m, columns below n, vectors of k.
    unsafe {
        let mut sums = [[L::splat(L::T::ZERO); N]; R];
        let whole = f.k / L::N;
        for part in 0..f.parts {
            let (a, b) = (f.a[part].add(first * f.a_rs), f.b[part]);
            for v in 0..whole {
                add::<L, R, N, false>(f, a, b, v, &mut sums);
            }
            if whole * L::N < f.k {
                add::<L, R, N, true>(f, a, b, whole, &mut sums);
            }
        }
        let mut x = [[L::T::ZERO; N]; R];
        L::sum_each(sums.as_flattened(), x.as_flattened_mut());
        for (r, x) in x.iter_mut().enumerate() {
            let c = f.c.add((first + r) * f.c_rs);
            for x in &mut *x {
                *x *= f.alpha;
            }
            if f.beta != L::T::ZERO {
                for (j, x) in x.iter_mut().enumerate() {
                    *x += f.beta * *c.add(j);
                }
            }
            if !f.bias.is_null() {
                for (j, x) in x.iter_mut().enumerate() {
                    *x += *f.bias.add(j);
                }
            }
            for (j, &x) in x.iter().enumerate() {
                *c.add(j) = x;
            }
        }
    }
}

/// Adds the products of vector `v` of rows from `a` on with those from `b` on; of the vector a tail has only the first elements.
///
/// # Safety
/// As [`block`], and the vector begins before k.
#[inline(always)]
unsafe fn add<L: Lanes, const R: usize, const N: usize, const TAIL: bool>(
    f: &FewDots<L::T>,
    a: *const L::T,
    b: *const L::T,
    v: usize,
    sums: &mut [[L; N]; R],
) {
    // SAFETY: the caller's; rows below m, columns below n.
    unsafe {
        let mut columns = [L::splat(L::T::ZERO); N];
        for (j, x) in columns.iter_mut().enumerate() {
            let row = b.add(j * f.b_rs);
            *x = if TAIL { load_vector(row, f.k, v, L::T::ZERO) } else { L::load(row.add(v * L::N)) };
        }
        for (r, sums) in sums.iter_mut().enumerate() {
            let row = a.add(r * f.a_rs);
            let x = if TAIL { load_vector(row, f.k, v, L::T::ZERO) } else { L::load(row.add(v * L::N)) };
            for (sum, b) in sums.iter_mut().zip(columns) {
                *sum = x.fma(b, *sum);
            }
        }
    }
}
