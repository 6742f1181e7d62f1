//! metaglot: few-shot learning of text tasks in new languages.
//!
//! Its heart is an exact second-order meta-gradient (MAML) that never copies the first layer: the inner loop runs
//! in Gram space, so its cost does not depend on the number of features or the size of the vocabulary. Around it
//! stands what few-shot text tasks need, from raw text to answers. The modules, in the order the data takes:
//!
//! | module | from | to |
//! |---|---|---|
//! | [`text`] | text of any language | weighted token ids |
//! | [`dataset`] | token ids, labels, languages | one memory-mapped file |
//! | [`cpu`], [`backend`] | slices of numbers | kernels of the best instruction set, checked and on all threads |
//! | [`model`] | a shape | weights, passes and losses of an MLP |
//! | [`meta`] | support and query sets | the meta-gradient |
//! | [`episode`] | a dataset | support and query sets |
//! | [`optim`] | a meta-gradient | new weights |
//! | [`checkpoint`] | weights and a run's state | a file, and back |
//! | [`case`] | one problem in a file | its meta-gradient in a file, for any other program to compare |
//! | [`verify`] | a seed | the engine's meta-gradients compared with differences |
//! | [`train`] | all of the above | a meta-trained model |
//! | [`task`] | a model and a few examples | classes, translations, summaries, answers |
//!
//! One exact meta-gradient (`examples/meta_gradient.rs`):
//!
//! ```
#![doc = include_str!("../examples/meta_gradient.rs")]
//! ```
//!
//! Everything here returns an [`Error`] where input, files or settings cannot be used; the library never prints,
//! aborts or reads the environment.

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
#[cfg(feature = "cuda")]
pub mod cuda;

pub mod model;

pub mod meta;

pub mod episode;

pub mod optim;

pub mod checkpoint;

pub mod case;

pub mod verify;

pub mod train;

pub mod task;

#[cfg(feature = "cli")]
pub mod cli;

pub use atomic_file::AtomicFile;
pub use dtype::{Dtype, Element, Stored};
pub use error::{Error, Result};
pub use half::{bf16, f16};
pub use rng::{Purpose, Rng};
pub use view::{Bags, MatMut, MatRef};
