//! The kernels for NVIDIA GPUs and the code that launches them, in the interpreter of PTX for every architecture, and on a
//! GPU where there is one. One program, so that its tests keep all cores busy and share what is compiled.
#![cfg(feature = "cuda")]

#[path = "../support/datasets.rs"]
mod datasets;
#[path = "../support/mod.rs"]
mod support;

mod bench;
mod faults;
mod gemm;
mod grouped;
mod meta_step;
mod resources;
mod rows;
mod train;
