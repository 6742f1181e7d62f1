//! Loads of stored numbers into AVX2's registers, widened to f32: `vcvtph2ps` for f16, a zero-extension and a shift for bf16.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::tails::f32_mask;
use crate::dtype::Stored;

/// A type that f32 is stored in.
pub trait Widen: Stored<f32> {
    /// Eight stored numbers.
    ///
    /// # Safety
    /// AVX2, FMA and F16C are there; eight numbers at `p` are readable.
    unsafe fn load8(p: *const Self) -> __m256;

    /// Four stored numbers.
    ///
    /// # Safety
    /// AVX2, FMA and F16C are there; four numbers at `p` are readable.
    unsafe fn load4(p: *const Self) -> __m128;

    /// The first `left` of eight stored numbers, then zeros.
    ///
    /// # Safety
    /// AVX2, FMA and F16C are there; `left` numbers at `p` are readable, at most 8.
    unsafe fn load_first(p: *const Self, left: usize) -> __m256;
}

impl Widen for f32 {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load8(p: *const f32) -> __m256 {
        // SAFETY: the caller's promise is passed on.
        unsafe { _mm256_loadu_ps(p) }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load4(p: *const f32) -> __m128 {
        // SAFETY: the caller's promise is passed on.
        unsafe { _mm_loadu_ps(p) }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load_first(p: *const f32, left: usize) -> __m256 {
        // SAFETY: the mask reads the first `left` only.
        unsafe { _mm256_maskload_ps(p, f32_mask(left)) }
    }
}

macro_rules! widen_half {
    ($t:ty, $widen8:expr, $widen4:expr) => {
        impl Widen for $t {
            #[inline]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn load8(p: *const $t) -> __m256 {
                // SAFETY: eight numbers of two bytes are readable.
                $widen8(unsafe { _mm_loadu_si128(p.cast()) })
            }

            #[inline]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn load4(p: *const $t) -> __m128 {
                // SAFETY: four numbers of two bytes are readable.
                $widen4(unsafe { _mm_loadl_epi64(p.cast()) })
            }

            #[inline]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn load_first(p: *const $t, left: usize) -> __m256 {
                // There is no masked load of 16-bit numbers.
                let mut first = [<$t>::ZERO; 8];
                // SAFETY: `left` numbers are readable and there is room for 8.
                unsafe { std::ptr::copy_nonoverlapping(p, first.as_mut_ptr(), left.min(8)) };
                // SAFETY: eight numbers are there.
                unsafe { Self::load8(first.as_ptr()) }
            }
        }
    };
}

widen_half!(f16, |x| _mm256_cvtph_ps(x), |x| _mm_cvtph_ps(x));
widen_half!(bf16, |x| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(x))), |x| _mm_castsi128_ps(
    _mm_slli_epi32::<16>(_mm_cvtepu16_epi32(x))
));
