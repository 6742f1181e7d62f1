//! `metaglot verify`: the engine's meta-gradients against differences, on this machine, now.
#![forbid(unsafe_code)]

use std::io::{self, Write};

use clap::Args;
use serde_json::json;

use super::{output_error, train};
use crate::cpu::Cpu;
use crate::error::{Error, Result};
use crate::verify::{LEAST_DIFFERENCE, TOLERANCE, Verification, verify};

const EXAMPLE: &str = "\
Random small nets; every weight and learned rate; both paths, f64 and f32; against central differences of a plain f64 \
loop that shares no code with the engine. Exits with 2 where a gradient is wrong.

Example:
  metaglot verify --seed 7";

/// Prove on random nets that the meta-gradients are exact.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub struct Verify {
    /// Names all random numbers
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Threads; 0: one for each core. The result does not depend on it
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
}

impl Verify {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<()> {
        let threads = if self.threads == 0 { train::num_threads() } else { self.threads };
        let found = verify(&Cpu::new().threads(threads)?, self.seed)?;
        if self.json { self.object(&found, out) } else { self.table(&found, out) }.map_err(output_error)?;
        if found.passes() {
            return Ok(());
        }
        let failed: Vec<String> =
            found.rows.iter().filter(|r| !r.passes()).map(|r| format!("{} ({})", r.algorithm, r.path)).collect();
        Err(Error::config("verify", format!("failed with seed {}: {}", self.seed, failed.join(", "))))
    }

    fn table(&self, found: &Verification, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{:<26}{:<8}{:>12}{:>12}", "largest relative error", "path", "f64", "f32")?;
        for row in &found.rows {
            let mark = if row.passes() { "" } else { "  FAILED" };
            let [double, single] = row.errors;
            writeln!(out, "{:<26}{:<8}{double:>12.1e}{single:>12.1e}{mark}", row.algorithm, row.path)?;
        }
        let [double, single] = TOLERANCE;
        writeln!(out, "{:<34}{double:>12.1e}{single:>12.1e}", "allowed")?;
        let differ = if found.order_difference >= LEAST_DIFFERENCE { "differ" } else { "DO NOT DIFFER" };
        writeln!(out, "first and second order {differ}: by {:.1e} at least", found.order_difference)?;
        let (n, problems, redrawn) = (found.compared, found.problems, found.redrawn);
        writeln!(out, "{n} numbers of {problems} problems, seed {}; {redrawn} draws had a ReLU at its kink", self.seed)
    }

    fn object(&self, found: &Verification, out: &mut dyn Write) -> io::Result<()> {
        let row = |r: &crate::verify::Row| {
            json!({"algorithm": r.algorithm, "path": r.path, "f64": r.errors[0], "f32": r.errors[1],
                "passes": r.passes()})
        };
        let rows: Vec<_> = found.rows.iter().map(row).collect();
        let object = json!({
            "seed": self.seed, "passes": found.passes(), "tolerance_f64": TOLERANCE[0], "tolerance_f32": TOLERANCE[1],
            "order_difference": found.order_difference, "problems": found.problems, "redrawn": found.redrawn,
            "compared": found.compared, "rows": rows,
        });
        writeln!(out, "{object}")
    }
}
