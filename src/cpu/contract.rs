//! The contract of every kernel: formula, layout, aliasing, safety and tolerance. Scalar is its plain reading; an
//! instruction set's table may replace any entry by a faster function that keeps it.
//!
//! Rules for all entries:
//! - Matrices are row-major with unit inner stride; strides and sizes count elements, not bytes. No alignment beyond
//!   the element's own is assumed.
//! - A size of 0 is valid: pointers are not read then.
//! - Operands that are written do not overlap those that are read, except where an entry says "in place".
//! - A kernel does not spawn, allocate, log or panic.
//! - A value of the result depends on its own inputs alone, never on where it lies in the operand: the same element
//!   has the same bits whether it falls into a full tile or a tail, so work may be cut at any row or column.
//! - Tolerance, against f64 on the same inputs: a sum of n products may be off by
//!   `(n + 2) * (eps * sum |a_i b_i| + tiny)` (eps and the smallest denormal, tiny, of the type; in a product, beta's term
//!   and the bias count as products); what else an entry allows it says itself.

use half::{bf16, f16};

use super::Isa;

/// What is done with a finished element of a GEMM, in this order: `alpha * sum`, masked where the mask is of the product;
/// `+ beta * old`, `+ bias`, ReLU; masked where the mask is of the result.
#[derive(Clone, Copy, Debug)]
pub struct Epilogue<T> {
    /// Scales the sum of products.
    pub alpha: T,
    /// Scales the old value. With `beta` = 0 the old value is not read: NaN there does not spread.
    pub beta: T,
    /// Element (i, j) of the old values is at `old + i * old_rs + j`; null for those of C.
    pub old: *const T,
    /// Row stride of the old values.
    pub old_rs: usize,
    /// Element (i, j) of a ReLU's output, at `mask + i * mask_rs + j`: where it is not positive, 0 stands instead of the
    /// product or the result. Null for no mask.
    pub mask: *const T,
    /// Row stride of the mask.
    pub mask_rs: usize,
    /// The mask is of the result, not of the product alone.
    pub mask_result: bool,
    /// One value a column, or null for none.
    pub bias: *const T,
    /// Replace x by max(x, 0).
    pub relu: bool,
    /// The sums begin at the values C has and are stored as they are: one chain of multiply-adds, the same wherever its steps
    /// are cut. Nothing else is asked for then: `alpha` is 1, `beta` 0.
    pub chained: bool,
}

/// One register tile of a GEMM: `c[i][j] = epilogue(sum over p < k of a[i][p] * b[p][j])` for i < m, j < n.
///
/// The sum runs over p in rising order, one fused or unfused multiply-add each.
#[derive(Clone, Copy, Debug)]
pub struct Tile<T> {
    /// Rows, at most `Gemm::mr`.
    pub m: usize,
    /// Columns, at most `Gemm::nr`.
    pub n: usize,
    /// Length of the reduction.
    pub k: usize,
    /// Element (i, p) of A is at `a + i * a_rs + p * a_cs`.
    pub a: *const T,
    /// Row stride of A.
    pub a_rs: usize,
    /// Column stride of A.
    pub a_cs: usize,
    /// Element (p, j) of B is at `b + p * b_rs + j`.
    pub b: *const T,
    /// Row stride of B.
    pub b_rs: usize,
    /// Element (i, j) of C is at `c + i * c_rs + j`.
    pub c: *mut T,
    /// Row stride of C.
    pub c_rs: usize,
    /// What is done with the sums.
    pub epilogue: Epilogue<T>,
}

/// A panel to be packed: `dst[p * ds + i] = src[i * rs + p * ps]` for i < width and p < k, with `rs` = 1 or `ps` = 1.
///
/// With `ps` = 1 it is a transposition. What lies between the rows of `dst` is not written. An operand stored in `S` is
/// widened on the way, exactly.
#[derive(Clone, Copy, Debug)]
pub struct Panel<T, S = T> {
    /// Rows of A, or columns of B.
    pub width: usize,
    /// Length of the reduction.
    pub k: usize,
    /// The first element of the operand.
    pub src: *const S,
    /// Distance between rows of A or columns of B.
    pub rs: usize,
    /// Distance between steps of the reduction.
    pub ps: usize,
    /// The packed panel.
    pub dst: *mut T,
    /// Distance between steps in the packed panel, at least `width`.
    pub ds: usize,
}

/// Packs one panel.
///
/// # Safety
/// Every element the formula of [`Panel`] names is readable (src) or writable (dst), and the two do not overlap.
pub type Pack<T, S> = unsafe fn(&Panel<T, S>);

/// A GEMM microkernel and the cache blocking that suits it.
#[derive(Clone, Copy)]
pub struct Gemm<T> {
    /// Dtype, operation, tile, as in `f32_gemm_6x16`.
    pub name: &'static str,
    /// Rows of a tile.
    pub mr: usize,
    /// Columns of a tile.
    pub nr: usize,
    /// Elements of a vector; cut columns take as many vectors as hold them.
    pub lanes: usize,
    /// Rows of A packed at once, a multiple of `mr`: they stay in the second-level cache.
    pub mc: usize,
    /// Length of the reduction handled at once: a panel of `kc` x `nr` of B stays in the first-level cache, or in the second
    /// where tiles need so few bytes a cycle that it can feed them.
    pub kc: usize,
    /// Columns of B packed at once.
    pub nc: usize,
    /// Rows of A from which on copying a B that lies well pays: below, its panels are read in place, a row of the matrix a step,
    /// unless those rows lie far apart.
    pub packs_b_from: usize,
    /// Computes one tile.
    ///
    /// # Safety
    /// Every element the formula of [`Tile`] names is readable (A, B, bias) or writable (C), and C overlaps none of
    /// the others; `m <= mr` and `n <= nr`.
    pub tile: unsafe fn(&Tile<T>),
    /// Computes one tile of all `nr` columns and writes the panel of B it reads where it is to be packed, `k` x `nr`, so that the tiles
    /// below find it there. `None` where B is copied beforehand.
    ///
    /// # Safety
    /// As `tile`'s; `m > mr / 2`, as any tile of several has; `n == nr`; the panel may be written and overlaps nothing else.
    pub packing_tile: Option<PackingTile<T>>,
    /// Packs one panel.
    pub pack: Pack<T, T>,
}

/// See [`Gemm::packing_tile`].
pub type PackingTile<T> = unsafe fn(&Tile<T>, *mut T);

/// The settings of one AdamW step (Loshchilov and Hutter, "Decoupled weight decay regularization", algorithm 2).
#[derive(Clone, Copy, Debug)]
pub struct AdamwStep<T> {
    /// Learning rate of this step.
    pub lr: T,
    /// Decay of the first moment.
    pub beta1: T,
    /// Decay of the second moment.
    pub beta2: T,
    /// Added to the root of the second moment.
    pub eps: T,
    /// Decoupled weight decay: weights shrink by `lr * weight_decay`.
    pub weight_decay: T,
    /// 1 / (1 - beta1^t), t = 1 for the first step.
    pub correction1: T,
    /// 1 / (1 - beta2^t).
    pub correction2: T,
}

/// Gather-and-sum of rows stored in `S`, widened to `T` before they are multiplied:
/// `dst[h] = init[h] + sum over j < len of weights[j] * table[index[j] * ld + h]` for h < n, j rising; `init` may be
/// null (zeros) or `dst` (in place); the sum is one chain that begins at `init`. Arguments: len, index, weights, table,
/// ld, n, init, dst. Serves the token bag forward (table = embedding) and, over the transposed bags, its gradient (table
/// = gradient of the output).
///
/// A kernel may prefetch the rows of `index` ahead of their turn: it reads no index beyond `len`.
pub type GatherSum<T, S> = unsafe fn(usize, *const u32, *const T, *const S, usize, usize, *const T, *mut T);

/// Columns that [`FewColumns`], and rows that [`Ops::few_rows`] takes at most.
pub const FEW: usize = 8;

/// The operands of a product with few columns, or of a sum of two of equal sizes:
/// `c[i * c_rs + j] = alpha * sum over q < parts, p < k of a[q][i * a_rs + p] * b[q][j * b_rs + p] + beta * c[i * c_rs + j] + bias[j]`
/// for i < m, j < n; beta = 0 does not read c; `bias` may be null.
#[derive(Clone, Copy, Debug)]
pub struct FewDots<T> {
    /// Rows.
    pub m: usize,
    /// Columns, at most [`FEW`].
    pub n: usize,
    /// Length of each product's sums.
    pub k: usize,
    /// How many products, 1 or 2.
    pub parts: usize,
    /// The rows that are multiplied; what is behind `parts` is not read.
    pub a: [*const T; 2],
    /// Their stride.
    pub a_rs: usize,
    /// A row a column of the result.
    pub b: [*const T; 2],
    /// Their stride.
    pub b_rs: usize,
    /// The result.
    pub c: *mut T,
    /// Its row stride.
    pub c_rs: usize,
    /// Scales the sums.
    pub alpha: T,
    /// Scales the old values.
    pub beta: T,
    /// One value a column, or null.
    pub bias: *const T,
}

/// Computes a product with few columns. The order of a sum is the kernel's own, the same for every element.
///
/// # Safety
/// Every element the formula names is readable (a, b, bias) or writable (c), and c overlaps none of the others.
pub type FewColumns<T> = unsafe fn(&FewDots<T>);

/// Steps that [`Ops::rank_update`] takes at most, of both products together.
pub const LOW_RANK: usize = 10;

/// The operands of a product that is thin in one size, or of a sum of two of equal sizes:
/// `c[i * c_rs + j] = alpha * sum over q < parts, p < k of a[q][i * a_rs + p * a_cs] * b[q][p * b_rs + j]`, 0 where the mask is not
/// positive, `+ c[i * c_rs + j]` if it adds, for i < m, j < n.
#[derive(Clone, Copy, Debug)]
pub struct Thin<T> {
    /// Rows.
    pub m: usize,
    /// Columns.
    pub n: usize,
    /// Steps of each product.
    pub k: usize,
    /// How many products, 1 or 2.
    pub parts: usize,
    /// The left factors; what is behind `parts` is not read.
    pub a: [*const T; 2],
    /// Their row stride.
    pub a_rs: usize,
    /// Their column stride.
    pub a_cs: usize,
    /// The right factors.
    pub b: [*const T; 2],
    /// Their row stride.
    pub b_rs: usize,
    /// The result.
    pub c: *mut T,
    /// Its row stride.
    pub c_rs: usize,
    /// Scales the sums.
    pub alpha: T,
    /// Whether the sums are added to what C holds.
    pub adds: bool,
    /// Element (i, j) of a ReLU's output, at `mask + i * mask_rs + j`; null for no mask.
    pub mask: *const T,
    /// Row stride of the mask.
    pub mask_rs: usize,
}

/// Computes a thin product. The sum runs over q, then p in rising order, one multiply-add each as in a [`Tile`]: a product
/// without a mask has the bits it has there.
///
/// # Safety
/// Every element the formula names is readable (a, b, mask) or writable (c), and c overlaps none of the others.
pub type ThinProduct<T> = unsafe fn(&Thin<T>);

/// One function pointer per operation, for one element type.
///
/// # Safety
/// Each entry may be called only on a machine that has the table's instruction set, with pointers that are valid for
/// the elements its formula names.
#[derive(Clone, Copy)]
pub struct Ops<T> {
    /// Matrix product.
    pub gemm: Gemm<T>,
    /// A product with few columns: see [`FewColumns`].
    pub few_columns: FewColumns<T>,
    /// A [`ThinProduct`] of few steps: `parts * k` is at most [`LOW_RANK`], `a_cs` is 1.
    pub rank_update: ThinProduct<T>,
    /// A [`ThinProduct`] of few rows: m is at most [`FEW`], `a_rs` is 1, and there is no mask.
    pub few_rows: ThinProduct<T>,
    /// See [`GatherSum`].
    pub gather_sum: GatherSum<T, T>,
    /// `dst[i] = max(src[i], 0)`; NaN gives 0 or NaN. Arguments: n, src, dst.
    pub relu: unsafe fn(usize, *const T, *mut T),
    /// `dst[i] = d[i] where a[i] > 0, otherwise 0`, with `a` the ReLU's output: its derivative at 0 is 0. `dst` may be `d`
    /// (in place). Arguments: n, a, d, dst.
    pub relu_mask: unsafe fn(usize, *const T, *const T, *mut T),
    /// Softmax cross-entropy of m rows of n logits, row i at `z + i * ld`, against classes t below n:
    /// `p = softmax(z)`, `dz[j] = scale * (p[j] - [j = t])`, both without gaps; returns the sum over rows of
    /// `ln sum exp(z) - z[t]` (unscaled). Shifted by the largest logit, so finite logits never overflow. `dz` may be `z`
    /// (in place, then ld = n). Arguments: m, n, z, ld, t, scale, p, dz. Tolerance, a row: `4 eps (1 + |z|max)` and, because
    /// n exponentials are summed, `n eps` more in the loss and `n eps p[j]` more in p; the losses of m rows are a sum.
    pub softmax_xent: unsafe fn(usize, usize, *const T, usize, *const u32, T, *mut T, *mut T) -> T,
    /// The R-operator of that gradient (Pearlmutter, "Fast exact multiplication by the Hessian", 1994), of m rows without
    /// gaps: `rdz[i] = scale * p[i] * (rz[i] - sum over j of p[j] rz[j])`. `rdz` may be `rz` (in place).
    /// Arguments: m, n, p, rz, scale, rdz.
    pub softmax_xent_rop: unsafe fn(usize, usize, *const T, *const T, T, *mut T),
    /// `y[i] += alpha * x[i]`. Arguments: n, alpha, x, y.
    pub axpy: unsafe fn(usize, T, *const T, *mut T),
    /// `y[i] = alpha * x[i] + beta * y[i]`; beta = 0 does not read y. Arguments: n, alpha, x, beta, y.
    pub axpby: unsafe fn(usize, T, *const T, T, *mut T),
    /// `dst[j] = beta * dst[j] + alpha * sum over i < m of src[i * ld + j]`, i rising; beta = 0 does not read dst.
    /// Arguments: m, n, alpha, src, ld, beta, dst.
    pub col_sum: unsafe fn(usize, usize, T, *const T, usize, T, *mut T),
    /// SGD with heavy-ball momentum and weight decay, in place:
    /// `v = momentum * v + g + weight_decay * w; w -= lr * v`. `g` may be null: a gradient of zero.
    /// Arguments: n, lr, momentum, weight_decay, g, v, w.
    pub sgd: unsafe fn(usize, T, T, T, *const T, *mut T, *mut T),
    /// AdamW, in place: `m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2;`
    /// `w = w - lr * weight_decay * w - lr * (m * c1) / (sqrt(v * c2) + eps)`. `g` may be null: a gradient of zero.
    /// Arguments: n, step, g, m, v, w.
    pub adamw: unsafe fn(usize, &AdamwStep<T>, *const T, *mut T, *mut T, *mut T),
    /// Multiply-adds alone: the peak that measured rates are compared with.
    pub fma_chains: FmaChains<T>,
}

/// Independent chains `s = s * b + x` in registers, from 0: two operations a chain and step.
#[derive(Clone, Copy)]
pub struct FmaChains<T> {
    /// How many chains.
    pub count: usize,
    /// The sum of all chains after some steps. Arguments: steps, b, x.
    ///
    /// # Safety
    /// The instruction set is there.
    pub run: unsafe fn(usize, T, T) -> T,
}

/// Operations on matrices stored in half of an f32's bits; all arithmetic is f32. Widening is exact, so the tolerance is
/// that of f32 on the widened matrix. A GEMM's operands are widened as they are packed, so its tile is that of f32.
#[derive(Clone, Copy)]
pub struct HalfOps {
    /// See [`Pack`].
    pub pack_f16: Pack<f32, f16>,
    /// See [`Pack`].
    pub pack_bf16: Pack<f32, bf16>,
    /// See [`GatherSum`].
    pub gather_sum_f16: GatherSum<f32, f16>,
    /// See [`GatherSum`].
    pub gather_sum_bf16: GatherSum<f32, bf16>,
}

/// The table of one instruction set.
#[derive(Clone, Copy)]
pub struct Kernels {
    /// Which instruction set.
    pub isa: Isa,
    /// Single precision.
    pub f32: Ops<f32>,
    /// Double precision.
    pub f64: Ops<f64>,
    /// Tables stored in f16 and bf16.
    pub half: HalfOps,
}
