//! Softmax cross-entropy: loss, gradient and R-operator of one row of logits.

use crate::dtype::Element;

/// # Safety
/// `n` elements of `z` are readable, of `p` and `dz` writable; `target < n`.
pub unsafe fn softmax_xent<T: Element>(n: usize, z: *const T, target: usize, scale: T, p: *mut T, dz: *mut T) -> T {
    if n == 0 {
        return T::ZERO;
    }
    let (mut max, mut sum) = (T::NEG_INFINITY, T::ZERO);
    for i in 0..n {
        // SAFETY: i < n.
        max = max.max(unsafe { *z.add(i) });
    }
    // SAFETY: target < n. Read before `dz`, which may be `z`, is written.
    let shifted_target = unsafe { *z.add(target) } - max;
    for i in 0..n {
        // SAFETY: i < n.
        unsafe {
            *p.add(i) = (*z.add(i) - max).exp();
            sum += *p.add(i);
        }
    }
    for i in 0..n {
        // SAFETY: i < n.
        unsafe {
            *p.add(i) = *p.add(i) / sum;
            let hit = if i == target { T::ONE } else { T::ZERO };
            *dz.add(i) = scale * (*p.add(i) - hit);
        }
    }
    sum.ln() - shifted_target
}

/// # Safety
/// `n` elements of `p` and `rz` are readable and of `rdz` writable; `rdz` may be `rz`.
pub unsafe fn softmax_xent_rop<T: Element>(n: usize, p: *const T, rz: *const T, scale: T, rdz: *mut T) {
    let mut mean = T::ZERO;
    for i in 0..n {
        // SAFETY: i < n.
        mean += unsafe { *p.add(i) * *rz.add(i) };
    }
    for i in 0..n {
        // SAFETY: i < n.
        unsafe { *rdz.add(i) = scale * *p.add(i) * (*rz.add(i) - mean) };
    }
}
