//! The `metaglot` program: parse, call `cli`, turn an error into exit code 2 (as clap does for a wrong usage), a run that
//! Ctrl-C ended into 130 (as shells do).
#![forbid(unsafe_code)]

use std::io;
use std::process::ExitCode;

use clap::Parser;
use metaglot::Error;
use metaglot::cli::{self, Cli};

fn main() -> ExitCode {
    match cli::run(Cli::parse(), &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("metaglot: {error}");
            ExitCode::from(if matches!(error, Error::Interrupted) { 130 } else { 2 })
        }
    }
}
