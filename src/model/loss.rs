//! Losses over the last layer's outputs, each with its gradient and its R-operator; the first three are softmax
//! cross-entropies.
//!
//! - classes: each row of logits against its class;
//! - lists: one score a row, the softmax over the rows of a list, one row of it right (ListNet's top-one loss with one
//!   relevant item; Cao et al., "Learning to rank: from pairwise approach to listwise approach", 2007);
//! - pairs: rows are embeddings, first all left sides, then all right sides; scores are the dot products of every left
//!   with every right side over the root of the dimension; cross-entropy against the diagonal along rows and along
//!   columns, averaged (in-batch softmax; van den Oord et al., "Representation learning with contrastive predictive
//!   coding", 2018; both directions as in Radford et al., "Learning transferable visual models", 2021);
//! - values: the mean squared error over all rows and outputs (regression).
#![forbid(unsafe_code)]

use std::ops::Range;

use crate::backend::{Lane, matrix, matrix_mut, take};
use crate::cpu::KernelElement;
use crate::error::{Error, Result};
use crate::view::MatRef;

/// What the outputs of a set of examples should have been.
#[derive(Clone, Copy, Debug)]
pub enum Targets<'a> {
    /// The class of each row.
    Classes(&'a [u32]),
    /// List i is rows `offsets[i] - base .. offsets[i+1] - base`; `positives[i]` is the right row, counted in its list.
    Lists {
        /// List boundaries, one more than there are lists.
        offsets: &'a [usize],
        /// The right row of each list.
        positives: &'a [u32],
        /// What to subtract from the offsets.
        base: usize,
    },
    /// Row i belongs to row n / 2 + i.
    Pairs,
    /// What each output should be, n x c.
    Values(&'a [f64]),
}

impl Targets<'_> {
    /// 1 over the number of terms that are averaged, for n rows of c outputs; 0 where there is none.
    pub(crate) fn scale<T: KernelElement>(&self, n: usize, c: usize) -> T {
        match self.count(n, c) {
            0 => T::ZERO,
            count => T::ONE / T::from_f64(count as f64),
        }
    }

    /// The targets of rows `range` alone, of c outputs each, or `None` for a loss that is no sum over rows.
    pub(crate) fn rows(&self, range: Range<usize>, c: usize) -> Option<Self> {
        match *self {
            Targets::Classes(labels) => Some(Targets::Classes(&labels[range])),
            Targets::Values(values) => Some(Targets::Values(&values[range.start * c..range.end * c])),
            Targets::Lists { .. } | Targets::Pairs => None,
        }
    }

    /// How many terms are averaged, for n rows of c outputs.
    fn count(&self, n: usize, c: usize) -> usize {
        match self {
            Targets::Values(_) => n * c,
            Targets::Classes(labels) => labels.len(),
            Targets::Lists { positives, .. } => positives.len(),
            Targets::Pairs => n,
        }
    }

    /// Checks the targets against n rows of c outputs.
    pub fn validate(&self, n: usize, c: usize) -> Result<()> {
        let fits = match *self {
            Targets::Classes(labels) => labels.len() == n && labels.iter().all(|&y| (y as usize) < c),
            Targets::Lists { offsets, positives, base } => {
                c == 1
                    && offsets.len() == positives.len() + 1
                    && offsets.first() == Some(&base)
                    && offsets.last() == Some(&(base + n))
                    && offsets.windows(2).zip(positives).all(|(w, &p)| w[0] < w[1] && (p as usize) < w[1] - w[0])
            }
            Targets::Pairs => n.is_multiple_of(2),
            Targets::Values(values) => values.len() == n * c && values.iter().all(|v| v.is_finite()),
        };
        let detail = || format!("{self:?} do not fit {n} rows of {c} outputs");
        if fits { Ok(()) } else { Err(Error::shape("loss", detail())) }
    }
}

/// Elements a loss keeps from its gradient for its R-operator, for n rows of c outputs.
pub(crate) fn saved_len(targets: &Targets, n: usize, c: usize) -> usize {
    match targets {
        Targets::Classes(_) => n * c,
        Targets::Lists { .. } => n,
        Targets::Values(_) => 0,
        // Two softmaxes, the gradient of the scores, two scratch matrices, and a copy of the tangent.
        Targets::Pairs => 5 * (n / 2) * (n / 2) + n * c,
    }
}

/// `scale` times the sum of the terms; `dout` = its gradient with respect to `out`. Both n x c, without gaps. With
/// [`Targets::scale`] it is the mean.
pub(crate) fn loss_gradient<T: KernelElement>(
    lane: &mut Lane<T>,
    targets: &Targets,
    scale: T,
    out: MatRef<T>,
    saved: &mut [T],
    dout: &mut [T],
) -> Result<T> {
    let (n, c) = (out.rows(), out.cols());
    let mut loss = T::ZERO;
    match *targets {
        Targets::Classes(labels) => {
            loss = lane.softmax_xent_rows(out, labels, scale, &mut saved[..n * c], &mut dout[..n * c])?;
        }
        Targets::Lists { offsets, positives, base } => {
            // The score column lies without gaps, so a list of scores is a row of logits.
            for (i, score) in dout[..n].iter_mut().enumerate() {
                *score = out.row(i)[0];
            }
            for (w, &positive) in offsets.windows(2).zip(positives) {
                let list = w[0] - base..w[1] - base;
                let scores = &mut saved[list.clone()];
                scores.copy_from_slice(&dout[list.clone()]);
                loss += lane.softmax_xent_in_place(positive as usize, scale, scores, &mut dout[list])?;
            }
        }
        Targets::Pairs => return pairs_gradient(lane, scale, out, saved, dout),
        // d/do of scale (o - y)^2 is 2 scale (o - y).
        Targets::Values(values) => {
            for (i, (y, d)) in values.chunks_exact(c).zip(dout.chunks_exact_mut(c)).enumerate() {
                for ((d, &o), &y) in d.iter_mut().zip(out.row(i)).zip(y) {
                    let error = o - T::from_f64(y);
                    loss += error * error;
                    *d = (scale + scale) * error;
                }
            }
        }
    }
    Ok(loss * scale)
}

/// The tangent of [`loss_gradient`]'s gradient along `rout`, in place of `rout`. `saved` is what that call left.
pub(crate) fn loss_rop<T: KernelElement>(
    lane: &mut Lane<T>,
    targets: &Targets,
    scale: T,
    out: MatRef<T>,
    saved: &mut [T],
    rout: &mut [T],
) -> Result<()> {
    let (n, c) = (out.rows(), out.cols());
    match *targets {
        Targets::Classes(_) => lane.softmax_xent_rop_rows(c, &saved[..n * c], scale, &mut rout[..n * c]),
        Targets::Lists { offsets, base, .. } => offsets.windows(2).try_for_each(|w| {
            let list = w[0] - base..w[1] - base;
            lane.softmax_xent_rop(&saved[list.clone()], scale, &mut rout[list])
        }),
        Targets::Pairs => pairs_rop(lane, scale, out, saved, rout),
        Targets::Values(_) => {
            rout.iter_mut().for_each(|r| *r *= scale + scale);
            Ok(())
        }
    }
}

/// Scores S = A B^T / sqrt(c); P = softmax along rows, Q = softmax along columns (kept transposed);
/// dS = (P - I + (Q - I)^T) / n; dA = dS B / sqrt(c), dB = dS^T A / sqrt(c).
fn pairs_gradient<T: KernelElement>(
    lane: &mut Lane<T>,
    scale: T,
    out: MatRef<T>,
    mut saved: &mut [T],
    dout: &mut [T],
) -> Result<T> {
    let (h, c) = (out.rows() / 2, out.cols());
    let (a, b) = (out.rows_range(0, h), out.rows_range(h, 2 * h));
    let root = T::ONE / T::from_f64(c as f64).sqrt();
    let [p, q, ds, rows, cols] = std::array::from_fn(|_| take(&mut saved, h * h));
    lane.gemm_nt(root, a, b, T::ZERO, matrix_mut(rows, h, h))?;
    lane.gemm_nt(root, b, a, T::ZERO, matrix_mut(cols, h, h))?;
    let mut loss = T::ZERO;
    for i in 0..h {
        let row = i * h..(i + 1) * h;
        loss += lane.softmax_xent_in_place(i, scale, &mut p[row.clone()], &mut rows[row.clone()])?;
        loss += lane.softmax_xent_in_place(i, scale, &mut q[row.clone()], &mut cols[row])?;
    }
    ds.copy_from_slice(rows);
    add_transposed(cols, h, ds);
    let (da, db) = dout.split_at_mut(h * c);
    lane.gemm_nn(root, matrix(ds, h, h), b, T::ZERO, matrix_mut(da, h, c))?;
    lane.gemm_tn(root, matrix(ds, h, h), a, T::ZERO, matrix_mut(db, h, c))?;
    Ok(loss * scale)
}

/// R{S} = (R{A} B^T + A R{B}^T) / sqrt(c); R{dS} from it by the softmax's R-operator along rows and columns;
/// R{dA} = (R{dS} B + dS R{B}) / sqrt(c), R{dB} likewise. R{A}, R{B} stand in `rout` and are replaced.
fn pairs_rop<T: KernelElement>(
    lane: &mut Lane<T>,
    scale: T,
    out: MatRef<T>,
    mut saved: &mut [T],
    rout: &mut [T],
) -> Result<()> {
    let (h, c) = (out.rows() / 2, out.cols());
    let (a, b) = (out.rows_range(0, h), out.rows_range(h, 2 * h));
    let root = T::ONE / T::from_f64(c as f64).sqrt();
    let [p, q, ds, rows, cols] = std::array::from_fn(|_| take(&mut saved, h * h));
    let rkept = take(&mut saved, 2 * h * c);
    rkept.copy_from_slice(rout);
    let (ra, rb) = (matrix(&rkept[..h * c], h, c), matrix(&rkept[h * c..], h, c));
    lane.gemm_nt(root, ra, b, T::ZERO, matrix_mut(rows, h, h))?;
    lane.gemm_nt(root, a, rb, T::ONE, matrix_mut(rows, h, h))?;
    for i in 0..h {
        for j in 0..h {
            cols[j * h + i] = rows[i * h + j];
        }
    }
    for i in 0..h {
        let row = i * h..(i + 1) * h;
        lane.softmax_xent_rop(&p[row.clone()], scale, &mut rows[row.clone()])?;
        lane.softmax_xent_rop(&q[row.clone()], scale, &mut cols[row])?;
    }
    add_transposed(cols, h, rows);
    let (ds, rds) = (matrix(ds, h, h), matrix(rows, h, h));
    let (rda, rdb) = rout.split_at_mut(h * c);
    lane.gemm_nn(root, rds, b, T::ZERO, matrix_mut(rda, h, c))?;
    lane.gemm_nn(root, ds, rb, T::ONE, matrix_mut(rda, h, c))?;
    lane.gemm_tn(root, rds, a, T::ZERO, matrix_mut(rdb, h, c))?;
    lane.gemm_tn(root, ds, ra, T::ONE, matrix_mut(rdb, h, c))
}

/// `dst += src^T`, both h x h.
fn add_transposed<T: KernelElement>(src: &[T], h: usize, dst: &mut [T]) {
    for i in 0..h {
        for j in 0..h {
            dst[i * h + j] += src[j * h + i];
        }
    }
}
