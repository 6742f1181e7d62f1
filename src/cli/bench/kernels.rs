//! `metaglot bench kernels`: the kernels beside the products, in bytes a second; operations where they are what limits.
#![forbid(unsafe_code)]

use std::io::Write;

use clap::Args;
use serde_json::json;

use super::timing::{Times, copy_gbytes};
use crate::backend::Lane;
use crate::cli::{cpu, output_error};
use crate::cpu::contract::AdamwStep;
use crate::error::Result;
use crate::rng::{Purpose, Rng};
use crate::view::MatRef;

/// Time the other kernels on one thread: bytes read and written a second, beside a copy of memory in the same run.
#[derive(Args, Debug)]
pub struct Kernels {
    /// Timed repetitions of a loop of about 5 ms
    #[arg(long, value_name = "R", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..))]
    reps: u32,
    /// One JSON object a line instead of text
    #[arg(long)]
    json: bool,
}

/// Elements of an array in the first-level cache with the others of its operation, and of one far out of every cache.
const LENGTHS: [usize; 2] = [1 << 10, 1 << 24];

fn normal(n: usize, stream: u64) -> Vec<f32> {
    let mut rng = Rng::new(1, stream, 0, Purpose::Data);
    (0..n).map(|_| rng.normal() as f32).collect()
}

impl Kernels {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<()> {
        let cpu = cpu()?;
        let (mut lane, copy) = (Lane::<f32>::new(&cpu), copy_gbytes(1));
        let isa = cpu.isa().name();
        let mut report = |kernel: &str, size: String, bytes: usize, f: &mut dyn FnMut() -> Result<()>| {
            let times = Times::of_short(self.reps as usize, 5e-3, f)?;
            let rate = bytes as f64 / times.median() / 1e9;
            let line = if self.json {
                json!({
                    "kernel": kernel, "size": size, "median_s": times.median(), "min_s": times.min(), "max_s": times.max(),
                    "reps": self.reps, "gbytes": rate, "copy_gbytes": copy, "copy_fraction": rate / copy, "isa": isa,
                })
                .to_string()
            } else {
                format!(
                    "{isa} {kernel:<17} {size:<16} {rate:>7.1} GB/s  {:>4.0}% of a copy's {copy:.1}",
                    100.0 * rate / copy
                )
            };
            writeln!(out, "{line}").map_err(output_error)
        };
        for n in LENGTHS {
            elementwise(&mut lane, n, &mut report)?;
        }
        gathers(&mut lane, &mut report)?;
        softmax(&mut lane, &mut report)
    }
}

/// Takes a kernel's name, its size, the bytes it reads and writes, and a call of it.
type Report<'a> = dyn FnMut(&str, String, usize, &mut dyn FnMut() -> Result<()>) -> Result<()> + 'a;

/// One pass each: 4 bytes for every element read or written.
fn elementwise(lane: &mut Lane<f32>, n: usize, report: &mut Report) -> Result<()> {
    let (x, mut y, size) = (normal(n, 1), normal(n, 2), format!("{n}"));
    report("relu", size.clone(), 8 * n, &mut || lane.relu(&x, &mut y))?;
    report("relu_mask", size.clone(), 12 * n, &mut || lane.relu_mask(&x, &mut y))?;
    report("axpy", size.clone(), 12 * n, &mut || lane.axpy(1e-9, &x, &mut y))?;
    let (mut m, mut v) = (vec![0.0; n], vec![0.0; n]);
    report("sgd", size.clone(), 20 * n, &mut || lane.sgd(1e-6, 0.9, 1e-6, Some(&x), &mut m, &mut y))?;
    let (correction1, correction2) = (1.0, 1.0);
    let step =
        AdamwStep { lr: 1e-6, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 1e-6, correction1, correction2 };
    report("adamw", size.clone(), 28 * n, &mut || lane.adamw(&step, Some(&x), &mut m, &mut v, &mut y))?;
    let (rows, cols) = (n / 128, 128);
    let (x, mut dst) = (MatRef::new(&x, rows, cols)?, vec![0.0; cols]);
    report("col_sum", format!("{rows}x{cols}"), 4 * n, &mut || lane.col_sum(1.0, x, 0.0, &mut dst))
}

/// Bags of 60 tokens out of a table of 65536 rows, as far apart as in training.
fn gathers(lane: &mut Lane<f32>, report: &mut Report) -> Result<()> {
    const ROWS: usize = 1 << 16;
    for n in [64, 256] {
        let (table, weights, mut dst) = (normal(ROWS * n, 3), normal(60, 4), vec![0.0; n]);
        let mut rng = Rng::new(1, 5, 0, Purpose::Data);
        let tokens: Vec<u32> = (0..60 * 4096).map(|_| rng.below(ROWS) as u32).collect();
        let table = MatRef::new(&table, ROWS, n)?;
        let mut bags = tokens.chunks_exact(60).cycle();
        report("gather_sum", format!("60 of {ROWS}x{n}"), 4 * 60 * n, &mut || {
            lane.gather_sum(bags.next().expect("a cycle has no end"), &weights, table, None, &mut dst)
        })?;
    }
    Ok(())
}

/// Logits read, softmax and gradient written; and the R-operator, which reads p and rz and writes rdz.
fn softmax(lane: &mut Lane<f32>, report: &mut Report) -> Result<()> {
    for n in [5, 64, 1000] {
        let rows = 75;
        let (z, mut p, mut dz) = (normal(rows * n, 6), vec![0.0; rows * n], vec![0.0; rows * n]);
        let targets = vec![1; rows];
        let (z, size, bytes) = (MatRef::new(&z, rows, n)?, format!("{rows}x{n}"), 12 * rows * n);
        report("softmax_xent", size.clone(), bytes, &mut || {
            lane.softmax_xent_rows(z, &targets, 1.0, &mut p, &mut dz).map(|_| ())
        })?;
        report("softmax_xent_rop", size, bytes, &mut || lane.softmax_xent_rop_rows(n, &p, 1.0, &mut dz))?;
    }
    Ok(())
}
