//! Counter-based random numbers: a stream is named by (seed, step, episode, purpose), so any episode can be drawn
//! alone, in any order, on any thread, and a resumed run needs no saved generator state.
//!
//! The generator is ChaCha with 8 rounds, keyed by the four numbers. The draws below it (bounded integers, shuffles)
//! are written out here because their bits are part of the file format: a release of another crate must not change them.
#![forbid(unsafe_code)]

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng};

/// What a stream of random numbers is for; streams of different purposes are independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// The initial weights.
    Init = 1,
    /// Which languages, classes and rows an episode holds.
    Episode = 2,
    /// Which languages and texts are left out of training.
    Split = 3,
    /// Which tokens are dropped from an episode's texts.
    Dropout = 4,
    /// Random problems of tests and benches.
    Data = 5,
}

/// One stream of random numbers.
#[derive(Clone, Debug)]
pub struct Rng {
    inner: ChaCha8Rng,
}

impl Rng {
    /// The stream named by `(seed, step, episode, purpose)`: the same name, the same numbers, everywhere.
    pub fn new(seed: u64, step: u64, episode: u64, purpose: Purpose) -> Self {
        let mut key = [0u8; 32];
        for (chunk, word) in key.chunks_exact_mut(8).zip([seed, step, episode, purpose as u64]) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        Self { inner: ChaCha8Rng::from_seed(key) }
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.inner.next_u64()
    }

    /// A number below `n`, each equally likely (Lemire, "Fast random integer generation in an interval", 2019).
    /// `n` must not be 0.
    pub fn below(&mut self, n: usize) -> usize {
        assert!(n > 0, "a number below 0 was asked for");
        let n = n as u64;
        loop {
            let product = u128::from(self.bits()) * u128::from(n);
            if (product as u64) >= n.wrapping_neg() % n {
                return (product >> 64) as usize;
            }
        }
    }

    /// A number in [0, 1) with 53 random bits.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// A number of the standard normal distribution (Box and Muller, 1958).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (2.0 * std::f64::consts::PI * self.unit()).cos()
    }

    /// Moves a uniformly random choice of `k` of the items to the front, in random order (Fisher and Yates).
    /// Panics if there are fewer than `k`.
    pub fn choose_front<T>(&mut self, items: &mut [T], k: usize) {
        assert!(k <= items.len(), "{k} of {} items were asked for", items.len());
        for i in 0..k {
            let j = i + self.below(items.len() - i);
            items.swap(i, j);
        }
    }

    /// Puts all items in random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        self.choose_front(items, items.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_named_by_all_four_numbers() {
        let first = |s, t, e, p| Rng::new(s, t, e, p).bits();
        let base = first(1, 2, 3, Purpose::Episode);
        assert_eq!(base, first(1, 2, 3, Purpose::Episode));
        for other in [
            first(2, 2, 3, Purpose::Episode),
            first(1, 3, 3, Purpose::Episode),
            first(1, 2, 4, Purpose::Episode),
            first(1, 2, 3, Purpose::Init),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn bounded_numbers_are_uniform() {
        let mut rng = Rng::new(7, 0, 0, Purpose::Data);
        let mut counts = [0u32; 6];
        for _ in 0..60_000 {
            counts[rng.below(6)] += 1;
        }
        // Chi-squared with 5 degrees of freedom: 20.5 is the 0.1% point.
        let chi2: f64 = counts.iter().map(|&c| (f64::from(c) - 1e4).powi(2) / 1e4).sum();
        assert!(chi2 < 20.5, "counts {counts:?}");
    }

    #[test]
    fn a_choice_is_a_permutation_of_the_items() {
        let mut rng = Rng::new(7, 0, 1, Purpose::Data);
        let mut items: Vec<u32> = (0..50).collect();
        rng.choose_front(&mut items, 20);
        let mut sorted = items.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..50).collect::<Vec<_>>());
        assert_ne!(items, sorted);
    }

    #[test]
    fn normal_numbers_have_mean_0_and_variance_1() {
        let mut rng = Rng::new(7, 0, 2, Purpose::Data);
        let draws: Vec<f64> = (0..40_000).map(|_| rng.normal()).collect();
        let mean = draws.iter().sum::<f64>() / 40_000.0;
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 40_000.0;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.03, "mean {mean}, variance {variance}");
    }
}
