//! Matrix products on a device: which kernel of `kernels/gemm.cu` or `kernels/gemm.sm_90a.cu` runs, on how many blocks.

use super::{Arch, Args, Device, Launch};
use crate::dtype::Dtype;
use crate::{Error, Result};

/// Which operand is stored transposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A is m x k, B is k x n.
    Nn,
    /// B is stored n x k: a layer of weights, one row a unit.
    Nt,
    /// A is stored k x m: a gradient of weights.
    Tn,
}

/// Storage of A and B and how their products are taken; sums are f32 always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// f32, fused multiply-adds.
    F32,
    /// f32, each number as two of tf32, on tensor cores: near f32's precision, for finite numbers only.
    Tf32x3,
    /// bf16, on tensor cores.
    Bf16,
    /// f16, on tensor cores.
    F16,
}

impl Precision {
    /// All of them.
    pub const ALL: [Precision; 4] = [Precision::F32, Precision::Tf32x3, Precision::Bf16, Precision::F16];

    /// `f32`, `tf32x3`, `bf16` or `f16`.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Tf32x3 => "tf32x3",
            Precision::Bf16 => "bf16",
            Precision::F16 => "f16",
        }
    }

    /// How A and B are stored.
    pub fn dtype(self) -> Dtype {
        match self {
            Precision::F32 | Precision::Tf32x3 => Dtype::F32,
            Precision::Bf16 => Dtype::Bf16,
            Precision::F16 => Dtype::F16,
        }
    }

    /// Bytes of an element of A and B.
    pub fn bytes(self) -> usize {
        if matches!(self, Precision::F32 | Precision::Tf32x3) { 4 } else { 2 }
    }
}

/// One operand: where it is and how far its rows and the entries of a batch are apart, in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operand {
    /// Address of its first element on the device.
    pub address: u64,
    /// Leading dimension.
    pub ld: usize,
    /// From one entry of the batch to the next; 0 lets all share it.
    pub stride: usize,
}

impl Operand {
    /// Whether every row of every entry starts at a multiple of `alignment` bytes.
    fn is_aligned(&self, element: usize, alignment: usize) -> bool {
        let bytes = [self.ld * element, self.stride * element];
        self.address.is_multiple_of(alignment as u64) && bytes.iter().all(|b| b.is_multiple_of(alignment))
    }
}

/// `c = relu?(alpha * A B + beta * c + bias)` for each entry of a batch; see `kernels/gemm.cu`.
#[derive(Clone, Copy, Debug)]
pub struct Gemm {
    /// Which operand is stored transposed.
    pub form: Form,
    /// Storage and arithmetic of A and B.
    pub precision: Precision,
    /// Rows of c.
    pub m: usize,
    /// Columns of c.
    pub n: usize,
    /// Length of the sums.
    pub k: usize,
    /// Entries of the batch.
    pub batch: usize,
    /// Scales the sums.
    pub alpha: f32,
    /// Scales the old c, which is not read when this is 0.
    pub beta: f32,
    /// First operand.
    pub a: Operand,
    /// Second operand.
    pub b: Operand,
    /// The result, f32.
    pub c: Operand,
    /// Address of one f32 a column, or 0 for none.
    pub bias: u64,
    /// Whether max(x, 0) is taken at last.
    pub relu: bool,
}

/// How a product is cut into blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tiling {
    /// Tiles of 64 x 64.
    Small,
    /// Tiles of 128 x 128.
    Large,
    /// Tiles of 128 x 128, multiplied by warpgroups (`wgmma`): 16-bit operands that are aligned, on `sm_90a`.
    Warpgroup,
}

impl Tiling {
    /// All of them.
    pub const ALL: [Tiling; 3] = [Tiling::Small, Tiling::Large, Tiling::Warpgroup];

    /// Rows and columns of c that a block owns.
    fn size(self) -> usize {
        if self == Tiling::Small { 64 } else { 128 }
    }
}

/// From how many blocks on large tiles are taken: enough that each of a hundred multiprocessors has one.
const ENOUGH_BLOCKS: usize = 100;

/// Slices in flight in the tensor-core kernels, as `STAGES` there.
const STAGES: usize = 3;

impl Gemm {
    /// The kernel and its grid on a device of that architecture: large tiles where they are enough to keep it busy, by
    /// warpgroups where they can be.
    ///
    /// # Errors
    /// [`Error::Shape`] for leading dimensions shorter than rows, or sizes above 2^31 - 1.
    pub fn plan(&self, arch: Arch) -> Result<Launch> {
        let blocks = self.m.div_ceil(128) * self.n.div_ceil(128) * self.batch;
        let tiling = match blocks >= ENOUGH_BLOCKS {
            true if self.can_be(Tiling::Warpgroup, arch) => Tiling::Warpgroup,
            true => Tiling::Large,
            false => Tiling::Small,
        };
        self.plan_with(tiling, arch)
    }

    /// Whether there is a kernel of that tiling for these operands and that architecture.
    pub fn can_be(&self, tiling: Tiling, arch: Arch) -> bool {
        let bytes = self.precision.bytes();
        let aligned = self.a.is_aligned(bytes, 16) && self.b.is_aligned(bytes, 16);
        tiling != Tiling::Warpgroup || arch.has_wgmma() && bytes == 2 && aligned
    }

    /// As [`Gemm::plan`], with that tiling whatever the size.
    ///
    /// # Errors
    /// As [`Gemm::plan`], and [`Error::Config`] where it [can't be](Gemm::can_be).
    pub fn plan_with(&self, tiling: Tiling, arch: Arch) -> Result<Launch> {
        self.check()?;
        if !self.can_be(tiling, arch) {
            return Err(Error::config("tiling", format!("{arch} has no {tiling:?} kernel for these operands")));
        }
        let (size, kernel) = (tiling.size(), NAMES[self.precision as usize][self.form as usize][tiling as usize]);
        let (threads, shared) = self.block(tiling);
        let grid = [self.m.div_ceil(size) as u32, self.n.div_ceil(size) as u32, self.batch as u32];
        Ok(Launch { kernel, grid, block: [threads, 1, 1], shared: shared as u32 })
    }

    /// Runs it behind all work before; an empty result launches nothing.
    ///
    /// # Errors
    /// [`Error::Shape`] for leading dimensions shorter than rows, or sizes above 2^31 - 1.
    ///
    /// # Safety
    /// Every element the formula names lies in a live buffer of `device`, and c overlaps nothing else.
    pub unsafe fn run<D: Device>(&self, device: &mut D) -> Result<()> {
        if self.m == 0 || self.n == 0 || self.batch == 0 {
            return Ok(());
        }
        // SAFETY: the caller's promise.
        unsafe { device.launch(&self.plan(device.arch())?, &self.args()) }
    }

    /// The kernel's parameters.
    pub fn args(&self) -> Args {
        let bytes = self.precision.bytes();
        let flags = u32::from(self.relu)
            | u32::from(self.a.is_aligned(bytes, 16)) << 1
            | u32::from(self.b.is_aligned(bytes, 16)) << 2
            | u32::from(self.c.is_aligned(4, 8)) << 3;
        let sizes = Args::new().i32(self.m as i32).i32(self.n as i32).i32(self.k as i32).f32(self.alpha);
        let operand = |args: Args, o: &Operand| args.ptr(o.address).i32(o.ld as i32).i64(o.stride as i64);
        let read = operand(operand(sizes, &self.a), &self.b).f32(self.beta);
        operand(read, &self.c).ptr(self.bias).u32(flags)
    }

    fn check(&self) -> Result<()> {
        let a_row = if self.form == Form::Tn { self.m } else { self.k };
        let b_row = if self.form == Form::Nt { self.k } else { self.n };
        for (name, o, row) in [("a", &self.a, a_row), ("b", &self.b, b_row), ("c", &self.c, self.n)] {
            if o.ld < row {
                return Err(Error::shape(
                    "gemm",
                    format!("{name} has rows of {row} but a leading dimension of {}", o.ld),
                ));
            }
        }
        // The kernels count rows and slices up to one tile beyond the end in 32 bits.
        let most = i32::MAX as usize - 128;
        let sizes = [self.m, self.n, self.k, self.batch, self.a.ld, self.b.ld, self.c.ld];
        match sizes.iter().find(|&&size| size > most) {
            Some(size) => Err(Error::shape("gemm", format!("a size of {size}; at most {most} can be launched"))),
            None => Ok(()),
        }
    }

    /// Threads of a block and bytes of its dynamic shared memory.
    fn block(&self, tiling: Tiling) -> (u32, usize) {
        let size = tiling.size();
        match (self.precision, tiling) {
            (Precision::F32, _) => (256, 0),
            // Slices 64 deep, and room to align them to the swizzle's pattern.
            (_, Tiling::Warpgroup) => (256, STAGES * 2 * size * 64 * self.precision.bytes() + 1024),
            _ => {
                let slices = self.slice(self.form != Form::Tn, size) + self.slice(self.form == Form::Nt, size);
                (if tiling == Tiling::Large { 256 } else { 128 }, STAGES * slices)
            }
        }
    }

    /// Bytes of one operand's slice in shared memory: `Staged::SIZE` in the kernel.
    fn slice(&self, k_major: bool, size: usize) -> usize {
        let bytes = self.precision.bytes();
        let (depth, chunk) = (64 / bytes, 16 / bytes);
        let (inner, outer) = if k_major { (depth, size) } else { (size, depth) };
        let pad = if k_major || bytes == 2 { chunk } else { 2 * chunk };
        outer * (inner + pad) * bytes
    }
}

/// Kernels by precision, form and tiling.
const NAMES: [[[&str; 3]; 3]; 4] = [
    [
        ["f32_gemm_nn_64x64", "f32_gemm_nn_128x128", ""],
        ["f32_gemm_nt_64x64", "f32_gemm_nt_128x128", ""],
        ["f32_gemm_tn_64x64", "f32_gemm_tn_128x128", ""],
    ],
    [
        ["tf32x3_gemm_nn_64x64", "tf32x3_gemm_nn_128x128", ""],
        ["tf32x3_gemm_nt_64x64", "tf32x3_gemm_nt_128x128", ""],
        ["tf32x3_gemm_tn_64x64", "tf32x3_gemm_tn_128x128", ""],
    ],
    [
        ["bf16_gemm_nn_64x64", "bf16_gemm_nn_128x128", "bf16_gemm_nn_wgmma"],
        ["bf16_gemm_nt_64x64", "bf16_gemm_nt_128x128", "bf16_gemm_nt_wgmma"],
        ["bf16_gemm_tn_64x64", "bf16_gemm_tn_128x128", "bf16_gemm_tn_wgmma"],
    ],
    [
        ["f16_gemm_nn_64x64", "f16_gemm_nn_128x128", "f16_gemm_nn_wgmma"],
        ["f16_gemm_nt_64x64", "f16_gemm_nt_128x128", "f16_gemm_nt_wgmma"],
        ["f16_gemm_tn_64x64", "f16_gemm_tn_128x128", "f16_gemm_tn_wgmma"],
    ],
];
