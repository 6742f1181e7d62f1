//! Matrix views: row-major, unit inner stride, leading dimension in elements; and token bags as compressed rows.
//!
//! A view is valid by construction, so the operations that take one need not check its bounds again.
#![forbid(unsafe_code)]

use crate::error::{Error, Result};

/// A read-only row-major matrix: element (i, j) is `data[i * ld + j]`.
#[derive(Clone, Copy, Debug)]
pub struct MatRef<'a, T> {
    data: &'a [T],
    rows: usize,
    cols: usize,
    ld: usize,
}

/// A writable row-major matrix: element (i, j) is `data[i * ld + j]`.
#[derive(Debug)]
pub struct MatMut<'a, T> {
    data: &'a mut [T],
    rows: usize,
    cols: usize,
    ld: usize,
}

/// The elements a `rows` x `cols` matrix spans at leading dimension `ld`, or `None` where that overflows.
fn span(rows: usize, cols: usize, ld: usize) -> Option<usize> {
    if rows == 0 || cols == 0 { Some(0) } else { (rows - 1).checked_mul(ld)?.checked_add(cols) }
}

fn check_layout(len: usize, rows: usize, cols: usize, ld: usize) -> Result<()> {
    let fits = ld >= cols && span(rows, cols, ld).is_some_and(|s| s <= len);
    if fits {
        return Ok(());
    }
    let detail = format!("{rows}x{cols} with leading dimension {ld} does not fit a slice of {len} elements");
    Err(Error::Layout { op: "matrix view", detail })
}

impl<'a, T> MatRef<'a, T> {
    /// A `rows` x `cols` view of `data` without gaps. Fails if `data` is too short.
    pub fn new(data: &'a [T], rows: usize, cols: usize) -> Result<Self> {
        Self::with_ld(data, rows, cols, cols)
    }

    /// A view with leading dimension `ld >= cols`. Fails if `data` is too short.
    pub fn with_ld(data: &'a [T], rows: usize, cols: usize, ld: usize) -> Result<Self> {
        check_layout(data.len(), rows, cols, ld)?;
        Ok(Self { data, rows, cols, ld })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Distance between the starts of two rows, in elements.
    pub fn ld(&self) -> usize {
        self.ld
    }

    /// Row `i`. Panics if there is none.
    pub fn row(&self, i: usize) -> &'a [T] {
        assert!(i < self.rows);
        if self.cols == 0 { &[] } else { &self.data[i * self.ld..][..self.cols] }
    }

    /// Rows `start..end`. Panics if they are not all there.
    pub fn rows_range(&self, start: usize, end: usize) -> MatRef<'a, T> {
        assert!(start <= end && end <= self.rows);
        let data = if start == end || self.cols == 0 { &[][..] } else { &self.data[start * self.ld..] };
        MatRef { data, rows: end - start, ..*self }
    }

    /// The first element's address.
    pub fn as_ptr(&self) -> *const T {
        self.data.as_ptr()
    }
}

impl<'a, T> MatMut<'a, T> {
    /// A `rows` x `cols` view of `data` without gaps. Fails if `data` is too short.
    pub fn new(data: &'a mut [T], rows: usize, cols: usize) -> Result<Self> {
        Self::with_ld(data, rows, cols, cols)
    }

    /// A view with leading dimension `ld >= cols`. Fails if `data` is too short.
    pub fn with_ld(data: &'a mut [T], rows: usize, cols: usize, ld: usize) -> Result<Self> {
        check_layout(data.len(), rows, cols, ld)?;
        Ok(Self { data, rows, cols, ld })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Distance between the starts of two rows, in elements.
    pub fn ld(&self) -> usize {
        self.ld
    }

    /// Row `i`. Panics if there is none.
    pub fn row_mut(&mut self, i: usize) -> &mut [T] {
        assert!(i < self.rows);
        if self.cols == 0 { &mut [] } else { &mut self.data[i * self.ld..][..self.cols] }
    }

    /// Rows `..at` and rows `at..` as two matrices. Panics if there are fewer than `at` rows.
    pub fn split_rows(self, at: usize) -> (MatMut<'a, T>, MatMut<'a, T>) {
        assert!(at <= self.rows);
        let cut = (at * self.ld).min(self.data.len());
        let (front, back) = self.data.split_at_mut(cut);
        (
            MatMut { data: front, rows: at, cols: self.cols, ld: self.ld },
            MatMut { data: back, rows: self.rows - at, cols: self.cols, ld: self.ld },
        )
    }

    /// The same matrix, read-only.
    pub fn as_ref(&self) -> MatRef<'_, T> {
        MatRef { data: self.data, rows: self.rows, cols: self.cols, ld: self.ld }
    }

    /// The same matrix, lent out for a shorter time.
    pub fn as_mut(&mut self) -> MatMut<'_, T> {
        MatMut { data: self.data, rows: self.rows, cols: self.cols, ld: self.ld }
    }

    /// The first element's address.
    pub fn as_mut_ptr(&mut self) -> *mut T {
        self.data.as_mut_ptr()
    }
}

/// Token bags as compressed rows: row i holds `tokens[offsets[i]..offsets[i+1]]` with the same range of `weights`.
///
/// Tokens increase strictly within a row and lie below `vocabulary`; both are checked at construction.
#[derive(Clone, Copy, Debug)]
pub struct Bags<'a, T> {
    tokens: &'a [u32],
    weights: &'a [T],
    offsets: &'a [usize],
    vocabulary: usize,
}

impl<'a, T> Bags<'a, T> {
    /// `offsets` has one entry more than there are rows. Fails where an invariant does not hold.
    pub fn new(tokens: &'a [u32], weights: &'a [T], offsets: &'a [usize], vocabulary: usize) -> Result<Self> {
        let ends_fit = offsets.first() == Some(&0) && offsets.last() == Some(&tokens.len());
        if !ends_fit || tokens.len() != weights.len() || offsets.windows(2).any(|w| w[0] > w[1]) {
            let detail = "offsets must rise from 0 to the number of tokens, with a weight for each".to_string();
            return Err(Error::Layout { op: "token bags", detail });
        }
        let rising = offsets.windows(2).all(|w| tokens[w[0]..w[1]].windows(2).all(|t| t[0] < t[1]));
        if !rising || tokens.iter().any(|&t| t as usize >= vocabulary) {
            let detail = format!("tokens must rise strictly within a row and lie below {vocabulary}");
            return Err(Error::Layout { op: "token bags", detail });
        }
        Ok(Self { tokens, weights, offsets, vocabulary })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Number of different tokens there may be: the rows of the embedding table.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// Number of stored (token, weight) pairs.
    pub fn nnz(&self) -> usize {
        self.nnz_of(0..self.rows())
    }

    /// Number of stored pairs in some rows. Panics if they are not all there.
    pub fn nnz_of(&self, rows: std::ops::Range<usize>) -> usize {
        self.offsets[rows.end] - self.offsets[rows.start]
    }

    /// Rows `start..end`. Panics if they are not all there.
    pub fn rows_range(&self, start: usize, end: usize) -> Bags<'a, T> {
        Bags { offsets: &self.offsets[start..=end], ..*self }
    }

    /// Tokens and weights of all rows, one after the other.
    pub fn pairs(&self) -> (&'a [u32], &'a [T]) {
        let range = self.offsets[0]..self.offsets[self.rows()];
        (&self.tokens[range.clone()], &self.weights[range])
    }

    /// Tokens and weights of row `i`. Panics if there is none.
    pub fn row(&self, i: usize) -> (&'a [u32], &'a [T]) {
        let range = self.offsets[i]..self.offsets[i + 1];
        (&self.tokens[range.clone()], &self.weights[range])
    }
}
