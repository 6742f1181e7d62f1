//! Floating-point arithmetic and comparison (PTX ISA 9.7.3, 9.7.4, 9.7.7).
//!
//! f32 and f64 are exact as the ISA rounds them; 16-bit types are computed in f64 and rounded once. The approximate
//! functions of the hardware (`ex2.approx`, `rsqrt.approx`, ...) are given the correctly rounded value: an error they
//! may have on a GPU doesn't show here.

use half::{bf16, f16};

use crate::inst::{Cmp, Float1, Float2, FloatMode, Round};
use crate::integer::{map1, map2, map3};
use crate::types::{Ty, bits_of, f32_of};
use crate::warp::Lanes;

/// Subnormal numbers to zero of their sign.
pub(crate) fn flush(x: f32) -> f32 {
    if x.is_subnormal() { 0f32.copysign(x) } else { x }
}

/// `high + low`, `|low|` at most half a unit of `high`'s last place, rounded once to f32.
pub(crate) fn round_to_f32(high: f64, low: f64, round: Round) -> f32 {
    if !high.is_finite() {
        return high as f32;
    }
    let nearest = high as f32;
    let rest = if nearest.is_finite() { high - f64::from(nearest) } else { -f64::from(nearest) };
    // The sign of what the rounded value lacks.
    let lacks = if rest != 0.0 { rest } else { low };
    match round {
        Round::Down if lacks < 0.0 => nearest.next_down(),
        Round::Up if lacks > 0.0 => nearest.next_up(),
        Round::Zero if lacks < 0.0 && nearest > 0.0 => nearest.next_down(),
        Round::Zero if lacks > 0.0 && nearest < 0.0 => nearest.next_up(),
        _ => nearest,
    }
}

/// `a + b` as a rounded sum and its error (Knuth's TwoSum).
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let part = sum - a;
    (sum, (a - (sum - part)) + (b - part))
}

/// A 16-bit float's value.
pub(crate) fn widen(ty: Ty, bits: u16) -> f64 {
    if matches!(ty, Ty::Bf16 | Ty::Bf16x2) { bf16::from_bits(bits).to_f64() } else { f16::from_bits(bits).to_f64() }
}

/// Rounded to nearest to a 16-bit float.
pub(crate) fn narrow(ty: Ty, x: f64) -> u16 {
    if matches!(ty, Ty::Bf16 | Ty::Bf16x2) { bf16::from_f64(x).to_bits() } else { f16::from_f64(x).to_bits() }
}

/// The value of one float of a scalar type.
pub(crate) fn value(ty: Ty, x: u64) -> f64 {
    match ty {
        Ty::F64 => f64::from_bits(x),
        Ty::F32 | Ty::Tf32 => f64::from(f32_of(x)),
        _ => widen(ty, x as u16),
    }
}

fn one<T: Real>(op: Float1, x: T) -> T {
    match op {
        Float1::Neg => T::of(-x.wide()),
        Float1::Abs => T::of(x.wide().abs()),
        Float1::Sqrt => T::of(x.wide().sqrt()),
        Float1::Rsqrt => T::of(1.0 / x.wide().sqrt()),
        Float1::Rcp => T::of(1.0 / x.wide()),
        Float1::Ex2 => T::of(x.wide().exp2()),
        Float1::Lg2 => T::of(x.wide().log2()),
        Float1::Sin => T::of(x.wide().sin()),
        Float1::Cos => T::of(x.wide().cos()),
        Float1::Tanh => T::of(x.wide().tanh()),
    }
}

/// A type computed by way of f64.
trait Real: Copy {
    fn wide(self) -> f64;
    fn of(x: f64) -> Self;
}

impl Real for f32 {
    fn wide(self) -> f64 {
        f64::from(self)
    }
    fn of(x: f64) -> Self {
        x as f32
    }
}

impl Real for f64 {
    fn wide(self) -> f64 {
        self
    }
    fn of(x: f64) -> Self {
        x
    }
}

/// The smaller one: -0 is less than +0, and a number goes before NaN unless `nan`.
fn least(a: f64, b: f64, nan: bool) -> f64 {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => f64::NAN,
        (true, false) => {
            if nan {
                a
            } else {
                b
            }
        }
        (false, true) => {
            if nan {
                b
            } else {
                a
            }
        }
        _ if a == b => {
            if a.is_sign_negative() {
                a
            } else {
                b
            }
        }
        _ => {
            if a < b {
                a
            } else {
                b
            }
        }
    }
}

fn two(op: Float2, a: f64, b: f64) -> f64 {
    match op {
        Float2::Add => a + b,
        Float2::Sub => a - b,
        Float2::Mul => a * b,
        Float2::Div => a / b,
        Float2::Min => least(a, b, false),
        Float2::Max => -least(-a, -b, false),
        Float2::MinNan => least(a, b, true),
        Float2::MaxNan => -least(-a, -b, true),
        // The sign of the first, the magnitude of the second.
        Float2::Copysign => b.copysign(a),
    }
}

/// Exact result of an f32 operation, as a sum of two f64, for directed rounding.
fn exact(op: Float2, a: f32, b: f32) -> (f64, f64) {
    let (a, b) = (f64::from(a), f64::from(b));
    match op {
        Float2::Add => two_sum(a, b),
        Float2::Sub => two_sum(a, -b),
        _ => (two(op, a, b), 0.0),
    }
}

/// Applies an operation on f32 with the modifiers.
#[inline(always)]
fn single(mode: FloatMode, f: impl Fn() -> f32) -> f32 {
    let mut x = f();
    if mode.ftz {
        x = flush(x);
    }
    if mode.sat {
        x = if x.is_nan() { 0.0 } else { x.clamp(0.0, 1.0) };
    }
    if mode.relu {
        x = if x.is_nan() { x } else { x.max(0.0) };
    }
    x
}

#[inline(always)]
fn operand(mode: FloatMode, x: u64) -> f32 {
    let x = f32_of(x);
    if mode.ftz { flush(x) } else { x }
}

/// Applies `f` to each 16-bit half that the type has.
fn halves(mode: FloatMode, args: [u64; 3], f: impl Fn([f64; 3]) -> f64) -> u64 {
    let n = if matches!(mode.ty, Ty::F16x2 | Ty::Bf16x2) { 2 } else { 1 };
    (0..n).fold(0, |out, i| {
        let mut x = f(args.map(|a| widen(mode.ty, (a >> (16 * i)) as u16)));
        if mode.sat {
            x = if x.is_nan() { 0.0 } else { x.clamp(0.0, 1.0) };
        }
        if mode.relu && x < 0.0 {
            x = 0.0;
        }
        out | u64::from(narrow(mode.ty, x)) << (16 * i)
    })
}

/// Applies an f32 operation to both halves of a pair.
fn pair(args: [u64; 3], f: impl Fn([u64; 3]) -> u64) -> u64 {
    f(args.map(|a| a & 0xffff_ffff)) | f(args.map(|a| a >> 32)) << 32
}

pub(crate) fn float1(op: Float1, mode: FloatMode, a: &Lanes) -> Lanes {
    match mode.ty {
        Ty::F32 => match op {
            // Signs are bits: NaN keeps its payload.
            Float1::Neg if !mode.ftz => map1(a, |x| (x ^ 0x8000_0000) & 0xffff_ffff),
            Float1::Abs if !mode.ftz => map1(a, |x| x & 0x7fff_ffff),
            _ => map1(a, |x| bits_of(single(mode, || one(op, operand(mode, x))))),
        },
        Ty::F64 => map1(a, |x| one(op, f64::from_bits(x)).to_bits()),
        Ty::F32x2 => map1(a, |x| pair([x, 0, 0], |[x, ..]| bits_of(single(mode, || one(op, operand(mode, x)))))),
        _ => map1(a, |x| halves(mode, [x, 0, 0], |[x, ..]| one(op, x))),
    }
}

fn single2(op: Float2, mode: FloatMode, a: u64, b: u64) -> u64 {
    let (x, y) = (operand(mode, a), operand(mode, b));
    bits_of(single(mode, || {
        if mode.round != Round::Nearest {
            let (high, low) = exact(op, x, y);
            return round_to_f32(high, low, mode.round);
        }
        match op {
            Float2::Add => x + y,
            Float2::Sub => x - y,
            Float2::Mul => x * y,
            Float2::Div => x / y,
            _ => two(op, f64::from(x), f64::from(y)) as f32,
        }
    }))
}

pub(crate) fn float2(op: Float2, mode: FloatMode, a: &Lanes, b: &Lanes) -> Lanes {
    let plain = !(mode.ftz || mode.sat || mode.relu) && mode.round == Round::Nearest;
    match (mode.ty, op) {
        (Ty::F32, Float2::Add) if plain => map2(a, b, |a, b| bits_of(f32_of(a) + f32_of(b))),
        (Ty::F32, Float2::Sub) if plain => map2(a, b, |a, b| bits_of(f32_of(a) - f32_of(b))),
        (Ty::F32, Float2::Mul) if plain => map2(a, b, |a, b| bits_of(f32_of(a) * f32_of(b))),
        (Ty::F32, _) => map2(a, b, |a, b| single2(op, mode, a, b)),
        (Ty::F32x2, _) => map2(a, b, |a, b| pair([a, b, 0], |[a, b, _]| single2(op, mode, a, b))),
        (Ty::F64, _) => map2(a, b, |a, b| two(op, f64::from_bits(a), f64::from_bits(b)).to_bits()),
        _ => map2(a, b, |a, b| halves(mode, [a, b, 0], |[a, b, _]| two(op, a, b))),
    }
}

fn fma_single(mode: FloatMode, [a, b, c]: [u64; 3]) -> u64 {
    let (x, y, z) = (operand(mode, a), operand(mode, b), operand(mode, c));
    bits_of(single(mode, || {
        if mode.round == Round::Nearest {
            return x.mul_add(y, z);
        }
        // The product of two f32 is exact in f64.
        let (high, low) = two_sum(f64::from(x) * f64::from(y), f64::from(z));
        round_to_f32(high, low, mode.round)
    }))
}

pub(crate) fn fma(mode: FloatMode, a: &Lanes, b: &Lanes, c: &Lanes) -> Lanes {
    let plain = !(mode.ftz || mode.sat || mode.relu) && mode.round == Round::Nearest;
    match mode.ty {
        Ty::F32 if plain => map3(a, b, c, |a, b, c| bits_of(f32_of(a).mul_add(f32_of(b), f32_of(c)))),
        Ty::F32 => map3(a, b, c, |a, b, c| fma_single(mode, [a, b, c])),
        Ty::F32x2 => map3(a, b, c, |a, b, c| pair([a, b, c], |x| fma_single(mode, x))),
        Ty::F64 => map3(a, b, c, |a, b, c| f64::from_bits(a).mul_add(f64::from_bits(b), f64::from_bits(c)).to_bits()),
        _ => map3(a, b, c, |a, b, c| halves(mode, [a, b, c], |[a, b, c]| a.mul_add(b, c))),
    }
}

/// `a cmp b` of two values of a type.
pub(crate) fn compare(cmp: Cmp, ty: Ty, ftz: bool, a: u64, b: u64) -> bool {
    use std::cmp::Ordering::*;
    if ty.is_float() {
        let get = |x| if ftz && ty == Ty::F32 { f64::from(flush(f32_of(x))) } else { value(ty, x) };
        let order = get(a).partial_cmp(&get(b));
        let unordered = order.is_none();
        return match cmp {
            Cmp::Eq => order == Some(Equal),
            Cmp::Ne => matches!(order, Some(Less | Greater)),
            Cmp::Lt | Cmp::Lo => order == Some(Less),
            Cmp::Le | Cmp::Ls => matches!(order, Some(Less | Equal)),
            Cmp::Gt | Cmp::Hi => order == Some(Greater),
            Cmp::Ge | Cmp::Hs => matches!(order, Some(Greater | Equal)),
            Cmp::Equ => unordered || order == Some(Equal),
            Cmp::Neu => order != Some(Equal),
            Cmp::Ltu => unordered || order == Some(Less),
            Cmp::Leu => order != Some(Greater),
            Cmp::Gtu => unordered || order == Some(Greater),
            Cmp::Geu => order != Some(Less),
            Cmp::Num => !unordered,
            Cmp::Nan => unordered,
        };
    }
    let signed = ty.is_signed() && !matches!(cmp, Cmp::Lo | Cmp::Ls | Cmp::Hi | Cmp::Hs);
    let (a, b) = if ty == Ty::Pred { (a & 1, b & 1) } else { (ty.extend(a), ty.extend(b)) };
    let order = if signed { (a as i64).cmp(&(b as i64)) } else { (a & ty.mask()).cmp(&(b & ty.mask())) };
    match cmp {
        Cmp::Eq | Cmp::Equ => order == Equal,
        Cmp::Ne | Cmp::Neu => order != Equal,
        Cmp::Lt | Cmp::Lo | Cmp::Ltu => order == Less,
        Cmp::Le | Cmp::Ls | Cmp::Leu => order != Greater,
        Cmp::Gt | Cmp::Hi | Cmp::Gtu => order == Greater,
        Cmp::Ge | Cmp::Hs | Cmp::Geu => order != Less,
        Cmp::Num => true,
        Cmp::Nan => false,
    }
}
