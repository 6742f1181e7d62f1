//! `metaglot bench gemm --device cuda:0`: products on a GPU, beside what the unit that computes them can do.
#![forbid(unsafe_code)]

use std::io::Write;

use serde_json::{Value, json};

use super::gemm::{Form, Gemm, Stored};
use super::timing::Times;
use crate::cli::output_error;
use crate::cuda::{self, Cuda, Device, PeakSizes, Precision, RandomProduct};
use crate::error::Result;

/// Seconds of a timed loop.
const LOOP: f64 = 5e-3;

/// Times each product; the peak is measured once, before them.
pub fn run(number: usize, wanted: &Gemm, out: &mut dyn Write) -> Result<()> {
    let mut cuda = Cuda::new(number)?;
    let (name, precision) = (cuda.name()?, wanted.dtype.precision());
    let peak = precision.peak(&mut cuda, PeakSizes::LARGE)? / 1e9;
    if !wanted.json {
        writeln!(out, "cuda:{number} ({name})").map_err(output_error)?;
    }
    for &shape in &wanted.shapes {
        for &form in &wanted.forms {
            let mut found = measure(&mut cuda, form, precision, shape, wanted.reps as usize, peak)?;
            found["device"] = format!("cuda:{number}").into();
            found["name"] = name.as_str().into();
            let line = if wanted.json { found.to_string() } else { text(&found) };
            writeln!(out, "{line}").map_err(output_error)?;
        }
    }
    Ok(())
}

/// Times one product; every number under its name.
fn measure<D: Device>(
    device: &mut D,
    form: Form,
    precision: Precision,
    shape: [usize; 3],
    reps: usize,
    peak: f64,
) -> Result<Value> {
    let [m, n, k] = shape;
    let mut product = RandomProduct::new(device, form.of_cuda(), precision, shape)?;
    product.run(1)?;
    product.check()?;
    let times = Times::of_loops(reps, LOOP, |calls| product.run(calls as usize))?;
    let operations = 2 * (m * n * k) as u64;
    let gflops = operations as f64 / times.median() / 1e9;
    let (dtype, precision) = (precision.dtype().name(), precision.name());
    Ok(json!({
        "form": form.name(), "m": m, "n": n, "k": k, "median_s": times.median(), "min_s": times.min(),
        "max_s": times.max(), "reps": reps, "operations": operations, "gflops": gflops, "peak_gflops": peak,
        "peak_fraction": gflops / peak, "dtype": dtype, "precision": precision, "kernel": product.kernel(),
    }))
}

/// The same to be read.
fn text(found: &Value) -> String {
    let number = |key: &str| found[key].as_f64().unwrap_or(f64::NAN);
    let kernel = found["kernel"].as_str().unwrap_or_default();
    format!(
        "{kernel:<22} {:>5} x {:>5} x {:>5}  {:>8.1} G/s  {:>3.0}% of {:.0}",
        number("m"),
        number("n"),
        number("k"),
        number("gflops"),
        100.0 * number("peak_fraction"),
        number("peak_gflops"),
    )
}

impl Form {
    fn of_cuda(self) -> cuda::Form {
        match self {
            Form::Nn => cuda::Form::Nn,
            Form::Nt => cuda::Form::Nt,
            Form::Tn => cuda::Form::Tn,
        }
    }
}

impl Stored {
    fn precision(self) -> Precision {
        match self {
            Stored::F32 => Precision::F32,
            Stored::F16 => Precision::F16,
            Stored::Bf16 => Precision::Bf16,
            Stored::Tf32x3 => Precision::Tf32x3,
        }
    }
}
