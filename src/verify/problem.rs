//! A small random meta-batch, as the reference and as the engine read it.
#![forbid(unsafe_code)]

use super::reference::Examples;
use crate::cpu::KernelElement;
use crate::error::Result;
use crate::meta::{BatchTargets, EpisodeSet, Inputs, MetaBatch};
use crate::model::{InputKind, MlpShape, Params};
use crate::rng::{Purpose, Rng};
use crate::view::{Bags, MatRef};

/// Sizes of all problems.
const EPISODES: usize = 2;
const SUPPORT: usize = 6;
const QUERY: usize = 5;

/// Inputs of the context, in which examples hold 0.
pub(super) const CONTEXT: usize = 2;

/// What kind of problem to draw.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    pub input: InputKind,
    /// Inputs, then each layer's outputs.
    pub dims: &'static [usize],
    /// Values to meet instead of classes.
    pub regression: bool,
}

pub(super) struct Problem {
    pub shape: MlpShape,
    pub theta: Vec<f64>,
    /// A direction for Hessian products.
    pub v: Vec<f64>,
    pub support: Vec<Examples>,
    pub query: Vec<Examples>,
    pub regression: bool,
}

impl Problem {
    /// Draw `draw` of a kind.
    pub fn draw(kind: &Kind, seed: u64, draw: u64) -> Result<Self> {
        let shape = MlpShape { input: kind.dims[0], kind: kind.input, widths: kind.dims[1..].to_vec() };
        let mut rng = Rng::new(seed, draw, kind.dims.len() as u64, Purpose::Data);
        let random = Params::<f64>::random(&shape, 0.5, rng.bits())?;
        let mut theta = random.first;
        // Biases away from 0, so that a mistake in one of them shows.
        theta.extend(random.bias.iter().chain(&random.head).map(|w| w + 0.2 * rng.normal()));
        let v = theta.iter().map(|_| rng.normal()).collect();
        let mut sets = |n: usize| (0..EPISODES).map(|_| examples(&mut rng, &shape, n, kind.regression)).collect();
        let (support, query) = (sets(SUPPORT), sets(QUERY));
        Ok(Self { theta, v, support, query, regression: kind.regression, shape })
    }

    /// Lends the batch in elements of type `T` to `f`.
    pub fn with_batch<T: KernelElement, R>(&self, f: impl FnOnce(&MetaBatch<T>) -> Result<R>) -> Result<R> {
        let (support, query) = (Stacked::<T>::new(&self.support), Stacked::<T>::new(&self.query));
        f(&MetaBatch { support: support.set(self)?, query: query.set(self)? })
    }

    /// A flat vector as weights.
    pub fn params<T: KernelElement>(&self, flat: &[f64]) -> Params<T> {
        let values: Vec<T> = flat.iter().map(|&x| T::from_f64(x)).collect();
        let (first, rest) = values.split_at(self.shape.first_len());
        let (bias, head) = rest.split_at(self.shape.hidden());
        Params { shape: self.shape.clone(), first: first.to_vec(), bias: bias.to_vec(), head: head.to_vec() }
    }
}

/// Half of a bag's weights are 0; the context's inputs are 0 everywhere.
fn examples(rng: &mut Rng, shape: &MlpShape, n: usize, regression: bool) -> Examples {
    let mut row = || {
        let mut x: Vec<f64> = (0..shape.input - CONTEXT).map(|_| rng.normal()).collect();
        if shape.kind == InputKind::Bag {
            x.iter_mut().for_each(|x| *x = if rng.below(2) == 0 { 0.0 } else { *x });
        }
        x.resize(shape.input, 0.0);
        x
    };
    let x = (0..n).map(|_| row()).collect();
    let y = (0..n).map(|_| rng.below(shape.outputs()) as u32).collect();
    let values = regression.then(|| (0..n * shape.outputs()).map(|_| rng.normal()).collect());
    Examples { x, y, values }
}

/// All episodes' rows, one after the other.
struct Stacked<T> {
    bounds: Vec<usize>,
    dense: Vec<T>,
    tokens: Vec<u32>,
    weights: Vec<T>,
    offsets: Vec<usize>,
    labels: Vec<u32>,
    values: Vec<f64>,
}

impl<T: KernelElement> Stacked<T> {
    fn new(sets: &[Examples]) -> Self {
        let n = sets[0].x.len();
        let rows = || sets.iter().flat_map(|set| &set.x);
        let (mut tokens, mut weights, mut offsets) = (Vec::new(), Vec::new(), vec![0]);
        for row in rows() {
            let there = row.iter().enumerate().filter(|(_, x)| **x != 0.0);
            there.for_each(|(token, &x)| {
                tokens.push(token as u32);
                weights.push(T::from_f64(x));
            });
            offsets.push(tokens.len());
        }
        Self {
            bounds: (0..=sets.len()).map(|t| t * n).collect(),
            dense: rows().flatten().map(|&x| T::from_f64(x)).collect(),
            labels: sets.iter().flat_map(|set| set.y.iter().copied()).collect(),
            values: sets.iter().filter_map(|set| set.values.as_ref()).flatten().copied().collect(),
            tokens,
            weights,
            offsets,
        }
    }

    fn set(&self, problem: &Problem) -> Result<EpisodeSet<'_, T>> {
        let (rows, input) = (self.labels.len(), problem.shape.input);
        let inputs = match problem.shape.kind {
            InputKind::Dense => Inputs::Dense(MatRef::new(&self.dense, rows, input)?),
            InputKind::Bag => Inputs::Bags(Bags::new(&self.tokens, &self.weights, &self.offsets, input)?),
        };
        let targets = match problem.regression {
            true => BatchTargets::Values(&self.values),
            false => BatchTargets::Classes(&self.labels),
        };
        Ok(EpisodeSet { inputs, rows: &self.bounds, targets })
    }
}
