//! Operands in a frame of NaN: a kernel that reads outside shows it in its result, one that writes outside is caught.

use metaglot::{Element, MatMut, MatRef, Stored};

/// A matrix inside a longer buffer: unaligned start, gaps between the rows, a margin behind.
#[derive(Clone)]
pub struct Padded<T> {
    data: Vec<T>,
    offset: usize,
    rows: usize,
    cols: usize,
    ld: usize,
}

/// Elements of frame behind the last row: more than any vector.
const MARGIN: usize = 17;

fn frame<T: Element>() -> T {
    T::from_f64(f64::NAN)
}

fn bits<T: Element>(x: T) -> u64 {
    x.to_f64().to_bits()
}

impl<T: Element> Padded<T> {
    /// A matrix of numbers drawn row by row, `gap` elements between the rows, `offset` in front.
    pub fn matrix(rows: usize, cols: usize, gap: usize, offset: usize, mut draw: impl FnMut() -> f64) -> Self {
        let ld = cols + gap;
        let mut data = vec![frame::<T>(); offset + rows * ld + MARGIN];
        for i in 0..rows {
            for x in &mut data[offset + i * ld..][..cols] {
                *x = T::from_f64(draw());
            }
        }
        Self { data, offset, rows, cols, ld }
    }

    /// One row of numbers.
    pub fn row(n: usize, offset: usize, draw: impl FnMut() -> f64) -> Self {
        Self::matrix(1, n, 0, offset, draw)
    }

    /// One row of given numbers.
    pub fn of(values: &[f64], offset: usize) -> Self {
        let mut rest = values.iter();
        Self::row(values.len(), offset, || *rest.next().expect("one for each"))
    }

    /// The matrix. It ends where its last row ends, so that the view itself is as short as it may be.
    pub fn view(&self) -> MatRef<'_, T> {
        let len = if self.rows == 0 { 0 } else { (self.rows - 1) * self.ld + self.cols };
        MatRef::with_ld(&self.data[self.offset..][..len], self.rows, self.cols, self.ld).unwrap()
    }

    /// The whole buffer rounded to `S`, its frame still NaN.
    pub fn stored<S: Stored<T>>(&self) -> Vec<S> {
        self.data.iter().map(|&x| S::narrow(x)).collect()
    }

    /// The same place with the numbers of a stored buffer.
    pub fn widened<S: Stored<T>>(&self, stored: &[S]) -> Self {
        let data = stored.iter().map(|x| x.widen()).collect();
        Self { data, ..*self }
    }

    /// The matrix's place in a stored buffer.
    pub fn view_of<'a, S>(&self, stored: &'a [S]) -> MatRef<'a, S> {
        MatRef::with_ld(&stored[self.offset..], self.rows, self.cols, self.ld).unwrap()
    }

    /// The whole buffer, where in it the matrix starts, and its leading dimension.
    pub fn whole(&self) -> (&[T], usize, usize) {
        (&self.data, self.offset, self.ld)
    }

    /// The whole buffer, writable.
    pub fn whole_mut(&mut self) -> &mut [T] {
        &mut self.data
    }

    /// The same, writable.
    pub fn view_mut(&mut self) -> MatMut<'_, T> {
        let len = if self.rows == 0 { 0 } else { (self.rows - 1) * self.ld + self.cols };
        MatMut::with_ld(&mut self.data[self.offset..][..len], self.rows, self.cols, self.ld).unwrap()
    }

    /// Rows `r` and columns `c` as a view of their own.
    pub fn part(&self, r: std::ops::Range<usize>, c: std::ops::Range<usize>) -> MatRef<'_, T> {
        let start = (self.offset + r.start * self.ld + c.start).min(self.data.len());
        MatRef::with_ld(&self.data[start..], r.len(), c.len(), self.ld).unwrap()
    }

    /// The same, writable.
    pub fn part_mut(&mut self, r: std::ops::Range<usize>, c: std::ops::Range<usize>) -> MatMut<'_, T> {
        let start = (self.offset + r.start * self.ld + c.start).min(self.data.len());
        MatMut::with_ld(&mut self.data[start..], r.len(), c.len(), self.ld).unwrap()
    }

    /// The first row.
    pub fn slice(&self) -> &[T] {
        &self.data[self.offset..][..self.cols]
    }

    /// The same, writable.
    pub fn slice_mut(&mut self) -> &mut [T] {
        &mut self.data[self.offset..][..self.cols]
    }

    /// Element (i, j), exactly.
    pub fn at(&self, i: usize, j: usize) -> f64 {
        self.data[self.offset + i * self.ld + j].to_f64()
    }

    /// All elements, row by row, exactly.
    pub fn values(&self) -> Vec<f64> {
        (0..self.rows).flat_map(|i| (0..self.cols).map(move |j| self.at(i, j))).collect()
    }

    /// All elements' bits, row by row.
    pub fn bits(&self) -> Vec<u64> {
        self.values().into_iter().map(f64::to_bits).collect()
    }

    /// Where something was written outside the matrix, and what.
    pub fn written_outside(&self) -> Option<(usize, T)> {
        let inside = |at: usize| {
            let place = at.checked_sub(self.offset).map(|p| (p / self.ld.max(1), p % self.ld.max(1)));
            place.is_some_and(|(row, col)| row < self.rows && col < self.cols)
        };
        let changed = |&(at, x): &(usize, T)| !inside(at) && bits(x) != bits(frame::<T>());
        self.data.iter().copied().enumerate().find(changed)
    }

    /// Panics if something was written outside the matrix.
    pub fn assert_frame(&self, what: &str) {
        if let Some((at, x)) = self.written_outside() {
            panic!("{what}: {x} was written outside, at {at}");
        }
    }
}
