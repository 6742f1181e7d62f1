//! Packing of GEMM panels for NEON.
//!
//! A transposition takes 4 rows by 4 columns of f32 at a time (2 by 2 of f64): `trn1` and `trn2` of pairs of rows, then of
//! 64-bit halves: 8 shuffles for 16 elements. Numbers stored in half of f32's bits are widened as they are loaded. Rows
//! and columns behind the last whole block go one by one.

use std::arch::aarch64::*;

use super::widen::Widen;
use crate::cpu::contract::Panel;
use crate::cpu::scalar;

/// # Safety
/// NEON is there; see [`Pack`](crate::cpu::contract::Pack).
pub unsafe fn f32_pack<S: Widen>(panel: &Panel<f32, S>) {
    // SAFETY: the contract is passed on unchanged.
    unsafe { if panel.rs == 1 { f32_copy(panel) } else { f32_transpose(panel) } }
}

/// # Safety
/// NEON is there; see [`Pack`](crate::cpu::contract::Pack).
pub unsafe fn f64_pack(panel: &Panel<f64>) {
    // SAFETY: the contract is passed on unchanged.
    unsafe { if panel.rs == 1 { f64_copy(panel) } else { f64_transpose(panel) } }
}

/// # Safety
/// As [`f32_pack`], with `rs` = 1.
#[target_feature(enable = "neon")]
unsafe fn f32_copy<S: Widen>(panel: &Panel<f32, S>) {
    let whole = panel.width / 4 * 4;
    for p in 0..panel.k {
        let (src, dst) = (panel.src.wrapping_add(p * panel.ps), panel.dst.wrapping_add(p * panel.ds));
        for i in (0..whole).step_by(4) {
            // SAFETY: a whole vector of columns below the width.
            unsafe { vst1q_f32(dst.add(i), S::load4(src.add(i))) };
        }
        for i in whole..panel.width {
            // SAFETY: i < width.
            unsafe { *dst.add(i) = (*src.add(i)).widen() };
        }
    }
}

/// # Safety
/// As [`f64_pack`], with `rs` = 1.
#[target_feature(enable = "neon")]
unsafe fn f64_copy(panel: &Panel<f64>) {
    let whole = panel.width / 2 * 2;
    for p in 0..panel.k {
        let (src, dst) = (panel.src.wrapping_add(p * panel.ps), panel.dst.wrapping_add(p * panel.ds));
        for i in (0..whole).step_by(2) {
            // SAFETY: a whole vector of columns below the width.
            unsafe { vst1q_f64(dst.add(i), vld1q_f64(src.add(i))) };
        }
        if whole < panel.width {
            // SAFETY: the last column.
            unsafe { *dst.add(whole) = *src.add(whole) };
        }
    }
}

/// The part of a panel from row `i` and step `p` on.
fn rest<T, S>(panel: &Panel<T, S>, i: usize, p: usize) -> Panel<T, S> {
    Panel {
        width: panel.width - i,
        k: panel.k - p,
        src: panel.src.wrapping_add(i * panel.rs + p * panel.ps),
        dst: panel.dst.wrapping_add(p * panel.ds + i),
        ..*panel
    }
}

/// # Safety
/// As [`f32_pack`], with `ps` = 1.
#[target_feature(enable = "neon")]
unsafe fn f32_transpose<S: Widen>(panel: &Panel<f32, S>) {
    let (rows, steps) = (panel.width / 4 * 4, panel.k / 4 * 4);
    for i in (0..rows).step_by(4) {
        for p in (0..steps).step_by(4) {
            // SAFETY: steps p..p + 4 of rows i..i + 4, all within the panel.
            unsafe {
                let x: [_; 4] = std::array::from_fn(|r| S::load4(panel.src.add((i + r) * panel.rs + p)));
                let pairs = |trn: [float32x4_t; 2]| trn.map(|x| vreinterpretq_f64_f32(x));
                let [a, b] = pairs([vtrn1q_f32(x[0], x[1]), vtrn2q_f32(x[0], x[1])]);
                let [c, d] = pairs([vtrn1q_f32(x[2], x[3]), vtrn2q_f32(x[2], x[3])]);
                let columns = [vtrn1q_f64(a, c), vtrn1q_f64(b, d), vtrn2q_f64(a, c), vtrn2q_f64(b, d)];
                for (q, x) in columns.into_iter().enumerate() {
                    vst1q_f32(panel.dst.add((p + q) * panel.ds + i), vreinterpretq_f32_f64(x));
                }
            }
        }
    }
    // SAFETY: parts of the panel.
    unsafe {
        scalar::pack(&Panel { width: rows, ..rest(panel, 0, steps) });
        scalar::pack(&rest(panel, rows, 0));
    }
}

/// # Safety
/// As [`f64_pack`], with `ps` = 1.
#[target_feature(enable = "neon")]
unsafe fn f64_transpose(panel: &Panel<f64>) {
    let (rows, steps) = (panel.width / 2 * 2, panel.k / 2 * 2);
    for i in (0..rows).step_by(2) {
        for p in (0..steps).step_by(2) {
            // SAFETY: steps p and p + 1 of rows i and i + 1, all within the panel.
            unsafe {
                let x = [0, 1].map(|r| vld1q_f64(panel.src.add((i + r) * panel.rs + p)));
                vst1q_f64(panel.dst.add(p * panel.ds + i), vtrn1q_f64(x[0], x[1]));
                vst1q_f64(panel.dst.add((p + 1) * panel.ds + i), vtrn2q_f64(x[0], x[1]));
            }
        }
    }
    // SAFETY: parts of the panel.
    unsafe {
        scalar::pack(&Panel { width: rows, ..rest(panel, 0, steps) });
        scalar::pack(&rest(panel, rows, 0));
    }
}
