//! The choice between the two ways to a meta-gradient: asked for, or made by counted operations.
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

/// A workspace of either form.
pub enum Engine<T: KernelElement> {
    /// In Gram space.
    Gram(Box<GramSpace<T>>),
    /// In the plain form.
    Dense(Box<Dense<T>>),
}

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

impl<T: KernelElement> Engine<T> {
    /// Chooses for batches like `batch`, and allocates the workspace for `limits`. Fails where the sizes overflow.
    pub fn new(
        cpu: &Cpu,
        batch: &MetaBatch<T>,
        shape: &MlpShape,
        limits: Limits,
        inner: &InnerLoop,
        choice: PathChoice,
    ) -> Result<(Self, Explanation)> {
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
        let engine = if gram {
            Engine::Gram(Box::new(GramSpace::new(cpu, shape, limits)?))
        } else {
            Engine::Dense(Box::new(Dense::new(cpu, shape, limits)?))
        };
        let (path, bytes) = match &engine {
            Engine::Gram(gram) => ("gram", gram.plan().bytes()),
            Engine::Dense(_) => ("dense", Dense::<T>::planned_bytes(cpu, shape, &limits)?),
        };
        Ok((engine, Explanation { path, reason, operations, bytes }))
    }

    /// The meta-gradient of `batch`, as [`GramSpace::run`] says.
    pub fn run(
        &mut self,
        params: &Params<T>,
        batch: &MetaBatch<T>,
        inner: &InnerLoop,
        gradient: &mut MetaGradient<T>,
    ) -> Result<()> {
        match self {
            Engine::Gram(gram) => gram.run(params, batch, inner, gradient),
            Engine::Dense(dense) => dense.run(params, batch, inner, gradient),
        }
    }

    /// Outputs of the last batch's query rows after adaptation, stacked.
    pub fn query_outputs(&self) -> MatRef<'_, T> {
        match self {
            Engine::Gram(gram) => gram.query_outputs(),
            Engine::Dense(dense) => dense.query_outputs(),
        }
    }
}

impl std::fmt::Display for Explanation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Operations { gram, dense, joint } = self.operations;
        writeln!(f, "path        {}: {}", self.path, self.reason)?;
        writeln!(f, "operations  {gram} in Gram space, {dense} in the plain form, {joint} for a plain gradient")?;
        write!(f, "bytes       {}", self.bytes)
    }
}
