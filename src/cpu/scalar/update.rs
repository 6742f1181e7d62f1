//! Weight updates, one pass over memory: SGD with momentum, AdamW.

use crate::cpu::contract::AdamwStep;
use crate::dtype::Element;

/// # Safety
/// `n` elements of `g` (unless null) are readable, of `v` and `w` writable; none overlap.
pub unsafe fn sgd<T: Element>(n: usize, lr: T, momentum: T, weight_decay: T, g: *const T, v: *mut T, w: *mut T) {
    // SAFETY: the contract is passed on unchanged.
    unsafe { sgd_loop(n, lr, momentum, weight_decay, g, v, w) }
}

/// # Safety
/// `n` elements of `g` (unless null) are readable, of `m`, `v` and `w` writable; none overlap.
pub unsafe fn adamw<T: Element>(n: usize, s: &AdamwStep<T>, g: *const T, m: *mut T, v: *mut T, w: *mut T) {
    // SAFETY: the contract is passed on unchanged.
    unsafe { adamw_loop(n, s, g, m, v, w) }
}

/// The loop of `sgd`; an instruction set's table compiles it for itself.
///
/// # Safety
/// `n` elements of `g` (unless null) are readable, of `v` and `w` writable; none overlap.
#[inline(always)]
pub unsafe fn sgd_loop<T: Element>(n: usize, lr: T, momentum: T, weight_decay: T, g: *const T, v: *mut T, w: *mut T) {
    for i in 0..n {
        // SAFETY: i < n.
        unsafe {
            let gradient = if g.is_null() { T::ZERO } else { *g.add(i) };
            let velocity = momentum * *v.add(i) + gradient + weight_decay * *w.add(i);
            *v.add(i) = velocity;
            *w.add(i) -= lr * velocity;
        }
    }
}

/// The loop of `adamw`; an instruction set's table compiles it for itself. Multiplications and additions are not
/// fused and a null gradient takes the same operations as one of zeros, so that a row updated late has the same bits.
///
/// # Safety
/// `n` elements of `g` (unless null) are readable, of `m`, `v` and `w` writable; none overlap.
#[inline(always)]
pub unsafe fn adamw_loop<T: Element>(n: usize, s: &AdamwStep<T>, g: *const T, m: *mut T, v: *mut T, w: *mut T) {
    let (keep1, keep2) = (T::ONE - s.beta1, T::ONE - s.beta2);
    let shrink = s.lr * s.weight_decay;
    for i in 0..n {
        // SAFETY: i < n.
        unsafe {
            let gradient = if g.is_null() { T::ZERO } else { *g.add(i) };
            let first = s.beta1 * *m.add(i) + keep1 * gradient;
            let second = s.beta2 * *v.add(i) + keep2 * gradient * gradient;
            let weight = *w.add(i);
            let direction = first * s.correction1 / ((second * s.correction2).sqrt() + s.eps);
            *m.add(i) = first;
            *v.add(i) = second;
            *w.add(i) = weight - shrink * weight - s.lr * direction;
        }
    }
}
