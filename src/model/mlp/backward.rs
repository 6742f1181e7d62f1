//! Backward pass: dW_l = d_l^T a_{l-1}, db_l = column sums of d_l, d_{l-1} = (d_l W_l) * [a_{l-1} > 0].
#![forbid(unsafe_code)]

use super::{Saved, layer_start};
use crate::backend::{Finish, Form, Lane, Mask, matrix, matrix_mut};
use crate::cpu::KernelElement;
use crate::error::Result;
use crate::model::MlpShape;

/// Where the gradient of the first layer's pre-activations goes.
pub(crate) enum FirstGradient<'a, T> {
    /// To its place in [`Saved::delta`].
    Kept,
    /// This many times to what is there (n x hidden): the gradient itself is never in memory.
    AddedTo(&'a mut [T], T),
    /// Nowhere.
    Unused,
}

/// From the last layer's gradient (left by `forward` or [`Saved::set_out_gradient`]) fills the gradients of all
/// pre-activations, and with `dphi` does `dphi = alpha * gradient + beta * dphi` for the head's weights.
pub(crate) fn backward<T: KernelElement>(
    lane: &mut Lane<T>,
    shape: &MlpShape,
    phi: &[T],
    saved: &mut Saved<T>,
    alpha: T,
    beta: T,
    dphi: Option<&mut [T]>,
) -> Result<()> {
    backward_to(lane, shape, phi, saved, alpha, beta, dphi, FirstGradient::Kept)
}

/// The same, with a say in where the first layer's gradient goes.
#[expect(clippy::too_many_arguments, reason = "values, weights and results of one pass")]
pub(crate) fn backward_to<T: KernelElement>(
    lane: &mut Lane<T>,
    shape: &MlpShape,
    phi: &[T],
    saved: &mut Saved<T>,
    alpha: T,
    beta: T,
    mut dphi: Option<&mut [T]>,
    mut first: FirstGradient<T>,
) -> Result<()> {
    let n = saved.n;
    if let (1, FirstGradient::AddedTo(dst, by)) = (shape.layers(), &mut first) {
        return lane.axpy(*by, saved.delta(shape), dst);
    }
    for layer in shape.head_layers().rev() {
        let l = layer.l;
        let (start, before) = (layer_start(shape, n, l), layer_start(shape, n, l - 1));
        let (lower, upper) = saved.deltas.split_at_mut(start);
        let delta = matrix(upper, n, layer.outputs);
        let act = &saved.acts[before..start];
        let below = &mut lower[before..];
        let weight = matrix(&phi[layer.weight.clone()], layer.outputs, layer.inputs);
        let mask = Some(Mask::Product(matrix(act, n, layer.inputs)));
        let mut product = |finish, dst: &mut [T]| {
            lane.product(Form::Nn, delta, weight, matrix_mut(dst, n, layer.inputs), Finish { mask, ..finish })
        };
        match &mut first {
            FirstGradient::AddedTo(dst, by) if l == 2 => product(Finish::scaled(*by, T::ONE), dst)?,
            FirstGradient::Unused if l == 2 => {}
            _ => product(Finish::scaled(T::ONE, T::ZERO), below)?,
        }
        if let Some(dphi) = &mut dphi {
            let dweight = matrix_mut(&mut dphi[layer.weight], layer.outputs, layer.inputs);
            lane.gemm_tn(alpha, delta, matrix(act, n, layer.inputs), beta, dweight)?;
            lane.col_sum(alpha, delta, beta, &mut dphi[layer.bias])?;
        }
    }
    Ok(())
}
