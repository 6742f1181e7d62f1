//! R-operator pass (Pearlmutter, "Fast exact multiplication by the Hessian", 1994): the Hessian of the loss times a
//! direction, forward-over-reverse, beside the values that forward and backward saved.
//!
//! ```text
//! forward:   R{a_1} = R{z} * [a_1 > 0];  R{z_l} = R{a_{l-1}} W_l^T + a_{l-1} R{W_l}^T + R{b_l}
//! loss:      R{d_L} from R{z_L}
//! backward:  R{dW_l} = R{d_l}^T a_{l-1} + d_l^T R{a_{l-1}};  R{db_l} = column sums of R{d_l}
//!            R{d_{l-1}} = (R{d_l} W_l + d_l R{W_l}) * [a_{l-1} > 0]        ReLU's second derivative is 0
//! ```
#![forbid(unsafe_code)]

use super::{Saved, layer_start};
use crate::backend::{Lane, matrix, matrix_mut};
use crate::cpu::KernelElement;
use crate::error::Result;
use crate::model::{MlpShape, Targets, loss_rop};

/// Elements of scratch for n examples: tangents of the activations, and of the deltas.
pub(crate) fn scratch_len(shape: &MlpShape, n: usize) -> usize {
    n * (2 * shape.hidden_sum() + shape.outputs())
}

/// The head's part of a direction.
#[derive(Clone, Copy)]
pub(crate) enum Direction<'a, T> {
    /// This many times what the product's head part is added to: no copy of it is needed.
    Scaled(T),
    /// Given by itself.
    Along(&'a [T]),
}

impl<T: KernelElement> Direction<'_, T> {
    /// What to scale, and by how much; `v` is what the product is added to.
    fn parts<'s>(&'s self, v: &'s [T]) -> (T, &'s [T]) {
        match self {
            Direction::Scaled(scale) => (*scale, v),
            Direction::Along(w) => (T::ONE, w),
        }
    }
}

/// With the direction (`rz`, `direction`) in (pre-activations of layer 1, head): `rz` becomes the first part of the
/// product with the Hessian of the loss (`loss_scale` times the sum of its terms), and its second part is added to `v`.
#[expect(clippy::too_many_arguments, reason = "values, direction and scratch of one pass")]
pub(crate) fn rop<T: KernelElement>(
    lane: &mut Lane<T>,
    shape: &MlpShape,
    phi: &[T],
    (targets, loss_scale): (&Targets, T),
    saved: &mut Saved<T>,
    direction: Direction<T>,
    v: &mut [T],
    rz: &mut [T],
    scratch: &mut [T],
) -> Result<()> {
    let (n, last, hidden) = (saved.n, shape.layers(), shape.hidden());
    let (racts, rdeltas) = scratch[..scratch_len(shape, n)].split_at_mut(n * shape.hidden_sum());
    if last == 1 {
        return loss_rop(lane, targets, loss_scale, matrix(saved.out, n, hidden), saved.loss, rz);
    }
    lane.relu_mask_to(&saved.acts[..n * hidden], rz, &mut racts[..n * hidden])?;
    let (scale, rw) = direction.parts(v);
    rforward(lane, shape, phi, saved, scale, rw, racts, rdeltas)?;
    let rout = &mut rdeltas[layer_start(shape, n, last)..];
    loss_rop(lane, targets, loss_scale, matrix(saved.out, n, shape.outputs()), saved.loss, rout)?;
    rbackward(lane, shape, phi, saved, direction, v, racts, rdeltas, rz)
}

/// Fills `racts` from its first layer on, and the last layer's tangent into its place in `rdeltas`.
#[expect(clippy::too_many_arguments, reason = "values, direction and scratch of one pass")]
fn rforward<T: KernelElement>(
    lane: &mut Lane<T>,
    shape: &MlpShape,
    phi: &[T],
    saved: &Saved<T>,
    scale: T,
    v: &[T],
    racts: &mut [T],
    rdeltas: &mut [T],
) -> Result<()> {
    let (n, last) = (saved.n, shape.layers());
    for layer in shape.head_layers() {
        let l = layer.l;
        let (start, before) = (layer_start(shape, n, l), layer_start(shape, n, l - 1));
        let (lower, upper) = racts.split_at_mut(start);
        let dst = if l == last { &mut rdeltas[start..] } else { &mut upper[..n * layer.outputs] };
        let (inputs, outputs) = (layer.inputs, layer.outputs);
        let (w, rw) = (matrix(&phi[layer.weight.clone()], outputs, inputs), matrix(&v[layer.weight], outputs, inputs));
        // `scale` times the part that is a layer with the direction's weights comes as the old value's factor.
        let act = matrix(&saved.acts[before..], n, inputs);
        lane.linear(act, rw, &v[layer.bias], false, matrix_mut(dst, n, outputs))?;
        lane.gemm_nt(T::ONE, matrix(&lower[before..], n, inputs), w, scale, matrix_mut(dst, n, outputs))?;
        if l < last {
            lane.relu_mask(&saved.acts[start..][..n * outputs], dst)?;
        }
    }
    Ok(())
}

/// Fills `rdeltas` downwards from its last layer, `rz` in the first layer's place, and adds the head's part of the product to `v`. A layer's direction
/// is read for the last time before its product is added, so both can live in `v`.
#[expect(clippy::too_many_arguments, reason = "values, direction and scratch of one pass")]
fn rbackward<T: KernelElement>(
    lane: &mut Lane<T>,
    shape: &MlpShape,
    phi: &[T],
    saved: &Saved<T>,
    direction: Direction<T>,
    v: &mut [T],
    racts: &[T],
    rdeltas: &mut [T],
    rz: &mut [T],
) -> Result<()> {
    let n = saved.n;
    for layer in shape.head_layers().rev() {
        let l = layer.l;
        let (start, before) = (layer_start(shape, n, l), layer_start(shape, n, l - 1));
        let (inputs, outputs) = (layer.inputs, layer.outputs);
        let (lower, upper) = rdeltas.split_at_mut(start);
        let (delta, rdelta) = (matrix(&saved.deltas[start..], n, outputs), matrix(upper, n, outputs));
        let (act, ract) = (&saved.acts[before..start], matrix(&racts[before..], n, inputs));
        let below = if l == 2 { &mut *rz } else { &mut lower[before..] };
        let w = matrix(&phi[layer.weight.clone()], outputs, inputs);
        let (scale, rw) = direction.parts(v);
        let rw = matrix(&rw[layer.weight.clone()], outputs, inputs);
        lane.gemm_nn(T::ONE, rdelta, w, T::ZERO, matrix_mut(below, n, inputs))?;
        lane.gemm_nn(scale, delta, rw, T::ONE, matrix_mut(below, n, inputs))?;
        lane.relu_mask(act, below)?;
        let vw = &mut v[layer.weight];
        lane.gemm_tn(T::ONE, rdelta, matrix(act, n, inputs), T::ONE, matrix_mut(vw, outputs, inputs))?;
        lane.gemm_tn(T::ONE, delta, ract, T::ONE, matrix_mut(vw, outputs, inputs))?;
        lane.col_sum(T::ONE, rdelta, T::ONE, &mut v[layer.bias])?;
    }
    Ok(())
}
