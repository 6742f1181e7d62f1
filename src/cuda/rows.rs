//! Operations on rows and elements, on a device: which kernel of `kernels/` runs, on how many blocks, with which
//! parameters. All numbers are f32 unless said otherwise; addresses are those of [`Device::address`], 0 is null. The formulas
//! are those of [`contract`](crate::cpu::contract).
//!
//! Each function gives a [`Call`]; nothing runs before [`Call::run`], which is where all that is unsafe lies.

use super::{Args, Device, Launch};
use crate::cpu::contract::AdamwStep;
use crate::dtype::Dtype;
use crate::{Error, Result};

/// Threads of a block.
const THREADS: u32 = 256;

/// Lanes of a warp.
const WARP: u32 = 32;

/// Most blocks of a launch whose threads walk over elements: more than any device runs at once, so that a thread has one
/// element or keeps its block's start paid for by several.
const MOST_BLOCKS: usize = 4096;

/// Elements of G that a block of the dense Gram kernel makes at once, along either side.
const GRAM_TILE: usize = 32;

/// A kernel with its parameters. One without work to do launches nothing.
#[derive(Clone, Debug)]
pub struct Call {
    launch: Option<Launch>,
    args: Args,
}

impl Call {
    /// A launch, if there is anything to do.
    pub(super) fn new(launch: Option<Launch>, args: Args) -> Self {
        Self { launch, args }
    }

    /// Runs it behind all work before.
    ///
    /// # Errors
    /// Where the device refuses.
    ///
    /// # Safety
    /// Every element the formula names lies in a live buffer of `device`, every list of places names such elements, and
    /// what is written overlaps nothing else but where the function says "in place".
    pub unsafe fn run<D: Device>(&self, device: &mut D) -> Result<()> {
        // SAFETY: the caller's promise; the parameters are the kernel's, which the functions below see to.
        self.launch.as_ref().map_or(Ok(()), |launch| unsafe { device.launch(launch, &self.args) })
    }
}

/// A launch whose threads walk over n elements.
fn elements(kernel: &'static str, n: usize, args: Args) -> Call {
    let blocks = n.div_ceil(THREADS as usize).min(MOST_BLOCKS) as u32;
    let launch = Launch { kernel, grid: [blocks, 1, 1], block: [THREADS, 1, 1], shared: 0 };
    Call { launch: (n > 0).then_some(launch), args }
}

/// A launch whose warps walk over m rows.
fn warps(kernel: &'static str, m: usize, args: Args) -> Call {
    let blocks = m.div_ceil((THREADS / WARP) as usize).min(MOST_BLOCKS) as u32;
    let launch = Launch { kernel, grid: [blocks, 1, 1], block: [THREADS, 1, 1], shared: 0 };
    Call { launch: (m > 0).then_some(launch), args }
}

/// A size as the kernels count it.
pub(super) fn count(op: &'static str, n: usize) -> Result<i32> {
    i32::try_from(n).map_err(|_| Error::shape(op, format!("a size of {n}; the kernels count up to 2^31 - 1")))
}

/// `dst[i] = max(src[i], 0)`; `dst` may be `src` (in place).
pub fn relu(n: usize, src: u64, dst: u64) -> Call {
    elements("relu", n, Args::new().i64(n as i64).ptr(src).ptr(dst))
}

/// `dst[i] = d[i] where a[i] > 0, otherwise 0`; `dst` may be `d` (in place).
pub fn relu_mask(n: usize, a: u64, d: u64, dst: u64) -> Call {
    elements("relu_mask", n, Args::new().i64(n as i64).ptr(a).ptr(d).ptr(dst))
}

/// `y[i] = alpha * x[i] + beta * y[i]`; beta = 0 does not read y.
pub fn axpby(n: usize, alpha: f32, x: u64, beta: f32, y: u64) -> Call {
    elements("axpby", n, Args::new().i64(n as i64).f32(alpha).ptr(x).f32(beta).ptr(y))
}

/// `dst[j] = alpha * sum over i < m of src[i * ld + j] + beta * dst[j]`, i rising; beta = 0 does not read dst.
///
/// # Errors
/// [`Error::Shape`] for more than 2^31 - 1 rows.
pub fn col_sum(m: usize, n: usize, alpha: f32, src: (u64, usize), beta: f32, dst: u64) -> Result<Call> {
    let args = Args::new().i32(count("col_sum", m)?).i64(n as i64).f32(alpha);
    Ok(elements("col_sum", n, args.ptr(src.0).i64(src.1 as i64).f32(beta).ptr(dst)))
}

/// `dst[g][j] = alpha * sum of src[i][j]` over the rows `i` of group g, rising: rows `g * group ..` of m, `group` of them or what
/// is left. Neither `src` nor `dst` has gaps between its rows of n.
///
/// # Errors
/// [`Error::Shape`] for more than 2^31 - 1 rows, and for more groups than a grid has along y.
pub fn sum_rows(m: usize, n: usize, group: usize, alpha: f32, src: u64, dst: u64) -> Result<Call> {
    let args = Args::new().i32(count("sum_rows", m)?).i64(n as i64).i32(count("sum_rows", group)?).f32(alpha);
    let groups = m.div_ceil(group.max(1)).max(1);
    let mut call = elements("sum_rows", n, args.ptr(src).ptr(dst));
    if let Some(launch) = &mut call.launch {
        launch.grid[1] = count("sum_rows", groups)? as u32;
    }
    Ok(call)
}

/// Where softmax cross-entropy of m rows of n logits finds and leaves its numbers.
#[derive(Clone, Copy, Debug)]
pub struct Softmax {
    /// Rows.
    pub m: usize,
    /// Classes.
    pub n: usize,
    /// The logits, and how far their rows are apart.
    pub z: (u64, usize),
    /// Each row's class, as `u32` below n.
    pub targets: u64,
    /// Scales the gradient.
    pub scale: f32,
    /// The softmax, rows without gaps. May be `z`.
    pub p: u64,
    /// The gradient, rows without gaps. May be `z`.
    pub dz: u64,
    /// Each row's loss.
    pub losses: u64,
}

/// `p = softmax(z)`, `dz = scale * (p - onehot)`, and each row's `ln sum exp(z) - z[t]`, unscaled.
///
/// # Errors
/// [`Error::Shape`] for sizes above 2^31 - 1.
pub fn softmax_xent(s: &Softmax) -> Result<Call> {
    let (m, n) = (count("softmax_xent", s.m)?, count("softmax_xent", s.n)?);
    let args = Args::new().i32(m).i32(n).ptr(s.z.0).i64(s.z.1 as i64).ptr(s.targets).f32(s.scale);
    Ok(warps("softmax_xent", if s.n > 0 { s.m } else { 0 }, args.ptr(s.p).ptr(s.dz).ptr(s.losses)))
}

/// The R-operator of that gradient, of m rows without gaps: `rdz[i] = scale * p[i] * (rz[i] - sum over j of p[j] rz[j])`;
/// `rdz` may be `rz` (in place).
///
/// # Errors
/// [`Error::Shape`] for sizes above 2^31 - 1.
pub fn softmax_xent_rop(m: usize, n: usize, p: u64, rz: u64, scale: f32, rdz: u64) -> Result<Call> {
    let args = Args::new().i32(count("softmax_xent_rop", m)?).i32(count("softmax_xent_rop", n)?);
    Ok(warps("softmax_xent_rop", m, args.ptr(p).ptr(rz).f32(scale).ptr(rdz)))
}

/// Bags on a device: entry e of bag r, for `offsets[r] <= e < offsets[r + 1]`, is `tokens[e]` with `weights[e]`.
#[derive(Clone, Copy, Debug)]
pub struct BagsAt {
    /// `i32`, one more than there are bags.
    pub offsets: u64,
    /// `u32`; in a product of bags rising.
    pub tokens: u64,
    /// One a token.
    pub weights: u64,
}

/// `dst[r] = init + sum over the entries of bag r of weight * table[token]`, entries in order, for `rows` bags and a table
/// of rows of `width` numbers stored as `stored`; `init` may be null (zeros). A bag's forward pass where the table is the
/// embedding, and where bags are the entries sorted by token and the table is the outputs' gradient, its scatter.
///
/// # Errors
/// [`Error::Shape`] for sizes above 2^31 - 1, [`Error::Config`] for a table of f64.
pub fn bag(
    rows: usize,
    width: usize,
    bags: &BagsAt,
    (table, stored): (u64, Dtype),
    init: u64,
    dst: u64,
) -> Result<Call> {
    let kernel = match stored {
        Dtype::F32 => "bag_f32",
        Dtype::F16 => "bag_f16",
        Dtype::Bf16 => "bag_bf16",
        Dtype::F64 => return Err(Error::config("table", "the kernels have no f64")),
    };
    let (blocks, columns) = (count("bag", rows)?, count("bag", width)?);
    let args = Args::new().ptr(bags.offsets).ptr(bags.tokens).ptr(bags.weights).ptr(table).i32(columns);
    let threads = (columns as u32).next_multiple_of(WARP).min(THREADS);
    let launch = Launch { kernel, grid: [blocks as u32, 1, 1], block: [threads, 1, 1], shared: 0 };
    Ok(Call { launch: (rows > 0 && width > 0).then_some(launch), args: args.ptr(init).ptr(dst) })
}

/// Gram matrices of some episodes: rows `a_rows[t] .. a_rows[t + 1]` of A against rows `b_rows[t] .. b_rows[t + 1]` of B,
/// plus 1. Row i of A has row i of the result, which is as long as its episode has rows of B.
#[derive(Clone, Copy, Debug)]
pub struct Grams {
    /// How many.
    pub episodes: usize,
    /// The bounds of each episode's rows of A and B, as `i32`.
    pub bounds: [u64; 2],
    /// The most rows of A and of B an episode has.
    pub most: [usize; 2],
    /// Where the first row goes.
    pub dst: u64,
    /// From one row to the next: at least the most rows of B.
    pub ld: usize,
}

impl Grams {
    fn call(&self, kernel: &'static str, blocks: usize, threads: u32, args: Args) -> Result<Call> {
        let grid = [count(kernel, blocks)? as u32, count(kernel, self.episodes)? as u32, 1];
        let launch = Launch { kernel, grid, block: [threads, 1, 1], shared: 0 };
        let args = args.ptr(self.dst).i32(count(kernel, self.ld)?);
        Ok(Call { launch: (blocks > 0 && self.episodes > 0).then_some(launch), args })
    }

    fn bounds(&self) -> Args {
        Args::new().ptr(self.bounds[0]).ptr(self.bounds[1])
    }
}

/// Of dense rows of `width` numbers.
///
/// # Errors
/// [`Error::Shape`] for sizes above 2^31 - 1.
pub fn gram(g: &Grams, a: u64, b: u64, width: usize) -> Result<Call> {
    let tiles = g.most.map(|rows| rows.div_ceil(GRAM_TILE)).iter().product();
    g.call("gram", tiles, THREADS, g.bounds().ptr(a).ptr(b).i32(count("gram", width)?))
}

/// Of bags.
///
/// # Errors
/// [`Error::Shape`] for sizes above 2^31 - 1.
pub fn gram_bags(g: &Grams, a: &BagsAt, b: &BagsAt) -> Result<Call> {
    let bags = |args: Args, x: &BagsAt| args.ptr(x.offsets).ptr(x.tokens).ptr(x.weights);
    let threads = THREADS / 2;
    let blocks = g.most.iter().product::<usize>().div_ceil(threads as usize);
    g.call("gram_bags", blocks, threads, bags(bags(g.bounds(), a), b))
}

/// What an update changes: all n elements, or `rows` of `width`, whose places are `u32` at `at`, each once.
#[derive(Clone, Copy, Debug)]
pub enum Updated {
    /// n elements.
    Dense(usize),
    /// Some rows; the gradient has these alone.
    Sparse {
        /// How many.
        rows: usize,
        /// Numbers of a row.
        width: usize,
        /// Which.
        at: u64,
    },
}

impl Updated {
    /// Elements of the gradient, and the parameters they begin with.
    fn args(self, op: &'static str) -> Result<(usize, Args)> {
        let (n, at, width) = match self {
            Updated::Dense(n) => (n, 0, 1),
            Updated::Sparse { rows, width, at } => (rows * width, at, width),
        };
        Ok((n, Args::new().i64(n as i64).ptr(at).i32(count(op, width)?)))
    }
}

/// `v = momentum * v + g + weight_decay * w; w -= lr * v`, in place; `g` may be null: a gradient of zero.
///
/// # Errors
/// [`Error::Shape`] for rows of more than 2^31 - 1 numbers.
pub fn sgd(of: Updated, [lr, momentum, weight_decay]: [f32; 3], g: u64, v: u64, w: u64) -> Result<Call> {
    let (n, args) = of.args("sgd")?;
    Ok(elements("sgd", n, args.f32(lr).f32(momentum).f32(weight_decay).ptr(g).ptr(v).ptr(w)))
}

/// AdamW, in place; `g` may be null: a gradient of zero.
///
/// # Errors
/// [`Error::Shape`] for rows of more than 2^31 - 1 numbers.
pub fn adamw(of: Updated, s: &AdamwStep<f32>, g: u64, [m, v]: [u64; 2], w: u64) -> Result<Call> {
    let (n, args) = of.args("adamw")?;
    let args = args.f32(s.lr).f32(s.beta1).f32(s.beta2).f32(s.eps).f32(s.weight_decay);
    Ok(elements("adamw", n, args.f32(s.correction1).f32(s.correction2).ptr(g).ptr(m).ptr(v).ptr(w)))
}
