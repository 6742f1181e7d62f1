//! Rows of few elements without gaps, as they lie in memory, to vectors with a lane a row, and back.
//!
//! C vectors hold either as many rows as a vector has lanes. A vector of the one form takes each of its lanes from some vector of
//! the other: C permutations under masks that are known when compiled, C^2 for all, one a cycle.

use std::arch::x86_64::*;

use crate::cpu::lanes::{Lanes, load_vector, store_vector};
use crate::dtype::Element;

/// Where one vector's lanes come from.
#[derive(Clone, Copy)]
struct Sources<I, M, const C: usize, const LANES: usize> {
    /// The lane of each lane.
    lanes: [I; LANES],
    /// Which lanes come from each vector.
    masks: [M; C],
}

macro_rules! transposition {
    ($name:ident, $sources:ident, $vector:ty, $lanes:literal, $index:ty, $mask:ty, $zero:ident, $permute:ident) => {
        /// Of each vector; rows from lanes (`TO_ROWS`), or lanes from rows.
        const fn $sources<const C: usize, const TO_ROWS: bool>() -> [Sources<$index, $mask, C, $lanes>; C] {
            let mut all = [Sources { lanes: [0; $lanes], masks: [0; C] }; C];
            let mut row = 0;
            while row < $lanes {
                let mut element = 0;
                while element < C {
                    let place = row * C + element;
                    let (in_rows, in_lanes) = ((place / $lanes, place % $lanes), (element, row));
                    let (to, from) = if TO_ROWS { (in_rows, in_lanes) } else { (in_lanes, in_rows) };
                    all[to.0].lanes[to.1] = from.1 as $index;
                    all[to.0].masks[from.0] |= 1 << to.1;
                    element += 1;
                }
                row += 1;
            }
            all
        }

        /// The other form of what `x` holds.
        ///
        /// # Safety
        /// AVX-512 is enabled and there.
        #[inline(always)]
        pub unsafe fn $name<const C: usize, const TO_ROWS: bool>(x: &[$vector; C]) -> [$vector; C] {
            let sources = const { $sources::<C, TO_ROWS>() };
            // SAFETY: the caller's; an index has as many bytes as a vector.
            unsafe {
                let mut found = [$zero(); C];
                for (found, sources) in found.iter_mut().zip(&sources) {
                    let lanes = _mm512_loadu_si512(sources.lanes.as_ptr().cast());
                    for (&x, &mask) in x.iter().zip(&sources.masks) {
                        *found = $permute(*found, mask, lanes, x);
                    }
                }
                found
            }
        }
    };
}

transposition!(f32_transposed, f32_sources, __m512, 16, i32, __mmask16, _mm512_setzero_ps, _mm512_mask_permutexvar_ps);
transposition!(f64_transposed, f64_sources, __m512d, 8, i64, __mmask8, _mm512_setzero_pd, _mm512_mask_permutexvar_pd);

/// The n elements from `src` on in vectors, zeros behind them.
///
/// # Safety
/// The register's instructions are there; the elements are readable, and C vectors hold them.
#[inline(always)]
pub unsafe fn load_all<L: Lanes, const C: usize>(src: *const L::T, n: usize) -> [L; C] {
    // SAFETY: a vector is loaded where it begins before n.
    unsafe {
        let mut vectors = [L::splat(L::T::ZERO); C];
        for (v, x) in vectors.iter_mut().enumerate().take(n.div_ceil(L::N)) {
            *x = load_vector(src, n, v, L::T::ZERO);
        }
        vectors
    }
}

/// The reverse.
///
/// # Safety
/// As [`load_all`]; the elements are writable.
#[inline(always)]
pub unsafe fn store_all<L: Lanes, const C: usize>(vectors: &[L; C], dst: *mut L::T, n: usize) {
    for (v, &x) in vectors.iter().enumerate().take(n.div_ceil(L::N)) {
        // SAFETY: a vector is stored where it begins before n.
        unsafe { store_vector(x, dst, n, v) };
    }
}
