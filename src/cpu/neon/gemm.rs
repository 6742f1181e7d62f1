//! GEMM tiles for NEON: 8 rows by three vectors.
//!
//! 24 accumulators + 3 vectors of B + 1 broadcast of A = 28 of 32 registers; 24 FMAs per 3 loads and 8 broadcasting loads. Cores
//! with four FMA pipes and a latency of 4 need 16 chains in flight: 24 are. A 4x16 tile would broadcast as often for
//! 16 FMAs; 8x8 has 16 chains and as many loads for fewer FMAs.
//!
//! Tails: rows are a constant of the compiled tile (1 to 8), columns are whole vectors (0 to 3) and then single ones. Every
//! element sees the same operations in the same order in any tile: fused multiply-adds, p rising.

use std::arch::aarch64::*;

use super::pack;
use crate::cpu::contract::{Gemm, Tile};
use crate::cpu::lanes::{begin, finish};

/// Single precision, 8 x 12: a 256 x 12 panel of B takes 12 KiB of the first-level cache.
pub const F32_8X12: Gemm<f32> = Gemm {
    name: "f32_gemm_8x12",
    mr: 8,
    nr: 12,
    lanes: 4,
    mc: 192,
    kc: 256,
    nc: 516,
    packs_b_from: 48,
    tile: f32_tile,
    packing_tile: None,
    pack: pack::f32_pack::<f32>,
};
/// Double precision, 8 x 6.
pub const F64_8X6: Gemm<f64> = Gemm {
    name: "f64_gemm_8x6",
    mr: 8,
    nr: 6,
    lanes: 2,
    mc: 96,
    kc: 256,
    nc: 258,
    packs_b_from: 48,
    tile: f64_tile,
    packing_tile: None,
    pack: pack::f64_pack,
};

macro_rules! tiles {
    ($t:ty, $dispatch:ident, $rows:ident, $block:ident, $single:ident, $lanes:literal, $vector:ty, $splat:ident,
     $load:ident, $fma:ident) => {
        /// # Safety
        /// NEON is there; see [`Gemm::tile`].
        unsafe fn $dispatch(t: &Tile<$t>) {
            // SAFETY: the contract is passed on unchanged; the row count given is `t.m`.
            unsafe {
                match t.m {
                    8 => $rows::<8>(t),
                    7 => $rows::<7>(t),
                    6 => $rows::<6>(t),
                    5 => $rows::<5>(t),
                    4 => $rows::<4>(t),
                    3 => $rows::<3>(t),
                    2 => $rows::<2>(t),
                    1 => $rows::<1>(t),
                    _ => debug_assert_eq!(t.m, 0, "a tile has at most 8 rows"),
                }
            }
        }

        /// # Safety
        /// NEON is there; see [`Gemm::tile`]; `t.m == M`.
        #[target_feature(enable = "neon")]
        unsafe fn $rows<const M: usize>(t: &Tile<$t>) {
            let whole = t.n / $lanes;
            // SAFETY: `whole` vectors lie in the tile's columns, then single columns up to n.
            unsafe {
                match whole {
                    3 => $block::<M, 3>(t),
                    2 => $block::<M, 2>(t),
                    1 => $block::<M, 1>(t),
                    _ => {}
                }
                for j in whole * $lanes..t.n {
                    $single::<M>(t, j);
                }
            }
        }

        /// The first `V` vectors of columns.
        ///
        /// # Safety
        /// NEON is there; see [`Gemm::tile`]; `t.m == M` and `t.n` is at least `V` vectors.
        #[inline]
        #[target_feature(enable = "neon")]
        unsafe fn $block<const M: usize, const V: usize>(t: &Tile<$t>) {
            let (mut a, mut b) = (t.a, t.b);
            // SAFETY: p < k, i < M = m and the vectors lie in the columns. Pointers past the last step are formed but not
            // read.
            unsafe {
                let mut acc = begin::<$vector, M, V, true>(t);
                for _ in 0..t.k {
                    let row: [_; V] = std::array::from_fn(|v| $load(b.wrapping_add(v * $lanes)));
                    for i in 0..M {
                        let x = $splat(*a.wrapping_add(i * t.a_rs));
                        for v in 0..V {
                            acc[i][v] = $fma(acc[i][v], x, row[v]);
                        }
                    }
                    a = a.wrapping_add(t.a_cs);
                    b = b.wrapping_add(t.b_rs);
                }
                finish::<$vector, M, V, true>(t, acc);
            }
        }

        /// Column j: the operations of one lane of the block.
        ///
        /// # Safety
        /// NEON is there; see [`Gemm::tile`]; `t.m == M` and `j < t.n`.
        #[inline]
        #[target_feature(enable = "neon")]
        unsafe fn $single<const M: usize>(t: &Tile<$t>, j: usize) {
            let mut acc = [0.0; M];
            // SAFETY: p < k, i < M = m, j < n.
            unsafe {
                if t.epilogue.chained {
                    for (i, sum) in acc.iter_mut().enumerate() {
                        *sum = *t.c.add(i * t.c_rs + j);
                    }
                }
                for p in 0..t.k {
                    let b = *t.b.add(p * t.b_rs + j);
                    for (i, sum) in acc.iter_mut().enumerate() {
                        *sum = <$t>::mul_add(*t.a.add(i * t.a_rs + p * t.a_cs), b, *sum);
                    }
                }
                let e = &t.epilogue;
                for (i, &sum) in acc.iter().enumerate() {
                    let c = t.c.add(i * t.c_rs + j);
                    let kept = e.mask.is_null() || *e.mask.add(i * e.mask_rs + j) > 0.0;
                    let sum = if !kept && !e.mask_result { 0.0 } else { sum };
                    let mut x = e.alpha * sum;
                    if e.beta != 0.0 {
                        let old = if e.old.is_null() { *c } else { *e.old.add(i * e.old_rs + j) };
                        // In the operations of `finish`.
                        x = match e.beta == 1.0 {
                            true => <$t>::mul_add(e.alpha, sum, old),
                            false => <$t>::mul_add(e.beta, old, x),
                        };
                    }
                    if !e.bias.is_null() {
                        x += *e.bias.add(j);
                    }
                    *c = if (e.relu && x <= 0.0) || (!kept && e.mask_result) { 0.0 } else { x };
                }
            }
        }
    };
}

tiles!(f32, f32_tile, f32_rows, f32_block, f32_single, 4, float32x4_t, vdupq_n_f32, vld1q_f32, vfmaq_f32);
tiles!(f64, f64_tile, f64_rows, f64_block, f64_single, 2, float64x2_t, vdupq_n_f64, vld1q_f64, vfmaq_f64);
