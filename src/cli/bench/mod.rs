//! `metaglot bench`: how fast this machine does what metaglot is made of, beside what the machine can do at all.
#![forbid(unsafe_code)]

mod gemm;
#[cfg(feature = "cuda")]
mod gemm_gpu;
mod kernels;
mod meta;
mod meta_gpu;
mod problem;
mod timing;

use std::io::Write;

use clap::{Args, Subcommand};

use crate::Result;

const EXAMPLE: &str = "\
Peaks are measured in the same run: a loop of fused multiply-adds in registers, and a copy of memory, on as many threads.
On a GPU products are compared with multiply-adds in registers, or with mma.sync or wgmma, whichever is the faster there.

Example:
  metaglot bench meta --input 256 --hidden 128 --classes 5 --support 25 --query 75 --tasks 32 --steps 5 --threads 1 --json
  metaglot bench gemm --shapes '25,64,64;512,512,512' --forms nn,nt,tn --threads 1
  metaglot bench gemm --device cuda:0 --dtype bf16 --shapes 4096,4096,4096
  metaglot bench kernels --json";

/// Time a meta-step, products or other kernels beside the peak of the same machine.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub struct Bench {
    /// What to time
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// One meta-step
    Meta(meta::Meta),
    /// Matrix products
    Gemm(gemm::Gemm),
    /// The other kernels, on one thread
    Kernels(kernels::Kernels),
}

impl Bench {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<()> {
        match &self.what {
            What::Meta(meta) => meta.run(out),
            What::Gemm(gemm) => gemm.run(out),
            What::Kernels(kernels) => kernels.run(out),
        }
    }
}
