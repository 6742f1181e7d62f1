//! Packing of GEMM panels for AVX2.
//!
//! A transposition takes 8 rows by 4 columns of f32 at a time (4 by 2 of f64): 16-byte pieces of rows r and r + 4 are
//! loaded into the halves of vector r, which leaves a 4 x 4 transposition inside each half: 8 shuffles for 32 elements.

use std::arch::x86_64::*;

use super::tails::{f32_mask, f32_store_first, f64_mask, f64_store_first};
use crate::cpu::contract::Panel;

/// # Safety
/// AVX2 is there; see [`Gemm::pack`](crate::cpu::contract::Gemm::pack).
pub unsafe fn f32_pack(panel: &Panel<f32>) {
    // SAFETY: the contract is passed on unchanged.
    unsafe { if panel.rs == 1 { f32_copy(panel) } else { f32_transpose(panel) } }
}

/// # Safety
/// AVX2 is there; see [`Gemm::pack`](crate::cpu::contract::Gemm::pack).
pub unsafe fn f64_pack(panel: &Panel<f64>) {
    // SAFETY: the contract is passed on unchanged.
    unsafe { if panel.rs == 1 { f64_copy(panel) } else { f64_transpose(panel) } }
}

macro_rules! copy {
    ($t:ty, $copy:ident, $lanes:literal, $mask:ident, $load:ident, $store:ident, $maskload:ident, $store_first:ident) => {
        /// # Safety
        /// As the packing function, with `rs` = 1.
        #[target_feature(enable = "avx2")]
        unsafe fn $copy(panel: &Panel<$t>) {
            let whole = panel.width / $lanes * $lanes;
            let (left, mask) = (panel.width - whole, $mask(panel.width - whole));
            // All of a step at once: a wide operand's rows share few sets of the cache, so its lines don't stay.
            for p in 0..panel.k {
                let (src, dst) = (panel.src.wrapping_add(p * panel.ps), panel.dst.wrapping_add(p * panel.ds));
                // The next panel's part of this row, which no hardware foresees.
                _mm_prefetch::<_MM_HINT_T0>(src.wrapping_add(panel.width).cast());
                for i in (0..whole).step_by($lanes) {
                    // SAFETY: a whole vector of columns below the width.
                    unsafe { $store(dst.add(i), $load(src.add(i))) };
                }
                if left > 0 {
                    // SAFETY: the columns left, under the mask.
                    unsafe { $store_first(dst.add(whole), $maskload(src.add(whole), mask), left) };
                }
            }
        }
    };
}

copy!(f32, f32_copy, 8, f32_mask, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_maskload_ps, f32_store_first);
copy!(f64, f64_copy, 4, f64_mask, _mm256_loadu_pd, _mm256_storeu_pd, _mm256_maskload_pd, f64_store_first);

/// # Safety
/// As [`f32_pack`], with `ps` = 1.
#[target_feature(enable = "avx2")]
unsafe fn f32_transpose(panel: &Panel<f32>) {
    for i in (0..panel.width).step_by(8) {
        let rows = (panel.width - i).min(8);
        // Rows behind the last are read as the last and not stored.
        let row = |r: usize| panel.src.wrapping_add((i + r.min(rows - 1)) * panel.rs);
        let whole = panel.k / 4 * 4;
        for p in (0..whole).step_by(4) {
            // SAFETY: columns p..p + 4 of rows below the width.
            let piece = |r: usize| unsafe { _mm_loadu_ps(row(r).add(p)) };
            let x = [0, 1, 2, 3].map(|r| _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(piece(r)), piece(r + 4)));
            let (a, b) = (_mm256_unpacklo_ps(x[0], x[1]), _mm256_unpacklo_ps(x[2], x[3]));
            let (c, d) = (_mm256_unpackhi_ps(x[0], x[1]), _mm256_unpackhi_ps(x[2], x[3]));
            let columns = [
                _mm256_shuffle_ps::<0x44>(a, b),
                _mm256_shuffle_ps::<0xee>(a, b),
                _mm256_shuffle_ps::<0x44>(c, d),
                _mm256_shuffle_ps::<0xee>(c, d),
            ];
            for (q, x) in columns.into_iter().enumerate() {
                // SAFETY: step p + q < k, rows below the width.
                unsafe { f32_store_first(panel.dst.add((p + q) * panel.ds + i), x, rows) };
            }
        }
        for p in whole..panel.k {
            for r in 0..rows {
                // SAFETY: i + r < width and p < k.
                unsafe { *panel.dst.add(p * panel.ds + i + r) = *row(r).add(p) };
            }
        }
    }
}

/// # Safety
/// As [`f64_pack`], with `ps` = 1.
#[target_feature(enable = "avx2")]
unsafe fn f64_transpose(panel: &Panel<f64>) {
    for i in (0..panel.width).step_by(4) {
        let rows = (panel.width - i).min(4);
        // Rows behind the last are read as the last and not stored.
        let row = |r: usize| panel.src.wrapping_add((i + r.min(rows - 1)) * panel.rs);
        let whole = panel.k / 2 * 2;
        for p in (0..whole).step_by(2) {
            // SAFETY: columns p and p + 1 of rows below the width.
            let piece = |r: usize| unsafe { _mm_loadu_pd(row(r).add(p)) };
            let x = [0, 1].map(|r| _mm256_insertf128_pd::<1>(_mm256_castpd128_pd256(piece(r)), piece(r + 2)));
            let columns = [_mm256_unpacklo_pd(x[0], x[1]), _mm256_unpackhi_pd(x[0], x[1])];
            for (q, x) in columns.into_iter().enumerate() {
                // SAFETY: step p + q < k, rows below the width.
                unsafe { f64_store_first(panel.dst.add((p + q) * panel.ds + i), x, rows) };
            }
        }
        for p in whole..panel.k {
            for r in 0..rows {
                // SAFETY: i + r < width and p < k.
                unsafe { *panel.dst.add(p * panel.ds + i + r) = *row(r).add(p) };
            }
        }
    }
}
