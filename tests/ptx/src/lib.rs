//! Executes the PTX of CUDA kernels on the CPU, warp by warp, for tests where there is no GPU.
//!
//! [`Module::parse`] decodes PTX text once, [`Device`] holds global memory, [`Device::launch`] runs a grid. What a GPU
//! would let pass silently is an error here: see [`FaultKind`]. `README.md` says what is executed and what can't be
//! shown this way.
//!
//! ```
//! use ptx_interpreter::{Device, Module};
//!
//! let ptx = "
//! .version 9.0
//! .target sm_80
//! .address_size 64
//! .entry double(.param .u64 p) {
//!     .reg .b64 %rd<3>;
//!     .reg .b32 %r<2>;
//!     .reg .f32 %f<2>;
//!     mov.u32 %r1, %tid.x;
//!     ld.param.u64 %rd1, [p];
//!     mad.wide.u32 %rd2, %r1, 4, %rd1;
//!     ld.global.f32 %f1, [%rd2];
//!     add.f32 %f1, %f1, %f1;
//!     st.global.f32 [%rd2], %f1;
//!     ret;
//! }";
//! let module = Module::parse(ptx).unwrap();
//! let mut device = Device::new();
//! let p = device.alloc(12);
//! device.write(p, &[1f32, 2.0, 3.0].map(f32::to_le_bytes).concat()).unwrap();
//! device.launch(&module, "double", [1; 3], [3, 1, 1], 0, &[p.to_le_bytes()], 1).unwrap();
//! let mut out = [0; 12];
//! device.read(p, &mut out).unwrap();
//! assert_eq!(out, [2f32, 4.0, 6.0].map(f32::to_le_bytes).concat()[..]);
//! ```

mod access;
mod block;
mod collective;
mod convert;
mod copy;
mod decode;
mod device;
mod error;
mod exec;
mod float;
mod inst;
mod integer;
mod matrix;
mod memory;
mod module;
mod operand;
mod shared;
mod statement;
mod symbols;
mod transfer;
mod types;
mod warp;
mod wgmma;

pub use device::{Device, Stats};
pub use error::{Error, Fault, FaultKind};
pub use module::{Kernel, Module};
