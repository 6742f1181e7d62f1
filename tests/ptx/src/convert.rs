//! `cvt` (PTX ISA 9.7.9.21).

use half::{bf16, f16};

use crate::float::{flush, narrow, round_to_f32, value, widen};
use crate::inst::{Convert, Round};
use crate::types::{Ty, bits_of, f32_of};

/// One value; `upper` is the other half of a packed result.
pub(crate) fn convert(how: Convert, a: u64, upper: Option<u64>) -> u64 {
    if let Some(upper) = upper {
        return u64::from(pack(how, a)) | u64::from(pack(how, upper)) << 16;
    }
    match (how.from.is_float(), how.to.is_float()) {
        (false, false) => integer_to_integer(how, a),
        (false, true) => integer_to_float(how, a),
        (true, false) => float_to_integer(how, a),
        (true, true) => float_to_float(how, a),
    }
}

fn pack(how: Convert, a: u64) -> u16 {
    let mut x = value(how.from, a);
    if how.relu && x < 0.0 {
        x = 0.0;
    }
    narrow_by(how.to, x, how.round)
}

/// A 16-bit float, rounded to nearest or to zero.
fn narrow_by(ty: Ty, x: f64, round: Round) -> u16 {
    let nearest = narrow(ty, x);
    let past = widen(ty, nearest).abs() > x.abs();
    // One step towards zero is one less in the bits, whatever the sign.
    if round == Round::Zero && past && x.is_finite() { nearest - 1 } else { nearest }
}

/// The limits of an integer type.
fn limits(ty: Ty) -> (i128, i128) {
    let bits = ty.bits();
    if ty.is_signed() { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) }
}

fn integer(ty: Ty, a: u64) -> i128 {
    let x = ty.extend(a);
    if ty.is_signed() { i128::from(x as i64) } else { i128::from(x) }
}

fn integer_to_integer(how: Convert, a: u64) -> u64 {
    let mut x = integer(how.from, a);
    if how.sat {
        let (low, high) = limits(how.to);
        x = x.clamp(low, high);
    }
    how.to.extend(x as u64) & how.keep
}

fn integer_to_float(how: Convert, a: u64) -> u64 {
    let x = integer(how.from, a);
    match how.to {
        Ty::F64 => (x as f64).to_bits(),
        Ty::F32 if how.round == Round::Nearest => bits_of(x as f32),
        Ty::F32 => bits_of(round_to_f32(x as f64, (x - (x as f64) as i128) as f64, how.round)),
        ty => u64::from(narrow_by(ty, x as f64, how.round)),
    }
}

fn integral(x: f64, round: Round) -> f64 {
    match round {
        Round::Nearest => x.round_ties_even(),
        Round::Zero => x.trunc(),
        Round::Down => x.floor(),
        Round::Up => x.ceil(),
        Round::Away => x.round(),
    }
}

/// Out of range values become the nearest limit, NaN zero.
fn float_to_integer(how: Convert, a: u64) -> u64 {
    let mut x = value(how.from, a);
    if how.ftz {
        x = f64::from(flush(x as f32));
    }
    let (low, high) = limits(how.to);
    let i = (integral(x, how.round) as i128).clamp(low, high);
    how.to.extend(i as u64) & how.keep
}

/// The 10 upper bits of the significand, the others zero.
fn to_tf32(x: u64, round: Round) -> u64 {
    let bits = x as u32;
    if !f32_of(x).is_finite() {
        return x;
    }
    let half = match round {
        Round::Zero => 0,
        Round::Away => 0x1000,
        _ => 0xfff + (bits >> 13 & 1),
    };
    u64::from((bits + half) & !0x1fff)
}

fn float_to_float(how: Convert, a: u64) -> u64 {
    if how.to == Ty::Tf32 {
        return to_tf32(a, how.round);
    }
    let mut x = value(how.from, a);
    if how.ftz && how.from == Ty::F32 {
        x = f64::from(flush(f32_of(a)));
    }
    if how.integral {
        x = integral(x, how.round);
    }
    if how.sat {
        x = if x.is_nan() { 0.0 } else { x.clamp(0.0, 1.0) };
    }
    if how.relu && x < 0.0 {
        x = 0.0;
    }
    let round = if how.integral { Round::Nearest } else { how.round };
    match how.to {
        Ty::F64 => x.to_bits(),
        Ty::F32 => {
            let y = round_to_f32(x, 0.0, round);
            bits_of(if how.ftz { flush(y) } else { y })
        }
        ty => u64::from(narrow_by(ty, x, round)),
    }
}

/// The value of one element of an mma operand, as the tensor core sees it.
pub(crate) fn element(ty: Ty, bits: u32) -> f32 {
    match ty {
        Ty::Bf16 => bf16::from_bits(bits as u16).to_f32(),
        Ty::F16 => f16::from_bits(bits as u16).to_f32(),
        _ => f32::from_bits(bits & !0x1fff),
    }
}
