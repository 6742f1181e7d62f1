//! Spreading independent parts of one computation over threads, without allocation.
#![forbid(unsafe_code)]

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

/// `rayon::join` keeps its job on the stack, so unlike a parallel iterator with `collect` this allocates nothing.
fn halve<P: Send>(parts: &mut [P], f: &(impl Fn(&mut P) + Sync)) {
    match parts {
        [] => {}
        [part] => f(part),
        _ => {
            let (left, right) = parts.split_at_mut(parts.len() / 2);
            rayon::join(|| halve(left, f), || halve(right, f));
        }
    }
}
