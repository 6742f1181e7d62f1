//! The one error type of the crate: what was done, what was wanted, what was found; with codes that never change.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// The result of every fallible call in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can go wrong, as a value. [`Error::code`] is stable across releases.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// Operand sizes that do not fit together.
    Shape {
        /// The operation that refused them.
        op: &'static str,
        /// What was found and what must hold.
        detail: String,
    },
    /// A memory layout the engine does not take (inner stride, leading dimension, alignment).
    Layout {
        /// The operation that refused it.
        op: &'static str,
        /// What was found and what must hold.
        detail: String,
    },
    /// A setting outside its range, or settings that contradict each other.
    Config {
        /// The setting's name, as the user knows it.
        what: String,
        /// What was found and what must hold.
        detail: String,
    },
    /// A line of a text input that cannot be used.
    Input {
        /// The file, as the user named it.
        file: PathBuf,
        /// The line, from 1; 0 when the file as a whole is meant.
        line: u64,
        /// What was wanted, and what stood there.
        detail: String,
    },
    /// A binary file that is truncated, foreign, or breaks one of its format's invariants.
    Format {
        /// The file, as the user named it.
        file: PathBuf,
        /// The invariant, and what stood there.
        detail: String,
    },
    /// The operating system refused an operation.
    Io {
        /// What was being done.
        op: &'static str,
        /// On which file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An instruction set this machine lacks was asked for.
    Isa {
        /// Its name.
        name: String,
        /// What is there instead.
        detail: String,
    },
    /// The caller asked to stop; what was begun is saved.
    Interrupted,
    /// A GPU that is not there or that nothing was built for.
    NoDevice {
        /// Its number.
        ordinal: usize,
        /// What is missing.
        detail: String,
    },
    /// A GPU refused an operation.
    Device {
        /// The operation or kernel.
        op: &'static str,
        /// What the driver said, or what must hold.
        detail: String,
    },
}

impl Error {
    /// A stable number for the kind of error; the C interface and scripts may rely on it.
    pub fn code(&self) -> u32 {
        match self {
            Error::Shape { .. } => 1,
            Error::Layout { .. } => 2,
            Error::Config { .. } => 3,
            Error::Input { .. } => 4,
            Error::Format { .. } => 5,
            Error::Io { .. } => 6,
            Error::Isa { .. } => 7,
            Error::Interrupted => 8,
            Error::NoDevice { .. } => 9,
            Error::Device { .. } => 10,
        }
    }

    /// Sizes that do not fit.
    pub fn shape(op: &'static str, detail: impl Into<String>) -> Self {
        Error::Shape { op, detail: detail.into() }
    }

    /// A setting outside its range.
    pub fn config(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Error::Config { what: what.into(), detail: detail.into() }
    }

    /// A text input's line (from 1; 0 for the whole file) that cannot be used.
    pub fn input(file: impl AsRef<Path>, line: u64, detail: impl Into<String>) -> Self {
        Error::Input { file: file.as_ref().to_path_buf(), line, detail: detail.into() }
    }

    /// A binary file that breaks its format.
    pub fn format(file: impl AsRef<Path>, detail: impl Into<String>) -> Self {
        Error::Format { file: file.as_ref().to_path_buf(), detail: detail.into() }
    }

    /// A GPU that cannot be used.
    pub fn no_device(ordinal: usize, detail: impl Into<String>) -> Self {
        Error::NoDevice { ordinal, detail: detail.into() }
    }

    /// An operation a GPU refused.
    pub fn device(op: &'static str, detail: impl Into<String>) -> Self {
        Error::Device { op, detail: detail.into() }
    }

    /// An operating-system error with the file it happened on.
    pub fn io(op: &'static str, file: impl AsRef<Path>, source: io::Error) -> Self {
        Error::Io { op, file: file.as_ref().to_path_buf(), source }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Shape { op, detail } | Error::Layout { op, detail } => write!(f, "{op}: {detail}"),
            Error::Config { what, detail } => write!(f, "{what}: {detail}"),
            Error::Input { file, line: 0, detail } => write!(f, "{}: {detail}", file.display()),
            Error::Input { file, line, detail } => write!(f, "{}:{line}: {detail}", file.display()),
            Error::Format { file, detail } => write!(f, "{}: {detail}", file.display()),
            Error::Io { op, file, source } => write!(f, "{}: cannot {op}: {source}", file.display()),
            Error::Isa { name, detail } => write!(f, "{name}: {detail}"),
            Error::NoDevice { ordinal, detail } => write!(f, "cuda:{ordinal}: {detail}"),
            Error::Device { op, detail } => write!(f, "cuda: {op}: {detail}"),
            Error::Interrupted => write!(f, "stopped on request; the last finished step is saved"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
