//! Cases: one meta-gradient problem in a safetensors file, so that any framework can compute it too and compare.
//!
//! A case holds T tasks of a classifier with layers l = 0..L-1, ReLU between them (its derivative at 0 is 0), and the
//! loss is the mean cross-entropy of a set; the meta-loss is the mean of the query losses over the tasks. Real tensors
//! are f64 or f32, labels i64, all of them finite and row-major:
//!
//! | tensor | shape | |
//! |---|---|---|
//! | `x_support`, `y_support` | T x Ns x inputs, T x Ns | what the inner loop learns from |
//! | `x_query`, `y_query` | T x Nq x inputs, T x Nq | what the meta-loss is measured on |
//! | `theta.{l}.weight`, `theta.{l}.bias` | outputs x inputs, outputs | the initial weights |
//! | `v.{l}.weight`, `v.{l}.bias` | the same; may be absent | the vector of the Hessian product |
//! | `alpha.{l}.weight`, `alpha.{l}.bias` | the same; may be absent | Meta-SGD's rates |
//!
//! Metadata (strings): `dims` (`7,17,3,6`: inputs, then each layer's outputs), `inner_steps`, `inner_lr`; together or not
//! at all `imaml_lambda`, `imaml_steps`, `imaml_lr`. Other keys are allowed, other tensors are not. Checksums are written
//! but not compared: other programs may change a case and keep its metadata.
//!
//! An [`Answer`] holds, in the type it was computed in, `grad.{l}.weight`, `grad.{l}.bias`, `meta_loss` (1) and
//! `query_loss` (T); for Meta-SGD also `grad_alpha.{l}.*`; for the Hessian product only `hvp.{l}.*` and `support_loss`
//! (T). Its metadata names `algorithm`, `dtype` and `path`.
#![forbid(unsafe_code)]

mod random;
mod read;
mod solve;
mod write;

use std::path::Path;

use crate::error::Result;
use crate::model::{InputKind, MlpShape, Params};

pub use random::RandomCase;
pub use solve::{Algorithm, Answer, solve, solve_with};

/// The most steps of an inner loop a case may ask for.
const MAX_STEPS: usize = 1 << 16;

/// A value, or what is wrong; the caller adds the file's name.
type Check<T = ()> = std::result::Result<T, String>;

/// One meta-gradient problem.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// The weights the tasks begin with; its shape is that of all others.
    pub theta: Params<f64>,
    /// The vector of the Hessian product.
    pub v: Option<Params<f64>>,
    /// Meta-SGD's rates, one a weight.
    pub alpha: Option<Params<f64>>,
    /// Number of tasks.
    pub tasks: usize,
    /// What the inner loop learns from.
    pub support: Examples,
    /// What the meta-loss is measured on.
    pub query: Examples,
    /// Steps of the inner loop.
    pub inner_steps: usize,
    /// Its rate.
    pub inner_lr: f64,
    /// iMAML's settings.
    pub imaml: Option<Imaml>,
}

/// The examples of all tasks, the same number for each.
#[derive(Clone, Debug, PartialEq)]
pub struct Examples {
    /// One row an example.
    pub x: Vec<f64>,
    /// The class of each.
    pub y: Vec<u32>,
}

/// The inner loop of iMAML: gradient steps on the support loss plus lambda / 2 |phi - theta|^2.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Imaml {
    /// Strength of the pull to the initial weights.
    pub lambda: f64,
    /// Steps.
    pub steps: usize,
    /// Their rate.
    pub lr: f64,
}

impl Case {
    /// Reads a case. Fails with what does not hold; never panics on hostile bytes.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        read::open(path.as_ref())
    }

    /// Reads a case from memory; errors name `name`.
    pub fn from_bytes(bytes: &[u8], name: impl AsRef<Path>) -> Result<Self> {
        read::from_bytes(bytes, name.as_ref())
    }

    /// Writes it, real numbers as f64. Fails for what [`Case::open`] would refuse.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        write::save(self, path.as_ref())
    }

    /// The sizes of the model.
    pub fn shape(&self) -> &MlpShape {
        &self.theta.shape
    }

    /// All that must hold between the parts, which reader and writer both ask for.
    fn check(&self) -> Check {
        let shape = self.shape();
        shape.validate().map_err(|e| e.to_string())?;
        if shape.kind != InputKind::Dense {
            return Err("a case has dense inputs, not token bags".to_string());
        }
        let named = [("theta", Some(&self.theta)), ("v", self.v.as_ref()), ("alpha", self.alpha.as_ref())];
        named
            .into_iter()
            .filter_map(|(name, p)| Some((name, p?)))
            .try_for_each(|(name, p)| check_params(name, p, shape))?;
        self.support.check("support", self.tasks, shape)?;
        self.query.check("query", self.tasks, shape)?;
        check_loop("inner", self.inner_steps, self.inner_lr)?;
        match self.imaml {
            Some(i) if !(i.lambda.is_finite() && i.lambda > 0.0) => {
                Err(format!("`imaml_lambda` is {}; wanted a finite number above 0", i.lambda))
            }
            Some(i) => check_loop("imaml", i.steps, i.lr),
            None => Ok(()),
        }
    }
}

impl Examples {
    fn check(&self, name: &str, tasks: usize, shape: &MlpShape) -> Check {
        let (n, c) = (self.y.len(), shape.outputs());
        if tasks == 0 || n == 0 || n % tasks != 0 || n.checked_mul(shape.input) != Some(self.x.len()) {
            let detail = format!("{n} labels and {} values, {tasks} tasks, {} inputs", self.x.len(), shape.input);
            return Err(format!("the {name} examples do not fit: {detail}"));
        }
        if let Some(y) = self.y.iter().find(|y| **y as usize >= c) {
            return Err(format!("`y_{name}` holds the label {y}, but there are {c} classes"));
        }
        check_finite(&format!("x_{name}"), &self.x)
    }
}

fn check_params(name: &str, params: &Params<f64>, shape: &MlpShape) -> Check {
    let found = [params.first.len(), params.bias.len(), params.head.len()];
    let wanted = [shape.first_len(), shape.hidden(), shape.head_len()];
    if params.shape != *shape || found != wanted {
        return Err(format!("`{name}` is of {:?}, the weights are of {shape:?}", params.shape));
    }
    [&params.first, &params.bias, &params.head].into_iter().try_for_each(|values| check_finite(name, values))
}

fn check_finite(name: &str, values: &[f64]) -> Check {
    match values.iter().position(|v| !v.is_finite()) {
        Some(i) => Err(format!("`{name}` value {i} is not finite")),
        None => Ok(()),
    }
}

fn check_loop(name: &str, steps: usize, lr: f64) -> Check {
    match () {
        () if steps > MAX_STEPS => Err(format!("`{name}_steps` is {steps}; {MAX_STEPS} are allowed")),
        () if !lr.is_finite() => Err(format!("`{name}_lr` is {lr}; wanted a finite number")),
        () => Ok(()),
    }
}
