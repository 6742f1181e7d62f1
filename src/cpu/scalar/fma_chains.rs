//! Multiply-adds alone, as plain Rust does them: a product and a sum, in whatever registers the target has by default.

use crate::cpu::contract::FmaChains;
use crate::dtype::Element;

/// Eight registers of 128 bits in f32, sixteen in f64.
const CHAINS: usize = 32;

pub const fn entry<T: Element>() -> FmaChains<T> {
    FmaChains { count: CHAINS, run: fma_chains::<T> }
}

/// # Safety
/// None of its own: nothing touches memory.
unsafe fn fma_chains<T: Element>(steps: usize, b: T, x: T) -> T {
    let mut sums = [T::ZERO; CHAINS];
    for _ in 0..steps {
        for sum in &mut sums {
            *sum = *sum * b + x;
        }
    }
    sums.into_iter().fold(T::ZERO, |total, sum| total + sum)
}
