//! Softmax cross-entropy with its gradient, and the R-operator, over the rows of a block.
//!
//! Up to 6 classes have a lane a row (`few_classes`). Else up to 8 vectors of logits stay in registers, so the logits are read once
//! and p and dz written once. Longer rows take three passes: read z (largest); read z, write p (exponentials, their sum); read p,
//! write p and dz. A row's chain (largest, exponential, sum, quotient) takes about 80 cycles, its instructions a third of that: with
//! the rows in one call, without a branch or call between them, the next rows' instructions fill the gaps.
//!
//! The loss needs ln of each row's sum. Sums lie between 1 and n, so they are multiplied in f64 and one logarithm is taken
//! of many rows' product: each multiplication adds 1.1e-16 to the loss, less than f32's logarithm would.

use super::few_classes::few_classes;
use super::{Lanes, exp_nonpositive, load_vector, store_vector};
use crate::dtype::Element;

/// Operands of the block; see [`Ops::softmax_xent`](crate::cpu::contract::Ops::softmax_xent).
pub(super) struct Block<T> {
    pub m: usize,
    pub n: usize,
    pub z: *const T,
    pub ld: usize,
    pub targets: *const u32,
    pub scale: T,
    pub p: *mut T,
    pub dz: *mut T,
}

/// # Safety
/// The register's instructions are enabled and there; see
/// [`Ops::softmax_xent`](crate::cpu::contract::Ops::softmax_xent).
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "the contract's operands")]
pub unsafe fn softmax_xent<L: Lanes, S: Lanes<T = L::T>>(
    m: usize,
    n: usize,
    z: *const L::T,
    ld: usize,
    targets: *const u32,
    scale: L::T,
    p: *mut L::T,
    dz: *mut L::T,
) -> L::T {
    let block = Block { m, n, z, ld, targets, scale, p, dz };
    // SAFETY: the contract is passed on unchanged; the vector count is that of a row.
    let loss = unsafe {
        match (n, n.div_ceil(L::N)) {
            (0, _) => 0.0,
            (1, _) => few_classes::<L, 1>(&block),
            (2, _) => few_classes::<L, 2>(&block),
            (3, _) => few_classes::<L, 3>(&block),
            (4, _) => few_classes::<L, 4>(&block),
            (5, _) => few_classes::<L, 5>(&block),
            (6, _) => few_classes::<L, 6>(&block),
            (_, 1) if n <= S::N => short_rows::<S, 1>(&block),
            (_, 1) => short_rows::<L, 1>(&block),
            (_, 2) => short_rows::<L, 2>(&block),
            (_, 3) => short_rows::<L, 3>(&block),
            (_, 4) => short_rows::<L, 4>(&block),
            (_, 5) => short_rows::<L, 5>(&block),
            (_, 6) => short_rows::<L, 6>(&block),
            (_, 7) => short_rows::<L, 7>(&block),
            (_, 8) => short_rows::<L, 8>(&block),
            _ => long_rows::<L>(&block),
        }
    };
    Element::from_f64(loss)
}

/// Rows that fit into `V` registers.
///
/// # Safety
/// As [`softmax_xent`], and a row has `V` vectors.
#[inline(always)]
unsafe fn short_rows<L: Lanes, const V: usize>(b: &Block<L::T>) -> f64 {
    let mut loss = Loss::new(b.n);
    // SAFETY: i < m and v < V: the vectors lie in row i. All of a row's logits are read before its dz, which may be
    // z, is written.
    unsafe {
        let mut x = [L::splat(L::T::ZERO); V];
        for i in 0..b.m {
            let (z, p, dz) = (b.z.add(i * b.ld), b.p.add(i * b.n), b.dz.add(i * b.n));
            let target = *b.targets.add(i) as usize;
            let mut max = L::splat(L::T::NEG_INFINITY);
            for (v, x) in x.iter_mut().enumerate() {
                *x = load_vector(z, b.n, v, L::T::NEG_INFINITY);
                max = max.max(*x);
            }
            let max = max.largest();
            let shifted_target = *z.add(target) - max;
            let mut sum = L::splat(L::T::ZERO);
            for x in &mut x {
                *x = exp_nonpositive(x.sub(L::splat(max)));
                sum = sum.add(*x);
            }
            let sum = sum.sum();
            let inverse = L::splat(L::T::ONE / sum);
            for (v, x) in x.iter().enumerate() {
                let softmax = x.mul(inverse);
                store_vector(softmax, p, b.n, v);
                let gradient = softmax.less_one_at(target.wrapping_sub(v * L::N)).mul(L::splat(b.scale));
                store_vector(gradient, dz, b.n, v);
            }
            loss.add(sum, shifted_target);
        }
    }
    loss.total()
}

/// Rows of any length.
///
/// # Safety
/// As [`softmax_xent`], and n > 0.
#[inline(always)]
unsafe fn long_rows<L: Lanes>(b: &Block<L::T>) -> f64 {
    let mut loss = Loss::new(b.n);
    let vectors = b.n.div_ceil(L::N);
    // SAFETY: as in `short_rows`.
    unsafe {
        for i in 0..b.m {
            let (z, p, dz) = (b.z.add(i * b.ld), b.p.add(i * b.n), b.dz.add(i * b.n));
            let target = *b.targets.add(i) as usize;
            let mut max = L::splat(L::T::NEG_INFINITY);
            for v in 0..vectors {
                max = max.max(load_vector(z, b.n, v, L::T::NEG_INFINITY));
            }
            let max = max.largest();
            let shifted_target = *z.add(target) - max;
            let mut sum = L::splat(L::T::ZERO);
            for v in 0..vectors {
                let x: L = load_vector(z, b.n, v, L::T::NEG_INFINITY);
                let x = exp_nonpositive(x.sub(L::splat(max)));
                store_vector(x, p, b.n, v);
                sum = sum.add(x);
            }
            let sum = sum.sum();
            let inverse = L::splat(L::T::ONE / sum);
            for v in 0..vectors {
                let softmax = load_vector::<L>(p, b.n, v, L::T::ZERO).mul(inverse);
                store_vector(softmax, p, b.n, v);
                let gradient = softmax.less_one_at(target.wrapping_sub(v * L::N)).mul(L::splat(b.scale));
                store_vector(gradient, dz, b.n, v);
            }
            loss.add(sum, shifted_target);
        }
    }
    loss.total()
}

/// The sum over rows of `ln sum - shifted_target`.
pub(super) struct Loss {
    product: f64,
    limit: f64,
    logarithms: f64,
    shifted_targets: f64,
}

impl Loss {
    /// For rows of n logits.
    pub fn new(n: usize) -> Self {
        Self { product: 1.0, limit: f64::MAX / n.max(1) as f64, logarithms: 0.0, shifted_targets: 0.0 }
    }

    #[inline(always)]
    pub fn add<T: Element>(&mut self, sum: T, shifted_target: T) {
        self.shifted_targets += shifted_target.to_f64();
        // A product below the limit stays finite times a sum of n terms of at most 1, with room for their rounding.
        if self.product > 0.5 * self.limit {
            self.logarithms += self.product.ln();
            self.product = 1.0;
        }
        self.product *= sum.to_f64();
    }

    pub fn total(self) -> f64 {
        self.logarithms + self.product.ln() - self.shifted_targets
    }
}

/// `rdz = scale * p * (rz - p . rz)` for every row. Rows of up to 4 vectors: one pass; longer ones: two. Rows that
/// fit into one register `S` are kept in that.
///
/// # Safety
/// The register's instructions are enabled and there; see
/// [`Ops::softmax_xent_rop`](crate::cpu::contract::Ops::softmax_xent_rop).
#[inline(always)]
pub unsafe fn softmax_xent_rop<L: Lanes, S: Lanes<T = L::T>>(
    m: usize,
    n: usize,
    p: *const L::T,
    rz: *const L::T,
    scale: L::T,
    rdz: *mut L::T,
) {
    // SAFETY: the contract is passed on unchanged; the vector count is that of a row.
    unsafe {
        match n.div_ceil(L::N) {
            0 => {}
            1 if n <= S::N => short_rop::<S, 1>(m, n, p, rz, scale, rdz),
            1 => short_rop::<L, 1>(m, n, p, rz, scale, rdz),
            2 => short_rop::<L, 2>(m, n, p, rz, scale, rdz),
            3 => short_rop::<L, 3>(m, n, p, rz, scale, rdz),
            4 => short_rop::<L, 4>(m, n, p, rz, scale, rdz),
            _ => (0..m).for_each(|i| long_rop::<L>(n, (p.add(i * n), rz.add(i * n), rdz.add(i * n)), scale)),
        }
    }
}

type RopRow<T> = (*const T, *const T, *mut T);

/// Rows of `V` vectors, four at a time: a masked store takes the place of a whole register in the store buffer, and a load
/// of the row behind, which that place covers, waits until the store has left it. So four rows are loaded first.
///
/// # Safety
/// As [`softmax_xent_rop`], and a row has `V` vectors.
#[inline(always)]
unsafe fn short_rop<L: Lanes, const V: usize>(
    m: usize,
    n: usize,
    p: *const L::T,
    rz: *const L::T,
    scale: L::T,
    rdz: *mut L::T,
) {
    // SAFETY: rows i .. i + 4 (or i) are below m.
    unsafe {
        let rows = |i: usize| (p.add(i * n), rz.add(i * n), rdz.add(i * n));
        let mut i = 0;
        while i + 4 <= m {
            rop_rows::<L, V, 4>(n, rows(i), scale);
            i += 4;
        }
        while i < m {
            rop_rows::<L, V, 1>(n, rows(i), scale);
            i += 1;
        }
    }
}

/// `R` rows of `V` vectors.
///
/// # Safety
/// As [`softmax_xent_rop`] for the rows from these on.
#[inline(always)]
unsafe fn rop_rows<L: Lanes, const V: usize, const R: usize>(n: usize, (p, rz, rdz): RopRow<L::T>, scale: L::T) {
    // SAFETY: i < R, v < V: the vectors lie in the rows; all of them are read before rdz, which may be rz, is written.
    unsafe {
        let zero = L::splat(L::T::ZERO);
        let (mut ps, mut rs, mut means) = ([[zero; V]; R], [[zero; V]; R], [zero; R]);
        for i in 0..R {
            let mut sum = zero;
            for v in 0..V {
                ps[i][v] = load_vector(p.add(i * n), n, v, L::T::ZERO);
                rs[i][v] = load_vector(rz.add(i * n), n, v, L::T::ZERO);
                sum = ps[i][v].fma(rs[i][v], sum);
            }
            means[i] = L::splat(sum.sum());
        }
        for i in 0..R {
            for v in 0..V {
                let rest = rs[i][v].sub(means[i]);
                store_vector(ps[i][v].mul(L::splat(scale)).mul(rest), rdz.add(i * n), n, v);
            }
        }
    }
}

/// # Safety
/// As [`softmax_xent_rop`] for one row.
#[inline(always)]
unsafe fn long_rop<L: Lanes>(n: usize, (p, rz, rdz): RopRow<L::T>, scale: L::T) {
    let vectors = n.div_ceil(L::N);
    // SAFETY: the vectors lie in the row; each is read before it is written.
    unsafe {
        let mut sum = L::splat(L::T::ZERO);
        for v in 0..vectors {
            sum = load_vector::<L>(p, n, v, L::T::ZERO).fma(load_vector(rz, n, v, L::T::ZERO), sum);
        }
        let mean = L::splat(sum.sum());
        for v in 0..vectors {
            let factor = load_vector::<L>(p, n, v, L::T::ZERO).mul(L::splat(scale));
            let tangent: L = load_vector(rz, n, v, L::T::ZERO);
            store_vector(factor.mul(tangent.sub(mean)), rdz, n, v);
        }
    }
}
