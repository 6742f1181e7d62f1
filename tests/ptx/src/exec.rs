//! One instruction in some lanes of a warp.

use crate::access::{atomic, load, modify, shared_offset, store};
use crate::collective::between_lanes;
use crate::convert::convert;
use crate::copy::Request;
use crate::error::{Blame, FaultKind, Ran};
use crate::float::{self, compare, value};
use crate::inst::*;
use crate::integer::{self, map1, map2};
use crate::matrix;
use crate::memory::{LOCAL_WINDOW, Memory, PARAM_WINDOW, SHARED_WINDOW};
use crate::shared::Shared;
use crate::types::{Ty, f32_of, ones};
use crate::warp::{Hold, Lanes, Warp, lanes};
use crate::wgmma::{Left, Product};

/// What all warps of a block share.
pub(crate) struct Env<'a> {
    pub memory: &'a mut Memory,
    pub shared: Shared,
    pub globals: &'a [u64],
    pub params: &'a [u8],
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub ctaid: [u32; 3],
    pub local_bytes: u32,
    pub dynamic_base: u32,
    pub dynamic_size: u32,
    /// Threads that arrived at barriers without waiting.
    pub arrived: [u32; 16],
}

/// Where the lanes go on.
pub(crate) enum Flow {
    Next,
    /// To these instructions.
    Jump(Vec<(u32, u32)>),
    /// Nowhere.
    Exit,
    Hold(Hold),
}

/// Executes an instruction in the lanes of `mask`, all at `pc`.
pub(crate) fn step(warp: &mut Warp, env: &mut Env<'_>, inst: &Inst, pc: u32, group: u32) -> Ran<Flow> {
    let mask = match inst.guard {
        Some((slot, negated)) => group & warp.holds(slot, negated),
        None => group,
    };
    if !warp.queue.is_empty() {
        pending_use(warp, inst)?;
    }
    if mask == 0 {
        return Ok(Flow::Next);
    }
    let rest = group & !mask;
    match &inst.op {
        Op::Bra { target } if rest == 0 => return Ok(Flow::Jump(vec![(*target, mask)])),
        Op::Bra { target } => return Ok(Flow::Jump(vec![(*target, mask), (pc + 1, rest)])),
        Op::BrxIdx { index, targets } => return brx(warp, env, *index, targets, mask, (pc + 1, rest)),
        Op::Exit => {
            warp.live &= !mask;
            return Ok(if rest == 0 { Flow::Exit } else { Flow::Jump(vec![(pc + 1, rest)]) });
        }
        Op::Trap => return Err(Blame::new(FaultKind::Trap, "the kernel gave up")),
        _ => {}
    }
    if let Some(hold) = held(warp, env, inst, mask, group)? {
        return Ok(Flow::Hold(hold));
    }
    compute(warp, env, &inst.op, mask)?;
    Ok(Flow::Next)
}

fn brx(warp: &Warp, env: &Env<'_>, index: Src, targets: &[u32], mask: u32, rest: (u32, u32)) -> Ran<Flow> {
    let index = source(warp, env, index);
    let mut out = vec![rest];
    for lane in lanes(mask) {
        let target = targets.get(index[lane] as u32 as usize);
        let target = target.ok_or_else(|| Blame::new(FaultKind::OutOfBounds, "a branch index").at(lane))?;
        out.push((*target, 1 << lane));
    }
    Ok(Flow::Jump(out))
}

/// Refuses registers that a wgmma still owns, other than to copy them or to accumulate on.
fn pending_use(warp: &Warp, inst: &Inst) -> Ran {
    let allowed = match &inst.op {
        Op::Mov { a: Src::Reg(a), .. } => warp.queue.is_pending(*a) && inst.guard.is_none(),
        Op::Wgmma(w) => !w.a.iter().any(|s| matches!(s, Src::Reg(r) if warp.queue.is_pending(*r))),
        _ => false,
    };
    if !allowed && inst.names.iter().any(|&slot| warp.queue.is_pending(slot)) {
        return Err(Blame::new(FaultKind::MissingAsyncWait, "a register of a wgmma that is still under way"));
    }
    Ok(())
}

/// Whether lanes must wait for others before this instruction.
fn held(warp: &Warp, env: &mut Env<'_>, inst: &Inst, mask: u32, group: u32) -> Ran<Option<Hold>> {
    let members = match &inst.op {
        Op::Shfl { members, .. }
        | Op::Vote { members, .. }
        | Op::Match { members, .. }
        | Op::Redux { members, .. }
        | Op::Elect { members, .. }
        | Op::WarpSync { members } => {
            let wanted = source(warp, env, *members);
            lanes(mask).fold(mask, |all, lane| all | wanted[lane] as u32) & warp.members
        }
        Op::Mma { .. } | Op::Ldmatrix { .. } | Op::Stmatrix { .. } | Op::Wgmma(_) => u32::MAX,
        Op::Bar { arrive: true, id, .. } => {
            let id = source(warp, env, *id)[first(mask)] as usize % 16;
            env.arrived[id] += 32;
            return Ok(None);
        }
        Op::Bar { id, count, .. } => {
            if mask != warp.live {
                return Ok(Some(members_hold(warp, mask, group)?));
            }
            let id = source(warp, env, *id)[first(mask)] as u32;
            let threads = count.map_or(0, |c| source(warp, env, c)[first(mask)] as u32);
            return Ok(Some(Hold::Barrier { id, threads }));
        }
        Op::MbarTest { a, parity, .. } => {
            let (address, parity) = (addresses(warp, env, *a), source(warp, env, *parity));
            for lane in lanes(mask) {
                let state = mbar_state(env, address[lane]).map_err(|b| b.at(lane))?;
                if state >> 40 & 1 == parity[lane] & 1 {
                    return Ok(Some(Hold::Poll));
                }
            }
            return Ok(None);
        }
        _ => return Ok(None),
    };
    if members & !mask != 0 { members_hold(warp, mask, group).map(Some) } else { Ok(None) }
}

/// Waits for lanes that may still come; guarded-off lanes of the same group, and exited ones, never will.
fn members_hold(warp: &Warp, mask: u32, group: u32) -> Ran<Hold> {
    if mask != group || warp.groups.len() == 1 {
        let detail = format!("lanes {mask:#010x} of {:#010x} are here", warp.members);
        return Err(Blame::new(FaultKind::DivergentSync, detail));
    }
    Ok(Hold::Members)
}

/// The lowest lane.
pub(crate) fn first(mask: u32) -> usize {
    mask.trailing_zeros() as usize & 31
}

/// A source in all lanes.
pub(crate) fn source(warp: &Warp, env: &Env<'_>, src: Src) -> Lanes {
    match src {
        Src::Reg(slot) => warp.registers[slot as usize],
        Src::Imm(x) => [x; 32],
        Src::Special(s) => special(warp, env, s),
    }
}

fn special(warp: &Warp, env: &Env<'_>, s: Special) -> Lanes {
    let lane = |f: fn(u64) -> u64| std::array::from_fn(|l| f(l as u64) & 0xffff_ffff);
    let same = |x: u64| [x; 32];
    match s {
        Special::Tid(i) => warp.tid[i],
        Special::Ntid(i) => same(env.block[i].into()),
        Special::Ctaid(i) => same(env.ctaid[i].into()),
        Special::Nctaid(i) => same(env.grid[i].into()),
        Special::Laneid => lane(|l| l),
        Special::Warpid => same(warp.id.into()),
        Special::Nwarpid => same(env.block.iter().product::<u32>().div_ceil(32).into()),
        Special::LanemaskEq => lane(|l| 1 << l),
        Special::LanemaskLt => lane(|l| (1 << l) - 1),
        Special::LanemaskLe => lane(|l| (2 << l) - 1),
        Special::LanemaskGt => lane(|l| !((2 << l) - 1)),
        Special::LanemaskGe => lane(|l| !((1 << l) - 1)),
        Special::Clock => same(warp.clock),
        Special::DynamicSize => same(env.dynamic_size.into()),
        Special::DynamicShared => same(env.dynamic_base.into()),
        Special::Global(i) => same(env.globals[i]),
    }
}

pub(crate) fn addresses(warp: &Warp, env: &Env<'_>, a: Addr) -> Lanes {
    map1(&source(warp, env, a.base), |base| base.wrapping_add(a.offset))
}

/// Everything that neither branches nor waits.
fn compute(warp: &mut Warp, env: &mut Env<'_>, op: &Op, mask: u32) -> Ran {
    let get = |src: Src| source(warp, env, src);
    let (slot, values) = match *op {
        Op::Mov { d, a, keep } => {
            if let Src::Reg(from) = a
                && !warp.queue.is_empty()
                && warp.queue.is_pending(from)
            {
                warp.queue.copy(d, from);
                return Ok(());
            }
            (d, map1(&get(a), |x| x & keep))
        }
        Op::Int1 { op, ty, d, a } => (d, integer::int1(op, ty, &get(a))),
        Op::Int2 { op, ty, d, a, b } => (d, integer::int2(op, ty, &get(a), &get(b))),
        Op::Int3 { op, ty, d, a, b, c } => (d, integer::int3(op, ty, &get(a), &get(b), &get(c))),
        Op::Bfi { ty, d, a, b, start, length } => {
            let (a, b, s, n) = (get(a), get(b), get(start), get(length));
            (d, std::array::from_fn(|l| integer::insert(ty, a[l], b[l], s[l], n[l])))
        }
        Op::Float1 { op, mode, d, a } => (d, float::float1(op, mode, &get(a))),
        Op::Float2 { op, mode, d, a, b } => (d, float::float2(op, mode, &get(a), &get(b))),
        Op::Float3 { op, mode, d, a, b, c } => {
            (d, float::float2(op, mode, &float::float2(op, mode, &get(a), &get(b)), &get(c)))
        }
        Op::Fma { mode, d, a, b, c } => (d, float::fma(mode, &get(a), &get(b), &get(c))),
        Op::Testp { test, ty, d, a } => {
            // Subnormal is a matter of the type: an f32 one is normal as f64.
            let tested = |x: u64| match ty {
                Ty::F32 if f32_of(x).is_subnormal() => f64::from_bits(1),
                _ => value(ty, x),
            };
            (d, map1(&get(a), |x| u64::from(test(tested(x)))))
        }
        Op::Set { cmp, ty, ftz, yes, d, a, b } => {
            (d, map2(&get(a), &get(b), |a, b| if compare(cmp, ty, ftz, a, b) { yes } else { 0 }))
        }
        Op::Selp { d, a, b, p, keep } => {
            let (a, b, p) = (get(a), get(b), get(p));
            (d, std::array::from_fn(|l| if p[l] != 0 { a[l] } else { b[l] } & keep))
        }
        Op::Slct { d, a, b, c, by, keep } => {
            let (a, b, c) = (get(a), get(b), get(c));
            let pick = |x: u64| if by == Ty::F32 { f32_of(x) >= 0.0 } else { (x as i32) >= 0 };
            (d, std::array::from_fn(|l| if pick(c[l]) { a[l] } else { b[l] } & keep))
        }
        Op::Cvt { how, d, a, upper } => {
            let (a, upper) = (get(a), upper.map(get));
            (d, std::array::from_fn(|l| convert(how, a[l], upper.map(|u| u[l]))))
        }
        Op::Cvta { d, a, space, to } => {
            let window = match space {
                Space::Shared => SHARED_WINDOW,
                Space::Local => LOCAL_WINDOW,
                Space::Param => PARAM_WINDOW,
                Space::Global | Space::Generic => 0,
            };
            (d, map1(&get(a), |x| if to { x.wrapping_sub(window) } else { x.wrapping_add(window) }))
        }
        Op::ActiveMask { d } => (d, [u64::from(mask); 32]),
        _ => return effect(warp, env, op, mask),
    };
    warp.write(slot, mask, &values);
    Ok(())
}

/// Operations with several results, or on memory, or between lanes.
fn effect(warp: &mut Warp, env: &mut Env<'_>, op: &Op, mask: u32) -> Ran {
    match op {
        Op::Pack { d, parts, bits } => {
            let mut out = [0; 32];
            for (i, &part) in parts.iter().enumerate() {
                let x = source(warp, env, part);
                out = map2(&out, &x, |o, x| o | (x & ones(*bits)) << (i as u32 * bits));
            }
            warp.write(*d, mask, &out);
        }
        Op::Unpack { d, a, bits } => {
            let a = source(warp, env, *a);
            for (i, &slot) in d.iter().enumerate() {
                warp.write(slot, mask, &map1(&a, |x| x >> (i as u32 * bits) & ones(*bits)));
            }
        }
        Op::Setp { cmp, ty, ftz, logic, d, q, a, b } => {
            let (a, b) = (source(warp, env, *a), source(warp, env, *b));
            let yes = map2(&a, &b, |a, b| u64::from(compare(*cmp, *ty, *ftz, a, b)));
            let no = map1(&yes, |x| x ^ 1);
            let with = |x: &Lanes| match *logic {
                None => *x,
                Some((l, c, negate)) => map2(x, &source(warp, env, c), |x, c| {
                    let c = c & 1 ^ u64::from(negate);
                    match l {
                        Logic::And => x & c,
                        Logic::Or => x | c,
                        Logic::Xor => x ^ c,
                    }
                }),
            };
            let (yes, no) = (with(&yes), with(&no));
            warp.write(*d, mask, &yes);
            if let Some(q) = q {
                warp.write(*q, mask, &no);
            }
        }
        Op::Ld { space, ty, d, a } => load(warp, env, *space, *ty, d, *a, mask)?,
        Op::St { space, ty, a, from } => store(warp, env, *space, *ty, *a, from, mask)?,
        Op::Atom { space, op, ty, d, a, b, c } => {
            let (b, c) = (source(warp, env, *b), c.map(|c| source(warp, env, c)));
            let a = addresses(warp, env, *a);
            let mut old = [0; 32];
            for lane in lanes(mask) {
                let update = |x| atomic(*op, *ty, x, b[lane], c.map(|c| c[lane]));
                old[lane] = modify(warp.id, env, *space, a[lane], *ty, update).map_err(|b| b.at(lane))?;
            }
            if let Some(d) = d {
                warp.write(*d, mask, &old);
            }
        }
        Op::Shfl { .. } | Op::Vote { .. } | Op::Match { .. } | Op::Redux { .. } | Op::Elect { .. } => {
            between_lanes(warp, env, op, mask);
        }
        Op::CpAsync { .. } | Op::CpCommit | Op::CpWait { .. } => copies(warp, env, op, mask)?,
        Op::MbarInit { .. } | Op::MbarArrive { .. } | Op::MbarTest { .. } => mbar(warp, env, op, mask)?,
        _ => matrices(warp, env, op, mask)?,
    }
    Ok(())
}

fn matrices(warp: &mut Warp, env: &mut Env<'_>, op: &Op, mask: u32) -> Ran {
    let all = |warp: &Warp, env: &Env<'_>, list: &[Src]| list.iter().map(|&s| source(warp, env, s)).collect::<Vec<_>>();
    match op {
        Op::Mma { shape, d, a, b, c } => {
            let out = matrix::mma(*shape, &all(warp, env, a), &all(warp, env, b), &all(warp, env, c));
            d.iter().zip(&out).for_each(|(&slot, x)| warp.write(slot, mask, x));
        }
        Op::Ldmatrix { d, trans, a } => {
            let a = map1(&addresses(warp, env, *a), shared_offset);
            let out = matrix::ldmatrix(&mut env.shared, warp.id, &a, d.len(), *trans)?;
            d.iter().zip(&out).for_each(|(&slot, x)| warp.write(slot, mask, x));
        }
        Op::Stmatrix { from, trans, a } => {
            let a = map1(&addresses(warp, env, *a), shared_offset);
            let from = all(warp, env, from);
            matrix::stmatrix(&mut env.shared, warp.id, &a, &from, *trans)?;
        }
        Op::Wgmma(w) => {
            let a = match w.a[..] {
                [one] => Left::Descriptor(source(warp, env, one)[0]),
                _ => Left::Registers(all(warp, env, &w.a)),
            };
            let (b, accumulate) = (source(warp, env, w.b)[0], source(warp, env, w.scale_d)[0] != 0);
            let negate = w.negate_a != w.negate_b;
            let product =
                Product { shape: w.shape, d: w.d.clone(), a, b, transposed: w.transposed, accumulate, negate };
            warp.queue.product(warp.id, product, &mut env.shared)?;
        }
        Op::ProxyFence => env.shared.fence(warp.id),
        Op::WgmmaFence => warp.queue.fence(),
        Op::WgmmaCommit => warp.queue.commit(),
        Op::WgmmaWait { pending } => {
            warp.queue.wait(*pending, warp.id, &mut warp.registers, &mut env.shared)?;
        }
        // Other fences, hints and barriers: done, or nothing to do.
        _ => {}
    }
    Ok(())
}

fn copies(warp: &mut Warp, env: &mut Env<'_>, op: &Op, mask: u32) -> Ran {
    match *op {
        Op::CpAsync { size, source_size, dst, src } => {
            let (dst, src) = (addresses(warp, env, dst), addresses(warp, env, src));
            let n = source_size.map(|n| source(warp, env, n));
            for lane in lanes(mask) {
                let source_size = n.map_or(size as usize, |n| n[lane] as u32 as usize);
                let request =
                    Request { lane, dst: shared_offset(dst[lane]), src: src[lane], size: size as usize, source_size };
                warp.copies.begin(warp.id, &request, env.memory, &mut env.shared).map_err(|b| b.at(lane))?;
            }
        }
        Op::CpWait { pending } => warp.copies.wait(warp.id, mask, pending, env.memory, &mut env.shared)?,
        _ => warp.copies.commit(mask),
    }
    Ok(())
}

/// An mbarrier: expected arrivals in bits 0..20, missing ones in 20..40, the phase's parity in bit 40.
fn mbar_state(env: &mut Env<'_>, address: u64) -> Ran<u64> {
    let bytes = env.shared.object(shared_offset(address))?;
    Ok(bytes.iter().rev().fold(0, |x, &b| x << 8 | u64::from(b)))
}

fn mbar(warp: &mut Warp, env: &mut Env<'_>, op: &Op, mask: u32) -> Ran {
    let (Op::MbarInit { a, .. } | Op::MbarArrive { a, .. } | Op::MbarTest { a, .. }) = op else { return Ok(()) };
    let address = addresses(warp, env, *a);
    let mut out = [1; 32];
    for lane in lanes(mask) {
        let old = mbar_state(env, address[lane]).map_err(|b| b.at(lane))?;
        let new = match *op {
            Op::MbarInit { count, .. } => {
                let n = source(warp, env, count)[lane] & 0xf_ffff;
                n | n << 20
            }
            Op::MbarArrive { count, .. } => {
                out[lane] = old;
                let missing = (old >> 20 & 0xf_ffff).saturating_sub(source(warp, env, count)[lane] & 0xf_ffff);
                let expected = old & 0xf_ffff;
                if missing == 0 {
                    env.shared.next_epoch();
                    (old ^ 1 << 40) & 1 << 40 | expected << 20 | expected
                } else {
                    old & 1 << 40 | missing << 20 | expected
                }
            }
            _ => old,
        };
        env.shared.object(shared_offset(address[lane]))?.copy_from_slice(&new.to_le_bytes());
    }
    if let Op::MbarArrive { d: Some(slot), .. } | Op::MbarTest { p: slot, .. } = *op {
        warp.write(slot, mask, &out);
    }
    Ok(())
}
