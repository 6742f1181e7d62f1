//! Which fields of a record are the text, label, language and id, and which records are wanted.
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};

use crate::dataset::records::Record;
use crate::task::RankingTask;
use crate::{Error, Result};

/// Columns and filters. JSON lines: `a.b` is field b of object a.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Columns and filters")]
pub(super) struct SelectionArgs {
    /// Column of the text (the question, the document); several are joined by spaces
    #[arg(long, value_name = "COL", required = true, value_delimiter = ',')]
    pub(super) text: Vec<String>,
    /// Column of the label; an empty value is no label
    #[arg(long, value_name = "COL")]
    pub(super) label: Option<String>,
    /// Column of the text's language
    #[arg(long, value_name = "COL", required_unless_present = "language_is", conflicts_with = "language_is")]
    pub(super) language: Option<String>,
    /// The language of all texts
    #[arg(long, value_name = "CODE")]
    pub(super) language_is: Option<String>,
    /// Column of the text id: texts with the same one are translations of each other [default: the record's number]
    #[arg(long, value_name = "COL")]
    pub(super) id: Option<String>,
    /// Column of the text's translation: makes two rows with the same text id of each record. With `--kind summarize`:
    /// column of the reference summary
    #[arg(long, value_name = "COL", value_delimiter = ',')]
    pub(super) text2: Vec<String>,
    /// Column of the sentences one of which answers the question: a JSON array, or a text that is cut into sentences
    #[arg(long, value_name = "COL")]
    pub(super) candidates: Option<String>,
    /// Column of the right candidate's number, from 0; an empty value is none
    #[arg(long, value_name = "COL", requires = "candidates", conflicts_with = "answer_text")]
    pub(super) answer: Option<String>,
    /// Column of the answer's text: the first candidate that contains it is right
    #[arg(long, value_name = "COL", requires = "candidates")]
    pub(super) answer_text: Option<String>,
    /// Column of the translation's language
    #[arg(long, value_name = "COL", requires = "text2", conflicts_with = "language2_is")]
    pub(super) language2: Option<String>,
    /// The language of all translations
    #[arg(long, value_name = "CODE", requires = "text2")]
    pub(super) language2_is: Option<String>,
    /// Only records with this value; several for one column: any of them; for several columns: all of them
    #[arg(long, value_name = "COL=VALUE")]
    pub(super) filter: Vec<String>,
    /// Only these languages
    #[arg(long, value_name = "CODE", value_delimiter = ',')]
    pub(super) languages: Vec<String>,
    /// Not these languages
    #[arg(long, value_name = "CODE", value_delimiter = ',')]
    pub(super) exclude_languages: Vec<String>,
}

/// A text with what belongs to it: a row of the dataset to be.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) text: String,
    pub(super) language: Arc<str>,
    pub(super) label: Option<Arc<str>>,
    pub(super) id: Arc<str>,
}

/// The arguments, with columns as places in a record.
#[derive(Debug)]
pub(super) struct Selection {
    /// The fields records must have, each once.
    pub(super) fields: Vec<String>,
    texts: Vec<(Vec<usize>, Language)>,
    label: Option<usize>,
    id: Option<usize>,
    filters: Vec<(usize, HashSet<String>)>,
    only: HashSet<String>,
    exclude: HashSet<String>,
    /// Where the candidates are.
    pub(super) candidates: Option<usize>,
    /// Where it stands which of them is right.
    pub(super) answer: Option<Answer>,
}

/// How a record says which candidate is right.
#[derive(Debug)]
pub(super) enum Answer {
    /// By its number.
    Number(usize),
    /// By a text that it contains.
    Text(usize),
}

#[derive(Debug)]
enum Language {
    Column(usize),
    Is(Arc<str>),
}

impl SelectionArgs {
    /// Columns as places in a record, for texts, pairs of them, or a ranking task.
    pub(super) fn selection(&self, task: Option<RankingTask>) -> Result<Selection> {
        self.check(task)?;
        let mut fields = Vec::new();
        let mut place = |column: &String| {
            fields.iter().position(|f| f == column).unwrap_or_else(|| {
                fields.push(column.clone());
                fields.len() - 1
            })
        };
        let mut texts = vec![(
            self.text.iter().map(&mut place).collect(),
            language(&self.language, &self.language_is, "language", &mut place)?,
        )];
        if !self.text2.is_empty() {
            let columns = self.text2.iter().map(&mut place).collect();
            texts.push(match task {
                // A reference summary is in the document's language.
                Some(_) => (columns, language(&self.language, &self.language_is, "language", &mut place)?),
                None => (columns, language(&self.language2, &self.language2_is, "language2", &mut place)?),
            });
        }
        let mut filters: Vec<(usize, HashSet<String>)> = Vec::new();
        for filter in &self.filter {
            let Some((column, value)) = filter.split_once('=') else {
                return Err(Error::config("--filter", format!("`{filter}` is not COL=VALUE")));
            };
            let column = place(&column.to_owned());
            match filters.iter_mut().find(|(c, _)| *c == column) {
                Some((_, values)) => values.insert(value.to_owned()),
                None => {
                    filters.push((column, HashSet::from([value.to_owned()])));
                    true
                }
            };
        }
        Ok(Selection {
            texts,
            label: self.label.as_ref().map(&mut place),
            id: self.id.as_ref().map(&mut place),
            filters,
            only: self.languages.iter().cloned().collect(),
            exclude: self.exclude_languages.iter().cloned().collect(),
            candidates: self.candidates.as_ref().map(|column| place(&format!("{column}[]"))),
            answer: match (&self.answer, &self.answer_text) {
                (Some(column), _) => Some(Answer::Number(place(column))),
                (None, column) => column.as_ref().map(|column| Answer::Text(place(column))),
            },
            fields,
        })
    }

    /// Each kind of data has columns of its own.
    fn check(&self, task: Option<RankingTask>) -> Result<()> {
        let answer = task == Some(RankingTask::Answer);
        let translated = self.language2.is_some() || self.language2_is.is_some();
        let columns = [
            ("--candidates", self.candidates.is_some(), answer),
            ("--text2", !self.text2.is_empty(), !answer),
            ("--language2", translated, task.is_none()),
            ("--label", self.label.is_some(), task.is_none()),
        ];
        let kind = task.map_or("text", RankingTask::name);
        match columns.into_iter().find(|(_, given, belongs)| *given && !belongs) {
            Some((flag, ..)) => Err(Error::config(flag, format!("not a column of --kind {kind}"))),
            None if answer && self.candidates.is_none() => {
                Err(Error::config("--kind", "answer needs --candidates: the sentences that are chosen from"))
            }
            None => Ok(()),
        }
    }

    /// Whether records hold a translation too.
    pub(super) fn pairs(&self) -> bool {
        !self.text2.is_empty()
    }

    /// For the dataset's `made_by`.
    pub(super) fn describe(&self) -> Value {
        json!({
            "text": self.text, "label": self.label, "language": self.language, "language_is": self.language_is,
            "id": self.id, "text2": self.text2, "language2": self.language2, "language2_is": self.language2_is,
            "candidates": self.candidates, "answer": self.answer, "answer_text": self.answer_text,
            "filter": self.filter, "languages": self.languages, "exclude_languages": self.exclude_languages,
        })
    }
}

fn language(
    column: &Option<String>,
    is: &Option<String>,
    name: &str,
    place: &mut impl FnMut(&String) -> usize,
) -> Result<Language> {
    match (column, is) {
        (Some(column), _) => Ok(Language::Column(place(column))),
        (None, Some(code)) if !code.is_empty() => Ok(Language::Is(code.as_str().into())),
        _ => Err(Error::config(format!("--{name}"), format!("wanted --{name} COL or --{name}-is CODE"))),
    }
}

impl Selection {
    /// The texts of a record: one, two for pairs, none if a filter holds it back. `number` counts the records kept
    /// so far. The error says what is wrong with the record.
    pub(super) fn texts(&self, record: &Record, number: u64) -> std::result::Result<Vec<Text>, String> {
        let value = |place: usize| &record.values[place];
        if self.filters.iter().any(|(place, wanted)| !wanted.contains(&**value(*place))) {
            return Ok(Vec::new());
        }
        let id = self.id.map_or_else(|| number.to_string().into(), |place| value(place).clone());
        if id.is_empty() {
            return Err("the text id is empty".into());
        }
        let label = self.label.map(|place| value(place).clone()).filter(|label| !label.is_empty());
        let mut texts = Vec::with_capacity(self.texts.len());
        for (columns, language) in &self.texts {
            let language = match language {
                Language::Column(place) => value(*place).clone(),
                Language::Is(code) => code.clone(),
            };
            if language.is_empty() {
                return Err("the language is empty".into());
            }
            if !self.wants(&language) {
                return Ok(Vec::new());
            }
            let text = columns.iter().map(|place| &**value(*place)).collect::<Vec<_>>().join(" ");
            texts.push(Text { text, language, label: label.clone(), id: id.clone() });
        }
        Ok(texts)
    }

    fn wants(&self, language: &str) -> bool {
        (self.only.is_empty() || self.only.contains(language)) && !self.exclude.contains(language)
    }
}
