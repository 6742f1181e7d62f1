//! One episode's rows, and the first layer on them: forward, and its part of a gradient.
#![forbid(unsafe_code)]

use crate::backend::{Lane, matrix, matrix_mut};
use crate::cpu::KernelElement;
use crate::error::Result;
use crate::meta::{EpisodeSet, Inputs};
use crate::model::MlpShape;

/// One episode's rows with the first layer's operations on them.
pub(super) struct Examples<'a, T: KernelElement> {
    pub set: &'a EpisodeSet<'a, T>,
    pub t: usize,
    pub shape: &'a MlpShape,
}

impl<T: KernelElement> Examples<'_, T> {
    pub fn len(&self) -> usize {
        self.set.range(self.t).len()
    }

    /// z = x W1^T + b1 with the weights at the front of `theta`.
    pub fn forward(&self, lane: &mut Lane<T>, theta: &[T], z: &mut [T]) -> Result<()> {
        let (h, range) = (self.shape.hidden(), self.set.range(self.t));
        let (first, bias) = (&theta[..self.shape.first_len()], &theta[self.shape.first_len()..][..h]);
        let z = matrix_mut(z, range.len(), h);
        match &self.set.inputs {
            Inputs::Dense(x) => {
                let w = matrix(first, h, self.shape.input);
                lane.linear(x.rows_range(range.start, range.end), w, bias, false, z)
            }
            Inputs::Bags(x) => {
                let table = matrix(first, self.shape.input, h);
                lane.bag_linear(&x.rows_range(range.start, range.end), table, bias, z)
            }
        }
    }

    /// The first layer's part of a gradient: dW1 = dz^T x, db1 = column sums of dz, written to the front of `dtheta`.
    pub fn gradient(&self, lane: &mut Lane<T>, dz: &[T], dtheta: &mut [T]) -> Result<()> {
        let (h, range) = (self.shape.hidden(), self.set.range(self.t));
        let n = range.len();
        let (first, rest) = dtheta.split_at_mut(self.shape.first_len());
        lane.col_sum(T::ONE, matrix(dz, n, h), T::ZERO, &mut rest[..h])?;
        match &self.set.inputs {
            Inputs::Dense(x) => {
                let dw = matrix_mut(first, h, self.shape.input);
                lane.gemm_tn(T::ONE, matrix(dz, n, h), x.rows_range(range.start, range.end), T::ZERO, dw)
            }
            Inputs::Bags(x) => {
                first.fill(T::ZERO);
                range.zip(dz.chunks_exact(h)).try_for_each(|(i, row)| {
                    let (tokens, weights) = x.row(i);
                    let entries = tokens.iter().zip(weights);
                    entries.into_iter().try_for_each(|(&t, &w)| lane.axpy(w, row, &mut first[t as usize * h..][..h]))
                })
            }
        }
    }
}
