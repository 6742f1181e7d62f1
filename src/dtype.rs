//! The element types the engine computes in, and those a matrix may be stored in.
#![forbid(unsafe_code)]

use std::fmt::{Debug, Display};
use std::ops::{Add, AddAssign, Div, Mul, MulAssign, Neg, Sub, SubAssign};

use bytemuck::Pod;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use serde::{Deserialize, Serialize};

/// The name of an element type, as files and reports spell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// IEEE 754 binary16: 11 significant bits, up to 65504.
    F16,
    /// The upper half of a binary32: 8 significant bits, its whole range.
    Bf16,
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary64: the reference precision.
    F64,
}

impl Dtype {
    /// `f16`, `bf16`, `f32` or `f64`.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F16 => "f16",
            Dtype::Bf16 => "bf16",
            Dtype::F32 => "f32",
            Dtype::F64 => "f64",
        }
    }
}

/// A number the kernels compute with: f32 for work, f64 for reference.
pub trait Element:
    Copy
    + Pod
    + Send
    + Sync
    + Default
    + Debug
    + Display
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
    + 'static
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// The smallest value, below every logit.
    const NEG_INFINITY: Self;
    /// The type's name.
    const DTYPE: Dtype;
    /// The nearest value of this type.
    fn from_f64(x: f64) -> Self;
    /// The same value (f32) or the exact widening of it.
    fn to_f64(self) -> f64;
    /// e^self.
    fn exp(self) -> Self;
    /// The natural logarithm.
    fn ln(self) -> Self;
    /// The square root.
    fn sqrt(self) -> Self;
    /// `self * a + b` with one rounding.
    fn mul_add(self, a: Self, b: Self) -> Self;
    /// Neither infinite nor NaN.
    fn is_finite(self) -> bool;
    /// The larger; NaN loses to a number.
    fn max(self, other: Self) -> Self;
}

macro_rules! element {
    ($t:ty, $dtype:expr) => {
        impl Element for $t {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const NEG_INFINITY: Self = <$t>::NEG_INFINITY;
            const DTYPE: Dtype = $dtype;
            #[inline(always)]
            fn from_f64(x: f64) -> Self {
                x as $t
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
            #[inline(always)]
            fn exp(self) -> Self {
                <$t>::exp(self)
            }
            #[inline(always)]
            fn ln(self) -> Self {
                <$t>::ln(self)
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                <$t>::sqrt(self)
            }
            #[inline(always)]
            fn mul_add(self, a: Self, b: Self) -> Self {
                <$t>::mul_add(self, a, b)
            }
            #[inline(always)]
            fn is_finite(self) -> bool {
                <$t>::is_finite(self)
            }
            #[inline(always)]
            fn max(self, other: Self) -> Self {
                <$t>::max(self, other)
            }
        }
    };
}

element!(f32, Dtype::F32);
element!(f64, Dtype::F64);

/// How the numbers of a matrix are stored: as the `T` that is computed with, or in half the bits of an f32.
///
/// Sums of stored numbers are formed in `T`. Storing rounds to the nearest stored number, ties to even; a number beyond
/// the stored range becomes an infinity.
pub trait Stored<T: Element>: Copy + Pod + Send + Sync + Default + Debug + PartialEq + 'static {
    /// The type's name.
    const STORED: Dtype;
    /// The same value.
    fn widen(self) -> T;
    /// The nearest stored value, ties to even.
    fn narrow(x: T) -> Self;
    /// Lets `change` work on a stored row in `T`, in place where it is stored so and in `wide` otherwise.
    fn change_row<R>(row: &mut [Self], wide: &mut [T], change: impl FnOnce(&mut [T]) -> R) -> R;
}

impl<T: Element> Stored<T> for T {
    const STORED: Dtype = T::DTYPE;
    #[inline(always)]
    fn widen(self) -> T {
        self
    }
    #[inline(always)]
    fn narrow(x: T) -> Self {
        x
    }
    fn change_row<R>(row: &mut [T], _: &mut [T], change: impl FnOnce(&mut [T]) -> R) -> R {
        change(row)
    }
}

macro_rules! stored_in_half {
    ($t:ty, $dtype:expr) => {
        impl Stored<f32> for $t {
            const STORED: Dtype = $dtype;
            #[inline(always)]
            fn widen(self) -> f32 {
                self.to_f32()
            }
            #[inline(always)]
            fn narrow(x: f32) -> Self {
                <$t>::from_f32(x)
            }
            fn change_row<R>(row: &mut [Self], wide: &mut [f32], change: impl FnOnce(&mut [f32]) -> R) -> R {
                let wide = &mut wide[..row.len()];
                // The machine's own conversions where it has them, eight numbers at a time.
                row.convert_to_f32_slice(wide);
                let result = change(wide);
                row.convert_from_f32_slice(wide);
                result
            }
        }
    };
}

stored_in_half!(f16, Dtype::F16);
stored_in_half!(bf16, Dtype::Bf16);
