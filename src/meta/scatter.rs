//! The gradient of an embedding table: only rows that occur, each summed in the order of the examples.
//!
//! A scatter-add would race between threads or need atomics, and so give other bits each time. Instead the (token,
//! example, weight) entries of the batch are sorted by token; each run of equal tokens is then one gather-and-sum
//! over the examples' gradients, rows spread over the threads.
#![forbid(unsafe_code)]

use crate::backend::{Team, matrix_mut};
use crate::cpu::KernelElement;
use crate::error::Result;
use crate::view::{Bags, MatRef};

/// The entries of a batch, column-wise, and the space to sort them in.
pub(crate) struct Scatter<T> {
    tokens: Vec<u32>,
    examples: Vec<u32>,
    weights: Vec<T>,
    spare_tokens: Vec<u32>,
    spare_examples: Vec<u32>,
    spare_weights: Vec<T>,
    /// Where each run of equal tokens starts, and the end.
    runs: Vec<usize>,
}

/// Bytes one entry takes in one of the two copies.
pub(crate) const fn entry_bytes<T>() -> usize {
    2 * size_of::<u32>() + size_of::<T>() + size_of::<usize>() / 2
}

/// Bits of a token sorted at once: 2^11 counters stay in the first-level cache.
const DIGIT_BITS: u32 = 11;

impl<T: KernelElement> Scatter<T> {
    /// Space for `nnz` entries.
    pub fn new(nnz: usize) -> Self {
        Self {
            tokens: Vec::with_capacity(nnz),
            examples: Vec::with_capacity(nnz),
            weights: Vec::with_capacity(nnz),
            spare_tokens: vec![0; nnz],
            spare_examples: vec![0; nnz],
            spare_weights: vec![T::ZERO; nnz],
            runs: Vec::with_capacity(nnz + 1),
        }
    }

    /// Forgets the entries.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.examples.clear();
        self.weights.clear();
    }

    /// Adds the entries of all rows of `bags`, numbered from `first_example`, weights times `scale`.
    pub fn push(&mut self, bags: &Bags<T>, first_example: usize, scale: T) {
        for i in 0..bags.rows() {
            let (tokens, weights) = bags.row(i);
            self.tokens.extend_from_slice(tokens);
            self.examples.extend(std::iter::repeat_n((first_example + i) as u32, tokens.len()));
            self.weights.extend(weights.iter().map(|&w| w * scale));
        }
    }

    /// Sums `weight * dz[example]` for each token: `rows` become the tokens, rising, `dst` their sums (rows x hidden).
    pub fn sum(
        &mut self,
        team: &mut Team<T>,
        vocabulary: usize,
        dz: MatRef<T>,
        rows: &mut Vec<u32>,
        dst: &mut [T],
    ) -> Result<()> {
        self.sort(vocabulary);
        self.runs.clear();
        rows.clear();
        for (i, &token) in self.tokens.iter().enumerate() {
            if rows.last() != Some(&token) {
                rows.push(token);
                self.runs.push(i);
            }
        }
        self.runs.push(self.tokens.len());
        let hidden = dz.cols();
        let dst = matrix_mut(&mut dst[..rows.len() * hidden], rows.len(), hidden);
        let this = &*self;
        team.each_row(dst, |lane, i, row| {
            let run = this.runs[i]..this.runs[i + 1];
            lane.gather_sum(&this.examples[run.clone()], &this.weights[run], dz, None, row)
        })
    }

    /// Stable radix sort by token, least significant digit first; entries of a token stay in the order of examples.
    fn sort(&mut self, vocabulary: usize) {
        let bits = usize::BITS - vocabulary.saturating_sub(1).leading_zeros();
        for digit in 0..bits.div_ceil(DIGIT_BITS) {
            let shift = digit * DIGIT_BITS;
            let bucket = |token: u32| (token >> shift) as usize & ((1 << DIGIT_BITS) - 1);
            let mut starts = [0usize; 1 << DIGIT_BITS];
            self.tokens.iter().for_each(|&t| starts[bucket(t)] += 1);
            let mut sum = 0;
            starts.iter_mut().for_each(|s| sum += std::mem::replace(s, sum));
            for i in 0..self.tokens.len() {
                let to = &mut starts[bucket(self.tokens[i])];
                self.spare_tokens[*to] = self.tokens[i];
                self.spare_examples[*to] = self.examples[i];
                self.spare_weights[*to] = self.weights[i];
                *to += 1;
            }
            let n = self.tokens.len();
            self.tokens.copy_from_slice(&self.spare_tokens[..n]);
            self.examples.copy_from_slice(&self.spare_examples[..n]);
            self.weights.copy_from_slice(&self.spare_weights[..n]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_sorted_by_token_and_stay_in_order_of_examples() {
        let tokens = [5u32, 70_000, 3, 5, 9, 1_000_000, 5];
        let offsets = [0, 2, 5, 6, 7];
        let weights: Vec<f64> = (0..7).map(f64::from).collect();
        let bags = Bags::new(&tokens, &weights, &offsets, 1 << 20).unwrap();
        let mut scatter = Scatter::new(7);
        scatter.push(&bags, 0, 1.0);
        scatter.sort(1 << 20);
        assert_eq!(scatter.tokens, [3, 5, 5, 5, 9, 70_000, 1_000_000]);
        assert_eq!(scatter.examples, [1, 0, 1, 3, 1, 0, 2]);
        assert_eq!(scatter.weights, [2.0, 0.0, 3.0, 6.0, 4.0, 1.0, 5.0]);
    }
}
