//! Dot products of token bags, by merging their rising token lists.

use crate::dtype::Element;

/// # Safety
/// `na` and `nb` elements of the two pairs of arrays are readable.
pub unsafe fn bag_dot<T: Element>(
    na: usize,
    tokens_a: *const u32,
    weights_a: *const T,
    nb: usize,
    tokens_b: *const u32,
    weights_b: *const T,
) -> T {
    let (mut i, mut j, mut sum) = (0, 0, T::ZERO);
    while i < na && j < nb {
        // SAFETY: i < na and j < nb.
        let (a, b) = unsafe { (*tokens_a.add(i), *tokens_b.add(j)) };
        if a == b {
            // SAFETY: as above.
            sum += unsafe { *weights_a.add(i) * *weights_b.add(j) };
        }
        // Branch-free advance: which list moves is random, so a branch here would be mispredicted half the time.
        i += usize::from(a <= b);
        j += usize::from(b <= a);
    }
    sum
}
