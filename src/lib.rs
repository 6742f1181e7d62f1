//! metaglot: few-shot learning of text tasks in new languages.

mod error;

pub use error::{Error, Result};
