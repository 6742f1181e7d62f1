//! Packing of GEMM panels for AVX2.
//!
//! A transposition takes 8 rows by 4 columns of f32 at a time (4 by 2 of f64): 16-byte pieces of rows r and r + 4 are
//! loaded into the halves of vector r, which leaves a 4 x 4 transposition inside each half: 8 shuffles for 32 elements.
//! Meanwhile the next rows are asked for, which pays where they are not in cache (`benches/README.md`, "Operands that are not
//! in cache").
//! Numbers stored in half of f32's bits are widened as they are loaded.

use std::arch::x86_64::*;

use super::rows::Rows;
use super::tails::{f32_store_first, f64_mask, f64_store_first};
use super::widen::Widen;
use crate::cpu::contract::Panel;

/// # Safety
/// AVX2, FMA and F16C are there; see [`Pack`](crate::cpu::contract::Pack).
pub unsafe fn f32_pack<S: Widen>(panel: &Panel<f32, S>) {
    // SAFETY: the contract is passed on unchanged.
    unsafe { if panel.rs == 1 { f32_copy(panel) } else { f32_transpose(panel) } }
}

/// # Safety
/// AVX2 is there; see [`Pack`](crate::cpu::contract::Pack).
pub unsafe fn f64_pack(panel: &Panel<f64>) {
    // SAFETY: the contract is passed on unchanged.
    unsafe { if panel.rs == 1 { f64_copy(panel) } else { f64_transpose(panel) } }
}

/// Bytes between what a copy reads of a row and what it asks for.
const AHEAD: usize = 256;

/// # Safety
/// As [`f32_pack`], with `rs` = 1.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn f32_copy<S: Widen>(panel: &Panel<f32, S>) {
    let whole = panel.width / 8 * 8;
    let left = panel.width - whole;
    // All of a step at once: a wide operand's rows share few sets of the cache, so its lines don't stay.
    for p in 0..panel.k {
        let (src, dst) = (panel.src.wrapping_add(p * panel.ps), panel.dst.wrapping_add(p * panel.ds));
        // A later panel's part of this row, which no hardware foresees.
        _mm_prefetch::<_MM_HINT_T0>(src.wrapping_add(AHEAD / size_of::<S>()).cast());
        for i in (0..whole).step_by(8) {
            // SAFETY: a whole vector of columns below the width.
            unsafe { _mm256_storeu_ps(dst.add(i), S::load8(src.add(i))) };
        }
        if left > 0 {
            // SAFETY: the columns left.
            unsafe { f32_store_first(dst.add(whole), S::load_first(src.add(whole), left), left) };
        }
    }
}

/// # Safety
/// As [`f64_pack`], with `rs` = 1.
#[target_feature(enable = "avx2")]
unsafe fn f64_copy(panel: &Panel<f64>) {
    let whole = panel.width / 4 * 4;
    let (left, mask) = (panel.width - whole, f64_mask(panel.width - whole));
    // As `f32_copy`.
    for p in 0..panel.k {
        let (src, dst) = (panel.src.wrapping_add(p * panel.ps), panel.dst.wrapping_add(p * panel.ds));
        _mm_prefetch::<_MM_HINT_T0>(src.wrapping_add(AHEAD / size_of::<f64>()).cast());
        for i in (0..whole).step_by(4) {
            // SAFETY: a whole vector of columns below the width.
            unsafe { _mm256_storeu_pd(dst.add(i), _mm256_loadu_pd(src.add(i))) };
        }
        if left > 0 {
            // SAFETY: the columns left, under the mask.
            unsafe { f64_store_first(dst.add(whole), _mm256_maskload_pd(src.add(whole), mask), left) };
        }
    }
}

/// # Safety
/// As [`f32_pack`], with `ps` = 1.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn f32_transpose<S: Widen>(panel: &Panel<f32, S>) {
    for i in (0..panel.width).step_by(8) {
        // SAFETY: rows of the panel, at least one.
        unsafe {
            match panel.width - i {
                1 => f32_transpose_rows::<S, 1>(panel, i),
                2 => f32_transpose_rows::<S, 2>(panel, i),
                3 => f32_transpose_rows::<S, 3>(panel, i),
                4 => f32_transpose_rows::<S, 4>(panel, i),
                5 => f32_transpose_rows::<S, 5>(panel, i),
                6 => f32_transpose_rows::<S, 6>(panel, i),
                7 => f32_transpose_rows::<S, 7>(panel, i),
                _ => f32_transpose_rows::<S, 8>(panel, i),
            }
        }
    }
}

/// Rows `i` to `i + M` of a panel.
///
/// # Safety
/// As [`f32_pack`], with `ps` = 1; `i + M <= width`.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn f32_transpose_rows<S: Widen, const M: usize>(panel: &Panel<f32, S>, i: usize) {
    let apart = panel.rs.wrapping_mul(size_of::<S>());
    let rows = Rows::far(apart);
    let (mut src, mut dst) = (panel.src.wrapping_add(i * panel.rs), panel.dst.wrapping_add(i));
    // Where a step ends at the next one, which is written later, whole vectors are stored.
    let dense = panel.ds == M && M >= 4;
    let whole = panel.k / 4;
    for group in 0..whole {
        // Two of the next 8 rows: a line of each is asked for while 16 steps, which are a line, pass.
        let next = src.wrapping_byte_add(apart.wrapping_mul(M + group % 4 * 2));
        _mm_prefetch::<_MM_HINT_T0>(next.cast());
        _mm_prefetch::<_MM_HINT_T0>(next.wrapping_byte_add(apart).cast());
        let full = M == 8 || dense && 4 * group + 5 <= panel.k;
        let mut x = [_mm256_setzero_ps(); 4];
        for (r, x) in x.iter_mut().enumerate() {
            // Rows behind the last are read as the last and not kept.
            // SAFETY: four steps of rows below the width.
            let (low, high) =
                unsafe { (S::load4(rows.at(src, r.min(M - 1))), S::load4(rows.at(src, (r + 4).min(M - 1)))) };
            *x = _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(low), high);
        }
        let (a, b) = (_mm256_unpacklo_ps(x[0], x[1]), _mm256_unpacklo_ps(x[2], x[3]));
        let (c, d) = (_mm256_unpackhi_ps(x[0], x[1]), _mm256_unpackhi_ps(x[2], x[3]));
        let steps = [
            _mm256_shuffle_ps::<0x44>(a, b),
            _mm256_shuffle_ps::<0xee>(a, b),
            _mm256_shuffle_ps::<0x44>(c, d),
            _mm256_shuffle_ps::<0xee>(c, d),
        ];
        for x in steps {
            // SAFETY: a step of rows below the width, or what later steps write.
            unsafe { if full { _mm256_storeu_ps(dst, x) } else { f32_store_first(dst, x, M) } };
            dst = dst.wrapping_add(panel.ds);
        }
        src = src.wrapping_add(4);
    }
    for _ in 4 * whole..panel.k {
        for r in 0..M {
            // SAFETY: a step of rows below the width.
            unsafe { *dst.add(r) = (*rows.at(src, r)).widen() };
        }
        (src, dst) = (src.wrapping_add(1), dst.wrapping_add(panel.ds));
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
            // One of the next 4 rows, in the same way.
            let next = i + rows + p / 2 % 4;
            _mm_prefetch::<_MM_HINT_T0>(panel.src.wrapping_add(next * panel.rs + p / 8 * 8).cast());
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
