//! GEMM tiles for AVX-512: 14 rows by two vectors.
//!
//! 28 accumulators + 2 vectors of B + 1 broadcast of A = 31 of 32 zmm registers; 28 FMAs per 2 loads and 14
//! broadcasts, or 23 where most are embedded. Two FMAs issue a cycle, two loads too: 14 cycles of the one beside 8 or 13 of
//! the other. Rejected: 9x48, which has 27 chains but 12 loads a 13.5 cycles, and 28x16, whose 29 loads take longer than its
//! 28 FMAs.
//!
//! The sums of tiles of two whole vectors are assembly (`sums`); those of narrower ones are here.
//!
//! Tails: rows are a constant of the compiled tile (1 to 14), columns are masked loads and stores, one vector wide where
//! one suffices. Every element sees the same operations in the same order in any tile.

use std::arch::x86_64::*;

use super::pack;
use crate::cpu::avx2::{Rows, Sums};
use crate::cpu::contract::{Gemm, Tile};
use crate::cpu::lanes::{begin, finish};

/// Single precision, 14 x 32. A step reads 184 bytes in 14 cycles, which the second-level cache gives: so 512 steps of a panel of B
/// (64 KiB) may exceed the first, and every block of the reduction saved is a pass over C saved (`benches/README.md`, "A quiet
/// machine"). The packed block of A (252 KiB) stays in the second-level cache; that of B (2 MiB) comes from the third, once for 126 rows.
pub const F32_14X32: Gemm<f32> = Gemm {
    name: "f32_gemm_14x32",
    mr: 14,
    nr: 32,
    lanes: 16,
    mc: 126,
    kc: 512,
    nc: 1024,
    packs_b_from: 128,
    tile: f32_tile,
    packing_tile: None,
    pack: pack::f32_pack,
};
/// Double precision, 14 x 16.
pub const F64_14X16: Gemm<f64> = Gemm {
    name: "f64_gemm_14x16",
    mr: 14,
    nr: 16,
    lanes: 8,
    mc: 126,
    kc: 256,
    nc: 512,
    packs_b_from: 64,
    tile: f64_tile,
    packing_tile: None,
    pack: pack::f64_pack,
};

/// Steps from which on C is asked for before the sums begin: below, asking takes longer than it saves.
const FAR: usize = 64;

/// Asks for C, whose rows come late where they were not used for long.
#[inline]
fn ask<T, const M: usize, const V: usize>(t: &Tile<T>) {
    if t.k >= FAR {
        for i in 0..M {
            for v in 0..V {
                // SAFETY: a prefetch reads nothing.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(t.c.wrapping_add(i * t.c_rs).wrapping_byte_add(64 * v).cast()) };
            }
        }
    }
}

macro_rules! tiles {
    ($t:ty, $dispatch:ident, $whole:ident, $cut:ident, $sum:ident, $lanes:literal, $vector:ty, $mask:ty, $zero:ident,
     $broadcast:ident, $load:ident, $maskload:ident, $fma:ident) => {
        /// # Safety
        /// AVX-512 is there; see [`Gemm::tile`].
        unsafe fn $dispatch(t: &Tile<$t>) {
            // SAFETY: the contract is passed on unchanged; the row count given is `t.m`.
            unsafe {
                match (t.m, t.n == 2 * $lanes, t.n > $lanes) {
                    (14, true, _) => $whole::<14>(t),
                    (13, true, _) => $whole::<13>(t),
                    (12, true, _) => $whole::<12>(t),
                    (11, true, _) => $whole::<11>(t),
                    (10, true, _) => $whole::<10>(t),
                    (9, true, _) => $whole::<9>(t),
                    (8, true, _) => $whole::<8>(t),
                    (7, true, _) => $whole::<7>(t),
                    (6, true, _) => $whole::<6>(t),
                    (5, true, _) => $whole::<5>(t),
                    (4, true, _) => $whole::<4>(t),
                    (3, true, _) => $whole::<3>(t),
                    (2, true, _) => $whole::<2>(t),
                    (1, true, _) => $whole::<1>(t),
                    (14, _, true) => $cut::<14, 2>(t),
                    (13, _, true) => $cut::<13, 2>(t),
                    (12, _, true) => $cut::<12, 2>(t),
                    (11, _, true) => $cut::<11, 2>(t),
                    (10, _, true) => $cut::<10, 2>(t),
                    (9, _, true) => $cut::<9, 2>(t),
                    (8, _, true) => $cut::<8, 2>(t),
                    (7, _, true) => $cut::<7, 2>(t),
                    (6, _, true) => $cut::<6, 2>(t),
                    (5, _, true) => $cut::<5, 2>(t),
                    (4, _, true) => $cut::<4, 2>(t),
                    (3, _, true) => $cut::<3, 2>(t),
                    (2, _, true) => $cut::<2, 2>(t),
                    (1, _, true) => $cut::<1, 2>(t),
                    (14, ..) => $cut::<14, 1>(t),
                    (13, ..) => $cut::<13, 1>(t),
                    (12, ..) => $cut::<12, 1>(t),
                    (11, ..) => $cut::<11, 1>(t),
                    (10, ..) => $cut::<10, 1>(t),
                    (9, ..) => $cut::<9, 1>(t),
                    (8, ..) => $cut::<8, 1>(t),
                    (7, ..) => $cut::<7, 1>(t),
                    (6, ..) => $cut::<6, 1>(t),
                    (5, ..) => $cut::<5, 1>(t),
                    (4, ..) => $cut::<4, 1>(t),
                    (3, ..) => $cut::<3, 1>(t),
                    (2, ..) => $cut::<2, 1>(t),
                    (1, ..) => $cut::<1, 1>(t),
                    _ => debug_assert_eq!(t.m, 0, "a tile has at most 14 rows"),
                }
            }
        }

        /// A tile of `M` rows and two whole vectors of columns.
        ///
        /// # Safety
        /// AVX-512 is there; see [`Gemm::tile`]; `t.m == M` and `t.n` is two vectors.
        #[target_feature(enable = "avx512f")]
        unsafe fn $whole<const M: usize>(t: &Tile<$t>) {
            ask::<$t, M, 2>(t);
            // SAFETY: the contract is passed on.
            unsafe {
                let mut acc = begin::<$vector, M, 2, true>(t);
                <$vector>::sum(t, &mut acc);
                finish::<$vector, M, 2, true>(t, acc);
            }
        }

        /// The sums of a tile; `tail` is the mask of the last vector, if its columns are cut.
        ///
        /// # Safety
        /// As the tile's function.
        #[inline]
        #[target_feature(enable = "avx512f")]
        unsafe fn $sum<const M: usize, const V: usize>(
            t: &Tile<$t>,
            rows: Rows,
            tail: Option<$mask>,
            acc: &mut [[$vector; V]; M],
        ) {
            let mut sums = *acc;
            let (mut a, mut b) = (t.a, t.b);
            for _ in 0..t.k {
                let mut row = [$zero(); V];
                for v in 0..V {
                    let src = b.wrapping_add(v * $lanes);
                    row[v] = match tail {
                        // SAFETY: p < k; the mask reads only columns below n.
                        Some(mask) if v + 1 == V => unsafe { $maskload(mask, src) },
                        // SAFETY: p < k; every column of this vector is below n.
                        _ => unsafe { $load(src) },
                    };
                }
                for i in 0..M {
                    // SAFETY: i < m and p < k.
                    let x = $broadcast(unsafe { *rows.at(a, i) });
                    for v in 0..V {
                        sums[i][v] = $fma(x, row[v], sums[i][v]);
                    }
                }
                // Behind the last step these point outside, and are not read.
                a = a.wrapping_add(t.a_cs);
                b = b.wrapping_add(t.b_rs);
            }
            *acc = sums;
        }

        /// A tile of `M` rows and `V` vectors of columns, of which the last may be cut.
        ///
        /// # Safety
        /// AVX-512 is there; see [`Gemm::tile`]; `t.m == M` and `t.n` lies above `V - 1` vectors and not above `V`.
        #[target_feature(enable = "avx512f")]
        unsafe fn $cut<const M: usize, const V: usize>(t: &Tile<$t>) {
            ask::<$t, M, V>(t);
            let tail = <$mask>::MAX >> (V * $lanes - t.n);
            // Four copies of the loop: a masked load takes the FMAs' ports, so only tails have it; and with
            // neighbouring rows every broadcast has a constant offset.
            let size = size_of::<$t>();
            // SAFETY: p < k, i < M = m; the masks read and write only columns below n.
            unsafe {
                let full = V == 1 && t.n == $lanes;
                let mut acc = if full { begin::<$vector, M, V, true>(t) } else { begin::<$vector, M, V, false>(t) };
                match (full, t.a_rs == 1) {
                    (true, true) => $sum::<M, V>(t, Rows::near(size), None, &mut acc),
                    (true, false) => $sum::<M, V>(t, Rows::far(size * t.a_rs), None, &mut acc),
                    (false, true) => $sum::<M, V>(t, Rows::near(size), Some(tail), &mut acc),
                    (false, false) => $sum::<M, V>(t, Rows::far(size * t.a_rs), Some(tail), &mut acc),
                }
                if full {
                    finish::<$vector, M, V, true>(t, acc);
                } else {
                    finish::<$vector, M, V, false>(t, acc);
                }
            }
        }
    };
}

tiles!(
    f32,
    f32_tile,
    f32_whole,
    f32_cut,
    f32_sum,
    16,
    __m512,
    __mmask16,
    _mm512_setzero_ps,
    _mm512_set1_ps,
    _mm512_loadu_ps,
    _mm512_maskz_loadu_ps,
    _mm512_fmadd_ps
);
tiles!(
    f64,
    f64_tile,
    f64_whole,
    f64_cut,
    f64_sum,
    8,
    __m512d,
    __mmask8,
    _mm512_setzero_pd,
    _mm512_set1_pd,
    _mm512_loadu_pd,
    _mm512_maskz_loadu_pd,
    _mm512_fmadd_pd
);
