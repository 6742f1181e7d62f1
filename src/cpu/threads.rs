//! Spreading independent parts of one computation over threads, without allocation.
#![forbid(unsafe_code)]

use rayon::slice::ParallelSliceMut;

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

/// Elements of a run that are worth a thread of their own.
const RUN: usize = 1 << 14;

impl Cpu {
    /// Calls `f(first row, rows)` for runs of rows of `width` elements that together are `dst`, in parallel where there are
    /// enough, and waits for all. The runs differ with the number of threads, so no sum may go over them.
    pub(crate) fn for_each_run<T: Send>(&self, dst: &mut [T], width: usize, f: impl Fn(usize, &mut [T]) + Sync) {
        let pieces = (dst.len() / RUN).min(4 * self.threads);
        match &self.pool {
            Some(pool) if pieces > 1 => {
                let least = (dst.len() / width).div_ceil(pieces);
                pool.install(|| runs(dst, width, 0, least, &f));
            }
            _ => f(0, dst),
        }
    }

    /// Copies on all threads. Panics where `dst` is not as long as `src`.
    pub(crate) fn copy<T: Copy + Send + Sync>(&self, src: &[T], dst: &mut [T]) {
        assert_eq!(src.len(), dst.len(), "a copy has the length of what is copied");
        self.for_each_run(dst, 1, |from, run| run.copy_from_slice(&src[from..from + run.len()]));
    }

    /// Sorts on all threads, without allocation.
    pub(crate) fn sort(&self, numbers: &mut [u32]) {
        match &self.pool {
            Some(pool) => pool.install(|| numbers.par_sort_unstable()),
            None => numbers.sort_unstable(),
        }
    }
}

/// Halves down to `least` rows.
fn runs<T: Send>(dst: &mut [T], width: usize, first: usize, least: usize, f: &(impl Fn(usize, &mut [T]) + Sync)) {
    let rows = dst.len() / width;
    if rows <= least {
        return f(first, dst);
    }
    let (left, right) = dst.split_at_mut(rows / 2 * width);
    rayon::join(|| runs(left, width, first, least, f), || runs(right, width, first + rows / 2, least, f));
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
