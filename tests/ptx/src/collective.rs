//! Operations between the lanes of a warp (PTX ISA 9.7.13): shuffles, votes, matches, reductions.

use crate::exec::{Env, first, source};
use crate::inst::{Int2, Op, Reduce, Shuffle, Vote};
use crate::integer::{self, map1};
use crate::types::{Ty, f32_of};
use crate::warp::{Warp, ballot, lanes};

/// Executes one in the lanes of a mask, which are all its members.
pub(crate) fn between_lanes(warp: &mut Warp, env: &Env<'_>, op: &Op, mask: u32) {
    match *op {
        Op::Shfl { kind, d, p, a, b, c, .. } => {
            let (a, b, c) = (source(warp, env, a), source(warp, env, b), source(warp, env, c));
            let from: [Option<usize>; 32] = std::array::from_fn(|l| shuffle(kind, l as u64, b[l], c[l]));
            warp.write(d, mask, &std::array::from_fn(|l| a[from[l].unwrap_or(l)] & 0xffff_ffff));
            if let Some(p) = p {
                warp.write(p, mask, &from.map(|f| u64::from(f.is_some())));
            }
        }
        Op::Vote { kind, d, a, negate, .. } => {
            let bits = ballot(&map1(&source(warp, env, a), |x| x & 1 ^ u64::from(negate))) & mask;
            let x = match kind {
                Vote::All => u64::from(bits == mask),
                Vote::Any => u64::from(bits != 0),
                Vote::Uni => u64::from(bits == mask || bits == 0),
                Vote::Ballot => bits.into(),
            };
            warp.write(d, mask, &[x; 32]);
        }
        Op::Match { all, ty, d, p, a, .. } => {
            let a = map1(&source(warp, env, a), |x| x & ty.mask());
            let same = |l: usize| lanes(mask).filter(|&m| a[m] == a[l]).fold(0u32, |bits, m| bits | 1 << m);
            let out = std::array::from_fn(|l| match same(l) {
                bits if all && bits != mask => 0,
                bits => u64::from(bits),
            });
            warp.write(d, mask, &out);
            if let Some(p) = p {
                warp.write(p, mask, &map1(&out, |x| u64::from(x != 0)));
            }
        }
        Op::Redux { op, ty, d, a, .. } => {
            let a = source(warp, env, a);
            let x = lanes(mask).map(|l| a[l] & ty.mask()).reduce(|x, y| reduce(op, ty, x, y)).unwrap_or(0);
            warp.write(d, mask, &[x; 32]);
        }
        Op::Elect { d, p, .. } => {
            warp.write(d, mask, &[first(mask) as u64; 32]);
            warp.write(p, mask, &std::array::from_fn(|l| u64::from(l == first(mask))));
        }
        _ => {}
    }
}

/// The lane a shuffle reads from, if it is in range: `c` has the clamp in bits 0..5, the segment mask in 8..13.
fn shuffle(kind: Shuffle, lane: u64, b: u64, c: u64) -> Option<usize> {
    let (b, clamp, segment) = (b & 31, c & 31, c >> 8 & 31);
    let top = (lane & segment) | (clamp & !segment);
    let bottom = lane & segment;
    let from = match kind {
        Shuffle::Up => lane.checked_sub(b).filter(|&f| f >= (lane & segment) | (clamp & !segment)),
        Shuffle::Down => Some(lane + b).filter(|&f| f <= top),
        Shuffle::Bfly => Some(lane ^ b).filter(|&f| f <= top),
        Shuffle::Idx => Some(bottom | (b & !segment)).filter(|&f| f <= top),
    };
    from.map(|f| f as usize)
}

fn reduce(op: Reduce, ty: Ty, x: u64, y: u64) -> u64 {
    let two = |op| integer::int2(op, ty, &[x; 32], &[y; 32])[0];
    let smaller = |x: u64, y: u64| if f32_of(x) < f32_of(y) || f32_of(y).is_nan() { x } else { y };
    match (op, ty) {
        (Reduce::Min, Ty::F32) => smaller(x, y),
        (Reduce::Max, Ty::F32) => {
            if smaller(x, y) == x {
                y
            } else {
                x
            }
        }
        (Reduce::Add, _) => two(Int2::Add),
        (Reduce::Min, _) => two(Int2::Min),
        (Reduce::Max, _) => two(Int2::Max),
        (Reduce::And, _) => two(Int2::And),
        (Reduce::Or, _) => two(Int2::Or),
        (Reduce::Xor, _) => two(Int2::Xor),
    }
}
