//! The first lanes of a register, for tails.
//!
//! Masked loads are fast everywhere. A masked store takes some forty micro-operations on AMD's Zen processors, so a tail is
//! stored in pieces of 4, 2 and 1 instead: at most three ordinary stores.

use std::arch::x86_64::*;

/// All bits set in the first `left` lanes of 8.
#[inline]
#[target_feature(enable = "avx2")]
pub fn f32_mask(left: usize) -> __m256i {
    _mm256_cmpgt_epi32(_mm256_set1_epi32(left as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
}

/// All bits set in the first `left` lanes of 4.
#[inline]
#[target_feature(enable = "avx2")]
pub fn f64_mask(left: usize) -> __m256i {
    _mm256_cmpgt_epi64(_mm256_set1_epi64x(left as i64), _mm256_setr_epi64x(0, 1, 2, 3))
}

/// Stores the first `left` lanes, at most 8.
///
/// # Safety
/// AVX2 is there; `left` elements at `dst` may be written.
#[inline]
#[target_feature(enable = "avx2")]
pub unsafe fn f32_store_first(dst: *mut f32, x: __m256, left: usize) {
    let (mut dst, mut half) = (dst, _mm256_castps256_ps128(x));
    // SAFETY: the pieces add up to `left`.
    unsafe {
        if left >= 8 {
            return _mm256_storeu_ps(dst, x);
        }
        if left & 4 != 0 {
            _mm_storeu_ps(dst, half);
            (dst, half) = (dst.add(4), _mm256_extractf128_ps::<1>(x));
        }
        if left & 2 != 0 {
            _mm_storel_pd(dst.cast(), _mm_castps_pd(half));
            (dst, half) = (dst.add(2), _mm_movehl_ps(half, half));
        }
        if left & 1 != 0 {
            _mm_store_ss(dst, half);
        }
    }
}

/// Stores the first `left` lanes, at most 4.
///
/// # Safety
/// AVX2 is there; `left` elements at `dst` may be written.
#[inline]
#[target_feature(enable = "avx2")]
pub unsafe fn f64_store_first(dst: *mut f64, x: __m256d, left: usize) {
    let (mut dst, mut half) = (dst, _mm256_castpd256_pd128(x));
    // SAFETY: the pieces add up to `left`.
    unsafe {
        if left >= 4 {
            return _mm256_storeu_pd(dst, x);
        }
        if left & 2 != 0 {
            _mm_storeu_pd(dst, half);
            (dst, half) = (dst.add(2), _mm256_extractf128_pd::<1>(x));
        }
        if left & 1 != 0 {
            _mm_store_sd(dst, half);
        }
    }
}
