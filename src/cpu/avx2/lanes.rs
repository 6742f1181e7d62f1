//! The registers of AVX2. A row's tail is loaded under a mask and stored in pieces.

use std::arch::x86_64::*;

use super::tails::{f32_mask, f32_store_first, f64_mask, f64_store_first};
use crate::cpu::lanes::Lanes;

impl Lanes for __m256 {
    type T = f32;
    const N: usize = 8;
    const REGISTERS: usize = 16;
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(src: *const f32) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm256_loadu_ps(src) }
    }
    #[inline(always)]
    unsafe fn load_first(src: *const f32, left: usize, rest: f32) -> Self {
        // SAFETY: the trait's contract.
        unsafe {
            let mask = f32_mask(left);
            _mm256_blendv_ps(_mm256_set1_ps(rest), _mm256_maskload_ps(src, mask), _mm256_castsi256_ps(mask))
        }
    }
    #[inline(always)]
    unsafe fn store(self, dst: *mut f32) {
        // SAFETY: the trait's contract.
        unsafe { _mm256_storeu_ps(dst, self) }
    }
    #[inline(always)]
    unsafe fn store_first(self, dst: *mut f32, left: usize) {
        // SAFETY: the trait's contract.
        unsafe { f32_store_first(dst, self, left) }
    }
    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm256_add_ps(self, b) }
    }
    #[inline(always)]
    unsafe fn sub(self, b: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm256_sub_ps(self, b) }
    }
    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm256_mul_ps(self, b) }
    }
    #[inline(always)]
    unsafe fn div(self, b: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm256_div_ps(self, b) }
    }
    #[inline(always)]
    unsafe fn fma(self, b: Self, c: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm256_fmadd_ps(self, b, c) }
    }
    #[inline(always)]
    unsafe fn max(self, x: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm256_max_ps(self, x) }
    }
    #[inline(always)]
    unsafe fn where_positive(self, x: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm256_and_ps(self, _mm256_cmp_ps::<_CMP_GT_OQ>(x, _mm256_setzero_ps())) }
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self) }
    }
    #[inline(always)]
    unsafe fn times_power_of_two(self, n: Self, x: Self, floor: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe {
            let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            let power = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent));
            _mm256_and_ps(_mm256_mul_ps(self, power), _mm256_cmp_ps::<_CMP_NLT_UQ>(x, floor))
        }
    }
    #[inline(always)]
    unsafe fn less_one_at(self, lane: usize) -> Self {
        // SAFETY: the trait's contract.
        unsafe {
            let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            let hit = _mm256_cmpeq_epi32(lanes, _mm256_set1_epi32(lane.min(8) as i32));
            _mm256_sub_ps(self, _mm256_and_ps(_mm256_castsi256_ps(hit), _mm256_set1_ps(1.0)))
        }
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: the trait's contract.
        unsafe {
            let x = _mm_add_ps(_mm256_castps256_ps128(self), _mm256_extractf128_ps::<1>(self));
            let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
        }
    }
    /// Four at a time: halves of two vectors fill one, quarters of four, so that each addition serves all.
    #[inline(always)]
    unsafe fn sum_each(vectors: &[Self], sums: &mut [f32]) {
        for (x, sums) in vectors.chunks(4).zip(sums.chunks_mut(4)) {
            let mut four = [0.0; 4];
            // SAFETY: the trait's contract; the store is of four elements.
            unsafe {
                let x = |i: usize| if i < x.len() { x[i] } else { _mm256_setzero_ps() };
                let halves =
                    |a, b| _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(a, b), _mm256_permute2f128_ps::<0x31>(a, b));
                let (a, b) = (halves(x(0), x(2)), halves(x(1), x(3)));
                // Now pairs of vectors 0 and 1 in the lower half, of 2 and 3 in the upper one.
                let y = _mm256_add_ps(_mm256_shuffle_ps::<0x44>(a, b), _mm256_shuffle_ps::<0xee>(a, b));
                let y = _mm256_add_ps(y, _mm256_movehdup_ps(y));
                let y = _mm_shuffle_ps::<0x88>(_mm256_castps256_ps128(y), _mm256_extractf128_ps::<1>(y));
                _mm_storeu_ps(four.as_mut_ptr(), y);
            }
            sums.copy_from_slice(&four[..sums.len()]);
        }
    }
    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        // SAFETY: the trait's contract.
        unsafe {
            let x = _mm_max_ps(_mm256_castps256_ps128(self), _mm256_extractf128_ps::<1>(self));
            let x = _mm_max_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)))
        }
    }
}

impl Lanes for __m256d {
    type T = f64;
    const N: usize = 4;
    const REGISTERS: usize = 16;
    #[inline(always)]
    unsafe fn splat(x: f64) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm256_set1_pd(x) }
    }
    #[inline(always)]
    unsafe fn load(src: *const f64) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm256_loadu_pd(src) }
    }
    #[inline(always)]
    unsafe fn load_first(src: *const f64, left: usize, rest: f64) -> Self {
        // SAFETY: the trait's contract.
        unsafe {
            let mask = f64_mask(left);
            _mm256_blendv_pd(_mm256_set1_pd(rest), _mm256_maskload_pd(src, mask), _mm256_castsi256_pd(mask))
        }
    }
    #[inline(always)]
    unsafe fn store(self, dst: *mut f64) {
        // SAFETY: the trait's contract.
        unsafe { _mm256_storeu_pd(dst, self) }
    }
    #[inline(always)]
    unsafe fn store_first(self, dst: *mut f64, left: usize) {
        // SAFETY: the trait's contract.
        unsafe { f64_store_first(dst, self, left) }
    }
    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm256_add_pd(self, b) }
    }
    #[inline(always)]
    unsafe fn sub(self, b: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm256_sub_pd(self, b) }
    }
    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm256_mul_pd(self, b) }
    }
    #[inline(always)]
    unsafe fn div(self, b: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm256_div_pd(self, b) }
    }
    #[inline(always)]
    unsafe fn fma(self, b: Self, c: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm256_fmadd_pd(self, b, c) }
    }
    #[inline(always)]
    unsafe fn max(self, x: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm256_max_pd(self, x) }
    }
    #[inline(always)]
    unsafe fn where_positive(self, x: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm256_and_pd(self, _mm256_cmp_pd::<_CMP_GT_OQ>(x, _mm256_setzero_pd())) }
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm256_round_pd::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self) }
    }
    #[inline(always)]
    unsafe fn times_power_of_two(self, n: Self, x: Self, floor: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe {
            // 1.5 * 2^52 + n holds n in its low bits.
            let bits = _mm256_castpd_si256(_mm256_add_pd(n, _mm256_set1_pd(6_755_399_441_055_744.0)));
            let power = _mm256_castsi256_pd(_mm256_slli_epi64::<52>(_mm256_add_epi64(bits, _mm256_set1_epi64x(1023))));
            _mm256_and_pd(_mm256_mul_pd(self, power), _mm256_cmp_pd::<_CMP_NLT_UQ>(x, floor))
        }
    }
    #[inline(always)]
    unsafe fn less_one_at(self, lane: usize) -> Self {
        // SAFETY: the trait's contract.
        unsafe {
            let lanes = _mm256_setr_epi64x(0, 1, 2, 3);
            let hit = _mm256_cmpeq_epi64(lanes, _mm256_set1_epi64x(lane.min(4) as i64));
            _mm256_sub_pd(self, _mm256_and_pd(_mm256_castsi256_pd(hit), _mm256_set1_pd(1.0)))
        }
    }
    #[inline(always)]
    unsafe fn sum(self) -> f64 {
        // SAFETY: the trait's contract.
        unsafe {
            let x = _mm_add_pd(_mm256_castpd256_pd128(self), _mm256_extractf128_pd::<1>(self));
            _mm_cvtsd_f64(_mm_add_sd(x, _mm_unpackhi_pd(x, x)))
        }
    }
    #[inline(always)]
    unsafe fn largest(self) -> f64 {
        // SAFETY: the trait's contract.
        unsafe {
            let x = _mm_max_pd(_mm256_castpd256_pd128(self), _mm256_extractf128_pd::<1>(self));
            _mm_cvtsd_f64(_mm_max_sd(x, _mm_unpackhi_pd(x, x)))
        }
    }
}
