//! Gram matrices of token bags: products are formed only where two bags share a token.
//!
//! The rows of one set, an episode's support set, are indexed by token once: a hash table of chains whose links are the
//! set's stored pairs. Each row of the other set then looks its tokens up and adds `w_i * w_j` to the columns of the
//! bags that hold them. With N support rows, M query rows and L tokens a row that is (N + M) L look-ups and as many
//! products as there are coincidences, where merging the sorted lists pair by pair takes N (N / 2 + M) merges of 2 L
//! steps whose branches cannot be foreseen. A dense product over the episode's own small vocabulary needs the same
//! look-ups and then M x N x (distinct tokens, about N L) multiplications, nearly all by zero.
//!
//! Element (i, j) is one chain of additions over the tokens of row i, rising: the order in which a merge adds.
#![forbid(unsafe_code)]

use crate::cpu::KernelElement;
use crate::error::{Error, Result};
use crate::view::{Bags, MatMut};

/// A set of bags, findable by token.
pub struct BagIndex<'a, T> {
    bags: Bags<'a, T>,
    /// The newest pair of each bucket's chain, counted from 1; 0 ends a chain.
    buckets: &'a [u32],
    /// For each pair the one before it in its chain.
    links: &'a [u32],
    /// The row of each pair.
    rows: &'a [u32],
}

/// At least two buckets for a pair, a power of two.
fn bucket_count(pairs: usize) -> usize {
    (2 * pairs).next_power_of_two().max(2)
}

/// The upper bits of a product with 2^32 / golden ratio (Knuth, The Art of Computer Programming 3, 6.4): neighbouring
/// tokens fall far apart.
fn bucket(token: u32, buckets: usize) -> usize {
    (token.wrapping_mul(0x9E37_79B9) >> (u32::BITS - buckets.trailing_zeros())) as usize
}

impl<T> BagIndex<'_, T> {
    /// Numbers of memory that an index of so many stored pairs takes; it grows with them.
    pub fn memory_len(pairs: usize) -> usize {
        if pairs == 0 { 0 } else { bucket_count(pairs) + 2 * pairs }
    }
}

impl<'a, T: KernelElement> BagIndex<'a, T> {
    /// Indexes all rows of `bags`. Fails where `memory` is shorter than [`BagIndex::memory_len`] says, or there are more
    /// than 2^31 pairs.
    pub fn new(bags: Bags<'a, T>, memory: &'a mut [u32]) -> Result<Self> {
        let pairs = bags.nnz();
        if pairs > 1 << 31 || memory.len() < Self::memory_len(pairs) {
            let detail = format!("{pairs} pairs do not fit an index of {} numbers", memory.len());
            return Err(Error::shape("bag_index", detail));
        }
        let (buckets, rest) = memory.split_at_mut(if pairs == 0 { 0 } else { bucket_count(pairs) });
        let (links, rest) = rest.split_at_mut(pairs);
        let rows = &mut rest[..pairs];
        buckets.fill(0);
        let mut pair = 0;
        for i in 0..bags.rows() {
            for &token in bags.row(i).0 {
                let newest = &mut buckets[bucket(token, buckets.len())];
                (links[pair], rows[pair]) = (*newest, i as u32);
                pair += 1;
                *newest = pair as u32;
            }
        }
        Ok(Self { bags, buckets, links, rows })
    }

    /// `dst[i][j] = a_i . b_j + 1` for the rows of `a` and the indexed ones: the Gram matrix of both sets, the 1 carrying
    /// the bias.
    pub fn gram(&self, a: &Bags<T>, mut dst: MatMut<T>) -> Result<()> {
        if dst.rows() != a.rows() || dst.cols() != self.bags.rows() {
            let (m, n) = (a.rows(), self.bags.rows());
            return Err(Error::shape("bag_gram", format!("{m} by {n} rows do not fill {}x{}", dst.rows(), dst.cols())));
        }
        let (stored, weights) = self.bags.pairs();
        for i in 0..a.rows() {
            let (tokens, row_weights) = a.row(i);
            let row = dst.row_mut(i);
            row.fill(T::ZERO);
            if self.buckets.is_empty() {
                row.fill(T::ONE);
                continue;
            }
            for (&token, &weight) in tokens.iter().zip(row_weights) {
                let mut link = self.buckets[bucket(token, self.buckets.len())] as usize;
                while let Some(pair) = link.checked_sub(1) {
                    if stored[pair] == token {
                        row[self.rows[pair] as usize] += weight * weights[pair];
                    }
                    link = self.links[pair] as usize;
                }
            }
            row.iter_mut().for_each(|x| *x += T::ONE);
        }
        Ok(())
    }
}
