//! Carving planned memory into the pieces a computation needs.
#![forbid(unsafe_code)]

use crate::view::{MatMut, MatRef};

/// Takes the first `len` elements off `rest`. The plan has counted them all, so running out is a bug of the plan.
pub(crate) fn take<'a, T>(rest: &mut &'a mut [T], len: usize) -> &'a mut [T] {
    let (front, back) = std::mem::take(rest).split_at_mut(len);
    *rest = back;
    front
}

/// The first `rows` x `cols` elements as a matrix; sizes come from the plan that made the slice.
pub(crate) fn matrix<T>(data: &[T], rows: usize, cols: usize) -> MatRef<'_, T> {
    MatRef::new(data, rows, cols).expect("the plan made the slice large enough")
}

/// The same, writable.
pub(crate) fn matrix_mut<T>(data: &mut [T], rows: usize, cols: usize) -> MatMut<'_, T> {
    MatMut::new(data, rows, cols).expect("the plan made the slice large enough")
}
