//! What a device can do at all, measured on it: multiply-adds in registers and a copy of memory (`kernels/peak.cu`).

use std::time::Instant;

use super::{Args, Device, Launch};
use crate::{Error, Result};

/// Chains of a thread, as `CHAINS` in the kernel.
const CHAINS: usize = 8;
/// Threads of a block.
const THREADS: usize = 256;
/// Each is the best of as many runs, after one that is not counted.
const RUNS: usize = 5;

/// Rates a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peaks {
    /// Operations in f32, two for a multiply-add.
    pub operations: f64,
    /// Bytes read plus bytes written by a copy.
    pub bytes: f64,
}

/// How much is done in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeakSizes {
    /// Blocks of 256 threads.
    pub blocks: usize,
    /// Multiply-adds of each of a thread's chains.
    pub steps: usize,
    /// Bytes that are copied; a multiple of 16.
    pub bytes: usize,
}

impl PeakSizes {
    /// Some milliseconds on today's largest devices, and a copy beyond their caches.
    pub const LARGE: PeakSizes = PeakSizes { blocks: 8192, steps: 1 << 14, bytes: 1 << 30 };
}

impl Peaks {
    /// Measures them, and compares what the kernels computed.
    ///
    /// # Errors
    /// [`Error::Device`] where the device refuses, or where a result is wrong.
    pub fn measure<D: Device>(device: &mut D, sizes: PeakSizes) -> Result<Self> {
        Ok(Self { operations: operations(device, sizes)?, bytes: bytes(device, sizes)? })
    }
}

/// The best seconds of some runs of a launch.
///
/// # Safety
/// As [`Device::launch`].
unsafe fn best<D: Device>(device: &mut D, launch: &Launch, args: &Args) -> Result<f64> {
    let mut best = f64::INFINITY;
    for run in 0..=RUNS {
        device.synchronize()?;
        let start = Instant::now();
        // SAFETY: the caller's promise.
        unsafe { device.launch(launch, args)? };
        device.synchronize()?;
        if run > 0 {
            best = best.min(start.elapsed().as_secs_f64());
        }
    }
    Ok(best)
}

fn operations<D: Device>(device: &mut D, sizes: PeakSizes) -> Result<f64> {
    let (blocks, threads) = (sizes.blocks, sizes.blocks * THREADS);
    let dst = device.alloc(4 * threads)?;
    let args = Args::new().i32(sizes.steps as i32).f32(0.5).f32(3.0).ptr(device.address(&dst));
    let launch = Launch { kernel: "fma_chains", grid: [blocks as u32, 1, 1], block: [THREADS as u32, 1, 1], shared: 0 };
    // SAFETY: `dst` has a number for each thread.
    let seconds = unsafe { best(device, &launch, &args)? };
    let mut last = [0u8; 4];
    device.download(&dst, 4 * (threads - 1), &mut last)?;
    // x = x / 2 + 3 goes to 6 and halves its distance at each step.
    let (found, wanted) = (f32::from_le_bytes(last), CHAINS as f32 * (6.0 - 6.0 * 0.5f32.powi(sizes.steps as i32)));
    if found != wanted {
        return Err(Error::device("fma_chains", format!("{found}; wanted {wanted}")));
    }
    Ok((2 * CHAINS * sizes.steps * threads) as f64 / seconds)
}

fn bytes<D: Device>(device: &mut D, sizes: PeakSizes) -> Result<f64> {
    let mut src = device.alloc(sizes.bytes)?;
    let dst = device.alloc(sizes.bytes)?;
    let pattern = (0..sizes.bytes).map(|i| (i % 251) as u8).collect::<Vec<u8>>();
    device.upload(&mut src, 0, &pattern)?;
    let args = Args::new().i64((sizes.bytes / 16) as i64).ptr(device.address(&src)).ptr(device.address(&dst));
    let grid = [sizes.blocks as u32, 1, 1];
    let launch = Launch { kernel: "copy_f32x4", grid, block: [THREADS as u32, 1, 1], shared: 0 };
    // SAFETY: both buffers have as many numbers.
    let seconds = unsafe { best(device, &launch, &args)? };
    let mut found = vec![0; sizes.bytes];
    device.download(&dst, 0, &mut found)?;
    if found != pattern {
        return Err(Error::device("copy_f32x4", "the copy differs"));
    }
    Ok(2.0 * sizes.bytes as f64 / seconds)
}
