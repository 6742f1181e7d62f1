//! `metaglot bench kernels`: the kernels beside the products, in bytes a second; operations where they are what limits.
#![forbid(unsafe_code)]

use std::io::Write;

use clap::Args;
use serde_json::json;

use super::timing::{Times, copy_gbytes, peak_gflops};
use crate::backend::{Form, Lane};
use crate::cli::{cpu, output_error};
use crate::cpu::contract::AdamwStep;
use crate::error::Result;
use crate::rng::{Purpose, Rng};
use crate::view::{MatMut, MatRef};

/// Time the other kernels on one thread: bytes read and written a second, beside a copy of memory in the same run; of thin
/// products operations a second, beside multiply-adds in registers.
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
        let (mut lane, copy, peak) = (Lane::<f32>::new(&cpu), copy_gbytes(1), peak_gflops::<f32>(&cpu));
        let isa = cpu.isa().name();
        let mut report = |kernel: &str, size: String, work: Work, f: &mut dyn FnMut() -> Result<()>| {
            let times = Times::of_short(self.reps as usize, 5e-3, f)?;
            let (amount, unit, limit, of, keys) = match work {
                Work::Bytes(n) => (n, "GB/s", copy, "a copy's", ["gbytes", "copy_gbytes", "copy_fraction"]),
                Work::Operations(n) => (n, "GFLOP/s", peak, "the peak", ["gflops", "peak_gflops", "peak_fraction"]),
            };
            let rate = amount as f64 / times.median() / 1e9;
            let line = if self.json {
                json!({
                    "kernel": kernel, "size": size, "median_s": times.median(), "min_s": times.min(), "max_s": times.max(),
                    "reps": self.reps, keys[0]: rate, keys[1]: limit, keys[2]: rate / limit, "isa": isa,
                })
                .to_string()
            } else {
                format!(
                    "{isa} {kernel:<17} {size:<16} {rate:>7.1} {unit:<7}  {:>4.0}% of {of} {limit:.1}",
                    100.0 * rate / limit
                )
            };
            writeln!(out, "{line}").map_err(output_error)
        };
        for n in LENGTHS {
            elementwise(&mut lane, n, &mut report)?;
        }
        gathers(&mut lane, &mut report)?;
        softmax(&mut lane, &mut report)?;
        thin_products(&mut lane, &mut report)
    }
}

/// What a call does: bytes it reads and writes, or operations where they are what limits.
enum Work {
    Bytes(usize),
    Operations(usize),
}

/// Takes a kernel's name, its size, what a call does, and a call of it.
type Report<'a> = dyn FnMut(&str, String, Work, &mut dyn FnMut() -> Result<()>) -> Result<()> + 'a;

/// One pass each: 4 bytes for every element read or written.
fn elementwise(lane: &mut Lane<f32>, n: usize, report: &mut Report) -> Result<()> {
    let (x, mut y, size) = (normal(n, 1), normal(n, 2), format!("{n}"));
    report("relu", size.clone(), Work::Bytes(8 * n), &mut || lane.relu(&x, &mut y))?;
    report("relu_mask", size.clone(), Work::Bytes(12 * n), &mut || lane.relu_mask(&x, &mut y))?;
    report("axpy", size.clone(), Work::Bytes(12 * n), &mut || lane.axpy(1e-9, &x, &mut y))?;
    let (mut m, mut v) = (vec![0.0; n], vec![0.0; n]);
    report("sgd", size.clone(), Work::Bytes(20 * n), &mut || lane.sgd(1e-6, 0.9, 1e-6, Some(&x), &mut m, &mut y))?;
    let (correction1, correction2) = (1.0, 1.0);
    let step =
        AdamwStep { lr: 1e-6, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 1e-6, correction1, correction2 };
    report("adamw", size.clone(), Work::Bytes(28 * n), &mut || lane.adamw(&step, Some(&x), &mut m, &mut v, &mut y))?;
    let (rows, cols) = (n / 128, 128);
    let (x, mut dst) = (MatRef::new(&x, rows, cols)?, vec![0.0; cols]);
    report("col_sum", format!("{rows}x{cols}"), Work::Bytes(4 * n), &mut || lane.col_sum(1.0, x, 0.0, &mut dst))
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
        report("gather_sum", format!("60 of {ROWS}x{n}"), Work::Bytes(4 * 60 * n), &mut || {
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
        report("softmax_xent", size.clone(), Work::Bytes(bytes), &mut || {
            lane.softmax_xent_rows(z, &targets, 1.0, &mut p, &mut dz).map(|_| ())
        })?;
        report("softmax_xent_rop", size, Work::Bytes(bytes), &mut || lane.softmax_xent_rop_rows(n, &p, 1.0, &mut dz))?;
    }
    Ok(())
}

/// The products of a head with 5 classes and 128 hidden units over 25 examples, and sums of two: logits, the gradient through the
/// layer, that of its weights.
fn thin_products(lane: &mut Lane<f32>, report: &mut Report) -> Result<()> {
    let (n, hidden, classes) = (25, 128, 5);
    let (acts, weights, deltas) = (normal(n * hidden, 7), normal(classes * hidden, 8), normal(n * classes, 9));
    let act = MatRef::new(&acts, n, hidden)?;
    let (weight, delta) = (MatRef::new(&weights, classes, hidden)?, MatRef::new(&deltas, n, classes)?);
    let (mut out, mut below, mut gradient) =
        (vec![0.0; n * classes], vec![0.0; n * hidden], vec![0.0; classes * hidden]);
    let work = |parts: usize| Work::Operations(2 * parts * n * hidden * classes);
    let size = format!("{n}x{classes}x{hidden}");
    report("few_columns", size.clone(), work(1), &mut || {
        lane.few_columns(1.0, act, weight, 0.0, None, MatMut::new(&mut out, n, classes)?)
    })?;
    report("few_columns", format!("2 of {size}"), work(2), &mut || {
        lane.few_columns_pair([(act, weight), (act, weight)], None, MatMut::new(&mut out, n, classes)?)
    })?;
    let size = format!("{n}x{hidden}x{classes}");
    report("rank_update", size.clone(), work(1), &mut || {
        lane.gemm_nn(1e-6, delta, weight, 1.0, MatMut::new(&mut below, n, hidden)?)
    })?;
    report("rank_update", format!("2 of {size}"), work(2), &mut || {
        let pair = [(delta, weight), (delta, weight)];
        lane.product_pair(Form::Nn, pair, 1e-6, Some(act), 1.0, MatMut::new(&mut below, n, hidden)?)
    })?;
    let size = format!("{classes}x{hidden}x{n}");
    report("few_rows", size.clone(), work(1), &mut || {
        lane.gemm_tn(1e-6, delta, act, 1.0, MatMut::new(&mut gradient, classes, hidden)?)
    })?;
    report("few_rows", format!("2 of {size}"), work(2), &mut || {
        let pair = [(delta, act), (delta, act)];
        lane.product_pair(Form::Tn, pair, 1e-6, None, 1.0, MatMut::new(&mut gradient, classes, hidden)?)
    })
}
