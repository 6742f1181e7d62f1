//! Repeated timings, and the two peaks they are compared with.
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::sync::Barrier;
use std::time::Instant;

use crate::Result;
use crate::backend::Lane;
use crate::cpu::{Cpu, KernelElement};

/// Seconds of repetitions, sorted.
pub struct Times(Vec<f64>);

impl Times {
    /// Times `reps` calls, at least one, after two that are not counted.
    pub fn of(reps: usize, mut f: impl FnMut() -> Result<()>) -> Result<Self> {
        (0..2).try_for_each(|_| f())?;
        let time = |_| {
            let start = Instant::now();
            f()?;
            Ok(start.elapsed().as_secs_f64())
        };
        let mut seconds = (0..reps.max(1)).map(time).collect::<Result<Vec<f64>>>()?;
        seconds.sort_by(f64::total_cmp);
        Ok(Self(seconds))
    }

    /// Times loops of calls, each loop about `seconds` long: for calls shorter than the clock resolves. A time is that of
    /// one call.
    pub fn of_short(reps: usize, seconds: f64, mut f: impl FnMut() -> Result<()>) -> Result<Self> {
        Self::of_loops(reps, seconds, |calls| (0..calls).try_for_each(|_| f()))
    }

    /// The same of a loop that is given how many calls to make.
    pub fn of_loops(reps: usize, seconds: f64, mut f: impl FnMut(u32) -> Result<()>) -> Result<Self> {
        let mut calls = 1;
        loop {
            let start = Instant::now();
            f(calls)?;
            if start.elapsed().as_secs_f64() >= seconds || calls >= 1 << 24 {
                break;
            }
            calls *= 2;
        }
        let times = Self::of(reps, || f(calls))?;
        Ok(Self(times.0.into_iter().map(|t| t / f64::from(calls)).collect()))
    }

    /// The middle one; of an even number the mean of the two in the middle.
    pub fn median(&self) -> f64 {
        let n = self.0.len();
        0.5 * (self.0[(n - 1) / 2] + self.0[n / 2])
    }

    pub fn min(&self) -> f64 {
        self.0[0]
    }

    pub fn max(&self) -> f64 {
        self.0[self.0.len() - 1]
    }
}

/// Operations a second, in 10^9, of multiply-adds in registers on every thread of `cpu` at once: the sum over the threads
/// of the best of 20 loops of about a millisecond each.
pub fn peak_gflops<T: KernelElement>(cpu: &Cpu) -> f64 {
    on_each_thread(cpu.thread_count(), || {
        let mut lane = Lane::<T>::new(cpu);
        let mut time = |steps| {
            let start = Instant::now();
            let (operations, sum) = lane.fma_chains(steps, T::from_f64(0.5), black_box(T::ONE));
            black_box(sum);
            (operations as f64, start.elapsed().as_secs_f64())
        };
        let steps = (1000.0 * 1e-3 / time(1000).1).clamp(1e3, 1e7) as usize;
        (0..20).map(|_| time(steps)).map(|(operations, s)| operations / s).fold(0.0, f64::max) / 1e9
    })
}

/// Bytes a second, in 10^9, read plus written by copies of 64 MiB on every thread at once: the best of 5.
pub fn copy_gbytes(threads: usize) -> f64 {
    const BYTES: usize = 64 << 20;
    on_each_thread(threads, || {
        let (src, mut dst) = (vec![1u8; BYTES], vec![0u8; BYTES]);
        let mut rate = || {
            let start = Instant::now();
            dst.copy_from_slice(black_box(&src));
            black_box(&dst);
            2.0 * BYTES as f64 / start.elapsed().as_secs_f64() / 1e9
        };
        (0..5).map(|_| rate()).fold(0.0, f64::max)
    })
}

/// Sum over threads that begin together.
fn on_each_thread(threads: usize, f: impl Fn() -> f64 + Sync) -> f64 {
    let barrier = Barrier::new(threads);
    let each = || {
        barrier.wait();
        f()
    };
    std::thread::scope(|scope| {
        let spawned: Vec<_> = (0..threads).map(|_| scope.spawn(each)).collect();
        spawned.into_iter().map(|thread| thread.join().expect("the loops do not panic")).sum()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chains_end_at_their_fixed_point() {
        for isa in crate::cpu::Isa::ALL {
            let Ok(cpu) = Cpu::with_isa(isa) else { continue };
            // s = s / 2 + 3 goes to 6, halving its distance at each step: after 3 it is 6 - 6 / 8.
            let (operations, sum) = Lane::<f32>::new(&cpu).fma_chains(3, 0.5, 3.0);
            assert_eq!(f64::from(sum), operations as f64 / 6.0 * 5.25, "{}", isa.name());
        }
    }

    #[test]
    fn the_median_of_even_and_odd_numbers_of_times() {
        assert_eq!(Times(vec![1.0, 2.0, 4.0]).median(), 2.0);
        assert_eq!(Times(vec![1.0, 2.0, 4.0, 9.0]).median(), 3.0);
    }
}
