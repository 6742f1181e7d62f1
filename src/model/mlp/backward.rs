//! Backward pass: dW_l = d_l^T a_{l-1}, db_l = column sums of d_l, d_{l-1} = (d_l W_l) * [a_{l-1} > 0].
#![forbid(unsafe_code)]

use super::{Saved, layer_start};
use crate::backend::{Lane, matrix, matrix_mut};
use crate::cpu::KernelElement;
use crate::error::Result;
use crate::model::MlpShape;

/// From the last layer's gradient (left by `forward` or [`Saved::set_out_gradient`]) fills the gradients of all
/// pre-activations, and with `dphi` does `dphi = alpha * gradient + beta * dphi` for the head's weights.
pub(crate) fn backward<T: KernelElement>(
    lane: &mut Lane<T>,
    shape: &MlpShape,
    phi: &[T],
    saved: &mut Saved<T>,
    alpha: T,
    beta: T,
    mut dphi: Option<&mut [T]>,
) -> Result<()> {
    let n = saved.n;
    for layer in shape.head_layers().rev() {
        let l = layer.l;
        let (start, before) = (layer_start(shape, n, l), layer_start(shape, n, l - 1));
        let (lower, upper) = saved.deltas.split_at_mut(start);
        let delta = matrix(upper, n, layer.outputs);
        let act = &saved.acts[before..start];
        let below = &mut lower[before..];
        let weight = matrix(&phi[layer.weight.clone()], layer.outputs, layer.inputs);
        lane.gemm_nn(T::ONE, delta, weight, T::ZERO, matrix_mut(below, n, layer.inputs))?;
        lane.relu_mask(act, below)?;
        if let Some(dphi) = &mut dphi {
            let dweight = matrix_mut(&mut dphi[layer.weight], layer.outputs, layer.inputs);
            lane.gemm_tn(alpha, delta, matrix(act, n, layer.inputs), beta, dweight)?;
            lane.col_sum(alpha, delta, beta, &mut dphi[layer.bias])?;
        }
    }
    Ok(())
}
