//! What a device can do at all, measured on it: multiply-adds in registers, by each unit, and a copy of memory
//! (`kernels/peak.cu` and `kernels/peak.sm_90a.cu`).

use std::time::Instant;

use super::{Args, Device, Launch, Precision};
use crate::{Error, Result};

/// Chains of a thread or warp, as `CHAINS` in the kernels.
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
    /// Multiply-adds of each of a thread's chains; tensor cores, which do more in one, take an eighth of these steps.
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
        Ok(Self { operations: FMA.operations(device, sizes)?, bytes: bytes(device, sizes)? })
    }
}

impl Precision {
    /// Operations a second, two for a multiply-add, that products of this precision can reach on the device: those of
    /// multiply-adds in f32, or of the faster of `mma.sync` and, on `sm_90a`, `wgmma`. A product as `tf32x3` takes three of
    /// tf32, so its peak is a third of tf32's. Measures this unit alone.
    ///
    /// # Errors
    /// As [`Peaks::measure`].
    pub fn peak<D: Device>(self, device: &mut D, sizes: PeakSizes) -> Result<f64> {
        let instructions = if device.arch().has_wgmma() { 2 } else { 1 };
        let (all, products) = match self {
            Precision::F32 => (&[FMA][..], 1.0),
            Precision::Tf32x3 => (&TF32[..instructions], 3.0),
            Precision::Bf16 | Precision::F16 => (&BF16[..instructions], 1.0),
        };
        let mut best = 0.0;
        for chains in all {
            best = f64::max(best, chains.operations(device, sizes)?);
        }
        Ok(best / products)
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

/// A kernel whose threads, alone or with their warp or warpgroup, repeat an instruction on sums of their own.
struct Chains {
    kernel: &'static str,
    /// Multiply-adds of a step; in tensor cores a thread's share of them.
    multiply_adds: usize,
    tensor_cores: bool,
}

/// Multiply-adds in f32.
const FMA: Chains = Chains { kernel: "fma_chains", multiply_adds: CHAINS, tensor_cores: false };

/// Products on tensor cores: 4 sums a chain by `mma.sync`, 64 a thread by `wgmma`, which `sm_90a` alone has, four times a
/// step; over 8 numbers of tf32.
const TF32: [Chains; 2] = [
    Chains { kernel: "tf32_mma_chains", multiply_adds: CHAINS * 4 * 8, tensor_cores: true },
    Chains { kernel: "tf32_wgmma_chains", multiply_adds: 4 * 64 * 8, tensor_cores: true },
];

/// The same over 16 numbers of bf16; f16 has the same rates.
const BF16: [Chains; 2] = [
    Chains { kernel: "bf16_mma_chains", multiply_adds: CHAINS * 4 * 16, tensor_cores: true },
    Chains { kernel: "bf16_wgmma_chains", multiply_adds: 4 * 64 * 16, tensor_cores: true },
];

impl Chains {
    /// Operations a second.
    fn operations<D: Device>(&self, device: &mut D, sizes: PeakSizes) -> Result<f64> {
        let (blocks, threads) = (sizes.blocks, sizes.blocks * THREADS);
        let steps = if self.tensor_cores { sizes.steps.div_ceil(8) } else { sizes.steps };
        let dst = device.alloc(4 * threads)?;
        let args = Args::new().i32(steps as i32).f32(0.5).f32(3.0).ptr(device.address(&dst));
        let launch =
            Launch { kernel: self.kernel, grid: [blocks as u32, 1, 1], block: [THREADS as u32, 1, 1], shared: 0 };
        // SAFETY: `dst` has a number for each thread.
        let seconds = unsafe { best(device, &launch, &args)? };
        let mut found = vec![0f32; threads];
        device.download(&dst, 0, bytemuck::cast_slice_mut(&mut found))?;
        let wanted = self.sum(steps);
        if let Some(found) = found.iter().find(|&&found| found != wanted) {
            return Err(Error::device(self.kernel, format!("{found}; wanted {wanted}")));
        }
        Ok((2 * self.multiply_adds * steps * threads) as f64 / seconds)
    }

    /// What a thread's sums add up to, exactly.
    fn sum(&self, steps: usize) -> f32 {
        if self.tensor_cores {
            return (self.multiply_adds * steps) as f32 * (0.5 * 3.0);
        }
        // x = x / 2 + 3 goes to 6 and halves its distance at each step.
        CHAINS as f32 * (6.0 - 6.0 * 0.5f32.powi(steps as i32))
    }
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
