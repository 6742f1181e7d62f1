//! The device: global memory and launches.

use crate::block::{self, Stopped};
use crate::exec::Env;
use crate::memory::Memory;
use crate::module::{Kernel, Module, end_of};
use crate::shared::Shared;
use crate::warp::Warp;
use crate::{Fault, FaultKind};

/// A device with global memory.
#[derive(Debug, Default)]
pub struct Device {
    memory: Memory,
}

/// What a launch did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Instructions, each counted once a warp (once a group of lanes where a warp diverges).
    pub warp_instructions: u64,
    /// Instructions, counted once a lane.
    pub lane_instructions: u64,
}

/// The parts of a launch that its blocks share.
struct Launch<'a> {
    kernel: &'a Kernel,
    grid: [u32; 3],
    block: [u32; 3],
    shared: [u32; 2],
    params: &'a [u8],
    globals: &'a [u64],
}

impl Device {
    /// A device whose memory holds nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// New global memory that nothing has written. Its address is a multiple of 2^32.
    pub fn alloc(&mut self, bytes: usize) -> u64 {
        self.memory.alloc(bytes)
    }

    /// New global memory, written with zeros.
    pub fn alloc_zeroed(&mut self, bytes: usize) -> u64 {
        let address = self.memory.alloc(bytes);
        // The allocation is as long as the data.
        let _ = self.memory.write(address, &vec![0; bytes]);
        address
    }

    /// Gives memory back; accesses to it are out of bounds from now on. False for what `alloc` didn't return.
    pub fn free(&mut self, address: u64) -> bool {
        self.memory.free(address)
    }

    /// Writes global memory.
    ///
    /// # Errors
    /// [`FaultKind::OutOfBounds`].
    pub fn write(&mut self, address: u64, data: &[u8]) -> Result<(), Fault> {
        self.memory.write(address, data).map_err(|b| Fault { kind: b.kind, ..host(b.detail) })
    }

    /// Reads global memory; bytes that nothing has written are zero.
    ///
    /// # Errors
    /// [`FaultKind::OutOfBounds`].
    pub fn read(&self, address: u64, out: &mut [u8]) -> Result<(), Fault> {
        self.memory.read(address, out).map_err(|b| Fault { kind: b.kind, ..host(b.detail) })
    }

    /// Runs a grid; `args` has the bytes of each parameter. The seed permutes blocks and warps: a correct kernel gives
    /// the same result for every seed, atomics on floats aside. The module's variables start as declared.
    ///
    /// # Errors
    /// The first [`Fault`]; global memory keeps what was written up to there.
    #[expect(clippy::too_many_arguments, reason = "the shape of cuLaunchKernel")]
    pub fn launch<A: AsRef<[u8]>>(
        &mut self,
        module: &Module,
        kernel: &str,
        grid: [u32; 3],
        block: [u32; 3],
        dynamic_shared: u32,
        args: &[A],
        seed: u64,
    ) -> Result<Stats, Fault> {
        let bad = |detail: String| Fault { kernel: kernel.to_string(), ..host(detail) };
        let Some(found) = module.kernels.iter().find(|k| k.name == kernel) else {
            return Err(bad("no such kernel".into()));
        };
        let params = params(found, args).map_err(bad)?;
        let base = end_of(found.static_shared, found.dynamic_align);
        limits(module, found, grid, block, base, dynamic_shared).map_err(bad)?;
        let globals: Vec<u64> = module.globals.iter().map(|image| self.variable(image)).collect();
        let shared = [base, dynamic_shared];
        let launch = Launch { kernel: found, grid, block, shared, params: &params, globals: &globals };
        let result = self.grid(&launch, seed);
        for &address in &globals {
            self.memory.free(address);
        }
        result
    }

    fn variable(&mut self, image: &[u8]) -> u64 {
        let address = self.memory.alloc(image.len());
        let _ = self.memory.write(address, image);
        address
    }

    fn grid(&mut self, launch: &Launch<'_>, seed: u64) -> Result<Stats, Fault> {
        let mut random = seed;
        let mut stats = Stats::default();
        let [x, y, z] = launch.grid;
        for b in permutation((x * y * z) as usize, &mut random) {
            let b = b as u32;
            self.block(launch, [b % x, b / x % y, b / x / y], &mut random, &mut stats)?;
        }
        Ok(stats)
    }

    fn block(
        &mut self,
        launch: &Launch<'_>,
        ctaid: [u32; 3],
        random: &mut u64,
        stats: &mut Stats,
    ) -> Result<(), Fault> {
        let kernel = launch.kernel;
        let [dynamic_base, dynamic_size] = launch.shared;
        let count = launch.block.iter().product::<u32>().div_ceil(32);
        let mut warps: Vec<_> =
            (0..count).map(|id| Warp::new(id, launch.block, kernel.registers, kernel.local_bytes)).collect();
        let mut env = Env {
            memory: &mut self.memory,
            shared: Shared::new(dynamic_base + dynamic_size),
            globals: launch.globals,
            params: launch.params,
            grid: launch.grid,
            block: launch.block,
            ctaid,
            local_bytes: kernel.local_bytes,
            dynamic_base,
            dynamic_size,
            arrived: [0; 16],
        };
        let order = permutation(warps.len(), random);
        block::run(kernel, &mut env, &mut warps, &order).map_err(|s| fault(kernel, ctaid, s))?;
        stats.warp_instructions += warps.iter().map(|w| w.clock).sum::<u64>();
        stats.lane_instructions += warps.iter().map(|w| w.lane_instructions).sum::<u64>();
        Ok(())
    }
}

/// A fault that no instruction is to blame for.
fn host(detail: String) -> Fault {
    Fault {
        kind: FaultKind::BadLaunch,
        kernel: String::new(),
        block: [0; 3],
        warp: 0,
        lane: None,
        line: 0,
        text: String::new(),
        detail,
    }
}

fn fault(kernel: &Kernel, block: [u32; 3], stopped: Stopped) -> Fault {
    let Stopped { blame, warp, pc } = stopped;
    let line = pc.map_or(0, |pc| kernel.code[pc as usize].line);
    let text = pc.and_then(|pc| kernel.text.get(pc as usize)).cloned().unwrap_or_default();
    Fault {
        kind: blame.kind,
        kernel: kernel.name.clone(),
        block,
        warp,
        lane: blame.lane,
        line,
        text,
        detail: blame.detail,
    }
}

/// The arguments as the kernel's parameter block.
fn params<A: AsRef<[u8]>>(kernel: &Kernel, args: &[A]) -> Result<Vec<u8>, String> {
    if args.len() != kernel.params.len() {
        return Err(format!("{} arguments for {} parameters", args.len(), kernel.params.len()));
    }
    let mut out = Vec::new();
    for (i, (arg, &(offset, size))) in args.iter().zip(&kernel.params).enumerate() {
        let arg = arg.as_ref();
        if arg.len() != size as usize {
            return Err(format!("{} bytes for parameter {i} of {size}", arg.len()));
        }
        out.resize(offset as usize, 0);
        out.extend_from_slice(arg);
    }
    Ok(out)
}

fn limits(
    module: &Module,
    kernel: &Kernel,
    grid: [u32; 3],
    block: [u32; 3],
    base: u32,
    dynamic_shared: u32,
) -> Result<(), String> {
    let product = |d: [u32; 3]| d.iter().map(|&n| u64::from(n)).product::<u64>();
    let threads = product(block);
    if threads == 0 || threads > 1024 || block[2] > 64 {
        return Err(format!("a block of {block:?} threads"));
    }
    if product(grid) == 0 || product(grid) > u64::from(u32::MAX) || grid[1] > 65535 || grid[2] > 65535 {
        return Err(format!("a grid of {grid:?} blocks"));
    }
    if let Some(max) = kernel.max_threads.filter(|&m| product(m) < threads) {
        return Err(format!("a block of {block:?} threads where .maxntid is {max:?}"));
    }
    if let Some(wanted) = kernel.required_threads.filter(|&r| r != block) {
        return Err(format!("a block of {block:?} threads where .reqntid is {wanted:?}"));
    }
    let total = u64::from(base) + u64::from(dynamic_shared);
    if kernel.static_shared > 48 * 1024 || total > u64::from(module.shared_limit) {
        return Err(format!(
            "{} static and {dynamic_shared} dynamic bytes of shared memory; a block may have {}, 49152 of them static",
            kernel.static_shared, module.shared_limit
        ));
    }
    Ok(())
}

/// `0..n` in an order that the state decides (Fisher-Yates with SplitMix64, Steele et al. 2014).
fn permutation(n: usize, state: &mut u64) -> Vec<usize> {
    let mut out: Vec<_> = (0..n).collect();
    for i in (1..n).rev() {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = *state;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        out.swap(i, ((x ^ x >> 31) % (i as u64 + 1)) as usize);
    }
    out
}
