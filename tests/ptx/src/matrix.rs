//! `mma.sync`, `ldmatrix` and `stmatrix` (PTX ISA 9.7.14).
//!
//! Lane `l` is `4 g + t`. Products are summed in f64 and rounded once to f32 (f16): a tensor core rounds differently.

use crate::convert::element;
use crate::error::Ran;
use crate::float::{narrow, widen};
use crate::inst::MmaShape;
use crate::shared::Shared;
use crate::types::{Ty, bits_of, f32_of};
use crate::warp::Lanes;

/// Elements of an operand in a 32-bit register.
fn per_word(ty: Ty) -> usize {
    4 / ty.bytes() as usize
}

/// Word `w`'s element `e` of a fragment: which row (column of B) beside `g`, and how deep.
fn place(ty: Ty, lane: usize, word: usize, e: usize) -> (usize, usize) {
    let (g, t) = (lane / 4, lane % 4);
    let p = per_word(ty);
    (g, t * p + e + word * 4 * p)
}

/// `a[16][k]` from a fragment: words go down the rows first (g, g+8), then deeper.
pub(crate) fn a_matrix(ty: Ty, k: usize, words: &[Lanes]) -> Vec<f32> {
    let mut out = vec![0.0; 16 * k];
    for (w, lanes) in words.iter().enumerate() {
        for (lane, &x) in lanes.iter().enumerate() {
            for e in 0..per_word(ty) {
                let (g, depth) = place(ty, lane, w / 2, e);
                out[(g + 8 * (w % 2)) * k + depth] = element(ty, (x >> (e as u32 * ty.bits())) as u32);
            }
        }
    }
    out
}

/// `b[n][k]` from a fragment of 8 columns.
fn b_matrix(ty: Ty, k: usize, words: &[Lanes]) -> Vec<f32> {
    let mut out = vec![0.0; 8 * k];
    for (w, lanes) in words.iter().enumerate() {
        for (lane, &x) in lanes.iter().enumerate() {
            for e in 0..per_word(ty) {
                let (g, depth) = place(ty, lane, w, e);
                out[g * k + depth] = element(ty, (x >> (e as u32 * ty.bits())) as u32);
            }
        }
    }
    out
}

/// `c + sum over k of a[row][k] b[column][k]`
pub(crate) fn dot(a: &[f32], b: &[f32], c: f64) -> f64 {
    a.iter().zip(b).fold(c, |sum, (&x, &y)| sum + f64::from(x) * f64::from(y))
}

/// `d = a b + c`: accumulator register `i` of an f32 fragment holds row `g + 8 (i/2 % 2)`, column `2t + i%2`.
pub(crate) fn mma(shape: MmaShape, a: &[Lanes], b: &[Lanes], c: &[Lanes]) -> Vec<Lanes> {
    let k = shape.k as usize;
    let (a, b) = (a_matrix(shape.ty, k, a), b_matrix(shape.ty, k, b));
    let entry = |lane: usize, i: usize, c: f64| {
        let (row, column) = (lane / 4 + 8 * (i / 2), 2 * (lane % 4) + i % 2);
        dot(&a[row * k..][..k], &b[column * k..][..k], c)
    };
    if shape.half_accumulator {
        let half = |lane: usize, i: usize| {
            let c = widen(Ty::F16, (c[i / 2][lane] >> (16 * (i % 2))) as u16);
            u64::from(narrow(Ty::F16, entry(lane, i, c)))
        };
        return (0..2).map(|r| std::array::from_fn(|l| half(l, 2 * r) | half(l, 2 * r + 1) << 16)).collect();
    }
    let single = |l: usize, i: usize| bits_of(entry(l, i, f64::from(f32_of(c[i][l]))) as f32);
    (0..4).map(|i| std::array::from_fn(|l| single(l, i))).collect()
}

/// Loads matrices of 8 rows of 16 bytes; lanes `8q..8q+8` hold the addresses of matrix `q`'s rows.
pub(crate) fn ldmatrix(shared: &mut Shared, warp: u16, addresses: &Lanes, n: usize, trans: bool) -> Ran<Vec<Lanes>> {
    let mut out = vec![[0; 32]; n];
    for (q, register) in out.iter_mut().enumerate() {
        let mut rows = [[0; 16]; 8];
        for (r, row) in rows.iter_mut().enumerate() {
            shared.load(warp, addresses[8 * q + r], row).map_err(|b| b.at(8 * q + r))?;
        }
        let get = |r: usize, c: usize| u64::from(u16::from_le_bytes([rows[r][2 * c], rows[r][2 * c + 1]]));
        for (lane, x) in register.iter_mut().enumerate() {
            let (g, t) = (lane / 4, 2 * (lane % 4));
            *x = if trans { get(t, g) | get(t + 1, g) << 16 } else { get(g, t) | get(g, t + 1) << 16 };
        }
    }
    Ok(out)
}

/// The reverse of [`ldmatrix`].
pub(crate) fn stmatrix(shared: &mut Shared, warp: u16, addresses: &Lanes, from: &[Lanes], trans: bool) -> Ran {
    for (q, register) in from.iter().enumerate() {
        let mut rows = [[0u8; 16]; 8];
        for (lane, &x) in register.iter().enumerate() {
            for e in 0..2 {
                let (g, t) = (lane / 4, 2 * (lane % 4) + e);
                let (r, c) = if trans { (t, g) } else { (g, t) };
                rows[r][2 * c..2 * c + 2].copy_from_slice(&((x >> (16 * e)) as u16).to_le_bytes());
            }
        }
        for (r, row) in rows.iter().enumerate() {
            shared.store(warp, addresses[8 * q + r], row).map_err(|b| b.at(8 * q + r))?;
        }
    }
    Ok(())
}
