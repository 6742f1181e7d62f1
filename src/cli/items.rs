//! Records as items of the ranking tasks: a question with its sentences, a document with its reference summary.
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::selection::{Answer, Selection, Text};
use crate::dataset::records::Record;
use crate::task::{Choice, RankingTask};
use crate::text::{TextConfig, clean, sentences};

/// What a record says, before it is read word by word.
#[derive(Debug)]
pub(super) struct Item {
    /// The question, or the document.
    pub(super) text: String,
    pub(super) language: Arc<str>,
    pub(super) id: Arc<str>,
    /// For a question: the sentences; empty for a document.
    pub(super) sentences: Vec<String>,
    right: Option<usize>,
    reference: Option<String>,
}

impl Item {
    /// Of a record and the texts the selection found in it; the error says what is wrong with the record.
    pub(super) fn new(selection: &Selection, record: &Record, texts: Vec<Text>) -> Result<Item, String> {
        let mut texts = texts.into_iter();
        let Some(Text { text, language, id, .. }) = texts.next() else { return Err("there is no text".into()) };
        let reference = texts.next().map(|text| text.text).filter(|text| !text.trim().is_empty());
        let sentences = selection.candidates.map_or_else(Vec::new, |place| split(&record.values[place]));
        let right = match &selection.answer {
            Some(Answer::Number(place)) => right_number(&record.values[*place], sentences.len())?,
            Some(Answer::Text(place)) => first_with(&sentences, &record.values[*place]),
            None => None,
        };
        Ok(Item { text, language, id, sentences, right, reference })
    }

    /// A question on the sentences of a passage, without a record.
    pub(super) fn question(question: &str, passage: &str) -> Item {
        let (text, sentences) = (question.to_owned(), sentences(passage).map(str::to_owned).collect());
        Item { sentences, ..Item::document(&text) }
    }

    /// A document without a record.
    pub(super) fn document(document: &str) -> Item {
        let (language, id) = ("und".into(), "0".into());
        Item { text: document.to_owned(), language, id, sentences: Vec::new(), right: None, reference: None }
    }

    /// Reads it word by word.
    pub(super) fn choice(&self, task: RankingTask, config: &TextConfig) -> Choice {
        match task {
            RankingTask::Answer => Choice::question(&self.text, self.sentences.clone(), self.right, config),
            RankingTask::Summarize => Choice::document(&self.text, self.reference.as_deref(), config),
        }
    }
}

/// A JSON array of strings is one sentence each; any other text is cut into sentences.
fn split(value: &str) -> Vec<String> {
    let given = value.trim_start().starts_with('[').then(|| serde_json::from_str::<Vec<String>>(value).ok()).flatten();
    given.unwrap_or_else(|| sentences(value).map(str::to_owned).collect())
}

/// The number of a sentence, from 0; an empty value is none.
fn right_number(value: &str, sentences: usize) -> Result<Option<usize>, String> {
    if value.is_empty() {
        return Ok(None);
    }
    match value.parse::<usize>() {
        Ok(number) if number < sentences => Ok(Some(number)),
        Ok(number) => Err(format!("the answer is sentence {number} (from 0), but there are {sentences}")),
        Err(_) => Err(format!("the answer `{value}` is not the number of a sentence; for its text: --answer-text")),
    }
}

/// The first sentence that contains the answer, however both are spelt; an empty answer is in none.
fn first_with(sentences: &[String], answer: &str) -> Option<usize> {
    let config = TextConfig::default();
    let answer = clean(answer, &config);
    sentences.iter().position(|sentence| !answer.is_empty() && clean(sentence, &config).contains(&answer))
}
