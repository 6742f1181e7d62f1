//! Random cases: a newcomer's first file, and the tests' problems.
#![forbid(unsafe_code)]

use super::{Case, Examples, Imaml};
use crate::error::{Error, Result};
use crate::model::{InputKind, MlpShape, Params};
use crate::rng::{Purpose, Rng};

/// The most numbers a random case may hold: a gigabyte of f64.
const MAX_VALUES: usize = 1 << 27;

/// The sizes and settings of a random case.
#[derive(Clone, Debug)]
pub struct RandomCase {
    /// Inputs, then each layer's outputs.
    pub dims: Vec<usize>,
    /// Tasks.
    pub tasks: usize,
    /// Support examples of each.
    pub support: usize,
    /// Query examples of each.
    pub query: usize,
    /// Steps of the inner loop.
    pub inner_steps: usize,
    /// Its rate.
    pub inner_lr: f64,
    /// iMAML's settings.
    pub imaml: Imaml,
    /// Names all random numbers.
    pub seed: u64,
}

impl RandomCase {
    /// Draws inputs, labels, weights, a vector for the Hessian product and rates around `inner_lr`.
    pub fn draw(&self) -> Result<Case> {
        let [input, widths @ ..] = &self.dims[..] else {
            return Err(Error::config("dims", "inputs and the outputs of a layer are needed"));
        };
        let shape = MlpShape { input: *input, kind: InputKind::Dense, widths: widths.to_vec() };
        shape.validate()?;
        self.check_size(&shape)?;
        let mut rng = Rng::new(self.seed, 0, 0, Purpose::Data);
        let support = examples(&mut rng, &shape, self.tasks * self.support);
        let query = examples(&mut rng, &shape, self.tasks * self.query);
        let mut theta = Params::random(&shape, 0.0, self.seed)?;
        // Biases away from 0, so that a mistake in one of them shows.
        theta.bias.iter_mut().chain(&mut theta.head).for_each(|b| *b += 0.2 * rng.normal());
        let v = params(&shape, || rng.normal())?;
        let alpha = params(&shape, || self.inner_lr * (0.5 + rng.unit()))?;
        let (inner_steps, inner_lr) = (self.inner_steps, self.inner_lr);
        let (v, alpha, imaml) = (Some(v), Some(alpha), Some(self.imaml));
        let case = Case { theta, v, alpha, tasks: self.tasks, support, query, inner_steps, inner_lr, imaml };
        case.check().map_err(|detail| Error::config("case", detail))?;
        Ok(case)
    }

    fn check_size(&self, shape: &MlpShape) -> Result<()> {
        let rows = self.support.checked_add(self.query).and_then(|n| n.checked_mul(self.tasks));
        let values = rows.and_then(|n| n.checked_mul(shape.input)).and_then(|n| n.checked_add(3 * shape.len()));
        match values {
            Some(n) if n <= MAX_VALUES => Ok(()),
            _ => Err(Error::config("case", format!("more than {MAX_VALUES} numbers"))),
        }
    }
}

fn examples(rng: &mut Rng, shape: &MlpShape, n: usize) -> Examples {
    let x = (0..n * shape.input).map(|_| rng.normal()).collect();
    Examples { x, y: (0..n).map(|_| rng.below(shape.outputs()) as u32).collect() }
}

fn params(shape: &MlpShape, mut draw: impl FnMut() -> f64) -> Result<Params<f64>> {
    let mut params = Params::zeros(shape)?;
    params.first.iter_mut().chain(&mut params.bias).chain(&mut params.head).for_each(|x| *x = draw());
    Ok(params)
}
