//! What build.rs made of `kernels/*.cu`: images for each architecture, and each kernel's use of registers and memory.
#![forbid(unsafe_code)]

use super::Arch;

/// One file of `kernels/`, compiled for one architecture.
#[derive(Debug)]
pub struct Image {
    /// The file's name without `.cu`.
    pub stem: &'static str,
    /// The target, as in `sm_90a`.
    pub arch: &'static str,
    /// Machine code.
    pub cubin: &'static [u8],
    /// The text it was assembled from; a driver translates it for architectures that have no machine code here.
    pub ptx: &'static str,
    /// Its kernels, by name.
    pub kernels: &'static [Resources],
}

/// What one kernel takes, as the assembler says.
#[derive(Debug)]
pub struct Resources {
    /// The kernel's name, unique among all files.
    pub kernel: &'static str,
    /// Registers a thread.
    pub registers: u32,
    /// Bytes of stack a thread.
    pub stack: u32,
    /// Bytes a thread stores because registers ran out.
    pub spill_stores: u32,
    /// Bytes it loads back.
    pub spill_loads: u32,
    /// Bytes of static shared memory a block; what a launch adds is not in it.
    pub shared: u32,
}

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// All images.
pub fn images() -> &'static [Image] {
    IMAGES
}

/// The version of the compiler that made them, major and minor.
pub fn nvrtc_version() -> (i32, i32) {
    NVRTC_VERSION
}

/// The architectures there are images for, in the order they were named in, each as often as there are files.
pub(super) fn archs() -> impl Iterator<Item = Arch> + Clone {
    IMAGES.iter().filter_map(|image| Arch::parse(image.arch))
}

/// The images for one architecture.
pub(super) fn images_for(arch: Arch) -> impl Iterator<Item = &'static Image> {
    IMAGES.iter().filter(move |image| Arch::parse(image.arch) == Some(arch))
}
