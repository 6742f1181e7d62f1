//! `metaglot demo`: all four tasks on data inside the program, in languages that were never trained on.
//!
//! Each task goes the way a user would: it writes text files, calls `prepare` and `train` with arguments as on the
//! command line, then adapts the model to a few examples of a new language and measures it on items that no training
//! text of any language is about.
#![forbid(unsafe_code)]

mod classify;
mod data;
mod ranking;
mod report;
mod translate;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Parser};

use super::run::RunFolder;
use super::{Cli, output_error, train};
use crate::checkpoint::Checkpoint;
use crate::cpu::Cpu;
use crate::{Error, Result};

const EXAMPLE: &str = "\
Example:
  metaglot demo --out demo";

/// Learn ten languages, then four new ones, on data inside the program.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub struct Demo {
    /// Where the data, the runs and the report go; a demo that stands there is replaced
    #[arg(long, default_value = "metaglot-demo", value_name = "FOLDER")]
    out: PathBuf,
    /// Names all random numbers
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Threads; 0: one for each core. The result does not depend on it
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
}

/// One row of the table: a task in a language.
struct Row {
    task: &'static str,
    language: &'static str,
    support: String,
    metric: &'static str,
    floor_name: &'static str,
    /// Mean and half of the 95% interval, of the untrained baseline and of the result, on the same items.
    floor: (f64, f64),
    result: (f64, f64),
}

/// What the tasks of the demo share.
struct Stage {
    folder: PathBuf,
    seed: u64,
    threads: usize,
    cpu: Cpu,
}

impl Stage {
    /// Runs a command of the program itself, named as a user would type it.
    fn command(&self, arguments: &[&str]) -> Result<()> {
        eprintln!("metaglot: {}", arguments.join(" "));
        let threads = self.threads.to_string();
        let words = ["metaglot"].iter().chain(arguments).copied().chain(["--threads", &threads]);
        let cli = Cli::try_parse_from(words).map_err(|e| Error::config("demo", e.to_string()))?;
        super::run(cli, &mut std::io::sink())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Prepares a text file, trains on it, opens the model.
    fn learn(&self, task: &str, file: &Path, prepare: &[&str], settings: &[&str]) -> Result<Checkpoint> {
        let (data, run) = (self.path(&format!("{task}.mgd")), self.path(task));
        let (data, seed) = (text(&data), self.seed.to_string());
        self.command(&[&["prepare", &text(file)], prepare, &["--out", &data]].concat())?;
        let train = ["train", &data, "--task", task, "--seed", &seed];
        self.command(&[&train, settings, &["--run", &text(&run)]].concat())?;
        Checkpoint::open(RunFolder::new(&run).model())
    }
}

/// A path as an argument; the demo makes its own names, only the folder's may be lossy.
fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

impl Demo {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<()> {
        let report = self.clear()?;
        let threads = if self.threads == 0 { train::num_threads() } else { self.threads };
        let cpu = crate::cli::cpu()?.threads(threads)?;
        let stage = Stage { folder: self.out.clone(), seed: self.seed, threads, cpu };
        let mut rows = classify::run(&stage)?;
        rows.extend(translate::run(&stage)?);
        rows.extend(ranking::summarize(&stage)?);
        rows.extend(ranking::answer(&stage)?);
        let curves = ["classify", "translate", "summarize", "answer"].map(|task| {
            let path = self.out.join(task).join("curves.svg");
            fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e))
        });
        let curves = curves.into_iter().collect::<Result<Vec<_>>>()?;
        report::write(&report, &rows, &curves)?;
        report::print(&rows, out).map_err(output_error)?;
        let shown = fs::canonicalize(&report).unwrap_or(report);
        writeln!(out, "report: {}", shown.display()).map_err(output_error)
    }

    /// Makes the folder, or empties it of an earlier demo. Fails where something else stands in it.
    fn clear(&self) -> Result<PathBuf> {
        let (out, report) = (&self.out, self.out.join("report.html"));
        let entries = fs::read_dir(out).map(Iterator::count).unwrap_or(0);
        if entries > 0 && !self.out.join("classify.tsv").exists() {
            return Err(Error::config("--out", format!("{} holds something that is no demo", out.display())));
        }
        for task in ["classify", "translate", "summarize", "answer"] {
            let run = out.join(task);
            if run.join("config.toml").exists() {
                fs::remove_dir_all(&run).map_err(|e| Error::io("remove", &run, e))?;
            }
        }
        fs::create_dir_all(out).map_err(|e| Error::io("create", out, e))?;
        Ok(report)
    }
}
