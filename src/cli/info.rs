//! `metaglot info`: what a file holds and where it came from.
#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::output_error;
use crate::checkpoint::{self, Checkpoint};
use crate::dataset::{Dataset, NO_LABEL, format, peek_format};
use crate::{Error, Result};

/// Names listed for people; `--json` lists all.
const LISTED: usize = 60;

const EXAMPLE: &str = "\
Example:
  metaglot info hello.mgd --verify";

/// Say what a dataset or a checkpoint holds and where it came from.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub struct Info {
    /// A file that metaglot wrote
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Read the whole file and compare its checksums
    #[arg(long)]
    verify: bool,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl Info {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<()> {
        match peek_format(&self.file)?.as_deref() {
            Some(format::FORMAT) => self.dataset(out),
            Some(checkpoint::FORMAT) => self.checkpoint(out),
            Some(other) => Err(Error::format(&self.file, format!("a file of format `{other}`, not one of metaglot's"))),
            None => Err(Error::format(&self.file, "a safetensors file, but not one of metaglot's: it has no `format`")),
        }
    }

    /// A checkpoint's checksums are compared whenever it is opened.
    fn checkpoint(&self, out: &mut dyn Write) -> Result<()> {
        let c = Checkpoint::open(&self.file)?;
        let summary = json!({
            "format": checkpoint::FORMAT,
            "task": c.task,
            "shape": c.params.shape,
            "weights": c.params.shape.len(),
            "vectors": c.aux.iter().map(|(name, v)| (name.clone(), json!(v.len()))).collect::<serde_json::Map<_, _>>(),
            "labels": c.label_names,
            "run": c.run.as_ref().map(|r| r.progress),
            "text_config": c.text_config,
            "config": c.config,
        });
        if self.json {
            return writeln!(out, "{summary}").map_err(output_error);
        }
        let lines = summary.as_object().into_iter().flatten();
        lines.map(|(key, value)| writeln!(out, "{key:<11} {value}")).collect::<io::Result<()>>().map_err(output_error)
    }

    fn dataset(&self, out: &mut dyn Write) -> Result<()> {
        let data = Dataset::open(&self.file)?;
        if self.verify {
            data.verify_checksums()?;
        }
        let summary = summary(&data, self.verify);
        if self.json { writeln!(out, "{summary}") } else { print(&data, &summary, out) }.map_err(output_error)
    }
}

fn summary(data: &Dataset, verified: bool) -> Value {
    let json = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    json!({
        "format": format::FORMAT,
        "version": format::VERSION,
        "kind": data.kind().name(),
        "rows": data.len(),
        "groups": data.groups().map(|g| g.len() - 1),
        "tokens": data.tokens().len(),
        "vocabulary": data.vocabulary(),
        "bytes": data.file_bytes(),
        "weights": data.weights().is_some(),
        "idf": data.idf().is_some(),
        "signals": data.signal_names(),
        "languages": counted(data.language_names(), data.languages().iter().map(|l| usize::from(*l))),
        "labels": counted(data.label_names(), data.labels().iter().filter(|l| **l != NO_LABEL).map(|l| *l as usize)),
        "without_label": data.labels().iter().filter(|l| **l == NO_LABEL).count(),
        "checksums_verified": verified,
        "text_config": json(data.text_config_json()),
        "made_by": json(data.made_by_json()),
    })
}

/// Names with the number of rows each has, in the order of their numbers.
fn counted(names: &[String], numbers: impl Iterator<Item = usize>) -> Value {
    let mut counts = vec![0u64; names.len()];
    numbers.for_each(|n| counts[n] += 1);
    names.iter().zip(counts).map(|(name, rows)| json!({"name": name, "rows": rows})).collect()
}

fn print(data: &Dataset, summary: &Value, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "kind        {}", data.kind().name())?;
    writeln!(out, "rows        {}", data.len())?;
    if let Some(groups) = data.groups() {
        writeln!(out, "groups      {}", groups.len() - 1)?;
    }
    let mean = data.tokens().len() as f64 / data.len().max(1) as f64;
    writeln!(out, "tokens      {} ({mean:.1} a row)", data.tokens().len())?;
    writeln!(out, "vocabulary  {}", data.vocabulary())?;
    writeln!(out, "bytes       {}", data.file_bytes())?;
    if !data.signal_names().is_empty() {
        writeln!(out, "signals     {}", data.signal_names().join(", "))?;
    }
    list(out, "languages", &summary["languages"])?;
    list(out, "labels", &summary["labels"])?;
    writeln!(out, "no label    {}", summary["without_label"])?;
    if summary["checksums_verified"] == true {
        writeln!(out, "checksums   verified")?;
    }
    writeln!(out, "text        {}", data.text_config_json())?;
    writeln!(out, "made by     {}", data.made_by_json())
}

fn list(out: &mut dyn Write, title: &str, counted: &Value) -> io::Result<()> {
    let counted = counted.as_array().map(Vec::as_slice).unwrap_or_default();
    writeln!(out, "{title:<11} {}", counted.len())?;
    for entry in counted.iter().take(LISTED) {
        writeln!(out, "  {:>9}  {}", entry["rows"], entry["name"].as_str().unwrap_or_default())?;
    }
    match counted.len().saturating_sub(LISTED) {
        0 => Ok(()),
        more => writeln!(out, "  and {more} more; --json lists all"),
    }
}
