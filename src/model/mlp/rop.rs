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
    /// 0.
    Zero,
    /// What the product's head part is added to: no copy of it is needed.
    Own,
    /// Given by itself.
    Along(&'a [T]),
}

impl<T> Direction<'_, T> {
    /// Its values, if it is not 0; `v` is what the product is added to.
    fn values<'s>(&'s self, v: &'s [T]) -> Option<&'s [T]> {
        match self {
            Direction::Zero => None,
            Direction::Own => Some(v),
            Direction::Along(w) => Some(w),
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
    rop_to(lane, shape, phi, loss, saved, direction, (v, rz), [T::ONE, T::ZERO], scratch)
}

/// The same from a direction that stands, masked by the first layer's ReLU, in [`tangent`]'s place: with results (v, dst) and
/// factors [alpha, beta], `v += alpha * head's part` and `dst = alpha * first part + beta * dst`.
#[expect(clippy::too_many_arguments, reason = "values, direction and scratch of one pass")]
pub(crate) fn rop_to<T: KernelElement>(
    lane: &mut Lane<T>,
    shape: &MlpShape,
    phi: &[T],
    (targets, loss_scale): (&Targets, T),
    saved: &mut Saved<T>,
    direction: Direction<T>,
    (v, dst): (&mut [T], &mut [T]),
    [alpha, beta]: [T; 2],
    scratch: &mut [T],
) -> Result<()> {
    let (n, last) = (saved.n, shape.layers());
    if last == 1 {
        let rz = tangent(shape, n, scratch);
        loss_rop(lane, targets, loss_scale, matrix(saved.out, n, shape.outputs()), saved.loss, rz)?;
        return lane.axpby(alpha, rz, beta, dst);
    }
    let (racts, rdeltas) = scratch[..scratch_len(shape, n)].split_at_mut(n * shape.hidden_sum());
    rforward(lane, shape, phi, saved, direction.values(v), racts, rdeltas)?;
    let rout = &mut rdeltas[layer_start(shape, n, last)..];
    loss_rop(lane, targets, loss_scale, matrix(saved.out, n, shape.outputs()), saved.loss, rout)?;
    rbackward(lane, shape, phi, saved, direction, (v, dst), [alpha, beta], racts, rdeltas)
}

/// Fills `racts` from its first layer on, and the last layer's tangent into its place in `rdeltas`.
fn rforward<T: KernelElement>(
    lane: &mut Lane<T>,
    shape: &MlpShape,
    phi: &[T],
    saved: &Saved<T>,
    rphi: Option<&[T]>,
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
        let (act, ract) = (matrix(&saved.acts[before..], n, inputs), matrix(&lower[before..], n, inputs));
        let w = matrix(&phi[layer.weight.clone()], outputs, inputs);
        let along = rphi.map(|r| (matrix(&r[layer.weight], outputs, inputs), &r[layer.bias]));
        match along {
            Some((rw, bias)) if l == last => {
                lane.few_columns_pair([(act, rw), (ract, w)], Some(bias), matrix_mut(dst, n, outputs))?;
            }
            None if l == last => lane.few_columns(T::ONE, ract, w, T::ZERO, None, matrix_mut(dst, n, outputs))?,
            _ => {
                if let Some((rw, bias)) = along {
                    lane.linear(act, rw, bias, false, matrix_mut(dst, n, outputs))?;
                }
                let beta = if along.is_some() { T::ONE } else { T::ZERO };
                lane.gemm_nt(T::ONE, ract, w, beta, matrix_mut(dst, n, outputs))?;
                lane.relu_mask(&saved.acts[start..][..n * outputs], dst)?;
            }
        }
    }
    Ok(())
}

/// Fills `rdeltas` downwards from its last layer, gives the first layer's to `first`, and adds the head's part of the product
/// to `v`, both as [`rop_to`] says. A layer's direction is read for the last time before its product is added, so both can live
/// in `v`.
#[expect(clippy::too_many_arguments, reason = "values, direction and scratch of one pass")]
fn rbackward<T: KernelElement>(
    lane: &mut Lane<T>,
    shape: &MlpShape,
    phi: &[T],
    saved: &Saved<T>,
    direction: Direction<T>,
    (v, first): (&mut [T], &mut [T]),
    factors: [T; 2],
    racts: &[T],
    rdeltas: &mut [T],
) -> Result<()> {
    let n = saved.n;
    for layer in shape.head_layers().rev() {
        let l = layer.l;
        let (start, before) = (layer_start(shape, n, l), layer_start(shape, n, l - 1));
        let (inputs, outputs) = (layer.inputs, layer.outputs);
        let (lower, upper) = rdeltas.split_at_mut(start);
        let (delta, rdelta) = (matrix(&saved.deltas[start..], n, outputs), matrix(upper, n, outputs));
        let (act, ract) = (matrix(&saved.acts[before..start], n, inputs), matrix(&racts[before..], n, inputs));
        let (below, [alpha, beta]) =
            if l == 2 { (&mut *first, factors) } else { (&mut lower[before..], [T::ONE, T::ZERO]) };
        let w = matrix(&phi[layer.weight.clone()], outputs, inputs);
        let below = matrix_mut(below, n, inputs);
        match direction.values(v).map(|rphi| matrix(&rphi[layer.weight.clone()], outputs, inputs)) {
            Some(rw) => lane.product_pair(Form::Nn, [(rdelta, w), (delta, rw)], alpha, Some(act), beta, below)?,
            None => {
                let mask = Some(Mask::Product(act));
                lane.product(Form::Nn, rdelta, w, below, Finish { mask, ..Finish::scaled(alpha, beta) })?;
            }
        }
        let (alpha, vw) = (factors[0], matrix_mut(&mut v[layer.weight], outputs, inputs));
        lane.product_pair(Form::Tn, [(rdelta, act), (delta, ract)], alpha, None, T::ONE, vw)?;
        lane.col_sum(alpha, rdelta, T::ONE, &mut v[layer.bias])?;
    }
    Ok(())
}
