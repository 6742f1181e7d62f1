//! A device that is an interpreter of PTX: it runs the very text build.rs embeds, launched by the engine's own code, and
//! turns races, missing waits and addresses outside of their buffer into errors.

use std::collections::BTreeSet;
use std::mem;
use std::ops::{Deref, DerefMut, Range};

use metaglot::cuda::{Arch, Args, Device, Launch, images};
use metaglot::{Error, Result};
use ptx_interpreter::Module;

/// One architecture's kernels on the interpreter.
pub struct Simulator {
    arch: Arch,
    memory: ptx_interpreter::Device,
    modules: Vec<(&'static str, Module)>,
    edit: fn(&str) -> String,
    launched: BTreeSet<&'static str>,
    recording: Option<Vec<(Launch, Args)>>,
    /// Downloads that were begun: their bytes, and where they go when the host waits.
    pending: Vec<(Vec<u8>, usize)>,
    /// What copies from the host read, and where.
    lent: Vec<(Vec<u8>, usize)>,
    /// Permutes blocks and warps.
    pub seed: u64,
    /// Bytes of shared memory a block may have: at first as on an H100.
    pub shared_limit: u32,
    /// What it was asked to do.
    pub counts: Counts,
}

/// Calls of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub allocations: usize,
    pub copies: usize,
    pub launches: usize,
    pub recordings: usize,
    pub replays: usize,
    pub waits: usize,
}

/// Memory of a simulator.
pub struct Memory {
    address: u64,
    bytes: usize,
}

/// Memory of the host, aligned as the engine may ask.
pub struct HostMemory {
    words: Vec<u64>,
    bytes: usize,
}

impl Deref for HostMemory {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.bytes]
    }
}

impl DerefMut for HostMemory {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.words)[..self.bytes]
    }
}

impl Simulator {
    /// The kernels as they are.
    pub fn new(arch: &str) -> Self {
        Self::with_edit(arch, str::to_string)
    }

    /// The kernels after a change of their text.
    pub fn with_edit(arch: &str, edit: fn(&str) -> String) -> Self {
        let arch = Arch::parse(arch).expect("an architecture");
        let (modules, pending, recording, launched) = (vec![], vec![], None, BTreeSet::new());
        let (memory, shared_limit, counts) = (ptx_interpreter::Device::new(), 227 * 1024, Counts::default());
        Self { arch, memory, modules, edit, launched, recording, pending, lent: vec![], seed: 1, shared_limit, counts }
    }

    /// The file that holds a kernel, parsed when it is first launched.
    fn module(&mut self, kernel: &'static str) -> Result<usize> {
        let holds = |image: &&metaglot::cuda::Image| {
            Arch::parse(image.arch) == Some(self.arch) && image.kernels.iter().any(|k| k.kernel == kernel)
        };
        let image = images().iter().find(holds).ok_or_else(|| Error::device(kernel, "no such kernel"))?;
        if let Some(at) = self.modules.iter().position(|(stem, _)| *stem == image.stem) {
            return Ok(at);
        }
        let module = Module::parse(&(self.edit)(image.ptx)).map_err(|e| Error::device(kernel, e.to_string()))?;
        self.modules.push((image.stem, module));
        Ok(self.modules.len() - 1)
    }

    /// Panics if a kernel of these files was not launched here.
    pub fn assert_all_launched(&self, stems: &[&str]) {
        let own = images().iter().filter(|i| Arch::parse(i.arch) == Some(self.arch) && stems.contains(&i.stem));
        let idle = own.flat_map(|i| i.kernels).map(|k| k.kernel).filter(|k| !self.launched.contains(k));
        assert_eq!(idle.collect::<Vec<_>>(), [""; 0], "{}: kernels that nothing ran", self.arch);
    }
}

/// A simulator of each architecture there are images for.
pub fn simulators() -> Vec<Simulator> {
    let mut archs: Vec<&str> = images().iter().map(|image| image.arch).collect();
    archs.sort_unstable();
    archs.dedup();
    archs.into_iter().map(Simulator::new).collect()
}

impl Device for Simulator {
    type Buffer = Memory;
    type Host = HostMemory;
    type Graph = Vec<(Launch, Args)>;

    fn arch(&self) -> Arch {
        self.arch
    }

    fn shared_limit(&self) -> u32 {
        self.shared_limit
    }

    fn alloc(&mut self, bytes: usize) -> Result<Memory> {
        self.counts.allocations += 1;
        Ok(Memory { address: self.memory.alloc(bytes), bytes })
    }

    fn alloc_host(&mut self, bytes: usize) -> Result<HostMemory> {
        self.counts.allocations += 1;
        Ok(HostMemory { words: vec![0; bytes.div_ceil(8)], bytes })
    }

    fn address(&self, buffer: &Memory) -> u64 {
        buffer.address
    }

    fn bytes(&self, buffer: &Memory) -> usize {
        buffer.bytes
    }

    fn upload(&mut self, dst: &mut Memory, offset: usize, src: &[u8]) -> Result<()> {
        assert!(offset + src.len() <= dst.bytes && self.recording.is_none());
        self.counts.copies += 1;
        self.memory.write(dst.address + offset as u64, src).map_err(|e| Error::device("upload", format!("{e:?}")))
    }

    fn download(&mut self, src: &Memory, offset: usize, dst: &mut [u8]) -> Result<()> {
        assert!(offset + dst.len() <= src.bytes && self.recording.is_none());
        self.counts.copies += 1;
        self.memory.read(src.address + offset as u64, dst).map_err(|e| Error::device("download", format!("{e:?}")))
    }

    /// What it copied must be the same when the host has waited.
    unsafe fn upload_async(&mut self, dst: &mut Memory, src: &HostMemory, range: Range<usize>) -> Result<()> {
        let bytes = src[range.clone()].to_vec();
        self.upload(dst, range.start, &bytes)?;
        self.lent.push((bytes, src[range].as_ptr().expose_provenance()));
        Ok(())
    }

    /// Until the host waits there is nothing but ones in `dst`, which no number equals.
    unsafe fn download_async(&mut self, src: &Memory, range: Range<usize>, dst: &mut HostMemory) -> Result<()> {
        let mut bytes = vec![0; range.len()];
        self.download(src, range.start, &mut bytes)?;
        let dst = &mut dst[..bytes.len()];
        dst.fill(0xff);
        self.pending.push((bytes, dst.as_mut_ptr().expose_provenance()));
        Ok(())
    }

    unsafe fn launch(&mut self, launch: &Launch, args: &Args) -> Result<()> {
        launch.check(self.shared_limit)?;
        if let Some(recording) = &mut self.recording {
            recording.push((*launch, args.clone()));
            return Ok(());
        }
        self.counts.launches += 1;
        let at = self.module(launch.kernel)?;
        self.launched.insert(launch.kernel);
        let args: Vec<&[u8]> = args.iter().collect();
        let (module, seed) = (&self.modules[at].1, self.seed);
        let run = self.memory.launch(module, launch.kernel, launch.grid, launch.block, launch.shared, &args, seed);
        run.map(|_| ()).map_err(|fault| Error::device(launch.kernel, format!("{fault:?}")))
    }

    fn record(&mut self, work: impl FnOnce(&mut Self) -> Result<()>) -> Result<Self::Graph> {
        self.counts.recordings += 1;
        self.recording = Some(vec![]);
        let done = work(self);
        let graph = mem::take(&mut self.recording).expect("begun above");
        done.map(|()| graph)
    }

    unsafe fn replay(&mut self, graph: &Self::Graph) -> Result<()> {
        self.counts.replays += 1;
        // SAFETY: the caller's promise.
        graph.iter().try_for_each(|(launch, args)| unsafe { self.launch(launch, args) })
    }

    fn synchronize(&mut self) -> Result<()> {
        self.counts.waits += 1;
        for (bytes, src) in self.lent.drain(..) {
            let src = std::ptr::with_exposed_provenance::<u8>(src);
            // SAFETY: as long as the copy, which `upload_async`'s caller keeps until this call.
            let now = unsafe { std::slice::from_raw_parts(src, bytes.len()) };
            assert!(now == bytes, "bytes were changed while they were copied");
        }
        for (bytes, dst) in self.pending.drain(..) {
            let dst = std::ptr::with_exposed_provenance_mut::<u8>(dst);
            // SAFETY: as long as the copy, which `download_async`'s caller keeps until this call.
            unsafe { dst.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        }
        Ok(())
    }
}
