//! ReLU and its derivative.

use crate::dtype::Element;

/// # Safety
/// `n` elements of `src` are readable and of `dst` writable.
pub unsafe fn relu<T: Element>(n: usize, src: *const T, dst: *mut T) {
    // SAFETY: the contract is passed on unchanged.
    unsafe { relu_loop(n, src, dst) }
}

/// # Safety
/// `n` elements of `a` are readable and of `d` writable.
pub unsafe fn relu_mask<T: Element>(n: usize, a: *const T, d: *mut T) {
    // SAFETY: the contract is passed on unchanged.
    unsafe { relu_mask_loop(n, a, d) }
}

/// The loop of `relu`; an instruction set's table compiles it for itself.
///
/// # Safety
/// `n` elements of `src` are readable and of `dst` writable.
#[inline(always)]
pub unsafe fn relu_loop<T: Element>(n: usize, src: *const T, dst: *mut T) {
    for i in 0..n {
        // SAFETY: i < n.
        unsafe {
            let x = *src.add(i);
            *dst.add(i) = if x > T::ZERO { x } else { T::ZERO };
        }
    }
}

/// The loop of `relu_mask`; an instruction set's table compiles it for itself.
///
/// # Safety
/// `n` elements of `a` are readable and of `d` writable.
#[inline(always)]
pub unsafe fn relu_mask_loop<T: Element>(n: usize, a: *const T, d: *mut T) {
    for i in 0..n {
        // SAFETY: i < n.
        unsafe {
            let keep = *a.add(i) > T::ZERO;
            *d.add(i) = if keep { *d.add(i) } else { T::ZERO };
        }
    }
}
