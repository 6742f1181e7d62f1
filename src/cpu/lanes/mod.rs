//! Kernels written once over a vector register: [`Lanes`] names what they need of it, each instruction set fills it in.
//!
//! Everything here is inlined into an instruction set's entry, which enables the instructions; nothing is called across.

mod col_sum;
mod few_classes;
mod few_columns;
mod few_rows;
mod finish;
mod fma_chains;
mod rank_update;
mod softmax_xent;

pub use col_sum::col_sum;
pub use few_columns::few_columns;
pub use few_rows::few_rows;
pub use finish::{begin, finish};
pub use fma_chains::{CHAINS, fma_chains};
pub use rank_update::rank_update;
pub use softmax_xent::{softmax_xent, softmax_xent_rop};

use crate::dtype::Element;

/// A vector register of elements.
///
/// # Safety
/// Every function may be called only where the register's instructions are enabled and there. Pointers are valid for
/// the elements loaded or stored; `left` is from 1 to `N`.
pub trait Lanes: Copy {
    /// What a lane holds.
    type T: ExpElement;
    /// How many lanes.
    const N: usize;
    /// How many such registers there are.
    const REGISTERS: usize;
    /// `x` in every lane.
    unsafe fn splat(x: Self::T) -> Self;
    /// `N` elements from `src` on.
    unsafe fn load(src: *const Self::T) -> Self;
    /// The first `left` elements from `src` on; `rest` in the lanes behind. Reads no element behind.
    unsafe fn load_first(src: *const Self::T, left: usize, rest: Self::T) -> Self;
    /// All lanes to `dst` on.
    unsafe fn store(self, dst: *mut Self::T);
    /// The first `left` lanes to `dst` on. Writes no element behind.
    unsafe fn store_first(self, dst: *mut Self::T, left: usize);
    /// `self + b`.
    unsafe fn add(self, b: Self) -> Self;
    /// `self - b`.
    unsafe fn sub(self, b: Self) -> Self;
    /// `self * b`.
    unsafe fn mul(self, b: Self) -> Self;
    /// `self / b`.
    unsafe fn div(self, b: Self) -> Self;
    /// `self * b + c`, rounded once.
    unsafe fn fma(self, b: Self, c: Self) -> Self;
    /// The larger; where `x` is NaN, NaN.
    unsafe fn max(self, x: Self) -> Self;
    /// `self` in lanes where `x > 0`, elsewhere 0.
    unsafe fn where_positive(self, x: Self) -> Self;
    /// `self * b + c` in lanes where `x > 0`, elsewhere `c`; `self` is finite.
    #[inline(always)]
    unsafe fn fma_where_positive(self, b: Self, c: Self, x: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { self.fma(b.where_positive(x), c) }
    }
    /// The nearest integer, ties to even.
    unsafe fn round(self) -> Self;
    /// `self * 2^n` for integers n whose power is a normal number; 0 where `x < floor`.
    unsafe fn times_power_of_two(self, n: Self, x: Self, floor: Self) -> Self;
    /// `self`, less 1 in lane `lane` if there is such a lane.
    unsafe fn less_one_at(self, lane: usize) -> Self;
    /// The sum of the lanes, halves added to halves.
    unsafe fn sum(self) -> Self::T;
    /// The sum of each vector's lanes, added up as in [`Lanes::sum`]; as many vectors as sums.
    #[inline(always)]
    unsafe fn sum_each(vectors: &[Self], sums: &mut [Self::T]) {
        for (sum, vector) in sums.iter_mut().zip(vectors) {
            // SAFETY: the trait's contract.
            *sum = unsafe { vector.sum() };
        }
    }
    /// The largest lane.
    unsafe fn largest(self) -> Self::T;
    /// Lane i of vector j: element j of row i, the rows `ld` elements apart, for i < rows; lanes behind them hold any number.
    #[inline(always)]
    unsafe fn rows_in_lanes<const C: usize>(src: *const Self::T, ld: usize, rows: usize) -> [Self; C] {
        // SAFETY: the trait's contract.
        unsafe { gathered(src, ld, rows) }
    }
    /// The reverse, to rows without gaps: element j of row i is lane i of vector j.
    #[inline(always)]
    unsafe fn store_rows<const C: usize>(vectors: &[Self; C], dst: *mut Self::T, rows: usize) {
        let mut lanes = [[Self::T::ZERO; MOST_LANES]; C];
        // SAFETY: the trait's contract; as in `gathered`.
        unsafe {
            for (vector, lanes) in vectors.iter().zip(&mut lanes) {
                vector.store(lanes.as_mut_ptr());
            }
            for i in 0..rows {
                for (j, lanes) in lanes.iter().enumerate() {
                    *dst.add(i * C + j) = *lanes.get_unchecked(i);
                }
            }
        }
    }
}

/// [`Lanes::rows_in_lanes`] element by element through the stack.
///
/// # Safety
/// As the function.
#[inline(always)]
pub unsafe fn gathered<L: Lanes, const C: usize>(src: *const L::T, ld: usize, rows: usize) -> [L; C] {
    let mut lanes = [[L::T::ZERO; MOST_LANES]; C];
    // SAFETY: the trait's contract; i < rows, which is at most `N`, and a vector fits into an array.
    unsafe {
        for i in 0..rows {
            for (j, lanes) in lanes.iter_mut().enumerate() {
                *lanes.get_unchecked_mut(i) = *src.add(i * ld + j);
            }
        }
        let mut x = [L::splat(L::T::ZERO); C];
        for (x, lanes) in x.iter_mut().zip(&lanes) {
            *x = L::load(lanes.as_ptr());
        }
        x
    }
}

/// Lanes of the longest register.
const MOST_LANES: usize = 16;

/// The numbers the exponential needs of an element type.
pub trait ExpElement: Element {
    /// 1 / ln 2.
    const LOG2_E: Self;
    /// ln 2 in two parts: the first one has trailing zeros, so that its products with small integers are exact.
    const MINUS_LN2: [Self; 2];
    /// Below it the exponential is 0: every power of two above is a normal number.
    const EXP_FLOOR: Self;
    /// The coefficients of r^2, r^3, ...
    const EXP_TERMS: &'static [Self];
}

/// `EXP_TERMS` interpolates (e^r - 1 - r) / r^2 at Chebyshev's points of [-ln 2 / 2, ln 2 / 2], widened by a thousandth:
/// `1 + r + r^2 q(r)` is off by 1.1e-8 of itself (half a unit in the last place is 6e-8).
impl ExpElement for f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    const MINUS_LN2: [f32; 2] = [-0.693_359_4, 2.121_944_4e-4];
    const EXP_FLOOR: f32 = -87.3;
    const EXP_TERMS: &'static [f32] = &[0.5, 0.166_665_77, 0.041_666_554, 0.008_363_233, 0.001_392_625_1];
}

/// As for f32, two powers for each of its one: off by 1.8e-17 (half a unit is 1.1e-16).
impl ExpElement for f64 {
    const LOG2_E: f64 = std::f64::consts::LOG2_E;
    const MINUS_LN2: [f64; 2] = [-0.693_147_180_485_539_1, -7.440_617_110_012_397e-11];
    const EXP_FLOOR: f64 = -708.3;
    const EXP_TERMS: &'static [f64] = &[
        0.500_000_000_000_000_1,
        0.166_666_666_666_666_67,
        0.041_666_666_666_623_82,
        0.008_333_333_333_330_038,
        0.001_388_888_891_736_708_1,
        1.984_126_986_317_155_6e-4,
        2.480_152_105_786_820_7e-5,
        2.755_726_827_690_569_6e-6,
        2.762_020_159_103_155e-7,
        2.510_047_250_569_5e-8,
    ];
}

/// e^x for x <= 0 (a logit less the largest): 2^n e^r with n = round(x / ln 2), r = x - n ln 2 with ln 2 in two parts
/// (Cody and Waite, "Software manual for the elementary functions", 1980), e^r by a polynomial.
///
/// Off by less than one unit in the last place down to `EXP_FLOOR`, and 0 below it, where e^x is denormal or (for
/// the last 0.04 above) less than 1.05 times the smallest normal number. NaN gives NaN. A polynomial of f32 is 6 steps, each
/// waiting for the one before: 24 cycles, in which other vectors' and other rows' steps run.
///
/// # Safety
/// The register's instructions are there.
#[inline(always)]
pub unsafe fn exp_nonpositive<L: Lanes>(x: L) -> L {
    // SAFETY: the caller vouches for the instructions; nothing touches memory.
    unsafe {
        let floor = L::splat(L::T::EXP_FLOOR);
        let clamped = floor.max(x);
        let n = clamped.mul(L::splat(L::T::LOG2_E)).round();
        let r = n.fma(L::splat(L::T::MINUS_LN2[0]), clamped);
        let r = n.fma(L::splat(L::T::MINUS_LN2[1]), r);
        let mut terms = L::T::EXP_TERMS.iter().rev();
        let mut poly = L::splat(*terms.next().expect("a polynomial has terms"));
        for &term in terms {
            poly = poly.fma(r, L::splat(term));
        }
        let one = L::splat(L::T::ONE);
        poly.fma(r, one).fma(r, one).times_power_of_two(n, x, floor)
    }
}

/// Loads vector `v` of a row of n elements; behind the row's end stands `rest`. `v` is the last one or before it.
///
/// # Safety
/// The register's instructions are there; the row's elements are readable.
#[inline(always)]
pub unsafe fn load_vector<L: Lanes>(row: *const L::T, n: usize, v: usize, rest: L::T) -> L {
    // SAFETY: elements below n are read only: `left` counts those from this vector's first on.
    unsafe {
        match n - v * L::N {
            left if left >= L::N => L::load(row.add(v * L::N)),
            left => L::load_first(row.add(v * L::N), left, rest),
        }
    }
}

/// Stores `x` as vector `v` of a row of n elements.
///
/// # Safety
/// The register's instructions are there; the row's elements are writable.
#[inline(always)]
pub unsafe fn store_vector<L: Lanes>(x: L, row: *mut L::T, n: usize, v: usize) {
    // SAFETY: as in `load_vector`.
    unsafe {
        match n - v * L::N {
            left if left >= L::N => x.store(row.add(v * L::N)),
            left => x.store_first(row.add(v * L::N), left),
        }
    }
}

/// Compares an exponential with the system's over its range, at every 997th f32 and, for f64, between them; called by each
/// instruction set's test. f64's system exponential is itself off by up to half a unit, hence the wider bound.
#[cfg(test)]
pub fn check_exponential<T: ExpElement>(name: &str, exp: impl Fn(T) -> T) {
    let (bits, limit) = if T::DTYPE == crate::Dtype::F32 { (23, 1.0) } else { (52, 1.5) };
    let stretch = T::EXP_FLOOR.to_f64() / f64::from(f32::EXP_FLOOR);
    let mut worst = 0.0f64;
    for x in (0x8000_0000..=0xc2d0_0000u32).step_by(997).map(f32::from_bits) {
        let x = T::from_f64(f64::from(x) * stretch);
        let (found, wanted) = (exp(x).to_f64(), x.to_f64().exp());
        if x < T::EXP_FLOOR {
            assert_eq!(found, 0.0, "{name}: e^{x}");
        } else {
            worst = worst.max((found - wanted).abs() / (wanted.log2().floor() - f64::from(bits)).exp2());
        }
    }
    println!("{name}: the exponential is off by at most {worst:.3} units in the last place");
    assert!(worst < limit, "{name}: off by {worst} units in the last place");
    assert!(exp(T::from_f64(f64::NAN)).to_f64().is_nan(), "{name}: NaN became a number");
    assert_eq!(exp(T::NEG_INFINITY), T::ZERO, "{name}");
}
