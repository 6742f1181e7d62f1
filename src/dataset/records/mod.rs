//! Reading text data as a stream of records: TSV, CSV or JSON lines, plain or gzip, in bounded memory.
//!
//! A reader is told the fields it shall give; each [`Record`] holds their values in that order. Every error names the
//! file and the line.
//!
//! - **TSV**: the first line names the columns; no quoting, a tab always separates.
//! - **CSV**: the same with commas and RFC 4180 quotes, so that a value can hold commas and line breaks.
//! - **JSON lines**: one object a line. A name with dots goes into objects (`answer.text`); where it meets an array of
//!   objects, each element makes a record of its own (`qas.question`), with the outer fields repeated.
//!   Numbers and booleans become text, an array of them or of strings is joined by spaces, null is empty. With `[]` at
//!   the end of its name a field's array is given as JSON instead (in TSV and CSV, the value as it stands).
//!
//! Blank lines are skipped. Text is UTF-8; a byte order mark is skipped. Gzip is told by its first two bytes.
#![forbid(unsafe_code)]

mod delimited;
mod jsonl;
mod lines;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use delimited::{Csv, Tsv};
use jsonl::Jsonl;

use crate::{Error, Result};

/// The most bytes a line (in CSV: a record) may have; bounds memory, and a file without line ends is caught early.
pub const MAX_LINE_BYTES: usize = 4 << 20;

/// At the end of a field's name: give arrays as JSON.
const JSON_SUFFIX: &str = "[]";

/// The formats that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the head of this file documents them")]
pub enum Format {
    Tsv,
    Csv,
    Jsonl,
}

impl Format {
    /// The format a file's name tells: `.tsv`, `.csv`, `.jsonl` or `.ndjson`, each with or without `.gz`.
    pub fn from_name(path: impl AsRef<Path>) -> Result<Format> {
        let name = path.as_ref().to_string_lossy().to_lowercase();
        match name.strip_suffix(".gz").unwrap_or(&name).rsplit_once('.') {
            Some((_, "tsv")) => Ok(Format::Tsv),
            Some((_, "csv")) => Ok(Format::Csv),
            Some((_, "jsonl" | "ndjson")) => Ok(Format::Jsonl),
            _ => {
                Err(Error::input(path, 0, "the name does not tell the format: .tsv, .csv or .jsonl, perhaps with .gz"))
            }
        }
    }
}

/// One record: the values of the fields the reader was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The line it begins on, from 1.
    pub line: u64,
    /// Shared, because the records of one JSON line share its outer fields, which may be long.
    pub values: Vec<Arc<str>>,
}

/// A stream of records; ends after the first error.
///
/// ```
/// use metaglot::dataset::records::RecordReader;
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("a.tsv");
/// std::fs::write(&path, "text\tlabel\nguten Tag\tgreeting\n")?;
/// for record in RecordReader::open(&path, None, &["label", "text"])? {
///     let record = record?;
///     assert_eq!((record.line, &*record.values[0], &*record.values[1]), (2, "greeting", "guten Tag"));
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct RecordReader {
    source: Source,
    failed: bool,
}

enum Source {
    Tsv(Tsv),
    Csv(Box<Csv>),
    Jsonl(Jsonl),
}

impl RecordReader {
    /// Opens a file; without a format its name tells it. Missing columns are an error here (TSV, CSV) or at the first
    /// record (JSON lines).
    pub fn open(path: impl AsRef<Path>, format: Option<Format>, fields: &[&str]) -> Result<Self> {
        let path = path.as_ref();
        let format = format.map_or_else(|| Format::from_name(path), Ok)?;
        let source = match format {
            Format::Tsv => Source::Tsv(Tsv::open(path, fields)?),
            Format::Csv => Source::Csv(Box::new(Csv::open(path, fields)?)),
            Format::Jsonl => Source::Jsonl(Jsonl::open(path, fields)?),
        };
        Ok(RecordReader { source, failed: false })
    }
}

impl Iterator for RecordReader {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Result<Record>> {
        if self.failed {
            return None;
        }
        let record = match &mut self.source {
            Source::Tsv(tsv) => tsv.next(),
            Source::Csv(csv) => csv.next(),
            Source::Jsonl(jsonl) => jsonl.next(),
        };
        self.failed = record.is_err();
        record.transpose()
    }
}

/// The error for a file without anything in it.
fn empty(file: &Path) -> Error {
    Error::input(file, 0, "the file is empty")
}

/// The error for a broken stream: the system's, or (if the bytes themselves are at fault) one with the line.
fn read_error(file: &Path, line: u64, error: std::io::Error) -> Error {
    use std::io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    match error.kind() {
        InvalidData | InvalidInput | UnexpectedEof => Error::input(file, line, format!("broken gzip data: {error}")),
        _ => Error::io("read", PathBuf::from(file), error),
    }
}
