//! The records of all inputs, one file after the other, counted.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use clap::ValueEnum;
use serde_json::{Value, json};

use super::selection::{Selection, Text};
use crate::dataset::records::{Format, Record, RecordReader};
use crate::{Error, Result};

/// The format of input files; `auto`: by their names.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum FormatArg {
    Auto,
    Tsv,
    Csv,
    Jsonl,
}

impl FormatArg {
    fn format(self) -> Option<Format> {
        match self {
            FormatArg::Auto => None,
            FormatArg::Tsv => Some(Format::Tsv),
            FormatArg::Csv => Some(Format::Csv),
            FormatArg::Jsonl => Some(Format::Jsonl),
        }
    }
}

/// Records of one input.
#[derive(Default)]
struct Count {
    read: u64,
    kept: u64,
}

/// The records of some files.
pub(super) struct Source<'a> {
    inputs: &'a [PathBuf],
    format: FormatArg,
    selection: &'a Selection,
    reader: Option<RecordReader>,
    /// One for each input begun.
    counts: Vec<Count>,
    kept: u64,
}

impl<'a> Source<'a> {
    pub(super) fn new(inputs: &'a [PathBuf], format: FormatArg, selection: &'a Selection) -> Self {
        Source { inputs, format, selection, reader: None, counts: Vec::new(), kept: 0 }
    }

    /// What `make` makes of the next record that passes the filters; none at the end of the last input. The error of
    /// `make` says what is wrong with the record.
    pub(super) fn next<T>(
        &mut self,
        make: impl Fn(&Record, Vec<Text>) -> std::result::Result<T, String>,
    ) -> Result<Option<T>> {
        loop {
            let Some(reader) = &mut self.reader else {
                let Some(path) = self.inputs.get(self.counts.len()) else { return Ok(None) };
                let fields: Vec<&str> = self.selection.fields.iter().map(String::as_str).collect();
                self.reader = Some(RecordReader::open(path, self.format.format(), &fields)?);
                self.counts.push(Count::default());
                continue;
            };
            let Some(record) = reader.next().transpose()? else {
                self.reader = None;
                continue;
            };
            let input = self.counts.len() - 1;
            let refuse = |detail| Error::input(&self.inputs[input], record.line, detail);
            let texts = self.selection.texts(&record, self.kept).map_err(refuse)?;
            self.counts[input].read += 1;
            if texts.is_empty() {
                continue;
            }
            self.counts[input].kept += 1;
            self.kept += 1;
            return make(&record, texts).map(Some).map_err(refuse);
        }
    }

    /// Fails if no record has passed the filters.
    pub(super) fn refuse_nothing(&self) -> Result<()> {
        if self.kept > 0 {
            return Ok(());
        }
        let read: u64 = self.counts.iter().map(|c| c.read).sum();
        let detail = format!("no record left to write: {read} read, none passed the filters");
        Err(Error::config("--filter", detail))
    }

    /// For the dataset's `made_by`: file names without folders, so that the same data makes the same bytes anywhere.
    pub(super) fn describe(&self) -> Value {
        let input = |(path, count): (&PathBuf, &Count)| {
            let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
            json!({"file": name, "records": count.read, "records_kept": count.kept})
        };
        self.inputs.iter().zip(&self.counts).map(input).collect()
    }
}
