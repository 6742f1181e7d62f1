//! Work of the host beside a device, spread over the threads of a [`Cpu`] without allocation.
#![forbid(unsafe_code)]

use rayon::slice::ParallelSliceMut;

use crate::cpu::Cpu;

/// Elements of a run that are worth a thread of their own.
const RUN: usize = 1 << 14;

/// Calls `f(first row, rows)` for runs of rows of `width` elements that together are `dst`, in parallel where there are
/// enough, and waits for all. The runs differ with the number of threads, so no sum may go over them.
pub(super) fn each_run<T: Send>(cpu: &Cpu, dst: &mut [T], width: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    let pieces = (dst.len() / RUN).min(4 * cpu.thread_count());
    if cpu.thread_count() < 2 || pieces < 2 {
        return f(0, dst);
    }
    let least = (dst.len() / width).div_ceil(pieces);
    cpu.install(|| halve(dst, width, 0, least, &f));
}

/// Halves down to `least` rows.
fn halve<T: Send>(dst: &mut [T], width: usize, first: usize, least: usize, f: &(impl Fn(usize, &mut [T]) + Sync)) {
    let rows = dst.len() / width;
    if rows <= least {
        return f(first, dst);
    }
    let (left, right) = dst.split_at_mut(rows / 2 * width);
    rayon::join(|| halve(left, width, first, least, f), || halve(right, width, first + rows / 2, least, f));
}

/// Copies. Panics where `dst` is not as long as `src`.
pub(super) fn copy<T: Copy + Send + Sync>(cpu: &Cpu, src: &[T], dst: &mut [T]) {
    assert_eq!(src.len(), dst.len(), "a copy has the length of what is copied");
    each_run(cpu, dst, 1, |from, run| run.copy_from_slice(&src[from..from + run.len()]));
}

/// Sorts.
pub(super) fn sort(cpu: &Cpu, numbers: &mut [u32]) {
    match cpu.thread_count() {
        1 => numbers.sort_unstable(),
        _ => cpu.install(|| numbers.par_sort_unstable()),
    }
}
