//! Carving planned memory into the pieces a computation needs.
#![forbid(unsafe_code)]

use crate::view::{MatMut, MatRef};

/// Takes the first `len` elements off `rest`. The plan has counted them all, so running out is a bug of the plan.
pub(crate) fn take<'a, T>(rest: &mut &'a mut [T], len: usize) -> &'a mut [T] {
    let (front, back) = std::mem::take(rest).split_at_mut(len);
    *rest = back;
    front
}

/// Hands out pieces of a slice, or counts how long a slice must be: one function lays memory out for both.
pub(crate) struct Carver<'a, T> {
    rest: Option<&'a mut [T]>,
    used: usize,
}

impl<'a, T> Carver<'a, T> {
    /// Hands out pieces of `memory`.
    pub fn over(memory: &'a mut [T]) -> Self {
        Self { rest: Some(memory), used: 0 }
    }

    /// Hands out empty pieces and counts.
    pub fn counting() -> Self {
        Self { rest: None, used: 0 }
    }

    /// The next `len` elements; an empty piece where it only counts.
    pub fn take(&mut self, len: usize) -> &'a mut [T] {
        // A count beyond the address space is refused when the memory is allocated.
        self.used = self.used.saturating_add(len);
        match &mut self.rest {
            Some(rest) => take(rest, len),
            None => &mut [],
        }
    }

    /// The next `len` elements if `wanted`, otherwise an empty piece.
    pub fn take_if(&mut self, wanted: bool, len: usize) -> &'a mut [T] {
        self.take(if wanted { len } else { 0 })
    }

    /// How many elements have been handed out.
    pub fn used(&self) -> usize {
        self.used
    }
}

/// The first `rows` x `cols` elements as a matrix; sizes come from the plan that made the slice.
pub(crate) fn matrix<T>(data: &[T], rows: usize, cols: usize) -> MatRef<'_, T> {
    MatRef::new(data, rows, cols).expect("the plan made the slice large enough")
}

/// The same, writable.
pub(crate) fn matrix_mut<T>(data: &mut [T], rows: usize, cols: usize) -> MatMut<'_, T> {
    MatMut::new(data, rows, cols).expect("the plan made the slice large enough")
}
