//! Computing a case: every algorithm of [`meta`](crate::meta) that a case has the settings for.
#![forbid(unsafe_code)]

use std::path::Path;

use super::{Case, Examples, write};
use crate::cpu::{Cpu, KernelElement};
use crate::dtype::{Dtype, Element};
use crate::error::{Error, Result};
use crate::meta::{
    BatchTargets, BoxedEngine, ConjugateGradient, Dense, EpisodeSet, Explanation, InnerLoop, Inputs, Limits, MetaBatch,
    MetaGradient, Operations, Order, Outcome, PathChoice, anil, choose, fomaml, imaml, maml, meta_sgd, proto_maml,
    protonet, reptile,
};
use crate::model::Params;
use crate::view::MatRef;

/// What can be computed of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// [`maml`].
    Maml,
    /// [`fomaml`].
    Fomaml,
    /// [`anil`].
    Anil,
    /// [`reptile`]: theta minus the adapted weights.
    Reptile,
    /// [`imaml`].
    Imaml,
    /// [`meta_sgd`], with the case's `alpha`.
    MetaSgd,
    /// [`protonet`].
    ProtoNet,
    /// [`proto_maml`].
    ProtoMaml,
    /// The mean over the tasks of the support loss's Hessian times the case's `v`.
    Hvp,
}

impl Algorithm {
    /// The name in an answer.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Maml => "maml",
            Algorithm::Fomaml => "fomaml",
            Algorithm::Anil => "anil",
            Algorithm::Reptile => "reptile",
            Algorithm::Imaml => "imaml",
            Algorithm::MetaSgd => "metasgd",
            Algorithm::ProtoNet => "protonet",
            Algorithm::ProtoMaml => "protomaml",
            Algorithm::Hvp => "hvp",
        }
    }
}

/// What was computed.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer<T> {
    /// By which algorithm.
    pub algorithm: Algorithm,
    /// On which path, and why.
    pub path: Explanation,
    /// Gradients, or the Hessian product, each under its name in the file.
    pub params: Vec<(&'static str, Params<T>)>,
    /// The name of the losses in the file, and one for each task: after adaptation; for the Hessian product before.
    pub losses: (&'static str, Vec<T>),
    /// How each task ended; empty for the Hessian product.
    pub outcomes: Vec<Outcome>,
}

impl<T: Element> Answer<T> {
    /// The mean of the losses over the tasks.
    pub fn mean_loss(&self) -> f64 {
        self.losses.1.iter().map(|loss| loss.to_f64()).sum::<f64>() / self.losses.1.len().max(1) as f64
    }

    /// Writes it as the head of this module's folder says.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        write::save_answer(self, path.as_ref())
    }
}

/// Computes the gradient of a case in elements of type `T` on the CPU. Fails where the case lacks what the algorithm needs,
/// or the path cannot carry it.
pub fn solve<T: KernelElement>(cpu: &Cpu, case: &Case, algorithm: Algorithm, path: PathChoice) -> Result<Answer<T>> {
    if algorithm == Algorithm::Hvp {
        return hessian_product(cpu, case, path);
    }
    solve_with(case, algorithm, |batch, limits, inner| choose(cpu, batch, case.shape(), limits, inner, path))
}

/// The same on the engine that `make` gives for the batch, its limits and inner loop. The Hessian product is the CPU's alone.
pub fn solve_with<T: KernelElement>(
    case: &Case,
    algorithm: Algorithm,
    make: impl FnOnce(&MetaBatch<T>, Limits, &InnerLoop) -> Result<(BoxedEngine<'static, T>, Explanation)>,
) -> Result<Answer<T>> {
    if algorithm == Algorithm::Hvp {
        return Err(Error::config("hvp", "only the CPU has it"));
    }
    let alpha = case.alpha.as_ref().map(|a| [&a.first[..], &a.bias, &a.head].concat());
    let inner = inner_loop(case, algorithm, alpha.as_deref(), T::DTYPE)?;
    let theta = converted::<T>(&case.theta);
    let (support, query) = (Rows::new(&case.support, case), Rows::new(&case.query, case));
    let batch = MetaBatch { support: support.set(case)?, query: query.set(case)? };
    let limits = Limits::of(&batch, &inner);
    let mut gradient = MetaGradient::new(case.shape(), &limits);
    let (mut engine, path) = make(&batch, limits, &inner)?;
    engine.run(&theta, &batch, &inner, &mut gradient)?;
    let shape = case.shape().clone();
    let rates = gradient.rates.iter().map(|r| T::from_f64(*r)).collect::<Vec<_>>();
    let main = Params { first: gradient.dense_first(&shape), bias: gradient.bias, head: gradient.head, shape };
    let mut params = vec![("grad", main)];
    if algorithm == Algorithm::MetaSgd {
        params.push(("grad_alpha", unflattened(&theta, &rates)));
    }
    let losses = ("query_loss", gradient.query_loss);
    Ok(Answer { algorithm, path, params, losses, outcomes: gradient.outcomes })
}

/// The inner loop of an algorithm, from the case's settings.
fn inner_loop<'a>(case: &Case, algorithm: Algorithm, alpha: Option<&'a [f64]>, dtype: Dtype) -> Result<InnerLoop<'a>> {
    let (steps, lr) = (case.inner_steps, case.inner_lr);
    let lacks = |what: &str| Error::config(algorithm.name(), format!("the case lacks {what}"));
    Ok(match algorithm {
        Algorithm::Maml => maml::inner_loop(steps, lr),
        Algorithm::Fomaml => fomaml::inner_loop(steps, lr),
        Algorithm::Anil => anil::inner_loop(steps, lr),
        Algorithm::Reptile => reptile::inner_loop(steps, lr),
        Algorithm::Imaml => {
            let settings = case.imaml.ok_or_else(|| lacks("`imaml_lambda`, `imaml_steps` and `imaml_lr`"))?;
            let tolerance = if dtype == Dtype::F64 { 1e-12 } else { 1e-6 };
            // In exact arithmetic there is one iteration a weight at most.
            let iterations = (2 * case.shape().len()).min(10_000);
            imaml::inner_loop(settings.steps, settings.lr, settings.lambda, ConjugateGradient { tolerance, iterations })
        }
        Algorithm::MetaSgd => meta_sgd::inner_loop(steps, alpha.ok_or_else(|| lacks("`alpha`"))?),
        Algorithm::ProtoNet => protonet::inner_loop(),
        Algorithm::ProtoMaml => proto_maml::inner_loop(steps, lr),
        Algorithm::Hvp => unreachable!("it has no inner loop"),
    })
}

/// Only the plain form has the product by itself.
fn hessian_product<T: KernelElement>(cpu: &Cpu, case: &Case, path: PathChoice) -> Result<Answer<T>> {
    let v = case.v.as_ref().ok_or_else(|| Error::config(Algorithm::Hvp.name(), "the case lacks `v`"))?;
    if path == PathChoice::Gram {
        return Err(Error::config("hvp", "there is no Gram form of it; wanted the path `dense` or `auto`"));
    }
    let inner = InnerLoop::sgd(0, 0.0, Order::Evaluate);
    let support = Rows::new(&case.support, case);
    let batch = MetaBatch { support: support.set(case)?, query: support.set(case)? };
    let limits = Limits::of(&batch, &inner);
    let mut dense = Dense::new(cpu, case.shape(), limits)?;
    let mut hv = Params::zeros(case.shape())?;
    let mut losses = Vec::with_capacity(batch.episodes());
    dense.support_hvp(&converted(&case.theta), &batch, &converted(v), &mut hv, &mut losses)?;
    let (params, losses) = (vec![("hvp", hv)], ("support_loss", losses));
    let bytes = Dense::<T>::planned_bytes(cpu, case.shape(), &limits)?;
    let reason = "the Hessian product has no other form".to_string();
    let operations = Operations::of(case.shape(), &batch, &inner);
    let path = Explanation { path: "dense", reason, operations, bytes };
    Ok(Answer { algorithm: Algorithm::Hvp, path, params, losses, outcomes: Vec::new() })
}

/// One side of the case in the elements that are computed with.
struct Rows<'a, T> {
    x: Vec<T>,
    y: &'a [u32],
    bounds: Vec<usize>,
}

impl<'a, T: KernelElement> Rows<'a, T> {
    fn new(examples: &'a Examples, case: &Case) -> Self {
        let n = examples.y.len() / case.tasks;
        Self { x: convert(&examples.x), y: &examples.y, bounds: (0..=case.tasks).map(|t| t * n).collect() }
    }

    fn set(&self, case: &Case) -> Result<EpisodeSet<'_, T>> {
        let inputs = Inputs::Dense(MatRef::new(&self.x, self.y.len(), case.shape().input)?);
        Ok(EpisodeSet { inputs, rows: &self.bounds, targets: BatchTargets::Classes(self.y) })
    }
}

fn convert<T: Element>(values: &[f64]) -> Vec<T> {
    values.iter().map(|x| T::from_f64(*x)).collect()
}

fn converted<T: Element>(p: &Params<f64>) -> Params<T> {
    Params { shape: p.shape.clone(), first: convert(&p.first), bias: convert(&p.bias), head: convert(&p.head) }
}

/// First layer, bias, head from one vector, as large as those of `like`.
fn unflattened<T: Element>(like: &Params<T>, flat: &[T]) -> Params<T> {
    let (first, rest) = flat.split_at(like.first.len());
    let (bias, head) = rest.split_at(like.bias.len());
    Params { shape: like.shape.clone(), first: first.to_vec(), bias: bias.to_vec(), head: head.to_vec() }
}
