//! One of the two ways to a meta-gradient.
#![forbid(unsafe_code)]

use crate::cpu::{Cpu, KernelElement};
use crate::error::Result;
use crate::meta::{Dense, GramSpace, InnerLoop, Limits, MetaBatch, MetaGradient};
use crate::model::{MlpShape, Params};

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathChoice {
    /// In Gram space wherever the inner loop fits it.
    Auto,
    /// In Gram space, or an error.
    Gram,
    /// In the plain form.
    Dense,
}

pub enum Engine<T: KernelElement> {
    Gram(Box<GramSpace<T>>),
    Dense(Box<Dense<T>>),
}

impl<T: KernelElement> Engine<T> {
    pub fn new(cpu: &Cpu, shape: &MlpShape, limits: Limits, inner: &InnerLoop, choice: PathChoice) -> Result<Self> {
        match choice {
            PathChoice::Auto if inner.needs_plain_form().is_some() => {
                Self::new(cpu, shape, limits, inner, PathChoice::Dense)
            }
            PathChoice::Dense => Ok(Engine::Dense(Box::new(Dense::new(cpu, shape, limits)?))),
            _ => Ok(Engine::Gram(Box::new(GramSpace::new(cpu, shape, limits)?))),
        }
    }

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

    /// Which way, why, and the bytes the workspace takes.
    pub fn explanation(&self, inner: &InnerLoop) -> String {
        match self {
            Engine::Gram(gram) => {
                let bytes = gram.plan().bytes();
                format!("gram: every step of the first layer lies in the span of the support inputs; {bytes} bytes")
            }
            Engine::Dense(_) => match inner.needs_plain_form() {
                Some(why) => format!("dense: {why}"),
                None => "dense: it was asked for".to_string(),
            },
        }
    }
}
