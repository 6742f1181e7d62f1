//! `metaglot case`: a random meta-gradient problem in a file.
#![forbid(unsafe_code)]

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::output_error;
use crate::Result;
use crate::case::{Imaml, RandomCase};

const EXAMPLE: &str = "\
The file is safetensors: x_support, y_support, x_query, y_query, theta.{l}.weight, theta.{l}.bias, and for Hessian \
products v.*, for Meta-SGD alpha.*; any other program may write such a file.

Example:
  metaglot case problem.safetensors --dims 7,17,3,6 --tasks 4 --support 10 --query 15 --seed 1";

/// Write a random meta-gradient problem for `metaglot grad`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub struct Case {
    /// The file to write
    #[arg(value_name = "OUT")]
    file: PathBuf,
    /// Inputs, then the outputs of each layer; the last are the classes
    #[arg(long, value_name = "SIZES", value_delimiter = ',', default_value = "7,17,3,6")]
    dims: Vec<usize>,
    /// Tasks
    #[arg(long, value_name = "N", default_value_t = 4)]
    tasks: usize,
    /// Support examples of each task
    #[arg(long, value_name = "N", default_value_t = 10)]
    support: usize,
    /// Query examples of each task
    #[arg(long, value_name = "N", default_value_t = 15)]
    query: usize,
    /// Steps of the inner loop
    #[arg(long, value_name = "N", default_value_t = 5)]
    inner_steps: usize,
    /// Learning rate of the inner loop; Meta-SGD's rates are drawn from half of it to one and a half
    #[arg(long, value_name = "RATE", default_value_t = 0.1)]
    inner_lr: f64,
    /// iMAML's pull to the initial weights
    #[arg(long, value_name = "STRENGTH", default_value_t = 2.0)]
    imaml_lambda: f64,
    /// iMAML's steps
    #[arg(long, value_name = "N", default_value_t = 20)]
    imaml_steps: usize,
    /// iMAML's learning rate
    #[arg(long, value_name = "RATE", default_value_t = 0.1)]
    imaml_lr: f64,
    /// Names all random numbers
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

impl Case {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<()> {
        let case = RandomCase {
            dims: self.dims.clone(),
            tasks: self.tasks,
            support: self.support,
            query: self.query,
            inner_steps: self.inner_steps,
            inner_lr: self.inner_lr,
            imaml: Imaml { lambda: self.imaml_lambda, steps: self.imaml_steps, lr: self.imaml_lr },
            seed: self.seed,
        };
        let case = case.draw()?;
        case.save(&self.file)?;
        let (tasks, weights) = (case.tasks, case.shape().len());
        writeln!(out, "{}: {tasks} tasks, {weights} weights", self.file.display()).map_err(output_error)
    }
}
