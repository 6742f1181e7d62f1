//! The command line: one file a subcommand; each is a clap `Args` and a `run` that returns an [`crate::Error`].
//!
//! Results go to `out` (standard output), progress to standard error; the program's exit code is made in
//! `bin/metaglot.rs` and nowhere else.
#![forbid(unsafe_code)]

mod answer;
mod bench;
mod case;
mod classify;
mod curves;
mod demo;
mod device;
mod grad;
mod info;
mod items;
mod lines;
mod prepare;
mod prepare_ranking;
mod progress;
mod ranking;
mod run;
mod selection;
mod source;
mod summarize;
mod text_args;
mod train;
mod translate;
mod verify;

use std::io::{self, Write};

use clap::{Parser, Subcommand};

use crate::cpu::Cpu;
use crate::{Error, Result};

/// The arguments of the `metaglot` program.
#[derive(Debug, Parser)]
#[command(name = "metaglot", version, about = "Few-shot learning of text tasks in new languages", max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Learn ten languages, then four new ones, on data inside the program.
    Demo(demo::Demo),
    /// Turn text files into a token dataset.
    Prepare(Box<prepare::Prepare>),
    /// Meta-train a model on a dataset.
    Train(Box<train::Train>),
    /// Classify texts from a few examples of each class.
    Classify(classify::Classify),
    /// Retrieve the best translations from a list of candidates.
    Translate(translate::Translate),
    /// Find the sentence of a passage that answers a question.
    Answer(answer::Answer),
    /// Say in a sentence what a document is about.
    Summarize(summarize::Summarize),
    /// Say what a dataset or a checkpoint holds and where it came from.
    Info(info::Info),
    /// Write a random meta-gradient problem for `metaglot grad`.
    Case(case::Case),
    /// Compute the meta-gradient of a problem in a file.
    Grad(grad::Grad),
    /// Time a meta-step, products or other kernels beside the peak of the same machine.
    Bench(bench::Bench),
    /// Prove on random nets that the meta-gradients are exact.
    Verify(verify::Verify),
}

/// Does what the arguments say. A reader of `out` that goes away (`| head`) is no error.
pub fn run(cli: Cli, out: &mut dyn Write) -> Result<()> {
    let done = match cli.command {
        Command::Demo(demo) => demo.run(out),
        Command::Prepare(prepare) => prepare.run(out),
        Command::Train(train) => train.run(out),
        Command::Classify(classify) => classify.run(out),
        Command::Translate(translate) => translate.run(out),
        Command::Answer(answer) => answer.run(out),
        Command::Summarize(summarize) => summarize.run(out),
        Command::Info(info) => info.run(out),
        Command::Case(case) => case.run(out),
        Command::Grad(grad) => grad.run(out),
        Command::Bench(bench) => bench.run(out),
        Command::Verify(verify) => verify.run(out),
    };
    match done {
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

/// The kernels: the fastest this machine has, or those that the environment variable `METAGLOT_ISA` names.
fn cpu() -> Result<Cpu> {
    let name = std::env::var_os("METAGLOT_ISA");
    Cpu::named(name.as_ref().map(|name| name.to_string_lossy()).as_deref())
}

/// An error of writing to `out`.
fn output_error(error: io::Error) -> Error {
    Error::io("write", "(standard output)", error)
}
