//! Token datasets on disk: rows of tokens, labels, languages and translations in one memory-mapped safetensors file.
//!
//! `format.rs` is the specification. [`DatasetWriter`] streams a file of any size in bounded memory; [`Dataset`]
//! checks every invariant once and lends out slices of the mapping.

mod check;
mod columns;
mod external_sort;
pub mod format;
mod mmap;
mod names;
pub mod records;
mod spool;
mod text_ids;
mod weighing;
mod writer;

pub use format::{Kind, NO_LABEL};
pub use mmap::{BagRef, Dataset, peek_format};
pub use weighing::Weighing;
pub use writer::{DatasetSpec, DatasetWriter, Row, Written};
