//! metaglot: few-shot learning of text tasks in new languages.

mod error;
pub mod text;

pub use error::{Error, Result};
