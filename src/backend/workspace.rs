//! Carving planned memory into the pieces a computation needs.
#![forbid(unsafe_code)]

use std::ops::{Deref, DerefMut};

use super::prefer_huge_pages;
use crate::view::{MatMut, MatRef};

/// Elements that pieces of memory are a multiple of apart: a cache line of f32. A vector across two lines takes two loads'
/// or stores' time, and every vector of AVX-512 is a whole line.
pub(crate) const LINE: usize = 16;

/// Zeros that begin at a cache line, on huge pages where they are large.
pub(crate) struct Lines<T> {
    memory: Vec<T>,
    start: usize,
    len: usize,
}

impl<T: Copy + Default> Lines<T> {
    pub fn zeros(len: usize) -> Self {
        let memory = vec![T::default(); Self::planned_len(len)];
        prefer_huge_pages(&memory);
        let start = memory.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE);
        Self { memory, start, len }
    }

    /// Elements that `len` of them take.
    pub fn planned_len(len: usize) -> usize {
        len.saturating_add(LINE)
    }
}

impl<T> Deref for Lines<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.memory[self.start..][..self.len]
    }
}

impl<T> DerefMut for Lines<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.memory[self.start..][..self.len]
    }
}

/// Takes the first `len` elements off `rest`. The plan has counted them all, so running out is a bug of the plan.
pub(crate) fn take<'a, T>(rest: &mut &'a mut [T], len: usize) -> &'a mut [T] {
    let (front, back) = std::mem::take(rest).split_at_mut(len);
    *rest = back;
    front
}

/// Hands out pieces of a slice, or counts how long a slice must be: one function lays memory out for both. Each piece begins
/// a multiple of [`LINE`] elements behind the slice's begin.
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
        let lines = len.checked_next_multiple_of(LINE).unwrap_or(usize::MAX);
        self.used = self.used.saturating_add(lines);
        match &mut self.rest {
            Some(rest) => &mut take(rest, lines)[..len],
            None => &mut [],
        }
    }

    /// The next `len` elements if `wanted`, otherwise an empty piece.
    pub fn take_if(&mut self, wanted: bool, len: usize) -> &'a mut [T] {
        self.take(if wanted { len } else { 0 })
    }

    /// How many elements that took.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces<T>(carver: &mut Carver<T>) -> usize {
        let pieces = [0, 1, LINE - 1, LINE, LINE + 1, 5].map(|len| (carver.take(len).as_ptr().addr(), len));
        for (at, len) in pieces {
            assert!(
                carver.rest.is_none() || len == 0 || at % (LINE * size_of::<f32>()) == 0,
                "{len} elements at {at:x}"
            );
        }
        carver.used()
    }

    #[test]
    fn pieces_begin_at_cache_lines_and_take_what_was_counted() {
        let counted = pieces(&mut Carver::<u8>::counting());
        assert_eq!(counted, 6 * LINE);
        // Several at once: an allocation may begin at a line by chance.
        let (mut singles, mut doubles) = ([(); 9].map(|()| Lines::<f32>::zeros(counted)), Lines::<f64>::zeros(counted));
        for memory in &mut singles {
            assert_eq!(pieces(&mut Carver::over(memory)), counted);
        }
        assert_eq!(pieces(&mut Carver::over(&mut doubles)), counted);
    }
}
