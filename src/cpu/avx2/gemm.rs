//! GEMM tiles for AVX2 and FMA: 6 rows by two vectors.
//!
//! 12 accumulators + 2 vectors of B + 1 broadcast of A = 15 of 16 ymm registers; 12 FMAs per 2 loads and 6
//! broadcasts. Two FMAs issue a cycle with a latency of 4 or 5, so 8 to 10 chains must be in flight: 12 are. Tiles of 4x24 and 3x32
//! take 7 loads for as many FMAs and were 0.99 to 1.02 times as fast (Zen 3, packed operands), but fit the columns of few nets; 8x8
//! has 8 chains only.
//!
//! The sums of tiles of two whole vectors are assembly (`sums`); those of narrower ones are here. A tile that packs stores the two
//! vectors of B as well: 8 loads and 2 stores for 12 FMAs.
//!
//! Tails: rows are a constant of the compiled tile (1 to 6), columns are masked loads and stores in pieces, one
//! vector wide where one suffices. Every element sees the same operations in the same order in any tile.

use std::arch::x86_64::*;

use super::pack;
use super::rows::Rows;
use super::sums::{PackingSums, Sums};
use super::tails::{f32_mask, f64_mask};
use crate::cpu::contract::{Gemm, Tile};
use crate::cpu::lanes::{begin, finish};

/// Single precision, 6 x 16: a 256 x 16 panel of B takes 16 KiB of the first-level cache.
pub const F32_6X16: Gemm<f32> = Gemm {
    name: "f32_gemm_6x16",
    mr: 6,
    nr: 16,
    lanes: 8,
    mc: 192,
    kc: 256,
    nc: 1024,
    packs_b_from: 64,
    tile: f32_tile,
    packing_tile: Some(f32_packing_tile),
    pack: pack::f32_pack::<f32>,
};
/// Double precision, 6 x 8.
pub const F64_6X8: Gemm<f64> = Gemm {
    name: "f64_gemm_6x8",
    mr: 6,
    nr: 8,
    lanes: 4,
    mc: 96,
    kc: 256,
    nc: 512,
    packs_b_from: 48,
    tile: f64_tile,
    packing_tile: Some(f64_packing_tile),
    pack: pack::f64_pack,
};

/// Steps from which on C is asked for before the sums begin: below, asking takes longer than it saves.
const FAR: usize = 64;

/// Asks for C, whose rows come late where they were not used for long. Asking for the next line too, of rows that begin inside one,
/// gained nothing at 512x512x512 and cost 75x128x256 a fiftieth.
#[inline]
fn ask<T, const M: usize>(t: &Tile<T>) {
    if t.k >= FAR {
        for i in 0..M {
            // SAFETY: a prefetch reads nothing.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(t.c.wrapping_add(i * t.c_rs).cast()) };
        }
    }
}

macro_rules! tiles {
    ($t:ty, $dispatch:ident, $packing_dispatch:ident, $whole:ident, $packing:ident, $cut:ident, $sum:ident, $lanes:literal,
     $vector:ty, $mask:ident, $zero:ident, $broadcast:ident, $load:ident, $maskload:ident, $fma:ident) => {
        /// # Safety
        /// AVX2 and FMA are there; see [`Gemm::tile`].
        unsafe fn $dispatch(t: &Tile<$t>) {
            // SAFETY: the contract is passed on unchanged; the row count given is `t.m`.
            unsafe {
                match (t.m, t.n == 2 * $lanes, t.n > $lanes) {
                    (6, true, _) => $whole::<6>(t),
                    (5, true, _) => $whole::<5>(t),
                    (4, true, _) => $whole::<4>(t),
                    (3, true, _) => $whole::<3>(t),
                    (2, true, _) => $whole::<2>(t),
                    (1, true, _) => $whole::<1>(t),
                    (6, _, true) => $cut::<6, 2>(t),
                    (5, _, true) => $cut::<5, 2>(t),
                    (4, _, true) => $cut::<4, 2>(t),
                    (3, _, true) => $cut::<3, 2>(t),
                    (2, _, true) => $cut::<2, 2>(t),
                    (1, _, true) => $cut::<1, 2>(t),
                    (6, ..) => $cut::<6, 1>(t),
                    (5, ..) => $cut::<5, 1>(t),
                    (4, ..) => $cut::<4, 1>(t),
                    (3, ..) => $cut::<3, 1>(t),
                    (2, ..) => $cut::<2, 1>(t),
                    (1, ..) => $cut::<1, 1>(t),
                    _ => debug_assert_eq!(t.m, 0, "a tile has at most 6 rows"),
                }
            }
        }

        /// # Safety
        /// AVX2 and FMA are there; see [`Gemm::packing_tile`].
        unsafe fn $packing_dispatch(t: &Tile<$t>, to: *mut $t) {
            // SAFETY: the contract is passed on unchanged; the row count given is `t.m`.
            unsafe {
                match t.m {
                    6 => $packing::<6>(t, to),
                    5 => $packing::<5>(t, to),
                    4 => $packing::<4>(t, to),
                    _ => debug_assert!(false, "a tile that packs has 4 to 6 rows"),
                }
            }
        }

        /// A tile of `M` rows and two whole vectors of columns.
        ///
        /// # Safety
        /// AVX2 and FMA are there; see [`Gemm::tile`]; `t.m == M` and `t.n` is two vectors.
        #[target_feature(enable = "avx2,fma")]
        unsafe fn $whole<const M: usize>(t: &Tile<$t>) {
            ask::<$t, M>(t);
            // SAFETY: the contract is passed on.
            unsafe {
                let mut acc = begin::<$vector, M, 2, true>(t);
                <$vector>::sum(t, &mut acc);
                finish::<$vector, M, 2, true>(t, acc);
            }
        }

        /// The same, which packs B.
        ///
        /// # Safety
        /// AVX2 and FMA are there; see [`Gemm::packing_tile`]; `t.m == M`.
        #[target_feature(enable = "avx2,fma")]
        unsafe fn $packing<const M: usize>(t: &Tile<$t>, to: *mut $t) {
            ask::<$t, M>(t);
            // SAFETY: the contract is passed on.
            unsafe {
                let mut acc = begin::<$vector, M, 2, true>(t);
                <$vector>::sum_packing(t, to, &mut acc);
                finish::<$vector, M, 2, true>(t, acc);
            }
        }

        /// The sums of a tile whose last vector is cut, unless `full`.
        ///
        /// # Safety
        /// As the tile's function.
        #[inline]
        #[target_feature(enable = "avx2,fma")]
        unsafe fn $sum<const M: usize, const V: usize>(
            t: &Tile<$t>,
            rows: Rows,
            full: bool,
            last: __m256i,
            acc: &mut [[$vector; V]; M],
        ) {
            let mut sums = *acc;
            let (mut a, mut b) = (t.a, t.b);
            for _ in 0..t.k {
                let mut row = [$zero(); V];
                for v in 0..V {
                    // SAFETY: p < k; the mask reads only columns below n.
                    unsafe {
                        let src = b.add(v * $lanes);
                        row[v] = if full || v + 1 < V { $load(src) } else { $maskload(src, last) };
                    }
                }
                for i in 0..M {
                    // SAFETY: i < m and p < k.
                    let x = $broadcast(unsafe { &*rows.at(a, i) });
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
        /// AVX2 and FMA are there; see [`Gemm::tile`]; `t.m == M` and `t.n` lies above `V - 1` vectors and not above `V`.
        #[target_feature(enable = "avx2,fma")]
        unsafe fn $cut<const M: usize, const V: usize>(t: &Tile<$t>) {
            ask::<$t, M>(t);
            let full = V == 1 && t.n == $lanes;
            let last = $mask(t.n - (V - 1) * $lanes);
            // SAFETY: p < k, i < M = m; whole vectors are read and written where all their columns are below n,
            // otherwise the mask covers only those below n.
            unsafe {
                // Four copies of the loop: masked loads only in tails, and with neighbouring rows every broadcast has
                // a constant offset.
                let size = size_of::<$t>();
                let mut acc = if full { begin::<$vector, M, V, true>(t) } else { begin::<$vector, M, V, false>(t) };
                match (full, t.a_rs == 1) {
                    (true, true) => $sum::<M, V>(t, Rows::near(size), true, last, &mut acc),
                    (true, false) => $sum::<M, V>(t, Rows::far(size * t.a_rs), true, last, &mut acc),
                    (false, true) => $sum::<M, V>(t, Rows::near(size), false, last, &mut acc),
                    (false, false) => $sum::<M, V>(t, Rows::far(size * t.a_rs), false, last, &mut acc),
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
    f32_packing_tile,
    f32_whole,
    f32_packing,
    f32_cut,
    f32_sum,
    8,
    __m256,
    f32_mask,
    _mm256_setzero_ps,
    _mm256_broadcast_ss,
    _mm256_loadu_ps,
    _mm256_maskload_ps,
    _mm256_fmadd_ps
);
tiles!(
    f64,
    f64_tile,
    f64_packing_tile,
    f64_whole,
    f64_packing,
    f64_cut,
    f64_sum,
    4,
    __m256d,
    f64_mask,
    _mm256_setzero_pd,
    _mm256_broadcast_sd,
    _mm256_loadu_pd,
    _mm256_maskload_pd,
    _mm256_fmadd_pd
);
