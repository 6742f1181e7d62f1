//! `metaglot translate`: retrieves the best of given candidates; it does not write new sentences.
#![forbid(unsafe_code)]

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::lines::Lines;
use super::{output_error, train};
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::task::Translator;

const EXAMPLE: &str = "\
It retrieves: every answer is one of the candidates, word for word.

Example (with the model that `metaglot demo` leaves):
  printf 'gat negre\\tblack cat\\ncasa gran\\tbig house\\n' > pairs.tsv
  printf 'white cat\\nbig dog\\nold house\\n' > memory.txt
  metaglot translate --checkpoint metaglot-demo/translate/model.safetensors \\
    --support pairs.tsv --candidates memory.txt --text 'gat blanc'";

/// Retrieve the best translations from a list of candidates.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub struct Translate {
    /// A model from `metaglot train --task translate`
    #[arg(long, value_name = "FILE")]
    checkpoint: PathBuf,
    /// Known translations: lines of source and target, separated by a tab
    #[arg(long, value_name = "FILE")]
    support: Option<PathBuf>,
    /// The translation memory: a candidate a line
    #[arg(long, value_name = "FILE")]
    candidates: PathBuf,
    /// A text to translate; may be given more than once
    #[arg(long, value_name = "TEXT", required_unless_present = "input")]
    text: Vec<String>,
    /// Texts to translate, one a line
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    input: Option<PathBuf>,
    /// The sources' language: its stop words, where the model leaves those out
    #[arg(long, value_name = "CODE", default_value = "und")]
    language: String,
    /// The candidates' language
    #[arg(long, value_name = "CODE", default_value = "und")]
    target_language: String,
    /// Candidates printed for each text
    #[arg(long, value_name = "K", default_value_t = 1)]
    top: usize,
    /// Each text by itself: do not use the other texts to find candidates that are near to everything
    #[arg(long)]
    alone: bool,
    /// Inner steps of the adaptation; otherwise those of the training
    #[arg(long, value_name = "N")]
    inner_steps: Option<usize>,
    /// Learning rate of the inner steps; otherwise that of the training
    #[arg(long, value_name = "RATE")]
    inner_lr: Option<f64>,
    /// Threads; 0: one for each core. The result does not depend on it
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
    /// One JSON object a text
    #[arg(long)]
    json: bool,
}

impl Translate {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<()> {
        let texts = match &self.input {
            Some(path) => lines(path)?,
            None => self.text.clone(),
        };
        let candidates = lines(&self.candidates)?;
        let support = self.support.as_deref().map_or(Ok(Vec::new()), pairs)?;
        let threads = if self.threads == 0 { train::num_threads() } else { self.threads };
        let cpu = crate::cli::cpu()?.threads(threads)?;
        let mut translator = Translator::new(&cpu, &Checkpoint::open(&self.checkpoint)?)?;
        translator.set_inner_loop(self.inner_steps, self.inner_lr);
        let scores = cpu.install(|| self.scores(&translator, &support, &texts, &candidates))?;
        for (text, scores) in texts.iter().zip(&scores) {
            self.print(text, &candidates, scores, out).map_err(output_error)?;
        }
        Ok(())
    }

    fn scores(
        &self,
        translator: &Translator,
        support: &[(String, String)],
        texts: &[String],
        candidates: &[String],
    ) -> Result<Vec<Vec<f64>>> {
        let read = |texts: &mut dyn Iterator<Item = &String>, language: &str| {
            translator.sentences(&texts.map(|t| (t.as_str(), language)).collect::<Vec<_>>())
        };
        let (own, target) = (self.language.as_str(), self.target_language.as_str());
        let left = read(&mut support.iter().map(|p| &p.0), own);
        let right = read(&mut support.iter().map(|p| &p.1), target);
        let pairs: Vec<_> = left.into_iter().zip(right).collect();
        let (sources, candidates) = (read(&mut texts.iter(), own), read(&mut candidates.iter(), target));
        if !self.alone {
            return translator.scores(&pairs, &sources, &candidates);
        }
        let one = |s| translator.scores(&pairs, std::slice::from_ref(s), &candidates).map(|mut rows| rows.remove(0));
        sources.iter().map(one).collect()
    }

    fn print(&self, text: &str, candidates: &[String], scores: &[f64], out: &mut dyn Write) -> std::io::Result<()> {
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
        order.truncate(self.top.max(1));
        if self.json {
            let best: Vec<_> = order.iter().map(|&j| json!({"text": candidates[j], "score": scores[j]})).collect();
            return writeln!(out, "{}", json!({"text": text, "retrieved": best}));
        }
        order.iter().try_for_each(|&j| match self.top {
            0 | 1 => writeln!(out, "{}", candidates[j]),
            _ => writeln!(out, "{:.4}\t{}", scores[j], candidates[j]),
        })
    }
}

fn lines(path: &Path) -> Result<Vec<String>> {
    let lines = Lines::open(path)?.map(|l| l.map(|(_, text)| text)).collect::<Result<Vec<_>>>()?;
    if lines.is_empty() { Err(Error::input(path, 0, "it is empty; wanted a text a line")) } else { Ok(lines) }
}

fn pairs(path: &Path) -> Result<Vec<(String, String)>> {
    let pair = |line: Result<(u64, String)>| {
        let (number, line) = line?;
        let split = line.split_once('\t').map(|(a, b)| (a.to_string(), b.to_string()));
        split.ok_or_else(|| Error::input(path, number, "one column; wanted source and target, separated by a tab"))
    };
    let pairs = Lines::open(path)?.map(pair).collect::<Result<Vec<_>>>()?;
    if pairs.is_empty() { Err(Error::input(path, 0, "it is empty; wanted pairs")) } else { Ok(pairs) }
}
