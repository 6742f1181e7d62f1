//! What a launch is, and what launches: the seam between the code that chooses kernels and the machine that runs them.

use std::ffi::c_void;
use std::ops::{DerefMut, Range};
use std::ptr;

use bytemuck::NoUninit;

use super::Arch;
use crate::{Error, Result};

/// Words of 8 bytes that a kernel's parameters may have; each begins a new one.
const MAX_ARGS: usize = 40;

/// A kernel's parameters as bytes, in order, without allocation.
#[derive(Clone, Debug)]
pub struct Args {
    words: [u64; MAX_ARGS],
    used: usize,
    sizes: [u16; MAX_ARGS],
    count: usize,
}

impl Default for Args {
    fn default() -> Self {
        Self { words: [0; MAX_ARGS], used: 0, sizes: [0; MAX_ARGS], count: 0 }
    }
}

impl Args {
    /// No parameters yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Little-endian hosts only, as the crate demands elsewhere: the low bytes of a word come first.
    fn push(mut self, words: &[u64], size: usize) -> Self {
        let end = self.used + words.len();
        assert!(end <= MAX_ARGS, "a kernel's parameters have at most {MAX_ARGS} words");
        self.words[self.used..end].copy_from_slice(words);
        self.used = end;
        self.sizes[self.count] = size as u16;
        self.count += 1;
        self
    }

    /// A pointer: an address on the device, from [`Device::address`]; 0 is null.
    pub fn ptr(self, address: u64) -> Self {
        self.push(&[address], 8)
    }

    /// `int`.
    pub fn i32(self, x: i32) -> Self {
        self.push(&[u64::from(x as u32)], 4)
    }

    /// `unsigned int`.
    pub fn u32(self, x: u32) -> Self {
        self.push(&[u64::from(x)], 4)
    }

    /// `long long` or `unsigned long long`.
    pub fn i64(self, x: i64) -> Self {
        self.push(&[x as u64], 8)
    }

    /// `float`.
    pub fn f32(self, x: f32) -> Self {
        self.push(&[u64::from(x.to_bits())], 4)
    }

    /// A structure by value, of whole words: the kernel's has the same fields in the same order.
    pub fn structure<T: NoUninit>(self, x: &T) -> Self {
        const { assert!(size_of::<T>().is_multiple_of(8) && align_of::<T>() == 8, "fields of 8 bytes, or pairs of 4") };
        self.push(bytemuck::cast_slice(std::slice::from_ref(x)), size_of::<T>())
    }

    /// Where each parameter's words begin, and how many bytes it has.
    fn places(&self) -> impl Iterator<Item = (usize, usize)> {
        self.sizes[..self.count].iter().scan(0, |at, &size| {
            let from = *at;
            *at += usize::from(size).div_ceil(8);
            Some((from, usize::from(size)))
        })
    }

    /// Each parameter's bytes.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let bytes: &[u8] = bytemuck::cast_slice(&self.words);
        self.places().map(move |(at, size)| &bytes[8 * at..][..size])
    }

    /// A pointer to each parameter, as the driver wants them, and how many.
    pub(super) fn pointers(&self) -> ([*mut c_void; MAX_ARGS], usize) {
        let mut pointers = [ptr::null_mut(); MAX_ARGS];
        for (pointer, (at, _)) in pointers.iter_mut().zip(self.places()) {
            *pointer = ptr::from_ref(&self.words[at]).cast_mut().cast();
        }
        (pointers, self.count)
    }
}

/// Which kernel, and how many threads of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The kernel's name.
    pub kernel: &'static str,
    /// Blocks along x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block along x, y, z.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory a block.
    pub shared: u32,
}

impl Launch {
    /// Refuses what no device launches, and more shared memory than this one has, before the driver does.
    pub fn check(&self, shared_limit: u32) -> Result<()> {
        let refuse = |detail: String| Err(Error::device(self.kernel, detail));
        let ([gx, gy, gz], [bx, by, bz]) = (self.grid, self.block);
        if gx == 0 || gy == 0 || gz == 0 || gx > i32::MAX as u32 || gy > 65_535 || gz > 65_535 {
            return refuse(format!("a grid of {gx}x{gy}x{gz} blocks; 1 to 2147483647x65535x65535 can be launched"));
        }
        let threads = u64::from(bx) * u64::from(by) * u64::from(bz);
        if threads == 0 || threads > 1024 || bz > 64 {
            return refuse(format!(
                "a block of {bx}x{by}x{bz} threads; 1 to 1024 in all and 64 along z can be launched"
            ));
        }
        if self.shared > shared_limit {
            let shared = self.shared;
            return refuse(format!("a block needs {shared} bytes of shared memory; this device has {shared_limit}"));
        }
        Ok(())
    }
}

/// A machine that holds memory and runs kernels and copies in the order they are launched. Work is done when
/// [`Device::download`] or [`Device::synchronize`] returns.
pub trait Device {
    /// Memory on the device, free again when dropped.
    type Buffer;

    /// Memory of the host that the device copies from and to while the host goes on, free again when dropped.
    type Host: DerefMut<Target = [u8]>;

    /// Launches, recorded.
    type Graph;

    /// The architecture whose images are loaded.
    fn arch(&self) -> Arch;

    /// Bytes of shared memory a block may have.
    fn shared_limit(&self) -> u32;

    /// New memory of that many bytes, not initialised, aligned to 256 bytes.
    fn alloc(&mut self, bytes: usize) -> Result<Self::Buffer>;

    /// New memory of the host, zeroed, aligned to 8 bytes.
    fn alloc_host(&mut self, bytes: usize) -> Result<Self::Host>;

    /// Its address on the device.
    fn address(&self, buffer: &Self::Buffer) -> u64;

    /// Its size.
    fn bytes(&self, buffer: &Self::Buffer) -> usize;

    /// Copies `src` to `offset` bytes behind the start of `dst`.
    fn upload(&mut self, dst: &mut Self::Buffer, offset: usize, src: &[u8]) -> Result<()>;

    /// Copies from `offset` bytes behind the start of `src`, after all work before.
    fn download(&mut self, src: &Self::Buffer, offset: usize, dst: &mut [u8]) -> Result<()>;

    /// Begins to copy a range of `src`'s bytes to the same range of `dst`, after all work before.
    ///
    /// # Safety
    /// Those bytes of `src` are not changed, nor is it dropped, before the work is done.
    unsafe fn upload_async(&mut self, dst: &mut Self::Buffer, src: &Self::Host, range: Range<usize>) -> Result<()>;

    /// Begins to copy a range of `src`'s bytes to the start of `dst`, after all work before.
    ///
    /// # Safety
    /// `dst` is neither read, changed nor dropped before the work is done.
    unsafe fn download_async(&mut self, src: &Self::Buffer, range: Range<usize>, dst: &mut Self::Host) -> Result<()>;

    /// Launches a kernel behind all work before.
    ///
    /// # Safety
    /// `args` are the kernel's parameters in number, order and type; every element it touches lies in a live buffer of
    /// this device, which stays alive until the work is done.
    unsafe fn launch(&mut self, launch: &Launch, args: &Args) -> Result<()>;

    /// Records what `work` launches in place of running it. `work` launches only: it neither allocates, copies nor waits.
    ///
    /// # Errors
    /// Those of `work`.
    fn record(&mut self, work: impl FnOnce(&mut Self) -> Result<()>) -> Result<Self::Graph>;

    /// Runs recorded launches behind all work before.
    ///
    /// # Safety
    /// What [`Device::launch`] asks for holds for each recorded launch now.
    unsafe fn replay(&mut self, graph: &Self::Graph) -> Result<()>;

    /// Waits for all work.
    fn synchronize(&mut self) -> Result<()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_keep_their_bytes() {
        let args = Args::new().structure(&[3u64, 4]).ptr(0x1_0000_0002).i32(-2).f32(1.5).u32(7).i64(-1);
        let found = args.iter().map(<[u8]>::to_vec).collect::<Vec<_>>();
        let wanted: [&[u8]; 6] = [
            bytemuck::bytes_of(&[3u64, 4]),
            &0x1_0000_0002u64.to_le_bytes(),
            &(-2i32).to_le_bytes(),
            &1.5f32.to_le_bytes(),
            &7u32.to_le_bytes(),
            &(-1i64).to_le_bytes(),
        ];
        assert_eq!(found, wanted);
        let (pointers, count) = args.pointers();
        assert_eq!((count, pointers[1] as usize - pointers[0] as usize), (6, 16));
    }

    #[test]
    fn impossible_launches_are_refused() {
        let good = Launch { kernel: "k", grid: [1, 65_535, 1], block: [32, 32, 1], shared: 100 };
        assert!(good.check(100).is_ok());
        for bad in [
            Launch { grid: [0, 1, 1], ..good },
            Launch { grid: [1, 65_536, 1], ..good },
            Launch { block: [32, 33, 1], ..good },
            Launch { block: [1, 0, 1], ..good },
            Launch { shared: 101, ..good },
        ] {
            assert!(bad.check(100).is_err(), "{bad:?}");
        }
    }
}
