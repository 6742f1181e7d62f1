//! The registers of AVX-512. A row's tail is loaded and stored under a mask register, so it costs what a whole vector does.

use std::arch::x86_64::*;

use super::transposition::{f32_transposed, f64_transposed, load_all, store_all};
use crate::cpu::lanes::{Lanes, gathered};

impl Lanes for __m512 {
    type T = f32;
    const N: usize = 16;
    const REGISTERS: usize = 32;
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(src: *const f32) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm512_loadu_ps(src) }
    }
    #[inline(always)]
    unsafe fn load_first(src: *const f32, left: usize, rest: f32) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm512_mask_loadu_ps(_mm512_set1_ps(rest), __mmask16::MAX >> (16 - left), src) }
    }
    #[inline(always)]
    unsafe fn store(self, dst: *mut f32) {
        // SAFETY: the trait's contract.
        unsafe { _mm512_storeu_ps(dst, self) }
    }
    #[inline(always)]
    unsafe fn store_first(self, dst: *mut f32, left: usize) {
        // SAFETY: the trait's contract.
        unsafe { _mm512_mask_storeu_ps(dst, __mmask16::MAX >> (16 - left), self) }
    }
    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm512_add_ps(self, b) }
    }
    #[inline(always)]
    unsafe fn sub(self, b: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm512_sub_ps(self, b) }
    }
    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm512_mul_ps(self, b) }
    }
    #[inline(always)]
    unsafe fn div(self, b: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm512_div_ps(self, b) }
    }
    #[inline(always)]
    unsafe fn fma(self, b: Self, c: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm512_fmadd_ps(self, b, c) }
    }
    #[inline(always)]
    unsafe fn max(self, x: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm512_max_ps(self, x) }
    }
    #[inline(always)]
    unsafe fn where_positive(self, x: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(x, _mm512_setzero_ps()), self) }
    }
    #[inline(always)]
    unsafe fn fma_where_positive(self, b: Self, c: Self, x: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm512_mask3_fmadd_ps(self, b, c, _mm512_cmp_ps_mask::<_CMP_GT_OQ>(x, _mm512_setzero_ps())) }
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm512_roundscale_ps::<_MM_FROUND_TO_NEAREST_INT>(self) }
    }
    #[inline(always)]
    unsafe fn times_power_of_two(self, n: Self, x: Self, floor: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x, floor), self, n) }
    }
    #[inline(always)]
    unsafe fn less_one_at(self, lane: usize) -> Self {
        let hit = if lane < 16 { 1 << lane } else { 0 };
        // SAFETY: the trait's contract.
        unsafe { _mm512_mask_sub_ps(self, hit, self, _mm512_set1_ps(1.0)) }
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: the trait's contract.
        unsafe { _mm512_reduce_add_ps(self) }
    }
    /// Four at a time: halves of two vectors fill one, quarters of four, so that each addition serves all.
    #[inline(always)]
    unsafe fn sum_each(vectors: &[Self], sums: &mut [f32]) {
        for (x, sums) in vectors.chunks(4).zip(sums.chunks_mut(4)) {
            let mut four = [0.0; 4];
            // SAFETY: the trait's contract; the store is of four elements.
            unsafe {
                let x = |i: usize| if i < x.len() { x[i] } else { _mm512_setzero_ps() };
                let halves =
                    |a, b| _mm512_add_ps(_mm512_shuffle_f32x4::<0x44>(a, b), _mm512_shuffle_f32x4::<0xee>(a, b));
                let (a, b) = (halves(x(0), x(1)), halves(x(2), x(3)));
                // Now in each quarter the four numbers of one vector.
                let y = _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b));
                let y = _mm512_add_ps(y, _mm512_permute_ps::<0x4e>(y));
                let y = _mm512_add_ps(y, _mm512_permute_ps::<0xb1>(y));
                _mm_storeu_ps(four.as_mut_ptr(), _mm512_castps512_ps128(_mm512_maskz_compress_ps(0x1111, y)));
            }
            sums.copy_from_slice(&four[..sums.len()]);
        }
    }
    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        // SAFETY: the trait's contract.
        unsafe { _mm512_reduce_max_ps(self) }
    }
    /// Permuted in registers where the rows have no gaps.
    #[inline(always)]
    unsafe fn rows_in_lanes<const C: usize>(src: *const f32, ld: usize, rows: usize) -> [Self; C] {
        // SAFETY: the trait's contract.
        unsafe { if ld == C { f32_transposed::<C, false>(&load_all(src, rows * C)) } else { gathered(src, ld, rows) } }
    }
    /// Permuted in registers.
    #[inline(always)]
    unsafe fn store_rows<const C: usize>(vectors: &[Self; C], dst: *mut f32, rows: usize) {
        // SAFETY: the trait's contract.
        unsafe { store_all(&f32_transposed::<C, true>(vectors), dst, rows * C) }
    }
}

impl Lanes for __m512d {
    type T = f64;
    const N: usize = 8;
    const REGISTERS: usize = 32;
    #[inline(always)]
    unsafe fn splat(x: f64) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm512_set1_pd(x) }
    }
    #[inline(always)]
    unsafe fn load(src: *const f64) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm512_loadu_pd(src) }
    }
    #[inline(always)]
    unsafe fn load_first(src: *const f64, left: usize, rest: f64) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm512_mask_loadu_pd(_mm512_set1_pd(rest), __mmask8::MAX >> (8 - left), src) }
    }
    #[inline(always)]
    unsafe fn store(self, dst: *mut f64) {
        // SAFETY: the trait's contract.
        unsafe { _mm512_storeu_pd(dst, self) }
    }
    #[inline(always)]
    unsafe fn store_first(self, dst: *mut f64, left: usize) {
        // SAFETY: the trait's contract.
        unsafe { _mm512_mask_storeu_pd(dst, __mmask8::MAX >> (8 - left), self) }
    }
    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm512_add_pd(self, b) }
    }
    #[inline(always)]
    unsafe fn sub(self, b: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm512_sub_pd(self, b) }
    }
    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm512_mul_pd(self, b) }
    }
    #[inline(always)]
    unsafe fn div(self, b: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm512_div_pd(self, b) }
    }
    #[inline(always)]
    unsafe fn fma(self, b: Self, c: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm512_fmadd_pd(self, b, c) }
    }
    #[inline(always)]
    unsafe fn max(self, x: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm512_max_pd(self, x) }
    }
    #[inline(always)]
    unsafe fn where_positive(self, x: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm512_maskz_mov_pd(_mm512_cmp_pd_mask::<_CMP_GT_OQ>(x, _mm512_setzero_pd()), self) }
    }
    #[inline(always)]
    unsafe fn fma_where_positive(self, b: Self, c: Self, x: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm512_mask3_fmadd_pd(self, b, c, _mm512_cmp_pd_mask::<_CMP_GT_OQ>(x, _mm512_setzero_pd())) }
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm512_roundscale_pd::<_MM_FROUND_TO_NEAREST_INT>(self) }
    }
    #[inline(always)]
    unsafe fn times_power_of_two(self, n: Self, x: Self, floor: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm512_maskz_scalef_pd(_mm512_cmp_pd_mask::<_CMP_NLT_UQ>(x, floor), self, n) }
    }
    #[inline(always)]
    unsafe fn less_one_at(self, lane: usize) -> Self {
        let hit = if lane < 8 { 1 << lane } else { 0 };
        // SAFETY: the trait's contract.
        unsafe { _mm512_mask_sub_pd(self, hit, self, _mm512_set1_pd(1.0)) }
    }
    #[inline(always)]
    unsafe fn sum(self) -> f64 {
        // SAFETY: the trait's contract.
        unsafe { _mm512_reduce_add_pd(self) }
    }
    #[inline(always)]
    unsafe fn largest(self) -> f64 {
        // SAFETY: the trait's contract.
        unsafe { _mm512_reduce_max_pd(self) }
    }
    /// Permuted in registers where the rows have no gaps.
    #[inline(always)]
    unsafe fn rows_in_lanes<const C: usize>(src: *const f64, ld: usize, rows: usize) -> [Self; C] {
        // SAFETY: the trait's contract.
        unsafe { if ld == C { f64_transposed::<C, false>(&load_all(src, rows * C)) } else { gathered(src, ld, rows) } }
    }
    /// Permuted in registers.
    #[inline(always)]
    unsafe fn store_rows<const C: usize>(vectors: &[Self; C], dst: *mut f64, rows: usize) {
        // SAFETY: the trait's contract.
        unsafe { store_all(&f64_transposed::<C, true>(vectors), dst, rows * C) }
    }
}
