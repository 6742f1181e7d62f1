//! Operands: registers, constants, addresses, vectors.

use crate::inst::{Addr, Slot, Src};
use crate::symbols::{Symbol, Symbols, special};
use crate::types::Ty;

/// Why an operand can't be used.
pub(crate) type Parsed<T> = Result<T, String>;

/// Splits at commas outside of brackets.
pub(crate) fn split(text: &str) -> Vec<&str> {
    let (mut out, mut depth, mut start) = (Vec::new(), 0, 0);
    for (i, c) in text.char_indices() {
        match c {
            '{' | '[' | '(' => depth += 1,
            '}' | ']' | ')' => depth -= 1,
            ',' if depth == 0 => {
                out.push(text[start..i].trim());
                start = i + 1;
            }
            _ => {}
        }
    }
    let last = text[start..].trim();
    if !last.is_empty() || !out.is_empty() {
        out.push(last);
    }
    out
}

/// A literal: decimal, hexadecimal, octal or binary integers, `0f` and `0d` floats by their bits, decimal fractions.
pub(crate) fn literal(text: &str, ty: Ty) -> Option<u64> {
    let (negative, body) = match text.strip_prefix('-') {
        Some(body) => (true, body.trim()),
        None => (false, text),
    };
    let lower = body.to_ascii_lowercase();
    if let Some(bits) = lower.strip_prefix("0f").filter(|b| b.len() == 8) {
        let x = f32::from_bits(u32::from_str_radix(bits, 16).ok()?);
        return Some(float(f64::from(if negative { -x } else { x }), ty, true));
    }
    if let Some(bits) = lower.strip_prefix("0d").filter(|b| b.len() == 16) {
        let x = f64::from_bits(u64::from_str_radix(bits, 16).ok()?);
        return Some(float(if negative { -x } else { x }, ty, false));
    }
    let lower = lower.trim_end_matches('u');
    let integer = if let Some(hex) = lower.strip_prefix("0x") {
        u64::from_str_radix(hex, 16).ok()
    } else if let Some(binary) = lower.strip_prefix("0b") {
        u64::from_str_radix(binary, 2).ok()
    } else if lower.len() > 1 && lower.starts_with('0') && lower.bytes().all(|b| b.is_ascii_digit()) {
        u64::from_str_radix(lower, 8).ok()
    } else {
        lower.parse::<u64>().ok()
    };
    match integer {
        Some(x) if matches!(ty, Ty::F32 | Ty::F64 | Ty::Tf32) => {
            Some(float(if negative { -(x as f64) } else { x as f64 }, ty, ty != Ty::F64))
        }
        Some(x) => Some(if negative { x.wrapping_neg() } else { x } & ty.mask()),
        None if lower.contains('.') => {
            let x: f64 = lower.parse().ok()?;
            Some(float(if negative { -x } else { x }, ty, ty == Ty::F32))
        }
        None => None,
    }
}

/// A float's bits in the type it is used as; in untyped registers, single or double as it was written.
fn float(x: f64, ty: Ty, single: bool) -> u64 {
    match ty {
        Ty::F64 => x.to_bits(),
        Ty::F32 | Ty::Tf32 => u64::from((x as f32).to_bits()),
        _ if single => u64::from((x as f32).to_bits()),
        _ => x.to_bits(),
    }
}

/// A register that is written. `_` is one that nobody reads.
pub(crate) fn register(text: &str, symbols: &mut Symbols) -> Parsed<Slot> {
    if text == "_" {
        return Ok(symbols.registers(Ty::B64, 1));
    }
    match symbols.find(text) {
        Some(Symbol::Reg(slot)) => Ok(slot),
        _ => Err(format!("`{text}` is no register")),
    }
}

/// A value that is read.
pub(crate) fn source(text: &str, ty: Ty, symbols: &Symbols) -> Parsed<Src> {
    match symbols.find(text) {
        Some(Symbol::Reg(slot)) => return Ok(Src::Reg(slot)),
        Some(Symbol::Value(x)) => return Ok(Src::Imm(x)),
        Some(Symbol::Special(s)) => return Ok(Src::Special(s)),
        Some(Symbol::Family { .. } | Symbol::ModuleShared) | None => {}
    }
    if ty == Ty::Pred && (text == "true" || text == "false") {
        return Ok(Src::Imm(u64::from(text == "true")));
    }
    if let Some(s) = special(text) {
        return Ok(s);
    }
    if let Some((name, offset)) = text.split_once('+')
        && let (Some(Symbol::Value(x)), Some(y)) = (symbols.find(name.trim()), literal(offset.trim(), Ty::B64))
    {
        return Ok(Src::Imm(x.wrapping_add(y)));
    }
    literal(text, ty).map(Src::Imm).ok_or_else(|| format!("`{text}` is unknown"))
}

/// A predicate that is read, perhaps negated.
pub(crate) fn predicate(text: &str, symbols: &Symbols) -> Parsed<(Src, bool)> {
    match text.strip_prefix('!') {
        Some(name) => Ok((source(name.trim(), Ty::Pred, symbols)?, true)),
        None => Ok((source(text, Ty::Pred, symbols)?, false)),
    }
}

/// The parts of `{a, b}`, or the operand itself.
pub(crate) fn parts(text: &str) -> Vec<&str> {
    match text.strip_prefix('{').and_then(|t| t.strip_suffix('}')) {
        Some(inside) => split(inside),
        None => vec![text],
    }
}

/// `[base]`, `[base+offset]`, `[offset]`
pub(crate) fn address(text: &str, symbols: &Symbols) -> Parsed<Addr> {
    let wrong = || format!("`{text}` is no address");
    let inside = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).ok_or_else(wrong)?.trim();
    let at = inside.rfind(['+', '-']).filter(|&i| i > 0);
    let (base, offset) = match at {
        Some(i) => {
            let offset = inside[i..].trim_start_matches('+').trim();
            (inside[..i].trim().trim_end_matches('+').trim(), literal(offset, Ty::B64).ok_or_else(wrong)?)
        }
        None => (inside, 0),
    };
    Ok(Addr { base: source(base, Ty::B64, symbols)?, offset })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals() {
        assert_eq!(literal("0f3F800000", Ty::F32), Some(0x3f80_0000));
        assert_eq!(literal("0f3F800000", Ty::B32), Some(0x3f80_0000));
        assert_eq!(literal("0d3FF0000000000000", Ty::F64), Some(1f64.to_bits()));
        assert_eq!(literal("-1", Ty::S32), Some(0xffff_ffff));
        assert_eq!(literal("0xFFU", Ty::U32), Some(255));
        assert_eq!(literal("017", Ty::U32), Some(15));
        assert_eq!(literal("0b101", Ty::U32), Some(5));
        assert_eq!(literal("1.5", Ty::F32), Some(0x3fc0_0000));
        assert_eq!(literal("x", Ty::U32), None);
    }

    #[test]
    fn operands_split_outside_of_brackets() {
        assert_eq!(split("{%r1, %r2}, [%rd1+4], %r3"), ["{%r1, %r2}", "[%rd1+4]", "%r3"]);
        assert_eq!(parts("{%r1, %r2}"), ["%r1", "%r2"]);
        assert!(split("").is_empty());
    }
}
