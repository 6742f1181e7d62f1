//! metaglot: few-shot learning of text tasks in new languages.

mod atomic_file;
mod dtype;
mod error;
mod rng;
mod tensor_file;
mod view;

pub mod text;

pub mod dataset;

pub mod backend;
pub mod cpu;

pub mod model;

pub mod meta;

pub mod episode;

pub mod optim;

pub mod checkpoint;

pub mod train;

pub mod task;

#[cfg(feature = "cli")]
pub mod cli;

pub use atomic_file::AtomicFile;
pub use dtype::{Dtype, Element};
pub use error::{Error, Result};
pub use rng::{Purpose, Rng};
pub use view::{Bags, MatMut, MatRef};
