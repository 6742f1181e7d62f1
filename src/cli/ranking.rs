//! What `metaglot answer` and `metaglot summarize` share: the model, the files, and the ranking itself.
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use rayon::prelude::*;

use super::items::Item;
use super::selection::SelectionArgs;
use super::source::{FormatArg, Source};
use super::train;
use crate::checkpoint::Checkpoint;
use crate::task::{Choice, RankingModel, RankingTask};
use crate::{Error, Result};

/// The model and the files it is applied to.
#[derive(Args, Debug)]
pub(super) struct RankingArgs {
    /// A model from `metaglot train`
    #[arg(long, value_name = "FILE")]
    checkpoint: PathBuf,
    /// Many at once, of one language: TSV, CSV or JSON lines, plain or gzip. Kept in memory as a whole
    #[arg(long, value_name = "FILE")]
    pub(super) input: Option<PathBuf>,
    /// Examples with what is right, of the same language and with the same columns: the model adapts to them
    #[arg(long, value_name = "FILE")]
    pub(super) support: Option<PathBuf>,
    /// The format of the files; `auto`: by their names
    #[arg(long, value_enum, default_value = "auto")]
    format: FormatArg,
    /// Only records with this value, in both files; several for one column: any of them
    #[arg(long, value_name = "COL=VALUE")]
    filter: Vec<String>,
    /// Inner steps of the adaptation; otherwise those of the training
    #[arg(long, value_name = "N")]
    inner_steps: Option<usize>,
    /// Learning rate of the inner steps; otherwise that of the training
    #[arg(long, value_name = "RATE")]
    inner_lr: Option<f64>,
    /// Threads; 0: one for each core. The result does not depend on it
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
    /// One JSON object a line, with all candidates and scores
    #[arg(long)]
    pub(super) json: bool,
}

/// Something to choose from, and the score of each candidate.
pub(super) struct Ranked {
    pub(super) item: Item,
    pub(super) choice: Choice,
    pub(super) scores: Vec<f32>,
}

impl Ranked {
    /// The candidates' numbers, the best first; of equals, the earlier one.
    pub(super) fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.scores.len()).collect();
        order.sort_by(|a, b| self.scores[*b].total_cmp(&self.scores[*a]));
        order
    }

    /// A candidate on one line.
    pub(super) fn line(&self, candidate: usize) -> String {
        self.choice.candidates()[candidate].text.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

impl RankingArgs {
    /// Ranks the candidates of `given`, or of the input's records. `columns` are those of the input, `right` with those
    /// that say what is right.
    pub(super) fn rank(
        &self,
        task: RankingTask,
        columns: SelectionArgs,
        right: SelectionArgs,
        given: Option<Item>,
    ) -> Result<Vec<Ranked>> {
        let threads = if self.threads == 0 { train::num_threads() } else { self.threads };
        let cpu = crate::cli::cpu()?.threads(threads)?;
        let mut model = RankingModel::new(&Checkpoint::open(&self.checkpoint)?, task)?;
        model.inner = model.inner.changed(self.inner_steps, self.inner_lr);
        let queries = match (given, &self.input) {
            (Some(item), _) => vec![item],
            (None, Some(path)) => self.items(path, columns, task)?,
            (None, None) => Vec::new(),
        };
        let support = self.support.as_ref().map_or(Ok(Vec::new()), |path| self.items(path, right, task))?;
        let read = |items: &[Item]| -> Vec<Choice> {
            cpu.install(|| items.par_iter().map(|item| item.choice(task, &model.text)).collect())
        };
        let (support, choices) = (read(&support), read(&queries));
        if let Some(path) = self.support.as_ref().filter(|_| support.iter().all(|choice| choice.right().is_none())) {
            return Err(Error::input(path, 0, "no record has a right candidate to learn from"));
        }
        let scores = model.rank(&cpu, &support, &choices)?;
        let all = queries.into_iter().zip(choices).zip(scores);
        Ok(all.map(|((item, choice), scores)| Ranked { item, choice, scores }).collect())
    }

    fn items(&self, path: &Path, columns: SelectionArgs, task: RankingTask) -> Result<Vec<Item>> {
        let columns = SelectionArgs { filter: self.filter.clone(), language_is: Some("und".into()), ..columns };
        let selection = columns.selection(Some(task))?;
        let paths = [path.to_path_buf()];
        let mut source = Source::new(&paths, self.format, &selection);
        let mut items = Vec::new();
        while let Some(item) = source.next(|record, texts| {
            let item = Item::new(&selection, record, texts)?;
            match task == RankingTask::Answer && item.sentences.is_empty() {
                true => Err("no sentence to choose from".into()),
                false => Ok(item),
            }
        })? {
            items.push(item);
        }
        source.refuse_nothing()?;
        Ok(items)
    }
}

/// A text file as a whole.
pub(super) fn read_text(path: &Path) -> Result<String> {
    let bytes = fs::read(path).map_err(|e| Error::io("read", path, e))?;
    String::from_utf8(bytes).map_err(|e| {
        let valid = e.utf8_error().valid_up_to();
        let line = 1 + e.as_bytes()[..valid].iter().filter(|b| **b == b'\n').count();
        Error::input(path, line as u64, "not UTF-8")
    })
}
