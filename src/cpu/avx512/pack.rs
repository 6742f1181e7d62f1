//! Packing of GEMM panels for AVX-512.
//!
//! A transposition takes 16 rows by 4 columns of f32 at a time (8 by 2 of f64): 16-byte pieces of rows r, r + 4, r + 8,
//! r + 12 are loaded into the four quarters of vector r (as compiled: 8 loads, 8 insertions from memory, 4 of halves). What is left is a 4 x 4 transposition inside each quarter: 8 shuffles for 64 elements beside 16 loads, where the
//! 16 x 16 network takes 16.

use std::arch::x86_64::*;

use crate::cpu::avx2;
use crate::cpu::contract::Panel;

/// # Safety
/// AVX-512 is there; see [`Pack`](crate::cpu::contract::Pack).
pub unsafe fn f32_pack(panel: &Panel<f32>) {
    // SAFETY: the contract is passed on unchanged.
    unsafe {
        if panel.rs == 1 {
            f32_copy(panel);
        } else if panel.width <= 8 {
            (avx2::KERNELS.f32.gemm.pack)(panel);
        } else {
            f32_transpose(panel);
        }
    }
}

/// # Safety
/// AVX-512 is there; see [`Pack`](crate::cpu::contract::Pack).
pub unsafe fn f64_pack(panel: &Panel<f64>) {
    // SAFETY: the contract is passed on unchanged.
    unsafe {
        if panel.rs == 1 {
            f64_copy(panel);
        } else if panel.width <= 4 {
            (avx2::KERNELS.f64.gemm.pack)(panel);
        } else {
            f64_transpose(panel);
        }
    }
}

macro_rules! copy {
    ($t:ty, $copy:ident, $lanes:literal, $mask:ty, $load:ident, $store:ident, $maskload:ident, $maskstore:ident) => {
        /// # Safety
        /// As the packing function, with `rs` = 1.
        #[target_feature(enable = "avx512f")]
        unsafe fn $copy(panel: &Panel<$t>) {
            let (first, whole) = (panel.width.min($lanes), panel.width / $lanes * $lanes);
            let mask: $mask = (1 << (panel.width - whole)) - 1;
            for p in 0..panel.k {
                let (src, dst) = (panel.src.wrapping_add(p * panel.ps), panel.dst.wrapping_add(p * panel.ds));
                // The next panel's part of this row, which no hardware foresees.
                _mm_prefetch::<_MM_HINT_T0>(src.wrapping_add(panel.width).cast());
                _mm_prefetch::<_MM_HINT_T0>(src.wrapping_add(panel.width + first).cast());
                // SAFETY: whole vectors lie below the width, and the mask covers only elements below it.
                unsafe {
                    for i in (0..whole).step_by($lanes) {
                        $store(dst.add(i), $load(src.add(i)));
                    }
                    if whole < panel.width {
                        $maskstore(dst.add(whole), mask, $maskload(mask, src.add(whole)));
                    }
                }
            }
        }
    };
}

copy!(f32, f32_copy, 16, __mmask16, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_maskz_loadu_ps, _mm512_mask_storeu_ps);
copy!(f64, f64_copy, 8, __mmask8, _mm512_loadu_pd, _mm512_storeu_pd, _mm512_maskz_loadu_pd, _mm512_mask_storeu_pd);

/// # Safety
/// As [`f32_pack`], with `ps` = 1.
#[target_feature(enable = "avx512f")]
unsafe fn f32_transpose(panel: &Panel<f32>) {
    for i in (0..panel.width).step_by(16) {
        let rows = (panel.width - i).min(16);
        // SAFETY: rows i..i + rows of the panel.
        unsafe {
            match rows {
                16 => f32_transpose_rows::<true>(panel, i, 16),
                _ => f32_transpose_rows::<false>(panel, i, rows),
            }
        }
    }
}

/// Rows `i .. i + rows`, at most 16 and so many if `FULL`: their distances are then multiples of one another, of which addresses need
/// fewer registers.
///
/// # Safety
/// As [`f32_transpose`], and those rows are below the width.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn f32_transpose_rows<const FULL: bool>(panel: &Panel<f32>, i: usize, rows: usize) {
    let mask = __mmask16::MAX >> (16 - rows);
    let (src, dst) = (panel.src.wrapping_add(i * panel.rs), panel.dst.wrapping_add(i));
    // Rows behind the last are read as the last and not stored.
    let row = |r: usize| src.wrapping_add(if FULL { r } else { r.min(rows - 1) } * panel.rs);
    let whole = panel.k / 4 * 4;
    for p in (0..whole).step_by(4) {
        let mut x = [_mm512_setzero_ps(); 4];
        for (r, x) in x.iter_mut().enumerate() {
            // SAFETY: columns p..p + 4 of rows below the width.
            unsafe {
                let piece = |quarter: usize| _mm_loadu_ps(row(4 * quarter + r).add(p));
                *x = _mm512_castps128_ps512(piece(0));
                *x = _mm512_mask_broadcast_f32x4(*x, 0x00f0, piece(1));
                *x = _mm512_mask_broadcast_f32x4(*x, 0x0f00, piece(2));
                *x = _mm512_mask_broadcast_f32x4(*x, 0xf000, piece(3));
            }
        }
        let (a, b) = (_mm512_unpacklo_ps(x[0], x[1]), _mm512_unpacklo_ps(x[2], x[3]));
        let (c, d) = (_mm512_unpackhi_ps(x[0], x[1]), _mm512_unpackhi_ps(x[2], x[3]));
        let columns = [
            _mm512_shuffle_ps::<0x44>(a, b),
            _mm512_shuffle_ps::<0xee>(a, b),
            _mm512_shuffle_ps::<0x44>(c, d),
            _mm512_shuffle_ps::<0xee>(c, d),
        ];
        for (q, x) in columns.into_iter().enumerate() {
            let dst = dst.wrapping_add((p + q) * panel.ds);
            // SAFETY: step p + q < k; all 16 rows, or those the mask covers, are below the width.
            unsafe { if FULL { _mm512_storeu_ps(dst, x) } else { _mm512_mask_storeu_ps(dst, mask, x) } };
        }
    }
    for p in whole..panel.k {
        for r in 0..rows {
            // SAFETY: i + r < width and p < k.
            unsafe { *dst.add(p * panel.ds + r) = *row(r).add(p) };
        }
    }
}

/// # Safety
/// As [`f64_pack`], with `ps` = 1.
#[target_feature(enable = "avx512f,avx512dq")]
unsafe fn f64_transpose(panel: &Panel<f64>) {
    for i in (0..panel.width).step_by(8) {
        let rows = (panel.width - i).min(8);
        let mask = __mmask8::MAX >> (8 - rows);
        // Rows behind the last are read as the last and not stored.
        let row = |r: usize| panel.src.wrapping_add((i + r.min(rows - 1)) * panel.rs);
        let whole = panel.k / 2 * 2;
        for p in (0..whole).step_by(2) {
            let mut x = [_mm512_setzero_pd(); 2];
            for (r, x) in x.iter_mut().enumerate() {
                // SAFETY: columns p and p + 1 of rows below the width.
                unsafe {
                    let piece = |quarter: usize| _mm_loadu_pd(row(2 * quarter + r).add(p));
                    *x = _mm512_castpd128_pd512(piece(0));
                    *x = _mm512_mask_broadcast_f64x2(*x, 0x0c, piece(1));
                    *x = _mm512_mask_broadcast_f64x2(*x, 0x30, piece(2));
                    *x = _mm512_mask_broadcast_f64x2(*x, 0xc0, piece(3));
                }
            }
            // SAFETY: steps p and p + 1 < k; the mask covers only rows below the width.
            unsafe {
                _mm512_mask_storeu_pd(panel.dst.add(p * panel.ds + i), mask, _mm512_unpacklo_pd(x[0], x[1]));
                _mm512_mask_storeu_pd(panel.dst.add((p + 1) * panel.ds + i), mask, _mm512_unpackhi_pd(x[0], x[1]));
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
