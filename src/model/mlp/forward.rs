//! Forward pass: a_1 = relu(z), z_l = a_{l-1} W_l^T + b_l, a_l = relu(z_l); the last layer has no ReLU.
#![forbid(unsafe_code)]

use super::{Saved, layer_start};
use crate::backend::{Lane, matrix, matrix_mut};
use crate::cpu::KernelElement;
use crate::error::Result;
use crate::model::{MlpShape, Targets, loss_gradient};

/// Fills the activations and outputs of `saved` from `z` (n x hidden) and the head `phi`, then as [`forward_from_first`].
pub(crate) fn forward<T: KernelElement>(
    lane: &mut Lane<T>,
    shape: &MlpShape,
    phi: &[T],
    z: &[T],
    targets: Option<(&Targets, T)>,
    saved: &mut Saved<T>,
) -> Result<T> {
    if shape.layers() == 1 {
        saved.first_mut(shape).copy_from_slice(z);
    } else {
        lane.relu(z, saved.first_mut(shape))?;
    }
    forward_from_first(lane, shape, phi, targets, saved)
}

/// The rest of the pass, from what [`Saved::first_mut`] holds; with `targets` and a scale, also what the loss keeps and the
/// last layer's gradient, and returns the scaled loss (0 without targets).
pub(crate) fn forward_from_first<T: KernelElement>(
    lane: &mut Lane<T>,
    shape: &MlpShape,
    phi: &[T],
    targets: Option<(&Targets, T)>,
    saved: &mut Saved<T>,
) -> Result<T> {
    let (n, last) = (saved.n, shape.layers());
    for layer in shape.head_layers() {
        let l = layer.l;
        let (before, rest) = saved.acts.split_at_mut(layer_start(shape, n, l).min(saved.acts.len()));
        let src = matrix(&before[layer_start(shape, n, l - 1)..], n, layer.inputs);
        let weight = matrix(&phi[layer.weight], layer.outputs, layer.inputs);
        if l < last {
            lane.linear(src, weight, &phi[layer.bias], true, matrix_mut(rest, n, layer.outputs))?;
        } else {
            let (bias, dst) = (Some(&phi[layer.bias]), matrix_mut(saved.out, n, layer.outputs));
            lane.few_columns(T::ONE, src, weight, T::ZERO, bias, dst)?;
        }
    }
    let Some((targets, scale)) = targets else { return Ok(T::ZERO) };
    let out = matrix(saved.out, n, shape.outputs());
    loss_gradient(lane, targets, scale, out, saved.loss, &mut saved.deltas[layer_start(shape, n, last)..])
}
