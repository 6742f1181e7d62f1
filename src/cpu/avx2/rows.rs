//! Addresses of the rows of A in a GEMM tile, without arithmetic in its loop.
//!
//! x86 adds a base, a register times 1, 2, 4 or 8, and a constant for free. Row i of up to 14 is an odd number up to 13
//! times a power of two, so seven multiples of the stride reach them all. A compiler that sees that the multiples belong
//! together adds the stride row by row instead: 13 additions that wait for each other, longer than a narrow tile's sums.

use std::arch::asm;

/// Odd multiples of the row stride, in bytes: 1, 3, 5, .. 13 times.
#[derive(Clone, Copy)]
pub struct Rows([usize; 7]);

impl Rows {
    /// Rows `stride` bytes apart, as a constant: for rows that are neighbours.
    #[inline(always)]
    pub fn near(stride: usize) -> Self {
        Self([1, 3, 5, 7, 9, 11, 13].map(|odd| odd * stride))
    }

    /// Rows any number of bytes apart.
    #[inline(always)]
    pub fn far(stride: usize) -> Self {
        Self([1, 3, 5, 7, 9, 11, 13].map(|odd| opaque(stride.wrapping_mul(odd))))
    }

    /// Row `i` < 14 of those that begin at `a`.
    #[inline(always)]
    pub fn at<T>(self, a: *const T, i: usize) -> *const T {
        debug_assert!(i < 14);
        if i == 0 {
            return a;
        }
        let power = i.trailing_zeros();
        a.wrapping_byte_add(self.0[(i >> power) / 2] << power)
    }
}

/// The same number, of which the compiler knows nothing.
#[inline(always)]
fn opaque(mut x: usize) -> usize {
    // SAFETY: no instruction is executed.
    unsafe { asm!("/* {0} */", inout(reg) x, options(pure, nomem, nostack, preserves_flags)) };
    x
}

#[cfg(test)]
mod tests {
    use super::Rows;

    #[test]
    fn every_row_is_its_number_of_strides_away() {
        let a = std::ptr::without_provenance::<f32>(4096);
        for stride in [4, 28, 4096] {
            for rows in [Rows::near(stride), Rows::far(stride)] {
                for i in 0..14 {
                    assert_eq!(rows.at(a, i).addr(), 4096 + i * stride, "stride {stride}");
                }
            }
        }
    }
}
