//! Softmax cross-entropy of rows with few classes: a lane a row, a vector a class. In a register of its own a row would fill 5
//! of 8 or 16 lanes and wait for its largest logit and its sum to pass through all of them; from 7 classes on that is faster, as
//! moving elements between rows and lanes takes time with each.
//!
//! One pass: a block of as many rows as a vector has lanes is read once, its softmax and gradient are written once.

use super::softmax_xent::{Block, Loss};
use super::{Lanes, MOST_LANES, exp_nonpositive};
use crate::dtype::Element;

/// All rows, of `C` classes.
///
/// # Safety
/// As [`softmax_xent`](super::softmax_xent), and n = C.
#[inline(always)]
pub unsafe fn few_classes<L: Lanes, const C: usize>(b: &Block<L::T>) -> f64 {
    let mut loss = Loss::new(C);
    let (mut shifted, mut softmax) = ([[L::T::ZERO; MOST_LANES]; C], [[L::T::ZERO; MOST_LANES]; C]);
    let mut sums = [L::T::ZERO; MOST_LANES];
    for first in (0..b.m).step_by(L::N) {
        let rows = L::N.min(b.m - first);
        // SAFETY: row i < m, target < n; a register's lanes fit each array. All of a block's logits are read before its dz,
        // which may be z, is written.
        unsafe {
            let mut x = L::rows_in_lanes::<C>(b.z.add(first * b.ld), b.ld, rows);
            let max = x.iter().fold(L::splat(L::T::NEG_INFINITY), |max, x| max.max(*x));
            let mut sum = L::splat(L::T::ZERO);
            for (x, shifted) in x.iter_mut().zip(&mut shifted) {
                *x = x.sub(max);
                x.store(shifted.as_mut_ptr());
                *x = exp_nonpositive(*x);
                sum = sum.add(*x);
            }
            sum.store(sums.as_mut_ptr());
            let inverse = L::splat(L::T::ONE).div(sum);
            for (x, softmax) in x.iter_mut().zip(&mut softmax) {
                *x = x.mul(inverse);
                x.store(softmax.as_mut_ptr());
            }
            let (p, dz) = (b.p.add(first * C), b.dz.add(first * C));
            L::store_rows(&x, p, rows);
            for x in &mut x {
                *x = x.mul(L::splat(b.scale));
            }
            L::store_rows(&x, dz, rows);
            for (i, &sum) in sums.iter().take(rows).enumerate() {
                let target = *b.targets.add(first + i) as usize;
                *dz.add(i * C + target) = (*softmax.get_unchecked(target).get_unchecked(i) - L::T::ONE) * b.scale;
                loss.add(sum, *shifted.get_unchecked(target).get_unchecked(i));
            }
        }
    }
    loss.total()
}
