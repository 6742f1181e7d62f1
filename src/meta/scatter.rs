//! The gradient of an embedding table: only rows that occur, each summed in the order of the examples.
//!
//! A scatter-add would race between threads or need atomics, and so give other bits each time. Instead the (token,
//! example, weight) entries of the batch are sorted by token; each run of equal tokens is then one gather-and-sum
//! over the examples' gradients, rows spread over the threads. Chunks of a batch add to the rows one after the other, in
//! one chain of additions, so the bits do not depend on where the batch is cut.
#![forbid(unsafe_code)]

use super::Limits;
use crate::backend::Team;
use crate::cpu::KernelElement;
use crate::error::Result;
use crate::model::{InputKind, MlpShape};
use crate::view::{Bags, MatMut, MatRef};

/// The entries of a chunk of episodes, column-wise, and the space to sort them in.
pub(crate) struct Scatter<T> {
    tokens: Vec<u32>,
    examples: Vec<u32>,
    weights: Vec<T>,
    spare_tokens: Vec<u32>,
    spare_examples: Vec<u32>,
    spare_weights: Vec<T>,
    /// Where the entries of each row start, and the end.
    runs: Vec<usize>,
}

/// Bits of a token sorted at once: 2^11 counters stay in the first-level cache.
const DIGIT_BITS: u32 = 11;

impl<T: KernelElement> Scatter<T> {
    /// Space for the entries of one chunk, and for the tokens of the whole batch.
    pub fn new(shape: &MlpShape, limits: &Limits) -> Self {
        let (entries, tokens, rows) = Self::lens(shape, limits);
        Self {
            tokens: Vec::with_capacity(tokens),
            examples: Vec::with_capacity(entries),
            weights: Vec::with_capacity(entries),
            spare_tokens: vec![0; tokens],
            spare_examples: vec![0; entries],
            spare_weights: vec![T::ZERO; entries],
            runs: Vec::with_capacity(rows),
        }
    }

    /// Bytes that [`Scatter::new`] allocates.
    pub fn planned_bytes(shape: &MlpShape, limits: &Limits) -> usize {
        let (entries, tokens, rows) = Self::lens(shape, limits);
        2 * entries * (size_of::<u32>() + size_of::<T>()) + 2 * tokens * size_of::<u32>() + rows * size_of::<usize>()
    }

    fn lens(shape: &MlpShape, limits: &Limits) -> (usize, usize, usize) {
        match shape.kind {
            InputKind::Dense => (0, 0, 0),
            InputKind::Bag => (limits.chunk_nnz(), limits.nnz, limits.row_count(shape) + 1),
        }
    }

    /// Forgets the entries.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.examples.clear();
        self.weights.clear();
    }

    /// Adds the tokens of `bags` alone, for [`Scatter::rows`].
    pub fn push_tokens(&mut self, bags: &Bags<T>) {
        (0..bags.rows()).for_each(|i| self.tokens.extend_from_slice(bags.row(i).0));
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

    /// The different tokens that were pushed and sorted, rising.
    pub fn rows(&self, rows: &mut Vec<u32>) {
        rows.clear();
        for &token in &self.tokens {
            if rows.last() != Some(&token) {
                rows.push(token);
            }
        }
    }

    /// Finds the sorted entries of each of `rows`, rising, with every pushed token among them.
    pub fn find_runs(&mut self, rows: &[u32]) {
        self.runs.clear();
        let mut end = 0;
        for &row in rows {
            self.runs.push(end);
            end += self.tokens[end..].iter().take_while(|&&token| token == row).count();
        }
        self.runs.push(end);
        debug_assert_eq!(end, self.tokens.len(), "a token is not among the rows");
    }

    /// Writes the sum of `weight * dz[example]` of each row, in the order of pushing, to `dst`, rows x hidden. Their runs were found.
    /// `space` is the lanes' own memory.
    pub fn write(&self, team: &mut Team<T>, dz: MatRef<T>, dst: MatMut<T>, space: &mut [T]) -> Result<()> {
        team.write_each_row(dst, space, |lane, i, row| {
            let (examples, weights) = self.run(i);
            lane.gather_sum(examples, weights, dz, None, row)
        })
    }

    /// The same, added to `dst` as one chain of additions: after [`Scatter::write`], with the bits of writing the entries of both.
    pub fn add(&self, team: &mut Team<T>, dz: MatRef<T>, dst: MatMut<T>) -> Result<()> {
        team.each_row(dst, |lane, i, row| {
            let (examples, weights) = self.run(i);
            lane.gather_add(examples, weights, dz, row)
        })
    }

    /// The examples and weights of row i.
    fn run(&self, i: usize) -> (&[u32], &[T]) {
        let run = self.runs[i]..self.runs[i + 1];
        (&self.examples[run.clone()], &self.weights[run])
    }

    /// Stable radix sort by token, least significant digit first; entries of a token stay in the order of examples.
    pub fn sort(&mut self, vocabulary: usize) {
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
                if let (Some(&example), Some(&weight)) = (self.examples.get(i), self.weights.get(i)) {
                    (self.spare_examples[*to], self.spare_weights[*to]) = (example, weight);
                }
                *to += 1;
            }
            let (n, entries) = (self.tokens.len(), self.examples.len());
            self.tokens.copy_from_slice(&self.spare_tokens[..n]);
            self.examples.copy_from_slice(&self.spare_examples[..entries]);
            self.weights.copy_from_slice(&self.spare_weights[..entries]);
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
        let limits = Limits { nnz: 7, support_nnz: 7, ..Limits::default() };
        let shape = MlpShape { input: 1 << 20, kind: InputKind::Bag, widths: vec![1] };
        let mut scatter = Scatter::new(&shape, &limits);
        scatter.push(&bags, 0, 1.0);
        scatter.sort(1 << 20);
        assert_eq!(scatter.tokens, [3, 5, 5, 5, 9, 70_000, 1_000_000]);
        assert_eq!(scatter.examples, [1, 0, 1, 3, 1, 0, 2]);
        assert_eq!(scatter.weights, [2.0, 0.0, 3.0, 6.0, 4.0, 1.0, 5.0]);
    }
}
