//! Scaled additions and column sums.

use crate::dtype::Element;

/// # Safety
/// `n` elements of `x` are readable and of `y` writable; they do not overlap.
pub unsafe fn axpy<T: Element>(n: usize, alpha: T, x: *const T, y: *mut T) {
    // SAFETY: the contract is passed on unchanged.
    unsafe { axpy_loop::<T, false>(n, alpha, x, y) }
}

/// # Safety
/// `n` elements of `x` are readable and of `y` writable; they do not overlap.
pub unsafe fn axpby<T: Element>(n: usize, alpha: T, x: *const T, beta: T, y: *mut T) {
    // SAFETY: the contract is passed on unchanged.
    unsafe { axpby_loop::<T, false>(n, alpha, x, beta, y) }
}

/// # Safety
/// `m` rows of `n` elements at stride `ld` of `src` are readable, `n` elements of `dst` writable.
pub unsafe fn col_sum<T: Element>(m: usize, n: usize, alpha: T, src: *const T, ld: usize, beta: T, dst: *mut T) {
    // SAFETY: the contract is passed on unchanged.
    unsafe { col_sum_loop::<T, false>(m, n, alpha, src, ld, beta, dst) }
}

/// The loop of `axpy`, with (`FMA`) or without fused multiply-add.
///
/// # Safety
/// `n` elements of `x` are readable and of `y` writable; they do not overlap.
#[inline(always)]
pub unsafe fn axpy_loop<T: Element, const FMA: bool>(n: usize, alpha: T, x: *const T, y: *mut T) {
    for i in 0..n {
        // SAFETY: i < n.
        unsafe {
            let (xi, yi) = (*x.add(i), *y.add(i));
            *y.add(i) = if FMA { alpha.mul_add(xi, yi) } else { alpha * xi + yi };
        }
    }
}

/// The loop of `axpby`, with (`FMA`) or without fused multiply-add.
///
/// # Safety
/// `n` elements of `x` are readable and of `y` writable; they do not overlap.
#[inline(always)]
pub unsafe fn axpby_loop<T: Element, const FMA: bool>(n: usize, alpha: T, x: *const T, beta: T, y: *mut T) {
    for i in 0..n {
        // SAFETY: i < n.
        unsafe {
            let scaled = alpha * *x.add(i);
            *y.add(i) = match beta == T::ZERO {
                true => scaled,
                false if FMA => beta.mul_add(*y.add(i), scaled),
                false => beta * *y.add(i) + scaled,
            };
        }
    }
}

/// The loop of `col_sum`: row by row, so memory is read in order and each column's sum has a fixed order.
///
/// # Safety
/// `m` rows of `n` elements at stride `ld` of `src` are readable, `n` elements of `dst` writable.
#[inline(always)]
pub unsafe fn col_sum_loop<T: Element, const FMA: bool>(
    m: usize,
    n: usize,
    alpha: T,
    src: *const T,
    ld: usize,
    beta: T,
    dst: *mut T,
) {
    for j in 0..n {
        // SAFETY: j < n.
        unsafe { *dst.add(j) = if beta == T::ZERO { T::ZERO } else { beta * *dst.add(j) } };
    }
    for i in 0..m {
        // SAFETY: row i has n readable elements, which do not overlap `dst`.
        unsafe { axpy_loop::<T, FMA>(n, alpha, src.add(i * ld), dst) };
    }
}
