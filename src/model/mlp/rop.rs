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
use crate::backend::{Finish, Form, Lane, Mask, matrix, matrix_mut};
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

/// The place in `scratch` of the first layer's tangent: what [`rop_to`] begins with.
pub(crate) fn tangent<'s, T>(shape: &MlpShape, n: usize, scratch: &'s mut [T]) -> &'s mut [T] {
    &mut scratch[..n * shape.hidden()]
}

/// With the direction (`rz`, `direction`) in (pre-activations of layer 1, head): `rz` becomes the first part of the
/// product with the Hessian of the loss (`loss_scale` times the sum of its terms), and its second part is added to `v`.
#[expect(clippy::too_many_arguments, reason = "values, direction and scratch of one pass")]
pub(crate) fn rop<T: KernelElement>(
    lane: &mut Lane<T>,
    shape: &MlpShape,
    phi: &[T],
    loss: (&Targets, T),
    saved: &mut Saved<T>,
    direction: Direction<T>,
    v: &mut [T],
    rz: &mut [T],
    scratch: &mut [T],
) -> Result<()> {
    let first = tangent(shape, saved.n, scratch);
    match saved.first_acts(shape) {
        Some(_) => lane.relu_mask_to(&saved.acts[..first.len()], rz, first)?,
        None => first.copy_from_slice(rz),
    }
    rop_to(lane, shape, phi, loss, saved, direction, v, (rz, T::ZERO), scratch)
}

/// The same from a direction that stands, masked by the first layer's ReLU, in [`tangent`]'s place; the first part is added
/// to `beta` times what `dst` holds.
#[expect(clippy::too_many_arguments, reason = "values, direction and scratch of one pass")]
pub(crate) fn rop_to<T: KernelElement>(
    lane: &mut Lane<T>,
    shape: &MlpShape,
    phi: &[T],
    (targets, loss_scale): (&Targets, T),
    saved: &mut Saved<T>,
    direction: Direction<T>,
    v: &mut [T],
    (dst, beta): (&mut [T], T),
    scratch: &mut [T],
) -> Result<()> {
    let (n, last) = (saved.n, shape.layers());
    if last == 1 {
        let rz = tangent(shape, n, scratch);
        loss_rop(lane, targets, loss_scale, matrix(saved.out, n, shape.outputs()), saved.loss, rz)?;
        return lane.axpby(T::ONE, rz, beta, dst);
    }
    let (racts, rdeltas) = scratch[..scratch_len(shape, n)].split_at_mut(n * shape.hidden_sum());
    let (scale, rw) = direction.parts(v);
    rforward(lane, shape, phi, saved, scale, rw, racts, rdeltas)?;
    let rout = &mut rdeltas[layer_start(shape, n, last)..];
    loss_rop(lane, targets, loss_scale, matrix(saved.out, n, shape.outputs()), saved.loss, rout)?;
    rbackward(lane, shape, phi, saved, direction, v, racts, rdeltas, (dst, beta))
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
        let (act, ract) = (matrix(&saved.acts[before..], n, inputs), matrix(&lower[before..], n, inputs));
        if l == last {
            let bias = Some(&v[layer.bias]);
            lane.few_columns(T::ONE, act, rw, T::ZERO, bias, matrix_mut(dst, n, outputs))?;
            lane.few_columns(T::ONE, ract, w, scale, None, matrix_mut(dst, n, outputs))?;
        } else {
            lane.linear(act, rw, &v[layer.bias], false, matrix_mut(dst, n, outputs))?;
            lane.gemm_nt(T::ONE, ract, w, scale, matrix_mut(dst, n, outputs))?;
            lane.relu_mask(&saved.acts[start..][..n * outputs], dst)?;
        }
    }
    Ok(())
}

/// Fills `rdeltas` downwards from its last layer, adds the first layer's to `beta` times `first`, and the head's part of the
/// product to `v`. A layer's direction is read for the last time before its product is added, so both can live in `v`.
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
    (first, beta): (&mut [T], T),
) -> Result<()> {
    let n = saved.n;
    for layer in shape.head_layers().rev() {
        let l = layer.l;
        let (start, before) = (layer_start(shape, n, l), layer_start(shape, n, l - 1));
        let (inputs, outputs) = (layer.inputs, layer.outputs);
        let (lower, upper) = rdeltas.split_at_mut(start);
        let (delta, rdelta) = (matrix(&saved.deltas[start..], n, outputs), matrix(upper, n, outputs));
        let (act, ract) = (&saved.acts[before..start], matrix(&racts[before..], n, inputs));
        let (below, beta) = if l == 2 { (&mut *first, beta) } else { (&mut lower[before..], T::ZERO) };
        let w = matrix(&phi[layer.weight.clone()], outputs, inputs);
        let (scale, rw) = direction.parts(v);
        let rw = matrix(&rw[layer.weight.clone()], outputs, inputs);
        let mask = Some(Mask::Product(matrix(act, n, inputs)));
        for (d, weight, alpha, beta) in [(rdelta, w, T::ONE, beta), (delta, rw, scale, T::ONE)] {
            let finish = Finish { mask, ..Finish::scaled(alpha, beta) };
            lane.product(Form::Nn, d, weight, matrix_mut(below, n, inputs), finish)?;
        }
        let vw = &mut v[layer.weight];
        lane.gemm_tn(T::ONE, rdelta, matrix(act, n, inputs), T::ONE, matrix_mut(vw, outputs, inputs))?;
        lane.gemm_tn(T::ONE, delta, ract, T::ONE, matrix_mut(vw, outputs, inputs))?;
        lane.col_sum(T::ONE, rdelta, T::ONE, &mut v[layer.bias])?;
    }
    Ok(())
}
