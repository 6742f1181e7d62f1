//! A trained ranking model at work: adapts to examples of a language, then scores candidates.
#![forbid(unsafe_code)]

use super::choice::{Choice, Corpus, List, RankingTask};
use super::{expect_task, inner_loop};
use crate::checkpoint::Checkpoint;
use crate::cpu::Cpu;
use crate::episode::{EpisodeBatch, SetBuffer, TargetKind};
use crate::error::{Error, Result};
use crate::meta::{GramSpace, InnerLoop, Limits, MetaGradient, Order};
use crate::model::{InputKind, Params};
use crate::text::TextConfig;

/// Candidates scored at a time, and at most adapted on: both bound the Gram matrices.
const ROWS: usize = 8192;

/// A checkpoint of one of the ranking tasks, ready to be applied.
#[derive(Clone, Debug)]
pub struct RankingModel {
    /// The weights.
    pub ranker: Ranker,
    /// What they were trained for.
    pub task: RankingTask,
    /// How texts are cleaned before they are read.
    pub text: TextConfig,
    /// The inner loop they were trained with.
    pub inner: InnerLoop<'static>,
}

impl RankingModel {
    /// Fails where the checkpoint is of another task, or lacks what `task` needs.
    pub fn new(checkpoint: &Checkpoint, task: RankingTask) -> Result<Self> {
        expect_task(checkpoint, task.name())?;
        let width = task.signal_names().len();
        let vector = |name: &str| {
            let found = checkpoint.aux.get(name).filter(|vector| vector.len() == width).cloned();
            found.ok_or_else(|| Error::config("checkpoint", format!("it has no vector `{name}` of {width} values")))
        };
        let text = serde_json::from_value(checkpoint.text_config.clone())
            .map_err(|e| Error::config("checkpoint", format!("its text settings: {e}")))?;
        let ranker = Ranker::new(checkpoint.params.clone(), vector("signal_mean")?, vector("signal_scale")?)?;
        Ok(RankingModel { ranker, task, text, inner: inner_loop(checkpoint)? })
    }

    /// The scores of each query's candidates after adapting to the support; the highest is the choice (see
    /// [`Choice::judged`]), a query without candidates has none. Frequencies are those of the texts given here, which should be of one language.
    pub fn rank(&self, cpu: &Cpu, support: &[Choice], query: &[Choice]) -> Result<Vec<Vec<f32>>> {
        let mut corpus = Corpus::new(self.task);
        support.iter().chain(query).for_each(|choice| corpus.add(choice));
        let lists = |choices: &[Choice]| {
            let full = choices.iter().filter(|choice| !choice.candidates().is_empty());
            full.map(|choice| corpus.list(choice)).collect::<Vec<_>>()
        };
        let mut scores = self.ranker.scores(cpu, &lists(support), &lists(query), &self.inner)?.into_iter();
        let of = |choice: &Choice| match choice.candidates().is_empty() {
            true => Vec::new(),
            false => choice.judged(scores.next().unwrap_or_default()),
        };
        Ok(query.iter().map(of).collect())
    }
}

/// Weights, and how signals are standardised before they meet them: `(x - mean) * scale`.
#[derive(Clone, Debug)]
pub struct Ranker {
    params: Params<f32>,
    mean: Vec<f32>,
    scale: Vec<f32>,
}

impl Ranker {
    /// Fails unless the model takes one dense row of `mean.len()` signals to one score.
    pub fn new(params: Params<f32>, mean: Vec<f32>, scale: Vec<f32>) -> Result<Self> {
        let shape = &params.shape;
        let fits = shape.kind == InputKind::Dense && shape.outputs() == 1 && shape.input == mean.len();
        if !fits || scale.len() != mean.len() {
            let (means, scales) = (mean.len(), scale.len());
            let detail = format!("{shape:?} does not take {means} means and {scales} scales of signals to one score");
            return Err(Error::shape("ranking model", detail));
        }
        Ok(Ranker { params, mean, scale })
    }

    /// The scores of each query list's candidates, after `inner` on the support lists that have a right candidate; with
    /// none of those, as the model is. Whatever `inner` says of the order, nothing is differentiated twice.
    pub fn scores(&self, cpu: &Cpu, support: &[List], query: &[List], inner: &InnerLoop) -> Result<Vec<Vec<f32>>> {
        let mut batch = EpisodeBatch::new(TargetKind::Lists);
        for list in support.iter().filter(|list| list.right.is_some()) {
            self.push(list, &mut batch.support)?;
        }
        if batch.support.len() > ROWS {
            let detail = format!("{} candidates; at most {ROWS} can be adapted on", batch.support.len());
            return Err(Error::config("support", detail));
        }
        batch.support.end_episode();
        let steps = if batch.support.is_empty() { 0 } else { inner.steps };
        let inner = InnerLoop { steps, order: Order::Evaluate, ..*inner };
        let (mut scores, mut rest) = (Vec::with_capacity(query.len()), query);
        while !rest.is_empty() {
            let (now, later) = rest.split_at(self.fitting(rest));
            batch.query.clear();
            now.iter().try_for_each(|list| self.push(list, &mut batch.query))?;
            batch.query.end_episode();
            self.run(cpu, &batch, now, &inner, &mut scores)?;
            rest = later;
        }
        Ok(scores)
    }

    /// How many lists to score at once: at least one.
    fn fitting(&self, lists: &[List]) -> usize {
        let mut rows = 0;
        let count = lists.iter().take_while(|list| {
            rows += list.signals.len() / self.mean.len();
            rows <= ROWS
        });
        count.count().max(1)
    }

    fn run(
        &self,
        cpu: &Cpu,
        batch: &EpisodeBatch,
        lists: &[List],
        inner: &InnerLoop,
        scores: &mut Vec<Vec<f32>>,
    ) -> Result<()> {
        let shape = &self.params.shape;
        let view = batch.view(shape)?;
        let limits = Limits::of(&view, inner);
        let mut gram = GramSpace::new(cpu, shape, limits)?;
        gram.run(&self.params, &view, inner, &mut MetaGradient::new(shape, &limits))?;
        let (outputs, mut row) = (gram.query_outputs(), 0);
        for list in lists {
            let rows = list.signals.len() / self.mean.len();
            scores.push((row..row + rows).map(|i| outputs.row(i)[0]).collect());
            row += rows;
        }
        if scores.iter().flatten().any(|score| !score.is_finite()) {
            return Err(Error::config("learning rate", "adapting diverged; a smaller rate or fewer steps may help"));
        }
        Ok(())
    }

    fn push(&self, list: &List, set: &mut SetBuffer) -> Result<()> {
        let width = self.mean.len();
        let rows = list.signals.len() / width;
        let right = list.right.unwrap_or(0);
        if rows == 0 || right >= rows || !list.signals.len().is_multiple_of(width) {
            let detail = format!("{} signals are not whole rows of {width} with a row {right}", list.signals.len());
            return Err(Error::shape("candidate list", detail));
        }
        let mut row = Vec::with_capacity(width);
        for values in list.signals.chunks_exact(width) {
            row.clear();
            row.extend(values.iter().zip(&self.mean).zip(&self.scale).map(|((x, m), s)| (x - m) * s));
            set.push_dense(&row);
        }
        set.end_list(right as u32);
        Ok(())
    }
}
