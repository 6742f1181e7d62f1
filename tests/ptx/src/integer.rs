//! Integer and bit operations (PTX ISA 9.7.1, 9.7.2, 9.7.8).

use crate::inst::{Int1, Int2, Int3};
use crate::types::Ty;
use crate::warp::Lanes;

pub(crate) fn map1(a: &Lanes, f: impl Fn(u64) -> u64) -> Lanes {
    std::array::from_fn(|i| f(a[i]))
}

pub(crate) fn map2(a: &Lanes, b: &Lanes, f: impl Fn(u64, u64) -> u64) -> Lanes {
    std::array::from_fn(|i| f(a[i], b[i]))
}

pub(crate) fn map3(a: &Lanes, b: &Lanes, c: &Lanes, f: impl Fn(u64, u64, u64) -> u64) -> Lanes {
    std::array::from_fn(|i| f(a[i], b[i], c[i]))
}

pub(crate) fn int1(op: Int1, ty: Ty, a: &Lanes) -> Lanes {
    let bits = ty.bits();
    let mask = if ty == Ty::Pred { 1 } else { ty.mask() };
    let find = |x: u64| {
        let x = ty.extend(x);
        let x = if ty.is_signed() && (x as i64) < 0 { !x } else { x } & mask;
        if x == 0 { None } else { Some(63 - x.leading_zeros()) }
    };
    match op {
        Int1::Neg => map1(a, |x| x.wrapping_neg() & mask),
        Int1::Abs => map1(a, |x| (ty.extend(x) as i64).wrapping_abs() as u64 & mask),
        Int1::Not => map1(a, |x| !x & mask),
        Int1::Cnot => map1(a, |x| u64::from(x & mask == 0)),
        Int1::Popc => map1(a, |x| u64::from((x & mask).count_ones())),
        Int1::Clz => map1(a, |x| u64::from((x & mask).leading_zeros() + bits - 64)),
        Int1::Brev => map1(a, |x| (x & mask).reverse_bits() >> (64 - bits)),
        Int1::Bfind => map1(a, |x| find(x).map_or(0xffff_ffff, u64::from)),
        Int1::BfindShift => map1(a, |x| find(x).map_or(0xffff_ffff, |at| u64::from(bits - 1 - at))),
    }
}

/// The upper half of a product.
fn high(ty: Ty, a: u64, b: u64) -> u64 {
    let product = if ty.is_signed() {
        (i128::from(ty.extend(a) as i64) * i128::from(ty.extend(b) as i64)) as u128
    } else {
        u128::from(ty.extend(a)) * u128::from(ty.extend(b))
    };
    (product >> ty.bits()) as u64 & ty.mask()
}

/// A product twice as wide as its factors.
fn wide(ty: Ty, a: u64, b: u64) -> u64 {
    ty.extend(a).wrapping_mul(ty.extend(b)) & crate::types::ones(2 * ty.bits())
}

/// `x`, or the limit of a signed type that it passes.
fn clamp(ty: Ty, x: i64) -> u64 {
    let top = (1i64 << (ty.bits() - 1)) - 1;
    x.clamp(-top - 1, top) as u64 & ty.mask()
}

/// Division by zero gives all ones, its remainder the dividend.
fn divide(ty: Ty, a: u64, b: u64) -> (u64, u64) {
    let (x, y) = (ty.extend(a), ty.extend(b));
    let (q, r) = if y == 0 {
        (u64::MAX, x)
    } else if ty.is_signed() {
        let (x, y) = (x as i64, y as i64);
        (x.wrapping_div(y) as u64, x.wrapping_rem(y) as u64)
    } else {
        (x / y, x % y)
    };
    (q & ty.mask(), r & ty.mask())
}

fn less(ty: Ty, a: u64, b: u64) -> bool {
    let (a, b) = (ty.extend(a), ty.extend(b));
    if ty.is_signed() { (a as i64) < (b as i64) } else { a < b }
}

pub(crate) fn int2(op: Int2, ty: Ty, a: &Lanes, b: &Lanes) -> Lanes {
    let mask = if ty == Ty::Pred { 1 } else { ty.mask() };
    let bits = u64::from(ty.bits());
    match op {
        Int2::Add => map2(a, b, |a, b| a.wrapping_add(b) & mask),
        Int2::Sub => map2(a, b, |a, b| a.wrapping_sub(b) & mask),
        Int2::AddSat => map2(a, b, |a, b| clamp(ty, (ty.extend(a) as i64).wrapping_add(ty.extend(b) as i64))),
        Int2::SubSat => map2(a, b, |a, b| clamp(ty, (ty.extend(a) as i64).wrapping_sub(ty.extend(b) as i64))),
        Int2::MulLo => map2(a, b, |a, b| a.wrapping_mul(b) & mask),
        Int2::MulHi => map2(a, b, |a, b| high(ty, a, b)),
        Int2::MulWide => map2(a, b, |a, b| wide(ty, a, b)),
        Int2::Div => map2(a, b, |a, b| divide(ty, a, b).0),
        Int2::Rem => map2(a, b, |a, b| divide(ty, a, b).1),
        Int2::Min => map2(a, b, |a, b| if less(ty, a, b) { a } else { b } & mask),
        Int2::Max => map2(a, b, |a, b| if less(ty, a, b) { b } else { a } & mask),
        Int2::And => map2(a, b, |a, b| a & b & mask),
        Int2::Or => map2(a, b, |a, b| (a | b) & mask),
        Int2::Xor => map2(a, b, |a, b| (a ^ b) & mask),
        Int2::Shl => map2(a, b, |a, b| {
            let n = b & 0xffff_ffff;
            if n >= bits { 0 } else { a << n & mask }
        }),
        Int2::Shr => map2(a, b, |a, b| {
            let n = (b & 0xffff_ffff).min(bits);
            let a = ty.extend(a);
            if ty.is_signed() { ((a as i64) >> n.min(63)) as u64 & mask } else { a.checked_shr(n as u32).unwrap_or(0) }
        }),
    }
}

/// Bits `start..start + length`, sign-extended where the type is signed.
fn field(ty: Ty, a: u64, start: u64, length: u64) -> u64 {
    let (start, length, bits) = (start & 0xff, length & 0xff, u64::from(ty.bits()));
    if length == 0 {
        return 0;
    }
    let value = ty.extend(a);
    let moved = if ty.is_signed() {
        ((value as i64) >> start.min(63)) as u64
    } else {
        value.checked_shr(start as u32).unwrap_or(0)
    };
    if length >= 64 {
        return moved & ty.mask();
    }
    let sign_at = (start + length - 1).min(bits - 1);
    let low = crate::types::ones(length as u32);
    let negative = ty.is_signed() && value >> sign_at & 1 == 1;
    (if negative { moved | !low } else { moved & low }) & ty.mask()
}

/// Bytes of `b:a` chosen by the nibbles of `c`; a nibble's top bit asks for the sign instead.
fn permute(a: u64, b: u64, c: u64) -> u64 {
    let from = (a & 0xffff_ffff) | b << 32;
    (0..4).fold(0, |out, i| {
        let nibble = c >> (4 * i) & 15;
        let byte = from >> (8 * (nibble & 7)) & 0xff;
        let byte = if nibble & 8 == 0 {
            byte
        } else if byte & 0x80 != 0 {
            0xff
        } else {
            0
        };
        out | byte << (8 * i)
    })
}

fn lut(table: u8, a: u64, b: u64, c: u64) -> u64 {
    let term = |i: u8| {
        let pick = |x: u64, bit: u8| if i & bit != 0 { x } else { !x };
        if table >> i & 1 == 1 { pick(a, 4) & pick(b, 2) & pick(c, 1) } else { 0 }
    };
    (0..8).fold(0, |out, i| out | term(i)) & 0xffff_ffff
}

fn dot4(signed: bool, a: u64, b: u64, c: u64) -> u64 {
    let ty = if signed { Ty::S8 } else { Ty::U8 };
    (0..4).fold(c, |sum, i| sum.wrapping_add(ty.extend(a >> (8 * i)).wrapping_mul(ty.extend(b >> (8 * i)))))
        & 0xffff_ffff
}

pub(crate) fn int3(op: Int3, ty: Ty, a: &Lanes, b: &Lanes, c: &Lanes) -> Lanes {
    let mask = ty.mask();
    let funnel = |a: u64, b: u64| (a & 0xffff_ffff) | b << 32;
    match op {
        Int3::MadLo => map3(a, b, c, |a, b, c| a.wrapping_mul(b).wrapping_add(c) & mask),
        Int3::MadHi => map3(a, b, c, |a, b, c| high(ty, a, b).wrapping_add(c) & mask),
        Int3::MadWide => map3(a, b, c, |a, b, c| wide(ty, a, b).wrapping_add(c) & crate::types::ones(2 * ty.bits())),
        Int3::Sad => map3(a, b, c, |a, b, c| {
            let (small, large) = if less(ty, a, b) { (a, b) } else { (b, a) };
            c.wrapping_add(large.wrapping_sub(small)) & mask
        }),
        Int3::Bfe => map3(a, b, c, |a, b, c| field(ty, a, b, c)),
        Int3::Prmt => map3(a, b, c, permute),
        Int3::Lop3(table) => map3(a, b, c, |a, b, c| lut(table, a, b, c)),
        Int3::ShfLeftWrap => map3(a, b, c, |a, b, c| funnel(a, b) << (c & 31) >> 32),
        Int3::ShfLeftClamp => map3(a, b, c, |a, b, c| (funnel(a, b) << (c & 0xffff_ffff).min(32)) >> 32),
        Int3::ShfRightWrap => map3(a, b, c, |a, b, c| funnel(a, b) >> (c & 31) & 0xffff_ffff),
        Int3::ShfRightClamp => map3(a, b, c, |a, b, c| funnel(a, b) >> (c & 0xffff_ffff).min(32) & 0xffff_ffff),
        Int3::Dp4a => map3(a, b, c, |a, b, c| dot4(ty.is_signed(), a, b, c)),
    }
}

/// `bfi`: the low `length` bits of `a` put into `b` at `start`.
pub(crate) fn insert(ty: Ty, a: u64, b: u64, start: u64, length: u64) -> u64 {
    let (start, length) = ((start & 0xff) as u32, (length & 0xff) as u32);
    let at = crate::types::ones(length).checked_shl(start).unwrap_or(0) & ty.mask();
    (b & !at | a.checked_shl(start).unwrap_or(0) & at) & ty.mask()
}
