//! The first layer before the inner loop: Z'_0 = X' W1^T + b1 and Z_0 = X W1^T + b1, on all lanes or on one.
#![forbid(unsafe_code)]

use std::ops::Range;

use crate::backend::{Finish, Form, Lane, Team, matrix, matrix_mut};
use crate::cpu::{KernelElement, StoredElement};
use crate::error::Result;
use crate::meta::{Inputs, MetaBatch};
use crate::model::{InputKind, MlpShape, Params};

/// Elements of dense weights up to which a lane's few examples may read them once more: they stay in its second-level cache.
/// With the 8 MB of 8192-[256] a step took 5 to 7% longer.
const WEIGHTS_THAT_STAY: usize = 1 << 17;
/// Episodes a lane from which on a lane computes those of the episodes it takes, and not its part of all: with fewer, the rest of
/// their division should weigh more than a hand-over.
const EPISODES_THAT_DIVIDE: usize = 4;

/// Whether a lane that takes episodes computes their Z_0 and Z'_0 itself, just before it needs them.
pub(super) fn is_each_lanes_own(shape: &MlpShape, episodes: usize, lanes: usize) -> bool {
    let small = shape.kind == InputKind::Bag || shape.first_len() <= WEIGHTS_THAT_STAY;
    lanes > 1 && small && episodes >= EPISODES_THAT_DIVIDE * lanes
}

/// Who computes.
pub(super) enum By<'a, T: KernelElement> {
    Team(&'a mut Team<T>),
    Lane(&'a mut Lane<T>),
}

impl<T: KernelElement> By<'_, T> {
    /// Writes Z'_0 and, where they are read, Z_0 of some episodes' rows.
    pub fn forward<S: StoredElement<T>>(
        &mut self,
        params: &Params<T, S>,
        batch: &MetaBatch<T>,
        reads_support: bool,
        episodes: &Range<usize>,
        [z_query, z_support]: [&mut [T]; 2],
    ) -> Result<()> {
        let (shape, h, bias) = (&params.shape, params.shape.hidden(), &params.bias[..]);
        let finish = Finish { bias: Some(bias), ..Finish::scaled(T::ONE, T::ZERO) };
        for (set, z, reads) in [(&batch.query, z_query, true), (&batch.support, z_support, reads_support)] {
            if !reads {
                continue;
            }
            let (from, to) = (set.rows[episodes.start], set.rows[episodes.end]);
            let z = matrix_mut(z, to - from, h);
            match &set.inputs {
                Inputs::Dense(x) => {
                    let (x, w) = (x.rows_range(from, to), matrix(&params.first, h, shape.input));
                    match self {
                        By::Team(team) => team.product(Form::Nt, x, w, z, finish)?,
                        By::Lane(lane) => lane.product(Form::Nt, x, w, z, finish)?,
                    }
                }
                Inputs::Bags(x) => {
                    let (x, table) = (x.rows_range(from, to), matrix(&params.first, shape.input, h));
                    match self {
                        By::Team(team) => team.bag_linear(&x, table, bias, z)?,
                        By::Lane(lane) => lane.bag_linear(&x, table, bias, z)?,
                    }
                }
            }
        }
        Ok(())
    }
}
