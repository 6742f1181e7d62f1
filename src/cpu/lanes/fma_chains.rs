//! Fused multiply-adds with nothing else beside them: the rate that no product can exceed.
//!
//! 12 chains in registers, each waiting for itself alone: 4 cycles of latency on 2 ports keep 8 in flight. With x and b
//! that is 14 of AVX2's 16 registers; no loads.

use super::Lanes;
use crate::dtype::Element;

/// Chains of registers.
pub const CHAINS: usize = 12;

/// # Safety
/// The register's instructions are enabled and there.
#[inline(always)]
pub unsafe fn fma_chains<L: Lanes>(steps: usize, b: L::T, x: L::T) -> L::T {
    // SAFETY: the caller vouches for the instructions; nothing touches memory.
    unsafe {
        let (b, x) = (L::splat(b), L::splat(x));
        let mut sums = [L::splat(L::T::ZERO); CHAINS];
        for _ in 0..steps {
            for sum in &mut sums {
                *sum = sum.fma(b, x);
            }
        }
        sums.into_iter().fold(L::splat(L::T::ZERO), |total, sum| total.add(sum)).sum()
    }
}
