//! `metaglot answer`: which sentence of a passage answers a question?
#![forbid(unsafe_code)]

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::items::Item;
use super::output_error;
use super::ranking::{Ranked, RankingArgs, read_text};
use super::selection::SelectionArgs;
use crate::task::RankingTask;
use crate::{Error, Result};

const EXAMPLE: &str = "\
Example (with the model that `metaglot demo` leaves):
  metaglot answer --checkpoint metaglot-demo/answer/model.safetensors \\
    --question 'On va dormir el gat?' \\
    --passage-text 'Va ploure tot el dia. El gat va dormir sota la taula. Després va menjar.'";

/// Find the sentence of a passage that answers a question.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub struct Answer {
    #[command(flatten)]
    ranking: RankingArgs,
    /// One question
    #[arg(long, value_name = "TEXT", required_unless_present = "input", conflicts_with = "input")]
    question: Option<String>,
    /// The passage that answers it: a text file
    #[arg(long, value_name = "FILE", requires = "question")]
    passage: Option<PathBuf>,
    /// The passage that answers it
    #[arg(long, value_name = "TEXT", requires = "question", conflicts_with = "passage")]
    passage_text: Option<String>,
    /// Column of the question
    #[arg(long, value_name = "COL", default_value = "question")]
    text: String,
    /// Column of the sentences: a JSON array, or a passage that is cut into sentences
    #[arg(long, value_name = "COL", default_value = "sentences")]
    candidates: String,
    /// Column of the right sentence's number in the support, from 0
    #[arg(long, value_name = "COL", requires = "support", conflicts_with = "answer_text")]
    answer: Option<String>,
    /// Column of the answer's text in the support: the first sentence that contains it is right
    #[arg(long, value_name = "COL", requires = "support")]
    answer_text: Option<String>,
    /// Print so many sentences for each question, the best first, separated by tabs
    #[arg(long, value_name = "K", default_value_t = 1)]
    top: usize,
}

impl Answer {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<()> {
        if self.ranking.support.is_some() && self.answer.is_none() && self.answer_text.is_none() {
            return Err(Error::config("--support", "it needs --answer or --answer-text: what is right there"));
        }
        let columns = || SelectionArgs {
            text: vec![self.text.clone()],
            candidates: Some(self.candidates.clone()),
            ..SelectionArgs::default()
        };
        let (answer, answer_text) = (self.answer.clone(), self.answer_text.clone());
        let right = SelectionArgs { answer, answer_text, ..columns() };
        for ranked in self.ranking.rank(RankingTask::Answer, columns(), right, self.given()?)? {
            writeln!(out, "{}", self.line(&ranked)).map_err(output_error)?;
        }
        Ok(())
    }

    /// The question of the command line.
    fn given(&self) -> Result<Option<Item>> {
        let Some(question) = &self.question else { return Ok(None) };
        let item = match (&self.passage, &self.passage_text) {
            (Some(path), _) => Item::question(question, &read_text(path)?),
            (None, Some(text)) => Item::question(question, text),
            (None, None) => return Err(Error::config("--question", "it needs --passage or --passage-text")),
        };
        match item.sentences.is_empty() {
            true => Err(Error::config("--passage", "it has no sentence")),
            false => Ok(Some(item)),
        }
    }

    fn line(&self, ranked: &Ranked) -> String {
        let order = ranked.order();
        if self.ranking.json {
            let sentences = &ranked.item.sentences;
            let (question, best) = (&ranked.item.text, order[0]);
            let scores = &ranked.scores;
            return json!({"question": question, "answer": sentences[best], "sentence": best,
                "sentences": sentences, "scores": scores})
            .to_string();
        }
        order.iter().take(self.top).map(|sentence| ranked.line(*sentence)).collect::<Vec<_>>().join("\t")
    }
}
