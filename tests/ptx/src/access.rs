//! Loads, stores and atomics by address space (PTX ISA 9.7.9, 9.7.13).

use crate::error::{Blame, FaultKind, Ran};
use crate::exec::{Env, addresses, source};
use crate::inst::{Addr, AtomOp, Int2, Slot, Space, Src};
use crate::integer;
use crate::memory::{LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, aligned};
use crate::types::{Ty, bits_of, f32_of};
use crate::warp::{Lanes, Warp, lanes};

/// What an atomic leaves in memory.
pub(crate) fn atomic(op: AtomOp, ty: Ty, old: u64, b: u64, c: Option<u64>) -> u64 {
    let two = |op| integer::int2(op, ty, &[old; 32], &[b; 32])[0];
    match (op, ty) {
        (AtomOp::Add, Ty::F32) => bits_of(f32_of(old) + f32_of(b)),
        (AtomOp::Add, Ty::F64) => (f64::from_bits(old) + f64::from_bits(b)).to_bits(),
        (AtomOp::Add, _) => two(Int2::Add),
        (AtomOp::Min, _) => two(Int2::Min),
        (AtomOp::Max, _) => two(Int2::Max),
        (AtomOp::And, _) => two(Int2::And),
        (AtomOp::Or, _) => two(Int2::Or),
        (AtomOp::Xor, _) => two(Int2::Xor),
        (AtomOp::Exch, _) => b & ty.mask(),
        (AtomOp::Cas, _) => {
            if old == b & ty.mask() {
                c.unwrap_or(old) & ty.mask()
            } else {
                old
            }
        }
        (AtomOp::Inc, _) => {
            if old >= b & ty.mask() {
                0
            } else {
                old + 1
            }
        }
        (AtomOp::Dec, _) => {
            if old == 0 || old > b & ty.mask() {
                b & ty.mask()
            } else {
                old - 1
            }
        }
    }
}

/// The space an address lies in, and the place there.
fn resolve(space: Space, address: u64) -> (Space, u64) {
    match space {
        Space::Generic if address >= SHARED_WINDOW => (Space::Shared, address - SHARED_WINDOW),
        Space::Generic if address >= LOCAL_WINDOW => (Space::Local, address - LOCAL_WINDOW),
        Space::Generic if address >= PARAM_WINDOW => (Space::Param, address - PARAM_WINDOW),
        Space::Generic => (Space::Global, address),
        // A kernel may pass a generic address where it knows the space.
        Space::Shared => (Space::Shared, shared_offset(address)),
        Space::Local if address >= LOCAL_WINDOW => (Space::Local, address - LOCAL_WINDOW),
        other => (other, address),
    }
}

/// Bytes of a lane's local memory or of the parameters.
fn inside(address: u64, size: usize, length: usize, what: &str) -> Ran<std::ops::Range<usize>> {
    aligned(address, size)?;
    match usize::try_from(address).ok().and_then(|a| Some(a..a.checked_add(size)?)) {
        Some(range) if range.end <= length => Ok(range),
        _ => Err(Blame::new(FaultKind::OutOfBounds, format!("{size} bytes at {what} {address:#x} of {length}"))),
    }
}

/// One register or a vector of them a lane.
pub(crate) fn load(
    warp: &mut Warp,
    env: &mut Env<'_>,
    space: Space,
    ty: Ty,
    d: &[(Slot, u64)],
    a: Addr,
    mask: u32,
) -> Ran {
    let address = addresses(warp, env, a);
    let (step, size) = (ty.bytes() as usize, ty.bytes() as usize * d.len());
    let mut data = [0u8; 32];
    for lane in lanes(mask) {
        let out = &mut data[..size];
        let (space, at) = resolve(space, address[lane]);
        let read = match space {
            Space::Shared => env.shared.load(warp.id, at, out),
            Space::Local => {
                let n = env.local_bytes as usize;
                inside(at, size, n, "local").map(|r| out.copy_from_slice(&warp.local[lane * n..][r]))
            }
            Space::Param => inside(at, size, env.params.len(), "param").map(|r| out.copy_from_slice(&env.params[r])),
            Space::Global | Space::Generic => env.memory.load(at, out),
        };
        read.map_err(|b| b.at(lane))?;
        for (i, &(slot, keep)) in d.iter().enumerate() {
            let mut word = [0; 8];
            word[..step].copy_from_slice(&data[i * step..][..step]);
            warp.registers[slot as usize][lane] = ty.extend(u64::from_le_bytes(word)) & keep;
        }
    }
    Ok(())
}

/// The reverse of [`load`].
pub(crate) fn store(warp: &mut Warp, env: &mut Env<'_>, space: Space, ty: Ty, a: Addr, from: &[Src], mask: u32) -> Ran {
    let address = addresses(warp, env, a);
    let (step, size) = (ty.bytes() as usize, ty.bytes() as usize * from.len());
    let values: Vec<Lanes> = from.iter().map(|&s| source(warp, env, s)).collect();
    let mut data = [0u8; 32];
    for lane in lanes(mask) {
        for (i, value) in values.iter().enumerate() {
            data[i * step..][..step].copy_from_slice(&value[lane].to_le_bytes()[..step]);
        }
        let data = &data[..size];
        let (space, at) = resolve(space, address[lane]);
        let wrote = match space {
            Space::Shared => env.shared.store(warp.id, at, data),
            Space::Local => {
                let n = env.local_bytes as usize;
                inside(at, size, n, "local").map(|r| warp.local[lane * n..][r].copy_from_slice(data))
            }
            Space::Param => Err(Blame::new(FaultKind::OutOfBounds, "a write to the parameters")),
            Space::Global | Space::Generic => env.memory.store(at, data),
        };
        wrote.map_err(|b| b.at(lane))?;
    }
    Ok(())
}

/// An atomic's read and write.
pub(crate) fn modify(
    warp: u16,
    env: &mut Env<'_>,
    space: Space,
    address: u64,
    ty: Ty,
    f: impl FnOnce(u64) -> u64,
) -> Ran<u64> {
    let size = ty.bytes() as usize;
    match resolve(space, address) {
        (Space::Shared, at) => env.shared.atomic(warp, at, size, f),
        (Space::Global, at) => {
            let mut word = [0; 8];
            env.memory.load(at, &mut word[..size])?;
            let old = u64::from_le_bytes(word);
            env.memory.store(at, &f(old).to_le_bytes()[..size])?;
            Ok(old)
        }
        _ => Err(Blame::new(FaultKind::OutOfBounds, format!("an atomic at {address:#x}"))),
    }
}

/// An address in the shared window, or already an offset.
pub(crate) fn shared_offset(address: u64) -> u64 {
    if address >= SHARED_WINDOW { address - SHARED_WINDOW } else { address }
}
