//! One thread block: its warps take turns, each running until it has to wait.

use crate::error::{Blame, FaultKind};
use crate::exec::{Env, Flow, source, step};
use crate::inst::{Op, Vote};
use crate::module::Kernel;
use crate::warp::{Group, Hold, Warp, ballot, lanes};

/// Instructions a warp may execute.
const LIMIT: u64 = 1 << 27;

/// A fault with its place: warp and instruction.
pub(crate) struct Stopped {
    pub blame: Blame,
    pub warp: u32,
    pub pc: Option<u32>,
}

/// Runs all warps to their end, visited in the order given.
pub(crate) fn run(kernel: &Kernel, env: &mut Env<'_>, warps: &mut [Warp], order: &[usize]) -> Result<(), Stopped> {
    loop {
        let before: u64 = warps.iter().map(|w| w.clock).sum();
        for &w in order {
            let warp = &mut warps[w];
            for group in warp.groups.iter_mut().filter(|g| g.hold == Hold::Poll) {
                group.hold = Hold::No;
            }
            run_warp(kernel, env, warp).map_err(|(blame, pc)| Stopped { blame, warp: w as u32, pc })?;
        }
        if warps.iter().all(|w| w.groups.is_empty()) {
            return Ok(());
        }
        let released = release(kernel, env, warps);
        let stuck = warps.iter().map(|w| w.clock).sum::<u64>() == before && !released;
        if let Some((w, pc)) = warps.iter().find_map(|w| Some((w.id, w.groups.first()?.pc))).filter(|_| stuck) {
            let blame = Blame::new(FaultKind::Deadlock, "no warp can go on");
            return Err(Stopped { blame, warp: w.into(), pc: Some(pc) });
        }
    }
}

/// Runs a warp until it ends or waits for others.
fn run_warp(kernel: &Kernel, env: &mut Env<'_>, warp: &mut Warp) -> Result<(), (Blame, Option<u32>)> {
    while let Some(g) = warp.next() {
        let Group { pc, mask, .. } = warp.groups[g];
        let Some(inst) = kernel.code.get(pc as usize) else {
            return Err((Blame::new(FaultKind::Trap, "the end of the kernel without ret"), None));
        };
        match step(warp, env, inst, pc, mask).map_err(|b| (b, Some(pc)))? {
            Flow::Next => warp.groups[g].pc += 1,
            Flow::Jump(places) => {
                warp.groups.swap_remove(g);
                warp.groups.extend(places.into_iter().map(|(pc, mask)| Group { pc, mask, hold: Hold::No }));
                warp.merge();
                if matches!(inst.op, Op::Exit) {
                    warp.retry();
                }
            }
            Flow::Exit => {
                warp.groups.swap_remove(g);
                // Who waited for these lanes needn't any more, at a barrier at least.
                warp.retry();
            }
            Flow::Hold(hold) => {
                warp.groups[g].hold = hold;
                continue;
            }
        }
        if warp.groups.len() > 1 {
            warp.merge();
        }
        warp.clock += 1;
        warp.lane_instructions += u64::from(mask.count_ones());
        if warp.clock > LIMIT {
            let detail = format!("{LIMIT} instructions in one warp");
            return Err((Blame::new(FaultKind::Deadlock, detail), Some(pc)));
        }
    }
    divergent(warp)
}

/// All groups wait: that is in order for the whole warp at a barrier, or where another warp can help.
fn divergent(warp: &Warp) -> Result<(), (Blame, Option<u32>)> {
    let helped = warp.groups.iter().any(|g| g.hold == Hold::Poll);
    let Some(group) = warp.groups.iter().find(|g| g.hold == Hold::Members).filter(|_| !helped) else { return Ok(()) };
    let places: Vec<_> = warp.groups.iter().map(|g| format!("{:#010x}", g.mask)).collect();
    let detail = format!("the warp's lanes wait at {} places: {}", places.len(), places.join(", "));
    Err((Blame::new(FaultKind::DivergentSync, detail), Some(group.pc)))
}

/// Opens the barriers that all expected threads have reached.
fn release(kernel: &Kernel, env: &mut Env<'_>, warps: &mut [Warp]) -> bool {
    let mut released = false;
    let live = warps.iter().filter(|w| w.live != 0).count() as u32 * 32;
    for barrier in 0..16 {
        let at = |w: &Warp| match w.groups[..] {
            [Group { hold: Hold::Barrier { id, threads }, .. }] if id == barrier => Some(threads),
            _ => None,
        };
        let waiting: Vec<_> = warps.iter().filter_map(at).collect();
        let Some(&wanted) = waiting.iter().max() else { continue };
        let wanted = if wanted == 0 { live } else { wanted };
        if waiting.len() as u32 * 32 + env.arrived[barrier as usize] < wanted {
            continue;
        }
        env.arrived[barrier as usize] = 0;
        env.shared.next_epoch();
        reduce(kernel, env, warps, |w| at(w).is_some());
        for warp in warps.iter_mut().filter(|w| at(w).is_some()) {
            warp.groups[0].pc += 1;
            warp.groups[0].hold = Hold::No;
        }
        released = true;
    }
    released
}

/// `bar.red`: the predicate of all threads at the barrier.
fn reduce(kernel: &Kernel, env: &Env<'_>, warps: &mut [Warp], here: impl Fn(&Warp) -> bool) {
    let red = |w: &Warp| match &kernel.code[w.groups[0].pc as usize].op {
        Op::Bar { red, .. } => *red,
        _ => None,
    };
    let (mut threads, mut yes) = (0, 0);
    for warp in warps.iter().filter(|w| here(w)) {
        if let Some((_, _, p, negate)) = red(warp) {
            let bits = ballot(&source(warp, env, p));
            threads += warp.live.count_ones();
            yes += (if negate { !bits } else { bits } & warp.live).count_ones();
        }
    }
    for warp in warps.iter_mut().filter(|w| here(w)) {
        if let Some((kind, d, ..)) = red(warp) {
            let x = match kind {
                Vote::All => u32::from(yes == threads),
                Vote::Any => u32::from(yes > 0),
                Vote::Uni | Vote::Ballot => yes,
            };
            let live = warp.live;
            lanes(live).for_each(|lane| warp.registers[d as usize][lane] = x.into());
        }
    }
}
