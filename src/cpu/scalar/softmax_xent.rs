//! Softmax cross-entropy: loss, gradient and R-operator of rows of logits.

use crate::dtype::Element;

/// # Safety
/// See [`Ops::softmax_xent`](crate::cpu::contract::Ops::softmax_xent).
#[expect(clippy::too_many_arguments, reason = "the contract's operands")]
pub unsafe fn softmax_xent<T: Element>(
    m: usize,
    n: usize,
    z: *const T,
    ld: usize,
    targets: *const u32,
    scale: T,
    p: *mut T,
    dz: *mut T,
) -> T {
    let mut loss = T::ZERO;
    for i in 0..m {
        // SAFETY: i < m: row i of each operand is valid, its target is below n.
        loss += unsafe { row(n, z.add(i * ld), *targets.add(i) as usize, scale, p.add(i * n), dz.add(i * n)) };
    }
    loss
}

/// # Safety
/// See [`Ops::softmax_xent_rop`](crate::cpu::contract::Ops::softmax_xent_rop).
pub unsafe fn softmax_xent_rop<T: Element>(m: usize, n: usize, p: *const T, rz: *const T, scale: T, rdz: *mut T) {
    for i in 0..m {
        // SAFETY: i < m: row i of each operand is valid.
        unsafe { row_rop(n, p.add(i * n), rz.add(i * n), scale, rdz.add(i * n)) };
    }
}

/// # Safety
/// `n` elements of `z` are readable, of `p` and `dz` writable; `target < n`.
unsafe fn row<T: Element>(n: usize, z: *const T, target: usize, scale: T, p: *mut T, dz: *mut T) -> T {
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
unsafe fn row_rop<T: Element>(n: usize, p: *const T, rz: *const T, scale: T, rdz: *mut T) {
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
