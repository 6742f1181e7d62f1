//! NVIDIA GPUs: kernels compiled when the crate is built (`kernels/*.cu`), run through the driver, which is opened at run
//! time; a program with this feature starts on machines without either.
//!
//! What computes is the code of this module in terms of [`Device`]; [`Cuda`] is the real one. The tests put an
//! interpreter of PTX in its place, so kernels and the way they are launched run where there is no GPU.

mod arch;
mod buffer;
mod driver;
mod gemm;
mod graph;
pub mod grouped;
mod launch;
mod layout;
mod meta_step;
mod module;
mod peaks;
mod random_product;
pub mod rows;

pub use arch::Arch;
pub use buffer::{Buffer, Pinned};
pub use driver::Cuda;
pub use gemm::{Form, Gemm, Operand, Precision, Tiling};
pub use graph::Graph;
pub use launch::{Args, Device, Launch};
pub use layout::{Layout, Span};
pub use meta_step::{MetaStep, StepPlan, StepTimes, step_bytes};
pub use module::{Image, Resources, images, nvrtc_version};
pub use peaks::{PeakSizes, Peaks};
pub use random_product::RandomProduct;
