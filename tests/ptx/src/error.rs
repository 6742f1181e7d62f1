//! What is refused at load ([`Error`]) and what is caught during a launch ([`Fault`]).

use std::fmt;

/// PTX that can't be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Line of the PTX text, from 1.
    pub line: u32,
    /// The statement.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PTX line {}: {}: `{}`", self.line, self.reason, self.text)
    }
}

impl std::error::Error for Error {}

/// The kinds of errors a launch can end in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// The launch itself: unknown kernel, wrong arguments, block or shared memory over a limit.
    BadLaunch,
    /// An address outside of every allocation, or past the end of the one it belongs to.
    OutOfBounds,
    /// An address that is no multiple of the access size.
    Misaligned,
    /// Global memory that nothing has written.
    UninitializedGlobal,
    /// Shared memory that nothing has written in this block.
    UninitializedShared,
    /// Two warps touched a byte of shared memory without a barrier between, at least one of them writing.
    Race,
    /// Data or registers of a `cp.async` or `wgmma` used before the wait for it, or shared memory it still fills.
    MissingAsyncWait,
    /// A `wgmma` before any `wgmma.fence`, or one that reads shared memory whose writer executed no `fence.proxy.async` since.
    MissingFence,
    /// A warp-wide or block-wide operation that its members didn't reach together.
    DivergentSync,
    /// Nothing can go on, or the instruction limit is reached.
    Deadlock,
    /// The kernel executed `trap`.
    Trap,
}

/// A launch that ended in an error. Memory keeps what was written up to there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What happened.
    pub kind: FaultKind,
    /// Name of the kernel.
    pub kernel: String,
    /// `%ctaid`.
    pub block: [u32; 3],
    /// Warp in the block.
    pub warp: u32,
    /// Lane in the warp, where one lane is to blame.
    pub lane: Option<u32>,
    /// Line of the PTX text, from 1; 0 where no instruction is to blame.
    pub line: u32,
    /// The instruction.
    pub text: String,
    /// Addresses and sizes.
    pub detail: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} in {} block {:?} warp {}", self.kind, self.kernel, self.block, self.warp)?;
        if let Some(lane) = self.lane {
            write!(f, " lane {lane}")?;
        }
        write!(f, ", PTX line {} `{}`: {}", self.line, self.text, self.detail)
    }
}

impl std::error::Error for Fault {}

/// A fault before the launch adds where it happened.
#[derive(Debug)]
pub(crate) struct Blame {
    pub kind: FaultKind,
    pub lane: Option<u32>,
    pub detail: String,
}

impl Blame {
    pub fn new(kind: FaultKind, detail: impl Into<String>) -> Self {
        Self { kind, lane: None, detail: detail.into() }
    }

    pub fn at(mut self, lane: usize) -> Self {
        self.lane.get_or_insert(lane as u32);
        self
    }
}

/// Result of executing something.
pub(crate) type Ran<T = ()> = Result<T, Blame>;
