//! Spreading independent parts of one computation over threads, without allocation.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Cpu;

impl Cpu {
    /// Runs `f` where the parts of a computation find their threads. Wrap a loop of many steps in it: entering the
    /// threads from outside costs a hand-over (and now and then an allocation) each time, from inside nothing.
    pub fn install<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        match &self.pool {
            Some(pool) => pool.install(f),
            None => f(),
        }
    }

    /// Calls `f` once with each of `parts`, in parallel, and waits for all. The parts are independent; which thread
    /// takes which does not matter to the result.
    pub(crate) fn for_each_part<P: Send>(&self, parts: &mut [P], f: impl Fn(&mut P) + Sync) {
        match &self.pool {
            None => parts.iter_mut().for_each(f),
            Some(_) if parts.len() <= 1 => parts.iter_mut().for_each(f),
            Some(pool) => pool.install(|| halve(parts, &f)),
        }
    }
}

/// How long a thread stays awake for another one's half. Asleep, it takes up to 100 us to wake (`benches/README.md`, "Threads that
/// stay awake"): as long as the product that comes next in a small meta-step.
const PATIENCE: Duration = Duration::from_micros(200);

/// Both halves in parallel, about as long as each other: who ends first stays awake until the other has ended or
/// [`PATIENCE`] has, and so is there for the next call. Keeps its job on the stack, as `rayon::join` does, so unlike a parallel
/// iterator with `collect` this allocates nothing.
pub(crate) fn join<A: Send, B: Send>(left: impl FnOnce() -> A + Send, right: impl FnOnce() -> B + Send) -> (A, B) {
    let [left_ended, right_begun, right_ended] = [const { AtomicBool::new(false) }; 3];
    rayon::join(
        || {
            let result = left();
            left_ended.store(true, Ordering::Relaxed);
            // A half that no other thread took is this one's next.
            if right_begun.load(Ordering::Relaxed) {
                stay_awake_for(&right_ended);
            }
            result
        },
        || {
            right_begun.store(true, Ordering::Relaxed);
            let result = right();
            right_ended.store(true, Ordering::Relaxed);
            stay_awake_for(&left_ended);
            result
        },
    )
}

/// Until `ended`, but no longer than [`PATIENCE`]: a thread that took the half while it waited for a part of the other would wait
/// for itself. Between two looks, others may have the CPU.
fn stay_awake_for(ended: &AtomicBool) {
    let begin = Instant::now();
    while !ended.load(Ordering::Relaxed) && begin.elapsed() < PATIENCE {
        std::thread::yield_now();
    }
}

/// Half of the parts on either side, down to single ones.
fn halve<P: Send>(parts: &mut [P], f: &(impl Fn(&mut P) + Sync)) {
    match parts {
        [] => {}
        [part] => f(part),
        _ => {
            let (left, right) = parts.split_at_mut(parts.len() / 2);
            join(|| halve(left, f), || halve(right, f));
        }
    }
}
