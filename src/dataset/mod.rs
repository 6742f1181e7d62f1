//! Token datasets on disk: rows of tokens, labels, languages and translations in one memory-mapped safetensors file.
//!
//! `format.rs` is the specification. [`DatasetWriter`] streams a file of any size in bounded memory; [`Dataset`]
//! checks every invariant once and lends out slices of the mapping.

mod check;
pub mod format;
mod mmap;

pub use format::{Kind, NO_LABEL};
pub use mmap::{BagRef, Dataset, peek_format};
