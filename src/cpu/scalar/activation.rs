//! ReLU and its derivative.

use crate::dtype::Element;

/// # Safety
/// `n` elements of `src` are readable and of `dst` writable.
pub unsafe fn relu<T: Element>(n: usize, src: *const T, dst: *mut T) {
    // SAFETY: the contract is passed on unchanged.
    unsafe { relu_loop(n, src, dst) }
}

/// # Safety
/// `n` elements of `a` and `d` are readable and of `dst` writable; `dst` may be `d`.
pub unsafe fn relu_mask<T: Element>(n: usize, a: *const T, d: *const T, dst: *mut T) {
    // SAFETY: the contract is passed on unchanged.
    unsafe { relu_mask_loop(n, a, d, dst) }
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

/// The loop of `relu_mask`; an instruction set's table compiles it for itself. In place it says so: of two pointers the
/// compiler makes vectors only where they turn out not to overlap.
///
/// # Safety
/// `n` elements of `a` and `d` are readable and of `dst` writable; `dst` may be `d`.
#[inline(always)]
pub unsafe fn relu_mask_loop<T: Element>(n: usize, a: *const T, d: *const T, dst: *mut T) {
    let in_place = std::ptr::eq(d, dst);
    // SAFETY: i < n. The gradient is read before it is known whether it counts: then no branch is left.
    unsafe {
        let masked = |i: usize, x: T| if *a.add(i) > T::ZERO { x } else { T::ZERO };
        if in_place {
            (0..n).for_each(|i| *dst.add(i) = masked(i, *dst.add(i)));
        } else {
            (0..n).for_each(|i| *dst.add(i) = masked(i, *d.add(i)));
        }
    }
}
