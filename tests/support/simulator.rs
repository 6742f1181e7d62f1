//! A device that is an interpreter of PTX: it runs the very text build.rs embeds, launched by the engine's own code, and
//! turns races, missing waits and addresses outside of their buffer into errors.

use std::collections::BTreeSet;

use metaglot::cuda::{Arch, Args, Device, Launch, images};
use metaglot::{Error, Result};
use ptx_interpreter::Module;

/// The largest shared memory of a block on the architectures that are built for.
const SHARED: u32 = 227 * 1024;

/// One architecture's kernels on the interpreter.
pub struct Simulator {
    arch: Arch,
    memory: ptx_interpreter::Device,
    modules: Vec<(&'static str, Module)>,
    edit: fn(&str) -> String,
    launched: BTreeSet<&'static str>,
    /// Permutes blocks and warps.
    pub seed: u64,
}

/// Memory of a simulator.
pub struct Memory {
    address: u64,
    bytes: usize,
}

impl Simulator {
    /// The kernels as they are.
    pub fn new(arch: &str) -> Self {
        Self::with_edit(arch, str::to_string)
    }

    /// The kernels after a change of their text.
    pub fn with_edit(arch: &str, edit: fn(&str) -> String) -> Self {
        let arch = Arch::parse(arch).expect("an architecture");
        Self { arch, memory: ptx_interpreter::Device::new(), modules: vec![], edit, launched: BTreeSet::new(), seed: 1 }
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

    fn arch(&self) -> Arch {
        self.arch
    }

    fn shared_limit(&self) -> u32 {
        SHARED
    }

    fn alloc(&mut self, bytes: usize) -> Result<Memory> {
        Ok(Memory { address: self.memory.alloc(bytes), bytes })
    }

    fn address(&self, buffer: &Memory) -> u64 {
        buffer.address
    }

    fn upload(&mut self, dst: &mut Memory, offset: usize, src: &[u8]) -> Result<()> {
        assert!(offset + src.len() <= dst.bytes);
        self.memory.write(dst.address + offset as u64, src).map_err(|e| Error::device("upload", format!("{e:?}")))
    }

    fn download(&mut self, src: &Memory, offset: usize, dst: &mut [u8]) -> Result<()> {
        assert!(offset + dst.len() <= src.bytes);
        self.memory.read(src.address + offset as u64, dst).map_err(|e| Error::device("download", format!("{e:?}")))
    }

    unsafe fn launch(&mut self, launch: &Launch, args: &Args) -> Result<()> {
        launch.check(SHARED)?;
        let at = self.module(launch.kernel)?;
        self.launched.insert(launch.kernel);
        let args: Vec<&[u8]> = args.iter().collect();
        let (module, seed) = (&self.modules[at].1, self.seed);
        let run = self.memory.launch(module, launch.kernel, launch.grid, launch.block, launch.shared, &args, seed);
        run.map(|_| ()).map_err(|fault| Error::device(launch.kernel, format!("{fault:?}")))
    }

    fn synchronize(&mut self) -> Result<()> {
        Ok(())
    }
}
