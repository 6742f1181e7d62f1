//! metaglot: few-shot learning of text tasks in new languages.

mod atomic_file;
pub mod dataset;
mod error;

pub use atomic_file::AtomicFile;
pub use error::{Error, Result};
