//! What computes meta-gradients, and the choice between the two ways the CPU has: asked for, or made by counted operations.
#![forbid(unsafe_code)]

use super::{Dense, GramSpace, InnerLoop, Limits, MetaBatch, MetaGradient, Operations};
use crate::cpu::{Cpu, KernelElement};
use crate::error::Result;
use crate::model::{MlpShape, Params};
use crate::view::MatRef;

/// Which way to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathChoice {
    /// The one with fewer operations, of those that the inner loop fits.
    Auto,
    /// In Gram space, or an error.
    Gram,
    /// In the plain form.
    Dense,
}

/// What computes meta-gradients: the CPU in one of its two ways, or a device.
pub trait Engine<T: KernelElement> {
    /// The meta-gradient of `batch`, as [`GramSpace::run`] says.
    ///
    /// # Errors
    /// Where the batch does not fit model or plan, or the engine lacks a setting of the loop.
    fn run(
        &mut self,
        params: &Params<T>,
        batch: &MetaBatch<T>,
        inner: &InnerLoop,
        gradient: &mut MetaGradient<T>,
    ) -> Result<()>;

    /// Outputs of the last batch's query rows after adaptation, stacked.
    fn query_outputs(&self) -> MatRef<'_, T>;
}

impl<T: KernelElement> Engine<T> for GramSpace<T> {
    fn run(
        &mut self,
        params: &Params<T>,
        batch: &MetaBatch<T>,
        inner: &InnerLoop,
        gradient: &mut MetaGradient<T>,
    ) -> Result<()> {
        GramSpace::run(self, params, batch, inner, gradient)
    }

    fn query_outputs(&self) -> MatRef<'_, T> {
        GramSpace::query_outputs(self)
    }
}

impl<T: KernelElement> Engine<T> for Dense<T> {
    fn run(
        &mut self,
        params: &Params<T>,
        batch: &MetaBatch<T>,
        inner: &InnerLoop,
        gradient: &mut MetaGradient<T>,
    ) -> Result<()> {
        Dense::run(self, params, batch, inner, gradient)
    }

    fn query_outputs(&self) -> MatRef<'_, T> {
        Dense::query_outputs(self)
    }
}

/// An engine of any kind.
pub type BoxedEngine<'a, T> = Box<dyn Engine<T> + Send + 'a>;

/// Which way was taken, and what that rests on.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// `gram` or `dense`.
    pub path: &'static str,
    /// Why.
    pub reason: String,
    /// Counted for the batch at hand.
    pub operations: Operations,
    /// Bytes of the workspace.
    pub bytes: usize,
}

/// Chooses a way on the CPU for batches like `batch`, and allocates the workspace for `limits`. Fails where the sizes
/// overflow.
pub fn choose<T: KernelElement>(
    cpu: &Cpu,
    batch: &MetaBatch<T>,
    shape: &MlpShape,
    limits: Limits,
    inner: &InnerLoop,
    choice: PathChoice,
) -> Result<(BoxedEngine<'static, T>, Explanation)> {
    let operations = Operations::of(shape, batch, inner);
    let fewer = |a: u64, b: u64| format!("{:.2} times fewer operations", b as f64 / a.max(1) as f64);
    let (gram, reason) = match (choice, inner.needs_plain_form()) {
        (PathChoice::Gram, _) => (true, "it was asked for".to_string()),
        (PathChoice::Dense, _) => (false, "it was asked for".to_string()),
        (PathChoice::Auto, Some(why)) => (false, why.to_string()),
        (PathChoice::Auto, None) if operations.gram <= operations.dense => {
            (true, fewer(operations.gram, operations.dense))
        }
        (PathChoice::Auto, None) => (false, fewer(operations.dense, operations.gram)),
    };
    if gram {
        let gram = GramSpace::new(cpu, shape, limits)?;
        let found = Explanation { path: "gram", reason, operations, bytes: gram.plan().bytes() };
        return Ok((Box::new(gram), found));
    }
    let bytes = Dense::<T>::planned_bytes(cpu, shape, &limits)?;
    let found = Explanation { path: "dense", reason, operations, bytes };
    Ok((Box::new(Dense::new(cpu, shape, limits)?), found))
}

impl std::fmt::Display for Explanation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Operations { gram, dense, joint } = self.operations;
        writeln!(f, "path        {}: {}", self.path, self.reason)?;
        writeln!(f, "operations  {gram} in Gram space, {dense} in the plain form, {joint} for a plain gradient")?;
        write!(f, "bytes       {}", self.bytes)
    }
}
