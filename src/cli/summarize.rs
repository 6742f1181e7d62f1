//! `metaglot summarize`: a document in a sentence, or a few.
#![forbid(unsafe_code)]

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::items::Item;
use super::output_error;
use super::ranking::{Ranked, RankingArgs, read_text};
use super::selection::SelectionArgs;
use crate::task::{Cut, RankingTask};
use crate::{Error, Result};

const EXAMPLE: &str = "\
A summary is made of the document's own words. It may be part of a sentence: what stands before or after a comma, or \
what is left without the first words; --whole-sentences keeps sentences whole.

Example (with the model that `metaglot demo` leaves):
  printf 'Teclat és un programa lliure i petit per a escriure. Té opcions.' > teclat.txt
  metaglot summarize --checkpoint metaglot-demo/summarize/model.safetensors --document teclat.txt";

/// Say in a sentence what a document is about.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub struct Summarize {
    #[command(flatten)]
    ranking: RankingArgs,
    /// One document: a text file
    #[arg(long, value_name = "FILE", required_unless_present = "input", conflicts_with = "input")]
    document: Option<PathBuf>,
    /// Column of the document
    #[arg(long, value_name = "COL", default_value = "text")]
    text: String,
    /// Column of the reference summary in the support
    #[arg(long, value_name = "COL", requires = "support")]
    text2: Option<String>,
    /// Sentences of a summary, in the order of the document
    #[arg(long, value_name = "N", default_value_t = 1)]
    sentences: usize,
    /// Do not cut sentences
    #[arg(long)]
    whole_sentences: bool,
}

impl Summarize {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<()> {
        if self.ranking.support.is_some() && self.text2.is_none() {
            return Err(Error::config("--support", "it needs --text2: the column of the reference summary"));
        }
        let given = match &self.document {
            Some(path) => Some(Item::document(&read_text(path)?)),
            None => None,
        };
        let columns = || SelectionArgs { text: vec![self.text.clone()], ..SelectionArgs::default() };
        let right = SelectionArgs { text2: self.text2.iter().cloned().collect(), ..columns() };
        for ranked in self.ranking.rank(RankingTask::Summarize, columns(), right, given)? {
            let chosen = self.chosen(&ranked);
            let summary = chosen.iter().map(|candidate| ranked.line(*candidate)).collect::<Vec<_>>().join(" ");
            let line = if self.ranking.json { json(&ranked, &summary).to_string() } else { summary };
            writeln!(out, "{line}").map_err(output_error)?;
        }
        Ok(())
    }

    /// The best candidate of each of the best sentences, in the order of the document.
    fn chosen(&self, ranked: &Ranked) -> Vec<usize> {
        let sentence = |candidate: &usize| ranked.choice.candidates()[*candidate].sentence;
        let whole = |candidate: &usize| ranked.choice.candidates()[*candidate].cut == Cut::Whole;
        let mut chosen: Vec<usize> = Vec::new();
        for candidate in ranked.order().into_iter().filter(|candidate| !self.whole_sentences || whole(candidate)) {
            if chosen.len() < self.sentences && chosen.iter().all(|other| sentence(other) != sentence(&candidate)) {
                chosen.push(candidate);
            }
        }
        chosen.sort_by_key(sentence);
        chosen
    }
}

fn json(ranked: &Ranked, summary: &str) -> Value {
    let candidates = ranked.choice.candidates().iter().zip(&ranked.scores);
    let candidates: Vec<Value> =
        candidates.map(|(c, score)| json!({"text": c.text, "sentence": c.sentence, "score": score})).collect();
    json!({"summary": summary, "candidates": candidates})
}
