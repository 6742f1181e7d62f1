//! Loads of stored numbers into NEON's registers, widened to f32: `fcvtl` for f16, a widening shift for bf16.

use std::arch::aarch64::*;
use std::arch::asm;

use half::{bf16, f16};

use crate::dtype::Stored;

/// A type that f32 is stored in.
pub trait Widen: Stored<f32> {
    /// Four stored numbers.
    ///
    /// # Safety
    /// NEON is there; four numbers at `p` are readable.
    unsafe fn load4(p: *const Self) -> float32x4_t;
}

impl Widen for f32 {
    #[inline(always)]
    unsafe fn load4(p: *const f32) -> float32x4_t {
        // SAFETY: the caller's promise is passed on.
        unsafe { vld1q_f32(p) }
    }
}

impl Widen for f16 {
    #[inline(always)]
    unsafe fn load4(p: *const f16) -> float32x4_t {
        let wide;
        // SAFETY: four numbers of two bytes are readable. The conversion belongs to the base architecture; what Rust's
        // library lacks is its intrinsic.
        unsafe {
            asm!("fcvtl {0:v}.4s, {1:v}.4h", out(vreg) wide, in(vreg) vld1_u16(p.cast()), options(pure, nomem, nostack));
        }
        wide
    }
}

impl Widen for bf16 {
    #[inline(always)]
    unsafe fn load4(p: *const bf16) -> float32x4_t {
        // SAFETY: four numbers of two bytes are readable.
        unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(p.cast()))) }
    }
}
