//! A proof on the spot: the meta-gradients of this build, on this machine's kernels, against central differences.
//!
//! Small random problems (dense rows and token bags, classes and values, one to three hidden layers) are computed by
//! every algorithm, on both paths, in f64 and in f32, and compared with differences of a plain f64 loop that shares no
//! code with the engine (`reference`): the loss after adaptation in every single weight and learned rate; the query loss
//! around the adapted weights (first order); the initial weights minus the adapted ones (Reptile); the dense linear system
//! (iMAML); the support gradient along a direction (Hessian product). A problem in which any ReLU changes sign between the
//! ends of any difference is drawn again, because there a difference is no derivative.
#![forbid(unsafe_code)]

mod differences;
mod problem;
mod reference;

use crate::cpu::{Cpu, KernelElement};
use crate::error::{Error, Result};
use crate::meta::{
    Adapt, ConjugateGradient, Dense, InnerLoop, Limits, MetaGradient, Order, PathChoice, Rates, Start, Update, choose,
};
use crate::model::{InputKind, Params};
use crate::rng::{Purpose, Rng};
use problem::{CONTEXT, Kind, Problem};

/// The largest error allowed in f64, and in f32: over the largest value of the gradient.
pub const TOLERANCE: [f64; 2] = [1e-7, 1e-4];
/// By how much first and second order have to differ, over the largest value.
pub const LEAST_DIFFERENCE: f64 = 1e-3;

const KINDS: [Kind; 5] = [
    Kind { input: InputKind::Dense, dims: &[7, 6, 3], regression: false },
    Kind { input: InputKind::Dense, dims: &[6, 7, 5, 3], regression: false },
    Kind { input: InputKind::Dense, dims: &[5, 4, 5, 4, 2], regression: true },
    Kind { input: InputKind::Bag, dims: &[11, 5, 4], regression: false },
    Kind { input: InputKind::Bag, dims: &[9, 6, 5, 3], regression: true },
];
const STEPS: usize = 3;
const STEP_WEIGHTS: [f64; STEPS] = [0.2, 0.0, 0.8];
/// How often a problem with a kink is drawn again.
const MAX_DRAWS: u64 = 1000;

/// The largest errors of an algorithm on a path, over all problems.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The algorithm.
    pub algorithm: &'static str,
    /// `gram` or `dense`.
    pub path: &'static str,
    /// In f64, and in f32: the largest difference over the largest value, weights and rates apart.
    pub errors: [f64; 2],
}

impl Row {
    /// Whether both are within [`TOLERANCE`].
    pub fn passes(&self) -> bool {
        self.errors.iter().zip(TOLERANCE).all(|(&e, tolerance)| e <= tolerance)
    }
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Verification {
    /// A row for each algorithm and path.
    pub rows: Vec<Row>,
    /// The least relative difference of the first-order to the second-order gradient, over all problems.
    pub order_difference: f64,
    /// Problems that were compared.
    pub problems: usize,
    /// Problems that were drawn again because of a kink.
    pub redrawn: u64,
    /// Numbers compared with a difference.
    pub compared: usize,
}

impl Verification {
    /// Whether every row passes and the orders differ.
    pub fn passes(&self) -> bool {
        self.order_difference >= LEAST_DIFFERENCE && self.rows.iter().all(Row::passes)
    }
}

/// Compares everything. Fails only where nothing could be compared; a wrong gradient is in the answer.
pub fn verify(cpu: &Cpu, seed: u64) -> Result<Verification> {
    verify_changed(cpu, seed, |_, _| {})
}

/// The same with every gradient of the engine changed by `change`, which gets the algorithm's name: a check of the check.
fn verify_changed(cpu: &Cpu, seed: u64, change: impl Fn(&str, &mut [f64])) -> Result<Verification> {
    let mut found =
        Verification { rows: Vec::new(), order_difference: f64::INFINITY, problems: 0, redrawn: 0, compared: 0 };
    for kind in &KINDS {
        let (problem, wanted) = drawn(kind, seed, &mut found.redrawn)?;
        found.problems += 1;
        let rates = Learned::new(seed, &problem);
        for ((name, inner), wanted) in algorithms(&problem, &rates).iter().zip(&wanted) {
            for (path, choice) in [("gram", PathChoice::Gram), ("dense", PathChoice::Dense)] {
                if choice == PathChoice::Gram && inner.is_none_or(|inner| inner.needs_plain_form().is_some()) {
                    continue;
                }
                let mut got = [
                    engine_gradient::<f64>(cpu, &problem, inner.as_ref(), choice)?,
                    engine_gradient::<f32>(cpu, &problem, inner.as_ref(), choice)?,
                ];
                got.iter_mut().for_each(|g| change(name, g));
                let errors = got.map(|g| largest_error(&g, wanted, problem.theta.len()));
                found.compared += 2 * wanted.len();
                found.add(name, path, errors);
            }
        }
        let orders = [Order::First, Order::Second].map(|order| {
            engine_gradient::<f64>(cpu, &problem, Some(&InnerLoop::sgd(STEPS, 0.1, order)), PathChoice::Gram)
        });
        let [first, second] = orders;
        let difference = largest_error(&first?, &second?, problem.theta.len());
        found.order_difference = found.order_difference.min(difference);
    }
    Ok(found)
}

impl Verification {
    fn add(&mut self, algorithm: &'static str, path: &'static str, errors: [f64; 2]) {
        match self.rows.iter_mut().find(|row| row.algorithm == algorithm && row.path == path) {
            Some(row) => (0..2).for_each(|i| row.errors[i] = row.errors[i].max(errors[i])),
            None => self.rows.push(Row { algorithm, path, errors }),
        }
    }
}

/// The first draw without a kink, and what each algorithm's gradient should be.
fn drawn(kind: &Kind, seed: u64, redrawn: &mut u64) -> Result<(Problem, Vec<Vec<f64>>)> {
    for draw in 0..MAX_DRAWS {
        let problem = Problem::draw(kind, seed, draw)?;
        let rates = Learned::new(seed, &problem);
        let wanted: Option<Vec<Vec<f64>>> = algorithms(&problem, &rates)
            .iter()
            .map(|(_, inner)| match inner {
                Some(inner) => differences::meta_gradient(&problem, inner),
                None => differences::hessian_product(&problem),
            })
            .collect();
        if let Some(wanted) = wanted {
            return Ok((problem, wanted));
        }
        *redrawn += 1;
    }
    Err(Error::config("seed", format!("{MAX_DRAWS} draws of {:?} all have a kink; another seed may do", kind.dims)))
}

/// Learned rates of every layout.
struct Learned {
    layers: Vec<f64>,
    units: Vec<f64>,
    weights: Vec<f64>,
}

impl Learned {
    fn new(seed: u64, p: &Problem) -> Self {
        let mut rng = Rng::new(seed, 0, u64::MAX, Purpose::Data);
        let mut rates = |n: usize| (0..n).map(|_| 0.1 + 0.03 * rng.normal()).collect();
        Self {
            layers: rates(STEPS * p.shape.layers()),
            units: rates(p.shape.widths.iter().sum()),
            weights: rates(p.shape.len()),
        }
    }
}

/// Every algorithm's name and inner loop; none: the Hessian product. Prototypes need classes.
fn algorithms<'a>(p: &Problem, learned: &'a Learned) -> Vec<(&'static str, Option<InnerLoop<'a>>)> {
    let maml = InnerLoop::sgd(STEPS, 0.1, Order::Second);
    let layers = Rates::Layers(&learned.layers);
    let momentum = Update::Sgd { momentum: 0.6, weight_decay: 0.2 };
    let adam = Update::Adam { beta1: 0.8, beta2: 0.9, eps: 1e-3 };
    let solver = ConjugateGradient { tolerance: 1e-12, iterations: 500 };
    let mut all = vec![
        ("joint training", InnerLoop::sgd(0, 0.0, Order::Second)),
        ("maml", maml),
        ("fomaml", InnerLoop { order: Order::First, ..maml }),
        ("anil", InnerLoop { adapt: Adapt::Last, ..maml }),
        ("reptile", InnerLoop { order: Order::Displacement, ..maml }),
        ("imaml", InnerLoop { order: Order::Implicit(solver), proximal: 2.0, ..maml }),
        ("cavia", InnerLoop { adapt: Adapt::Context(CONTEXT), ..maml }),
        ("maml, momentum and decay", InnerLoop { update: momentum, ..maml }),
        ("maml, proximal", InnerLoop { proximal: 0.5, ..maml }),
        ("maml, micro-batches", InnerLoop { micro_batch: 2, ..maml }),
        ("maml, adam inside", InnerLoop { update: adam, rates: Rates::Same(0.02), ..maml }),
        ("lslr", InnerLoop { rates: layers, ..maml }),
        ("rates per unit", InnerLoop { rates: Rates::Units(&learned.units), ..maml }),
        ("metasgd", InnerLoop { rates: Rates::Weights(&learned.weights), ..maml }),
        ("maml++", InnerLoop { rates: layers, step_weights: &STEP_WEIGHTS, ..maml }),
    ];
    if !p.regression {
        all.push(("protonet", InnerLoop { start: Start::Prototypes, steps: 0, ..maml }));
        all.push(("protomaml", InnerLoop { start: Start::Prototypes, ..maml }));
    }
    all.into_iter().map(|(name, inner)| (name, Some(inner))).chain([("hvp", None)]).collect()
}

/// The engine's gradient of the weights, then that of the rates.
fn engine_gradient<T: KernelElement>(
    cpu: &Cpu,
    p: &Problem,
    inner: Option<&InnerLoop>,
    choice: PathChoice,
) -> Result<Vec<f64>> {
    let theta = p.params::<T>(&p.theta);
    p.with_batch::<T, _>(|batch| {
        let Some(inner) = inner else {
            let limits = Limits::of(batch, &InnerLoop::sgd(0, 0.0, Order::Evaluate));
            let mut hv = Params::zeros(&p.shape)?;
            Dense::new(cpu, &p.shape, limits)?.support_hvp(&theta, batch, &p.params(&p.v), &mut hv, &mut Vec::new())?;
            return Ok([hv.first, hv.bias, hv.head].concat().iter().map(|x| x.to_f64()).collect());
        };
        let limits = Limits::of(batch, inner);
        let mut g = MetaGradient::new(&p.shape, &limits);
        choose(cpu, batch, &p.shape, limits, inner, choice)?.0.run(&theta, batch, inner, &mut g)?;
        let weights = [g.dense_first(&p.shape), g.bias, g.head].concat();
        Ok(weights.iter().map(|x| x.to_f64()).chain(g.rates).collect())
    })
}

/// The largest difference over the largest wanted value, of the weights and of the rates behind them; the larger of the
/// two. Infinite where a value is not finite or one is missing.
fn largest_error(found: &[f64], wanted: &[f64], weights: usize) -> f64 {
    if found.len() != wanted.len() || !found.iter().all(|x| x.is_finite()) {
        return f64::INFINITY;
    }
    let largest = |x: &mut dyn Iterator<Item = f64>| x.fold(0.0, |most: f64, x| most.max(x.abs()));
    let part = |range: std::ops::Range<usize>| {
        let scale = largest(&mut wanted[range.clone()].iter().copied());
        let difference = largest(&mut range.map(|i| found[i] - wanted[i]));
        if difference == 0.0 { 0.0 } else { difference / scale }
    };
    part(0..weights).max(part(weights..wanted.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_gradient_passes() {
        for seed in [1, 2] {
            let found = verify(&Cpu::new(), seed).unwrap();
            assert!(found.passes(), "seed {seed}: {found:?}");
            assert!(found.rows.len() > 30 && found.problems == KINDS.len(), "seed {seed}: {found:?}");
        }
    }

    #[test]
    fn a_wrong_gradient_fails() {
        let sign = |name: &str, g: &mut [f64]| {
            if name == "maml" {
                g[3] = -g[3]
            }
        };
        let rates = |name: &str, g: &mut [f64]| {
            if name == "metasgd" {
                g[g.len() - 1] *= 1.001
            }
        };
        let missing = |name: &str, g: &mut [f64]| {
            if name == "hvp" {
                g[0] = f64::NAN
            }
        };
        assert_fails_alone("maml", sign);
        assert_fails_alone("metasgd", rates);
        assert_fails_alone("hvp", missing);
    }

    fn assert_fails_alone(name: &str, change: impl Fn(&str, &mut [f64])) {
        let found = verify_changed(&Cpu::new(), 1, change).unwrap();
        let failed: Vec<&str> = found.rows.iter().filter(|r| !r.passes()).map(|r| r.algorithm).collect();
        assert!(!found.passes() && !failed.is_empty() && failed.iter().all(|f| *f == name), "{name}: {failed:?}");
    }
}
