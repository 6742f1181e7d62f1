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
use super::prepare_ranking::{self, Groups};
use super::progress::Progress;
use super::selection::{Selection, SelectionArgs, Text};
use super::source::{FormatArg, Source};
use super::text_args::TextArgs;
use crate::dataset::{DatasetSpec, DatasetWriter, Kind, Row, Written};
use crate::task::RankingTask;
use crate::text::{Featurizer, TextConfig, TokenCounts};
use crate::{Error, Result};

/// A batch is full at so many texts, or so many bytes of them: enough for all threads, little for memory.
const BATCH_TEXTS: usize = 4096;
const BATCH_BYTES: usize = 4 << 20;

const EXAMPLE: &str = "\
Example:
  printf 'text\\tintent\\tlocale\\nguten Tag\\tgreet\\tde\\nbonsoir\\tgreet\\tfr\\n' > hello.tsv
  metaglot prepare hello.tsv --text text --label intent --language locale --out hello.mgd

  printf 'q\\tpassage\\ta\\nWho sat?\\tIt rained. A cat sat.\\tcat\\n' > pets.tsv
  metaglot prepare pets.tsv --kind answer --text q --candidates passage --answer-text a \\
    --language-is eng --out pets.mgd";

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
    /// What the dataset will be for
    #[arg(long, value_enum, default_value = "text")]
    kind: KindArg,
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

/// What the dataset will be for.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum KindArg {
    /// Texts with labels, or pairs of translations
    Text,
    /// Questions, each with sentences of which one answers it
    Answer,
    /// Documents, each with a reference summary
    Summarize,
}

impl KindArg {
    fn ranking(self) -> Option<RankingTask> {
        match self {
            KindArg::Text => None,
            KindArg::Answer => Some(RankingTask::Answer),
            KindArg::Summarize => Some(RankingTask::Summarize),
        }
    }
}

impl Prepare {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<()> {
        self.refuse_overwriting_inputs()?;
        let selection = self.selection.selection(self.kind.ranking())?;
        let pool = rayon::ThreadPoolBuilder::new().num_threads(self.threads).build();
        let pool = pool.map_err(|e| Error::config("--threads", e.to_string()))?;
        let message = pool.install(|| match self.kind.ranking() {
            Some(task) => self.groups(task, &selection),
            None => self.texts(&selection),
        })?;
        writeln!(out, "{}: {message}", self.out.display()).map_err(output_error)
    }

    fn texts(&self, selection: &Selection) -> Result<String> {
        let featurizer = Featurizer::new(self.text.config()?)?;
        let mut writer = DatasetWriter::create(&self.out, self.spec(featurizer.clone()))?;
        let mut progress = Progress::new("texts");
        let mut source = self.source(selection);
        let mut batch = batch(&mut source)?;
        while !batch.is_empty() {
            let texts: Vec<_> = batch.iter().map(|t| (t.text.as_str(), &*t.language)).collect();
            let (counts, next) = rayon::join(|| featurizer.counts_batch(&texts), || self::batch(&mut source));
            for (text, counts) in batch.iter().zip(&counts) {
                push(&mut writer, text, counts)?;
            }
            progress.add(batch.len() as u64);
            batch = next?;
        }
        source.refuse_nothing()?;
        let Written { rows, tokens, empty_rows } = writer.finish(&self.made_by(&source))?;
        Ok(format!("{rows} rows, {tokens} tokens, {empty_rows} rows without a token"))
    }

    fn groups(&self, task: RankingTask, selection: &Selection) -> Result<String> {
        let config = TextConfig::default();
        if self.text.config()? != config {
            let detail = format!("{} reads text in its own way; the flags of text to tokens have no use", task.name());
            return Err(Error::config("--kind", detail));
        }
        if task == RankingTask::Summarize && !self.selection.pairs() {
            return Err(Error::config("--kind", "summarize needs --text2: the column of the reference summary"));
        }
        prepare_ranking::refuse_pipes(&self.inputs)?;
        let mut writer = DatasetWriter::create(&self.out, prepare_ranking::spec(task, &config))?;
        let source = || self.source(selection);
        let (written, source) = prepare_ranking::write(task, &config, selection, source, &mut writer)?;
        writer.finish(&self.made_by(&source))?;
        let Groups { groups, candidates, without_right, without_candidates } = written;
        let skipped = format!("{without_candidates} records without a candidate left out");
        Ok(format!("{groups} groups, {candidates} candidates, {without_right} groups without a right one; {skipped}"))
    }

    fn source<'a>(&'a self, selection: &'a Selection) -> Source<'a> {
        Source::new(&self.inputs, self.format, selection)
    }

    fn spec(&self, featurizer: Featurizer) -> DatasetSpec {
        let kind = if self.selection.pairs() { Kind::Pairs } else { Kind::Labelled };
        DatasetSpec { kind, ..DatasetSpec::for_text(featurizer) }
    }

    /// No time and no thread count: the same data makes the same bytes anywhere.
    fn made_by(&self, source: &Source<'_>) -> Value {
        json!({
            "program": concat!("metaglot ", env!("CARGO_PKG_VERSION")),
            "command": "prepare",
            "task": self.kind.ranking().map(RankingTask::name),
            "inputs": source.describe(),
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

/// The next texts; none at the end of the last input.
fn batch(source: &mut Source<'_>) -> Result<Vec<Text>> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while batch.len() < BATCH_TEXTS && bytes < BATCH_BYTES {
        let Some(texts) = source.next(|_, texts| Ok(texts))? else { break };
        bytes += texts.iter().map(|t| t.text.len()).sum::<usize>();
        batch.extend(texts);
    }
    Ok(batch)
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
