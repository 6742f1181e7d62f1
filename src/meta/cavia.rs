//! CAVIA: the inner loop changes nothing but a context vector, inputs of the first layer that are the same for all examples
//! of an episode and 0 at its start; the outer loop learns all weights, those of the context among them (Zintgraf et al.,
//! "Fast context adaptation via meta-learning", 2019, algorithm 1).
//!
//! The context is the last inputs of the model: the last columns of dense rows, in which examples hold 0, or the last
//! tokens of the vocabulary, which occur in no bag. So a model with a context is a model like any other.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::{Adapt, InnerLoop, Inputs, MetaBatch, Order};
use crate::cpu::KernelElement;
use crate::error::{Error, Result};
use crate::model::{InputKind, MlpShape};

/// `steps` of SGD at rate `lr` on a context of `context` inputs, differentiated through.
pub const fn inner_loop(steps: usize, lr: f64, context: usize) -> InnerLoop<'static> {
    InnerLoop { adapt: Adapt::Context(context), ..InnerLoop::sgd(steps, lr, Order::Second) }
}

/// Where the weight of context input `i` (of `context`) on unit `unit` lies in the first layer.
pub(super) fn place(shape: &MlpShape, context: usize, i: usize, unit: usize) -> usize {
    let input = shape.input - context + i;
    match shape.kind {
        InputKind::Dense => unit * shape.input + input,
        InputKind::Bag => input * shape.hidden() + unit,
    }
}

/// The rows of an embedding table that belong to the context.
pub(super) fn rows(shape: &MlpShape, context: usize) -> Range<u32> {
    (shape.input - context) as u32..shape.input as u32
}

/// The context's weights, context x hidden, from a first layer whose element i is `first(i)`.
pub(super) fn weights<T: KernelElement>(shape: &MlpShape, context: usize, first: impl Fn(usize) -> T, dst: &mut [T]) {
    for (i, row) in dst.chunks_exact_mut(shape.hidden()).enumerate() {
        row.iter_mut().enumerate().for_each(|(unit, w)| *w = first(place(shape, context, i, unit)));
    }
}

/// Fails where an example of the batch says something in the inputs of the context.
pub(super) fn check_examples<T: KernelElement>(batch: &MetaBatch<T>, shape: &MlpShape, context: usize) -> Result<()> {
    let from = shape.input - context;
    let free = |inputs: &Inputs<T>| match inputs {
        Inputs::Dense(x) => (0..x.rows()).all(|i| x.row(i)[from..].iter().all(|&v| v == T::ZERO)),
        // Tokens of a bag rise.
        Inputs::Bags(x) => (0..x.rows()).all(|i| x.row(i).0.last().is_none_or(|&token| (token as usize) < from)),
    };
    if free(&batch.support.inputs) && free(&batch.query.inputs) {
        return Ok(());
    }
    let detail = format!("inputs {from} to {} are the context: examples hold 0 there", shape.input - 1);
    Err(Error::config("context", detail))
}
