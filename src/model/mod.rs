//! The multi-layer perceptron and its losses, as calls to the backend.
#![forbid(unsafe_code)]

mod loss;
pub(crate) mod mlp;
mod params;

pub use loss::Targets;
pub(crate) use loss::{loss_gradient, loss_rop, saved_len};
pub use params::{InputKind, MlpShape, Params};
