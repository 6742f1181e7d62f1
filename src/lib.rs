//! metaglot: few-shot learning of text tasks in new languages.

mod atomic_file;
#[cfg(feature = "cli")]
pub mod cli;
pub mod dataset;
mod error;
pub mod text;

pub use atomic_file::AtomicFile;
pub use error::{Error, Result};
