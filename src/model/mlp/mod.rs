//! The head of an MLP: every layer after the first, as a function of the first layer's pre-activations z (n x hidden).
//!
//! Both ways to the meta-gradient use it: in Gram space z is carried from step to step; the dense form computes z from
//! the inputs and adds the first layer's own derivatives.
#![forbid(unsafe_code)]

mod backward;
mod forward;
mod rop;

pub(crate) use backward::{FirstGradient, backward, backward_to};
pub(crate) use forward::{forward, forward_from_first};
pub(crate) use rop::{Direction, rop, rop_to, scratch_len, tangent};

use crate::backend::{Carver, Lane, matrix};
use crate::cpu::KernelElement;
use crate::error::Result;
use crate::model::MlpShape;
use crate::view::MatRef;

/// What one pass over n examples leaves for the passes after it.
pub(crate) struct Saved<'a, T> {
    n: usize,
    /// Outputs of the hidden layers after ReLU: layer 1 (n x widths[0]), layer 2, ... up to L - 1.
    acts: &'a mut [T],
    /// Outputs of the last layer, n x widths[L-1].
    out: &'a mut [T],
    /// What the loss keeps for its R-operator.
    loss: &'a mut [T],
    /// Gradients of the loss with respect to each layer's pre-activations, layers 1 to L.
    deltas: &'a mut [T],
}

impl<'a, T> Saved<'a, T> {
    /// Elements for n examples with a loss that keeps `loss` elements.
    pub fn len(shape: &MlpShape, n: usize, loss: usize) -> usize {
        let mut memory = Carver::<T>::counting();
        Self::lay_out(shape, n, loss, &mut memory);
        memory.used()
    }

    /// Takes the pieces for n rows off `memory`, with `loss` elements that the loss keeps.
    pub fn lay_out(shape: &MlpShape, n: usize, loss: usize, memory: &mut Carver<'a, T>) -> Self {
        let (hidden, outputs) = (shape.hidden_sum(), shape.outputs());
        let acts = memory.take(n * hidden);
        let out = memory.take(n * outputs);
        let loss = memory.take(loss);
        let deltas = memory.take(n * (hidden + outputs));
        Self { n, acts, out, loss, deltas }
    }

    /// Where a pass begins: the place of the first layer's outputs, after ReLU if there are more layers.
    pub fn first_mut(&mut self, shape: &MlpShape) -> &mut [T] {
        if shape.layers() == 1 { self.out } else { &mut self.acts[..self.n * shape.hidden()] }
    }

    /// The outputs of the first layer's ReLU; not there where that layer is the last, which has none.
    pub fn first_acts(&self, shape: &MlpShape) -> Option<MatRef<'_, T>> {
        (shape.layers() > 1).then(|| matrix(self.acts, self.n, shape.hidden()))
    }

    /// Masks the first layer's tangent by its ReLU, if it has one.
    pub fn mask_tangent(&self, lane: &mut Lane<T>, shape: &MlpShape, tangent: &mut [T]) -> Result<()>
    where
        T: KernelElement,
    {
        if shape.layers() == 1 { Ok(()) } else { lane.relu_mask(&self.acts[..tangent.len()], tangent) }
    }

    /// The last layer's outputs.
    pub fn out<'s>(&'s self, shape: &MlpShape) -> MatRef<'s, T> {
        matrix(self.out, self.n, shape.outputs())
    }

    /// The same as a slice, n x outputs.
    pub fn out_slice(&self) -> &[T] {
        self.out
    }

    /// Sets the gradient with respect to the last layer's outputs, for a loss that is computed elsewhere.
    pub fn set_out_gradient(&mut self, shape: &MlpShape, dout: &[T])
    where
        T: Copy,
    {
        self.deltas[layer_start(shape, self.n, shape.layers())..].copy_from_slice(dout);
    }

    /// The place of that gradient.
    pub fn out_gradient(&mut self, shape: &MlpShape) -> &mut [T] {
        &mut self.deltas[layer_start(shape, self.n, shape.layers())..]
    }

    /// The gradient with respect to the first layer's pre-activations, n x hidden.
    pub fn delta(&self, shape: &MlpShape) -> &[T] {
        &self.deltas[..self.n * shape.hidden()]
    }
}

/// Where layer `l`'s (from 1) block of n rows starts in `acts` or `deltas`.
fn layer_start(shape: &MlpShape, n: usize, l: usize) -> usize {
    n * shape.widths[..l - 1].iter().sum::<usize>()
}
