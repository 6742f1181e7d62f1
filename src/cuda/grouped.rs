//! Products, losses and ends of all episodes of a batch, a launch each: which kernel of `kernels/grouped.cu` runs, on how many
//! blocks. The rows of all episodes' examples lie one behind the other, and their bounds are read on the device, so a launch
//! depends on the largest sizes alone.

use bytemuck::{Pod, Zeroable};

use super::rows::{Call, count};
use super::{Args, Form, Launch, Operand};
use crate::{Error, Result};

/// How many rows, columns or terms an episode has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// As many in each.
    Same(usize),
    /// Its rows: from `bounds[e]` to `bounds[e + 1]`, numbers of type `i32` on the device.
    Rows {
        /// Address of the bounds.
        bounds: u64,
        /// Of the largest episode.
        most: usize,
    },
}

impl Extent {
    fn most(self) -> usize {
        match self {
            Extent::Same(size) | Extent::Rows { most: size, .. } => size,
        }
    }
}

/// Of which output of a ReLU elements are to be positive, and where 0 stands where they are not.
#[derive(Clone, Copy, Debug)]
pub enum Mask {
    /// Nowhere.
    None,
    /// In place of the products, before old values are added.
    Products(Operand),
    /// In place of the result.
    Result(Operand),
}

/// For each episode, `c = relu?(mask?(alpha * (A B + bias) + A2 B2) + beta * old)`; see `kernels/grouped.cu`.
///
/// Matrices with an episode's rows begin at its first row, times `ld`, behind the operand's address; others lie `stride` apart.
/// A's and B's rows along k, and A's, `c`'s, the old values' and the mask's along m are rows of that extent.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    /// Which operand is stored transposed.
    pub form: Form,
    /// Episodes.
    pub episodes: usize,
    /// Rows of c.
    pub m: Extent,
    /// Columns of c.
    pub n: usize,
    /// Length of the sums; with 0 there is only what is done behind them.
    pub k: Extent,
    /// Scales the first product.
    pub alpha: f32,
    /// First operand.
    pub a: Operand,
    /// Second operand.
    pub b: Operand,
    /// The operands of a second product of the same sizes.
    pub second: Option<[Operand; 2]>,
    /// Scales the old values, which are not read when this is 0.
    pub beta: f32,
    /// The old values; may be c.
    pub old: Operand,
    /// The result.
    pub c: Operand,
    /// May be c.
    pub mask: Mask,
    /// Whether max(x, 0) is taken; a NaN stays.
    pub relu: bool,
    /// [`Form::Nt`]: behind B's last row stands a bias, a number a column, added to the first product. [`Form::Tn`]: behind the
    /// old values' last row and c's stands one too, a number a row, for the sums of A's columns.
    pub bias: bool,
}

/// An operand that is not there.
pub const NOTHING: Operand = Operand { address: 0, ld: 0, stride: 0 };

/// `Extent` in `kernels/grouped.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct RawExtent {
    bounds: u64,
    most: i64,
}

/// `Matrices` there.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct RawMatrices {
    address: u64,
    ld: i64,
    stride: i64,
}

/// `Product` there.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct RawProduct {
    m: RawExtent,
    k: RawExtent,
    n: i64,
    operands: [RawMatrices; 7],
    alpha: f32,
    beta: f32,
    flags: u64,
}

/// Bits of `flags`.
const RELU: u64 = 1;
const BIAS: u64 = 16;
const SUMS: u64 = 32;
const MASK_RESULT: u64 = 64;

/// Rows and columns of c that a block owns: small, medium, large.
const TILES: [[usize; 2]; 3] = [[32, 32], [64, 64], [128, 64]];

/// Threads of a block.
const THREADS: [u32; 3] = [64, 256, 256];

/// From how many blocks on large tiles are taken: two for most multiprocessors of a large device.
const ENOUGH_BLOCKS: usize = 200;

/// Kernels by form and tile.
const NAMES: [[&str; 3]; 3] = [
    ["f32_grouped_nn_32x32", "f32_grouped_nn_64x64", "f32_grouped_nn_128x64"],
    ["f32_grouped_nt_32x32", "f32_grouped_nt_64x64", "f32_grouped_nt_128x64"],
    ["f32_grouped_tn_32x32", "f32_grouped_tn_64x64", "f32_grouped_tn_128x64"],
];

impl Product {
    /// The kernel with its parameters; none where there is no element.
    ///
    /// # Errors
    /// [`Error::Shape`] for leading dimensions shorter than rows, or sizes above 2^31 - 1.
    pub fn call(&self) -> Result<Call> {
        self.call_with(self.tile())
    }

    /// The same with tiles of 32 x 32 (0), 64 x 64 (1) or 128 x 64 (2).
    ///
    /// # Errors
    /// As [`Product::call`].
    pub fn call_with(&self, tile: usize) -> Result<Call> {
        self.check()?;
        let ([rows, cols], m) = (TILES[tile], self.m.most());
        let grid = [m.div_ceil(rows) as u32, self.n.div_ceil(cols) as u32, self.episodes as u32];
        let launch = Launch { kernel: NAMES[self.form as usize][tile], grid, block: [THREADS[tile], 1, 1], shared: 0 };
        let is_empty = m == 0 || self.n == 0 || self.episodes == 0;
        Ok(Call::new((!is_empty).then_some(launch), Args::new().structure(&self.raw())))
    }

    /// Small tiles where larger ones would be half empty, large ones where they waste no more than medium ones and are enough
    /// to keep a device busy.
    fn tile(&self) -> usize {
        let blocks = TILES.map(|[rows, cols]| self.m.most().div_ceil(rows) * self.n.div_ceil(cols));
        let areas = [0, 1, 2].map(|tile| blocks[tile] * TILES[tile][0] * TILES[tile][1]);
        match areas[0] * 2 <= areas[1] {
            true => 0,
            false if areas[2] <= areas[1] && blocks[2] * self.episodes >= ENOUGH_BLOCKS => 2,
            false => 1,
        }
    }

    fn raw(&self) -> RawProduct {
        let extent = |extent| match extent {
            Extent::Same(size) => RawExtent { bounds: 0, most: size as i64 },
            Extent::Rows { bounds, most } => RawExtent { bounds, most: most as i64 },
        };
        let matrices = |o: Operand| RawMatrices { address: o.address, ld: o.ld as i64, stride: o.stride as i64 };
        let (mask, of_result) = match self.mask {
            Mask::None => (NOTHING, 0),
            Mask::Products(mask) => (mask, 0),
            Mask::Result(mask) => (mask, MASK_RESULT),
        };
        let bias = match (self.bias, self.form) {
            (true, Form::Nt) => BIAS,
            (true, Form::Tn) => SUMS,
            _ => 0,
        };
        let [a2, b2] = self.second.unwrap_or([NOTHING; 2]);
        RawProduct {
            m: extent(self.m),
            k: extent(self.k),
            n: self.n as i64,
            operands: [self.a, self.b, a2, b2, self.old, self.c, mask].map(matrices),
            alpha: self.alpha,
            beta: self.beta,
            flags: if self.relu { RELU } else { 0 } | bias | of_result,
        }
    }

    fn check(&self) -> Result<()> {
        let [m, n, k] = [self.m.most(), self.n, self.k.most()];
        let a_row = if self.form == Form::Tn { m } else { k };
        let b_row = if self.form == Form::Nt { k } else { n };
        let rows = [("a", self.a, a_row), ("b", self.b, b_row), ("c", self.c, n)];
        let is_read = |name: &str| k > 0 || name == "c";
        if let Some((name, o, row)) = rows.into_iter().find(|(name, o, row)| is_read(name) && o.ld < *row) {
            let detail = format!("{name} has rows of {row} but a leading dimension of {}", o.ld);
            return Err(Error::shape("grouped product", detail));
        }
        // The kernels count up to one tile beyond the end in 32 bits.
        let most = i32::MAX as usize - 128;
        match [m, n, k, self.episodes].into_iter().find(|&size| size > most) {
            Some(size) => {
                Err(Error::shape("grouped product", format!("a size of {size}; at most {most} can be launched")))
            }
            None => Ok(()),
        }
    }
}

/// The rows of some episodes, and what of the loss lies by them: see [`softmax_xent`].
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    /// Episodes.
    pub episodes: usize,
    /// Address of their bounds.
    pub bounds: u64,
    /// Rows of the largest.
    pub most: usize,
    /// Classes.
    pub classes: usize,
}

impl Rows {
    /// A launch whose warps walk over each episode's rows.
    fn call(&self, kernel: &'static str, args: impl FnOnce(Args) -> Args) -> Result<Call> {
        const WARPS: usize = 8;
        let blocks = count(kernel, self.most.div_ceil(WARPS))? as u32;
        let grid = [blocks, count(kernel, self.episodes)? as u32, 1];
        let launch = Launch { kernel, grid, block: [WARPS as u32 * 32, 1, 1], shared: 0 };
        let args = args(Args::new().ptr(self.bounds).i32(count(kernel, self.classes)?));
        Ok(Call::new((self.most > 0 && self.episodes > 0).then_some(launch), args))
    }
}

/// `p = softmax(z)`, `dz = (p - onehot) / (the episode's rows)`, and each row's loss, where `losses` is not 0. Rows without gaps; p and dz
/// may be z, and each other: then dz is what stays.
///
/// # Errors
/// [`Error::Shape`] for sizes above 2^31 - 1.
pub fn softmax_xent(rows: &Rows, z: u64, targets: u64, [p, dz]: [u64; 2], losses: u64) -> Result<Call> {
    rows.call("grouped_softmax_xent", |args| args.ptr(z).ptr(targets).ptr(p).ptr(dz).ptr(losses))
}

/// Its R-operator; `rdz` may be `rz`.
///
/// # Errors
/// [`Error::Shape`] for sizes above 2^31 - 1.
pub fn softmax_xent_rop(rows: &Rows, p: u64, rz: u64, rdz: u64) -> Result<Call> {
    rows.call("grouped_softmax_xent_rop", |args| args.ptr(p).ptr(rz).ptr(rdz))
}

/// What episodes leave: see `grouped_ends` in `kernels/grouped.cu`. Addresses of 0 are null.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// Episodes.
    pub episodes: usize,
    /// Addresses of the bounds of their support and query rows.
    pub bounds: [u64; 2],
    /// Each query row's loss, and where each episode's mean goes.
    pub losses: [u64; 2],
    /// Units of the first layer.
    pub hidden: usize,
    /// The adjoints of Z_0 and Z'_0, or null.
    pub adjoints: [u64; 2],
    /// The head before and after adaptation, of which the difference is wanted; null where the head's gradient is there.
    pub moved: Option<Moved>,
    /// Where each episode's gradient goes, first bias and head; null for none.
    pub rows: u64,
    /// Numbers of it.
    pub row_len: usize,
    /// Whether it is finite.
    pub finite: u64,
}

/// A head that was adapted.
#[derive(Clone, Copy, Debug)]
pub struct Moved {
    /// The head all began with.
    pub head: u64,
    /// What became of its numbers from `from` on; those before are as they were.
    pub adapted: u64,
    /// From one episode's to the next.
    pub stride: usize,
    /// See `adapted`.
    pub from: usize,
}

impl Ends {
    /// The kernel with its parameters.
    ///
    /// # Errors
    /// [`Error::Shape`] for sizes above 2^31 - 1.
    pub fn call(&self) -> Result<Call> {
        const KERNEL: &str = "grouped_ends";
        let moved = self.moved.unwrap_or(Moved { head: 0, adapted: 0, stride: 0, from: 0 });
        let args = Args::new().ptr(self.bounds[0]).ptr(self.bounds[1]).ptr(self.losses[0]).ptr(self.losses[1]);
        let args = args.i32(count(KERNEL, self.hidden)?).ptr(self.adjoints[0]).ptr(self.adjoints[1]);
        let args = args.ptr(moved.head).ptr(moved.adapted).i64(moved.stride as i64).i32(count(KERNEL, moved.from)?);
        let args = args.ptr(self.rows).i32(count(KERNEL, self.row_len)?).ptr(self.finite);
        let grid = [count(KERNEL, self.episodes)? as u32, 1, 1];
        let launch = Launch { kernel: KERNEL, grid, block: [256, 1, 1], shared: 0 };
        Ok(Call::new((self.episodes > 0).then_some(launch), args))
    }
}
