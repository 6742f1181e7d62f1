//! `metaglot prepare`: text files in, one token dataset out.
//!
//! Batches of records are read while the batch before is featurised on all threads; rows are written in the order of
//! the input, so the file does not depend on the number of threads, and memory does not depend on the input's size.
#![forbid(unsafe_code)]

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::output_error;
use super::progress::Progress;
use super::selection::{Selection, SelectionArgs, Text};
use super::text_args::TextArgs;
use crate::dataset::records::{Format, RecordReader};
use crate::dataset::{DatasetSpec, DatasetWriter, Kind, Row, Written};
use crate::text::{Featurizer, TokenCounts};
use crate::{Error, Result};

/// A batch is full at so many texts, or so many bytes of them: enough for all threads, little for memory.
const BATCH_TEXTS: usize = 4096;
const BATCH_BYTES: usize = 4 << 20;

const EXAMPLE: &str = "\
Example:
  printf 'text\\tintent\\tlocale\\nguten Tag\\tgreet\\tde\\nbonsoir\\tgreet\\tfr\\n' > hello.tsv
  metaglot prepare hello.tsv --text text --label intent --language locale --out hello.mgd";

/// Turn text files into a token dataset.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub struct Prepare {
    /// Text files: TSV, CSV or JSON lines, plain or gzip
    #[arg(required = true, value_name = "INPUT")]
    inputs: Vec<PathBuf>,
    /// The dataset to write; it appears when it is complete
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The format of the inputs; `auto`: by their names
    #[arg(long, value_enum, default_value = "auto")]
    format: FormatArg,
    /// Threads; 0: one for each core. The file does not depend on it
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
    #[command(flatten)]
    selection: SelectionArgs,
    #[command(flatten)]
    text: TextArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FormatArg {
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

impl Prepare {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<()> {
        self.refuse_overwriting_inputs()?;
        let selection = self.selection.selection()?;
        let featurizer = Featurizer::new(self.text.config()?)?;
        let writer = DatasetWriter::create(&self.out, self.spec(featurizer.clone()))?;
        let pool = rayon::ThreadPoolBuilder::new().num_threads(self.threads).build();
        let pool = pool.map_err(|e| Error::config("--threads", e.to_string()))?;
        let source = Source::new(self, &selection);
        let written = pool.install(|| self.write(source, &featurizer, writer))?;
        let Written { rows, tokens, empty_rows } = written;
        let file = self.out.display();
        writeln!(out, "{file}: {rows} rows, {tokens} tokens, {empty_rows} rows without a token").map_err(output_error)
    }

    fn write(&self, mut source: Source<'_>, featurizer: &Featurizer, mut writer: DatasetWriter) -> Result<Written> {
        let mut progress = Progress::new("texts");
        let mut batch = source.batch()?;
        while !batch.is_empty() {
            let texts: Vec<_> = batch.iter().map(|t| (t.text.as_str(), &*t.language)).collect();
            let (counts, next) = rayon::join(|| featurizer.counts_batch(&texts), || source.batch());
            for (text, counts) in batch.iter().zip(&counts) {
                push(&mut writer, text, counts)?;
            }
            progress.add(batch.len() as u64);
            batch = next?;
        }
        if source.kept == 0 {
            let read: u64 = source.counts.iter().map(|c| c.read).sum();
            let detail = format!("no record left to write: {read} read, none passed the filters");
            return Err(Error::config("--filter", detail));
        }
        writer.finish(&self.made_by(&source))
    }

    fn spec(&self, featurizer: Featurizer) -> DatasetSpec {
        let kind = if self.selection.pairs() { Kind::Pairs } else { Kind::Labelled };
        DatasetSpec { kind, ..DatasetSpec::for_text(featurizer) }
    }

    /// File names without folders, no time and no thread count: the same data makes the same bytes anywhere.
    fn made_by(&self, source: &Source<'_>) -> Value {
        let input = |(path, count): (&PathBuf, &Count)| {
            let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
            json!({"file": name, "records": count.read, "records_kept": count.kept})
        };
        json!({
            "program": concat!("metaglot ", env!("CARGO_PKG_VERSION")),
            "command": "prepare",
            "inputs": self.inputs.iter().zip(&source.counts).map(input).collect::<Vec<_>>(),
            "selection": self.selection.describe(),
        })
    }

    fn refuse_overwriting_inputs(&self) -> Result<()> {
        let Ok(out) = fs::canonicalize(&self.out) else { return Ok(()) };
        match self.inputs.iter().any(|input| fs::canonicalize(input).is_ok_and(|input| input == out)) {
            true => Err(Error::config("--out", format!("{} is one of the inputs", self.out.display()))),
            false => Ok(()),
        }
    }
}

fn push(writer: &mut DatasetWriter, text: &Text, counts: &TokenCounts) -> Result<()> {
    let values: Vec<f32> = counts.counts.iter().map(|c| *c as f32).collect();
    writer.push(Row {
        tokens: &counts.tokens,
        values: &values,
        label: text.label.as_deref(),
        language: &text.language,
        text_id: &text.id,
        signals: &[],
    })
}

/// Records of one input.
#[derive(Default)]
struct Count {
    read: u64,
    kept: u64,
}

/// The texts of all inputs, one after the other.
struct Source<'a> {
    prepare: &'a Prepare,
    selection: &'a Selection,
    reader: Option<RecordReader>,
    /// One for each input begun.
    counts: Vec<Count>,
    kept: u64,
}

impl<'a> Source<'a> {
    fn new(prepare: &'a Prepare, selection: &'a Selection) -> Self {
        Source { prepare, selection, reader: None, counts: Vec::new(), kept: 0 }
    }

    /// The next texts; none at the end of the last input.
    fn batch(&mut self) -> Result<Vec<Text>> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < BATCH_TEXTS && bytes < BATCH_BYTES {
            let Some(texts) = self.texts()? else { break };
            bytes += texts.iter().map(|t| t.text.len()).sum::<usize>();
            batch.extend(texts);
        }
        Ok(batch)
    }

    /// The texts of the next record.
    fn texts(&mut self) -> Result<Option<Vec<Text>>> {
        loop {
            let Some(reader) = &mut self.reader else {
                let Some(path) = self.prepare.inputs.get(self.counts.len()) else { return Ok(None) };
                let fields: Vec<&str> = self.selection.fields.iter().map(String::as_str).collect();
                self.reader = Some(RecordReader::open(path, self.prepare.format.format(), &fields)?);
                self.counts.push(Count::default());
                continue;
            };
            let Some(record) = reader.next().transpose()? else {
                self.reader = None;
                continue;
            };
            let input = self.counts.len() - 1;
            let texts = self.selection.texts(&record, self.kept);
            let texts = texts.map_err(|detail| Error::input(&self.prepare.inputs[input], record.line, detail))?;
            let kept = u64::from(!texts.is_empty());
            self.counts[input].read += 1;
            self.counts[input].kept += kept;
            self.kept += kept;
            return Ok(Some(texts));
        }
    }
}
