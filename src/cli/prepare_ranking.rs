//! `metaglot prepare --kind answer|summarize`: a group of rows with signals for each question or document.
//!
//! Signals depend on how frequent words and n-grams are in the language, so the inputs are read twice: frequencies
//! first. Memory is bounded by those, two megabytes a language.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use rayon::prelude::*;

use super::items::Item;
use super::progress::Progress;
use super::selection::Selection;
use super::source::Source;
use crate::dataset::{DatasetSpec, DatasetWriter, Kind, Row, Weighing};
use crate::task::{Choice, Corpus, List, RankingTask};
use crate::text::TextConfig;
use crate::{Error, Result};

const BATCH_ITEMS: usize = 1024;
const BATCH_BYTES: usize = 4 << 20;
/// More are a wrong column, and would take gigabytes.
const LANGUAGES: usize = 1024;

/// What was written.
#[derive(Debug, Default)]
pub(super) struct Groups {
    pub(super) groups: u64,
    pub(super) candidates: u64,
    /// Groups of which no candidate is right: nothing is learnt from them.
    pub(super) without_right: u64,
    /// Records without any candidate; they make no group.
    pub(super) without_candidates: u64,
}

/// A dataset of groups for that task: no tokens, only signals.
pub(super) fn spec(task: RankingTask, config: &TextConfig) -> DatasetSpec {
    DatasetSpec {
        kind: Kind::Ranking,
        vocabulary: 1,
        text_config: serde_json::to_string(config).expect("numbers and booleans are always valid JSON"),
        signal_names: task.signal_names().iter().map(|name| name.to_string()).collect(),
        weighing: Weighing::Ones,
    }
}

/// The inputs are opened twice, which a pipe does not allow.
pub(super) fn refuse_pipes(inputs: &[PathBuf]) -> Result<()> {
    match inputs.iter().find(|path| fs::metadata(path).is_ok_and(|stat| !stat.is_file())) {
        Some(path) => Err(Error::input(path, 0, "not a regular file; this kind of dataset reads its inputs twice")),
        None => Ok(()),
    }
}

/// Reads the inputs twice and writes the groups. `source` begins at the first record each time it is called; the
/// second one is returned for what it has counted.
pub(super) fn write<'a>(
    task: RankingTask,
    config: &TextConfig,
    selection: &Selection,
    source: impl Fn() -> Source<'a>,
    writer: &mut DatasetWriter,
) -> Result<(Groups, Source<'a>)> {
    let mut progress = Progress::new("texts");
    let mut corpora: BTreeMap<Arc<str>, Corpus> = BTreeMap::new();
    let read = |item: &Item| item.choice(task, config);
    let mut first = source();
    while let Some(items) = batch(&mut first, selection)? {
        let choices: Vec<Choice> = items.par_iter().map(read).collect();
        for (item, choice) in items.iter().zip(&choices) {
            corpora.entry(item.language.clone()).or_insert_with(|| Corpus::new(task)).add(choice);
            if corpora.len() > LANGUAGES {
                let detail = format!("more than {LANGUAGES} languages; is it the right column?");
                return Err(Error::config("--language", detail));
            }
        }
        progress.add(items.len() as u64);
    }
    let (mut second, mut groups) = (source(), Groups::default());
    while let Some(items) = batch(&mut second, selection)? {
        let list = |item: &Item| corpora.get(&item.language).map(|corpus| corpus.list(&read(item)));
        let lists: Vec<Option<List>> = items.par_iter().map(list).collect();
        for (item, list) in items.iter().zip(&lists) {
            let changed = || Error::config("INPUT", "it changed between its first and its second reading");
            push(task, item, list.as_ref().ok_or_else(changed)?, writer, &mut groups)?;
        }
        progress.add(items.len() as u64);
    }
    second.refuse_nothing()?;
    if groups.groups == 0 {
        return Err(Error::config("INPUT", "no record has a candidate sentence"));
    }
    Ok((groups, second))
}

/// The next items; none at the end.
fn batch(source: &mut Source<'_>, selection: &Selection) -> Result<Option<Vec<Item>>> {
    let (mut items, mut bytes) = (Vec::new(), 0);
    while items.len() < BATCH_ITEMS && bytes < BATCH_BYTES {
        let Some(item) = source.next(|record, texts| Item::new(selection, record, texts))? else { break };
        bytes += item.text.len() + item.sentences.iter().map(String::len).sum::<usize>();
        items.push(item);
    }
    Ok(if items.is_empty() { None } else { Some(items) })
}

fn push(task: RankingTask, item: &Item, list: &List, writer: &mut DatasetWriter, groups: &mut Groups) -> Result<()> {
    if list.signals.is_empty() {
        groups.without_candidates += 1;
        return Ok(());
    }
    let width = task.signal_names().len();
    let row = Row { language: &item.language, text_id: &item.id, ..Row::default() };
    writer.begin_group()?;
    writer.push(Row { signals: &vec![0.0; width], ..row })?;
    for (i, signals) in list.signals.chunks_exact(width).enumerate() {
        let label = if list.right == Some(i) { "right" } else { "wrong" };
        writer.push(Row { signals, label: Some(label), ..row })?;
        groups.candidates += 1;
    }
    groups.groups += 1;
    groups.without_right += u64::from(list.right.is_none());
    Ok(())
}
