//! The registers of NEON. There are no masked loads and stores: a row's tail goes through an array of one register.

use std::arch::aarch64::*;

use crate::cpu::lanes::Lanes;

impl Lanes for float32x4_t {
    type T = f32;
    const N: usize = 4;
    const REGISTERS: usize = 32;
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: the trait's contract.
        unsafe { vdupq_n_f32(x) }
    }
    #[inline(always)]
    unsafe fn load(src: *const f32) -> Self {
        // SAFETY: the trait's contract.
        unsafe { vld1q_f32(src) }
    }
    #[inline(always)]
    unsafe fn load_first(src: *const f32, left: usize, rest: f32) -> Self {
        // SAFETY: the trait's contract.
        unsafe {
            let mut lanes = [rest; 4];
            std::ptr::copy_nonoverlapping(src, lanes.as_mut_ptr(), left);
            vld1q_f32(lanes.as_ptr())
        }
    }
    #[inline(always)]
    unsafe fn store(self, dst: *mut f32) {
        // SAFETY: the trait's contract.
        unsafe { vst1q_f32(dst, self) }
    }
    #[inline(always)]
    unsafe fn store_first(self, dst: *mut f32, left: usize) {
        // SAFETY: the trait's contract.
        unsafe {
            let mut lanes = [0.0; 4];
            vst1q_f32(lanes.as_mut_ptr(), self);
            std::ptr::copy_nonoverlapping(lanes.as_ptr(), dst, left);
        }
    }
    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { vaddq_f32(self, b) }
    }
    #[inline(always)]
    unsafe fn sub(self, b: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { vsubq_f32(self, b) }
    }
    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { vmulq_f32(self, b) }
    }
    #[inline(always)]
    unsafe fn div(self, b: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { vdivq_f32(self, b) }
    }
    #[inline(always)]
    unsafe fn fma(self, b: Self, c: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { vfmaq_f32(c, self, b) }
    }
    #[inline(always)]
    unsafe fn max(self, x: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { vmaxq_f32(self, x) }
    }
    #[inline(always)]
    unsafe fn where_positive(self, x: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { vbslq_f32(vcgtq_f32(x, vdupq_n_f32(0.0)), self, vdupq_n_f32(0.0)) }
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { vrndnq_f32(self) }
    }
    #[inline(always)]
    unsafe fn times_power_of_two(self, n: Self, x: Self, floor: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe {
            let exponent = vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127));
            let value = vmulq_f32(self, vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent)));
            vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(value), vcltq_f32(x, floor)))
        }
    }
    #[inline(always)]
    unsafe fn less_one_at(self, lane: usize) -> Self {
        // SAFETY: the trait's contract.
        unsafe {
            let lanes: [u32; 4] = [0, 1, 2, 3];
            let hit = vceqq_u32(vld1q_u32(lanes.as_ptr()), vdupq_n_u32(lane.min(4) as u32));
            vbslq_f32(hit, vsubq_f32(self, vdupq_n_f32(1.0)), self)
        }
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: the trait's contract.
        unsafe { vaddvq_f32(self) }
    }
    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        // SAFETY: the trait's contract.
        unsafe { vmaxvq_f32(self) }
    }
}

impl Lanes for float64x2_t {
    type T = f64;
    const N: usize = 2;
    const REGISTERS: usize = 32;
    #[inline(always)]
    unsafe fn splat(x: f64) -> Self {
        // SAFETY: the trait's contract.
        unsafe { vdupq_n_f64(x) }
    }
    #[inline(always)]
    unsafe fn load(src: *const f64) -> Self {
        // SAFETY: the trait's contract.
        unsafe { vld1q_f64(src) }
    }
    #[inline(always)]
    unsafe fn load_first(src: *const f64, left: usize, rest: f64) -> Self {
        // SAFETY: the trait's contract.
        unsafe {
            let mut lanes = [rest; 2];
            std::ptr::copy_nonoverlapping(src, lanes.as_mut_ptr(), left);
            vld1q_f64(lanes.as_ptr())
        }
    }
    #[inline(always)]
    unsafe fn store(self, dst: *mut f64) {
        // SAFETY: the trait's contract.
        unsafe { vst1q_f64(dst, self) }
    }
    #[inline(always)]
    unsafe fn store_first(self, dst: *mut f64, left: usize) {
        // SAFETY: the trait's contract.
        unsafe {
            let mut lanes = [0.0; 2];
            vst1q_f64(lanes.as_mut_ptr(), self);
            std::ptr::copy_nonoverlapping(lanes.as_ptr(), dst, left);
        }
    }
    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { vaddq_f64(self, b) }
    }
    #[inline(always)]
    unsafe fn sub(self, b: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { vsubq_f64(self, b) }
    }
    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { vmulq_f64(self, b) }
    }
    #[inline(always)]
    unsafe fn div(self, b: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { vdivq_f64(self, b) }
    }
    #[inline(always)]
    unsafe fn fma(self, b: Self, c: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { vfmaq_f64(c, self, b) }
    }
    #[inline(always)]
    unsafe fn max(self, x: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { vmaxq_f64(self, x) }
    }
    #[inline(always)]
    unsafe fn where_positive(self, x: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { vbslq_f64(vcgtq_f64(x, vdupq_n_f64(0.0)), self, vdupq_n_f64(0.0)) }
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { vrndnq_f64(self) }
    }
    #[inline(always)]
    unsafe fn times_power_of_two(self, n: Self, x: Self, floor: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe {
            let exponent = vaddq_s64(vcvtq_s64_f64(n), vdupq_n_s64(1023));
            let value = vmulq_f64(self, vreinterpretq_f64_s64(vshlq_n_s64::<52>(exponent)));
            vreinterpretq_f64_u64(vbicq_u64(vreinterpretq_u64_f64(value), vcltq_f64(x, floor)))
        }
    }
    #[inline(always)]
    unsafe fn less_one_at(self, lane: usize) -> Self {
        // SAFETY: the trait's contract.
        unsafe {
            let lanes: [u64; 2] = [0, 1];
            let hit = vceqq_u64(vld1q_u64(lanes.as_ptr()), vdupq_n_u64(lane.min(2) as u64));
            vbslq_f64(hit, vsubq_f64(self, vdupq_n_f64(1.0)), self)
        }
    }
    #[inline(always)]
    unsafe fn sum(self) -> f64 {
        // SAFETY: the trait's contract.
        unsafe { vaddvq_f64(self) }
    }
    #[inline(always)]
    unsafe fn largest(self) -> f64 {
        // SAFETY: the trait's contract.
        unsafe { vmaxvq_f64(self) }
    }
}
