//! The outer loop: draw a meta-batch, compute the meta-gradient, take a step; now and then validate, save, stop early.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::checkpoint::{Checkpoint, Progress, RunState};
use crate::cpu::Cpu;
use crate::episode::{EpisodeBatch, EpisodeSource, Part, TargetKind};
use crate::error::{Error, Result};
use crate::meta::{
    BoxedEngine, GramSpace, InnerLoop, InnerMemory, Limits, MetaGradient, Order, Outcome, anil, fomaml, maml,
    proto_maml, protonet, reptile,
};
use crate::model::{MlpShape, Params};
use crate::optim::{Optimizer, Rule, Schedule};

/// How a run's episodes adapt, and what the outer loop gets from them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// [`maml`]
    #[default]
    Maml,
    /// [`fomaml`]
    Fomaml,
    /// [`anil`]
    Anil,
    /// [`reptile`]
    Reptile,
    /// [`protonet`]: no inner step, whatever the settings say.
    ProtoNet,
    /// [`proto_maml`]
    ProtoMaml,
}

impl Algorithm {
    /// The inner loop in training.
    pub fn inner_loop(self, steps: usize, lr: f64) -> InnerLoop<'static> {
        match self {
            Algorithm::Maml => maml::inner_loop(steps, lr),
            Algorithm::Fomaml => fomaml::inner_loop(steps, lr),
            Algorithm::Anil => anil::inner_loop(steps, lr),
            Algorithm::Reptile => reptile::inner_loop(steps, lr),
            Algorithm::ProtoNet => protonet::inner_loop(),
            Algorithm::ProtoMaml => proto_maml::inner_loop(steps, lr),
        }
    }
}

/// The settings of a run that do not depend on its task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Names all random numbers of the run.
    pub seed: u64,
    /// Standard deviation of an embedding table's initial weights (token-bag models).
    pub embedding_std: f64,
    /// How episodes adapt; checkpoints without it are of MAML.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// Inner steps on the support set; 0 trains jointly.
    pub inner_steps: usize,
    /// Learning rate of the inner steps.
    pub inner_lr: f64,
    /// Leave the second-order part out (first-order MAML).
    pub first_order: bool,
    /// The outer optimiser.
    pub optimizer: Rule,
    /// The outer learning rate, and how many steps the run has.
    pub schedule: Schedule,
    /// Validate every so many steps; 0: only at the end.
    pub valid_every: u64,
    /// Meta-batches in a validation.
    pub valid_batches: u64,
    /// Stop after so many validations without a better score; 0: never.
    pub patience: u64,
}

impl TrainConfig {
    fn inner(&self) -> InnerLoop<'static> {
        let inner = self.algorithm.inner_loop(self.inner_steps, self.inner_lr);
        if self.first_order { InnerLoop { order: Order::First, ..inner } } else { inner }
    }

    fn evaluation(&self) -> InnerLoop<'static> {
        InnerLoop { order: Order::Evaluate, ..self.inner() }
    }

    fn validate(&self, has_validation: bool) -> Result<()> {
        if has_validation && self.valid_batches == 0 {
            return Err(Error::config("valid_batches", "at least 1 is needed to validate"));
        }
        // Memory grows with them; far fewer are ever of use.
        if self.inner_steps > 10_000 {
            return Err(Error::config("inner_steps", format!("{} are more than 10000", self.inner_steps)));
        }
        if !(self.embedding_std.is_finite() && self.embedding_std >= 0.0) {
            return Err(Error::config("embedding_std", format!("{} is not finite or below 0", self.embedding_std)));
        }
        if !(self.inner_lr.is_finite() && self.inner_lr >= 0.0) {
            return Err(Error::config("inner_lr", format!("{} is not finite or below 0", self.inner_lr)));
        }
        if self.first_order && matches!(self.algorithm, Algorithm::Reptile | Algorithm::ProtoNet) {
            return Err(Error::config("first_order", format!("{:?} has no second-order part", self.algorithm)));
        }
        Ok(())
    }
}

/// What happened at a report: the mean over the steps since the last one, and the validation if there was one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Steps done.
    pub step: u64,
    /// The learning rate of the last step.
    pub lr: f64,
    /// Mean training query loss.
    pub train_loss: f64,
    /// Share of training queries answered right.
    pub train_accuracy: f64,
    /// Mean validation query loss after adaptation, of the episodes that did not diverge; none if all did.
    pub valid_loss: Option<f64>,
    /// Share of validation queries answered right after adaptation.
    pub valid_accuracy: Option<f64>,
    /// Validation episodes whose inner loop diverged: in the accuracy they count as they were answered.
    #[serde(default)]
    pub valid_diverged: usize,
    /// Whether the validation was the best so far.
    pub best: bool,
}

/// Whether a run goes on after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Do the next step.
    Continue,
    /// End after this step.
    Stop,
}

/// What a run tells its caller.
#[derive(Debug)]
pub enum Event<'a> {
    /// A step is done; its number from 1.
    Step(u64),
    /// Some steps were averaged, and perhaps validated.
    Report(&'a Report),
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All steps are done.
    Complete,
    /// The validation score did not rise any more.
    Early,
    /// The caller stopped it.
    Stopped,
}

/// One run: a model in training on one source of episodes.
pub struct Trainer<'a> {
    config: TrainConfig,
    source: &'a dyn EpisodeSource,
    cpu: Cpu,
    engine: BoxedEngine<'a, f32>,
    gradient: MetaGradient<f32>,
    batch: EpisodeBatch,
    optimizer: Optimizer<f32>,
    params: Params<f32>,
    best: Params<f32>,
    progress: Progress,
    has_validation: bool,
}

impl<'a> Trainer<'a> {
    /// A run at its start, on the CPU. `has_validation` says whether the source can draw [`Part::Valid`].
    pub fn new(
        cpu: &Cpu,
        shape: &MlpShape,
        config: TrainConfig,
        source: &'a dyn EpisodeSource,
        has_validation: bool,
    ) -> Result<Self> {
        let gram = |limits| Ok(Box::new(GramSpace::new(cpu, shape, limits)?) as BoxedEngine<'a, f32>);
        Self::with_engine(cpu, shape, config, source, has_validation, gram)
    }

    /// The same with the meta-gradients of the engine that `make` gives for batches up to the limits; the optimiser stays
    /// on the CPU.
    pub fn with_engine(
        cpu: &Cpu,
        shape: &MlpShape,
        config: TrainConfig,
        source: &'a dyn EpisodeSource,
        has_validation: bool,
        make: impl FnOnce(Limits) -> Result<BoxedEngine<'a, f32>>,
    ) -> Result<Self> {
        config.validate(has_validation)?;
        source.check_shape(shape)?;
        config.inner().validate(shape)?;
        let limits = Limits { inner: InnerMemory::of(&config.inner()), ..source.limits() };
        let params = Params::random(shape, config.embedding_std, config.seed)?;
        Ok(Self {
            source,
            cpu: cpu.clone(),
            engine: make(limits)?,
            gradient: MetaGradient::new(shape, &limits),
            batch: EpisodeBatch::new(TargetKind::Classes),
            optimizer: Optimizer::new(cpu, shape, config.optimizer, config.schedule)?,
            best: params.clone(),
            params,
            progress: Progress::default(),
            has_validation,
            config,
        })
    }

    /// Continues where a checkpoint stands. Fails if it is finished or of another shape.
    pub fn resume(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        let run =
            checkpoint.run.as_ref().ok_or_else(|| Error::config("resume", "the checkpoint is of a finished model"))?;
        if checkpoint.params.shape != self.params.shape {
            let (found, wanted) = (&checkpoint.params.shape, &self.params.shape);
            return Err(Error::shape("resume", format!("the checkpoint has {found:?}, the run {wanted:?}")));
        }
        self.optimizer.restore(run.optimizer.clone())?;
        (self.params, self.best, self.progress) = (checkpoint.params.clone(), run.best.clone(), run.progress);
        Ok(())
    }

    /// Steps done.
    pub fn step(&self) -> u64 {
        self.progress.step
    }

    /// The best validation score (share of queries answered right) so far.
    pub fn best_score(&self) -> Option<f64> {
        self.progress.best_score
    }

    /// Runs until the schedule ends, the score rises no more, or `observe` says stop (asked after every step and
    /// report). A report that is due when a run stops comes first when it is resumed.
    pub fn run(&mut self, mut observe: impl FnMut(&Self, Event) -> Result<Control> + Send) -> Result<Ending> {
        let cpu = self.cpu.clone();
        cpu.install(|| self.steps(&mut observe))
    }

    fn steps(&mut self, observe: &mut (impl FnMut(&Self, Event) -> Result<Control> + Send)) -> Result<Ending> {
        loop {
            if self.report_is_due() {
                let report = self.report()?;
                if observe(self, Event::Report(&report))? == Control::Stop {
                    return Ok(Ending::Stopped);
                }
            }
            if self.progress.step >= self.config.schedule.steps {
                return Ok(Ending::Complete);
            }
            if self.is_stale() {
                return Ok(Ending::Early);
            }
            self.one_step()?;
            if observe(self, Event::Step(self.progress.step))? == Control::Stop {
                return Ok(Ending::Stopped);
            }
        }
    }

    /// Whether the steps since the last report are to be reported; known from the progress alone, so that a resumed
    /// run reports where a run without a stop does.
    fn report_is_due(&self) -> bool {
        let (step, every) = (self.progress.step, self.config.valid_every);
        let here = step >= self.config.schedule.steps || (every > 0 && step.is_multiple_of(every));
        here && self.progress.steps_since > 0
    }

    fn one_step(&mut self) -> Result<()> {
        self.source.draw(Part::Train, self.config.seed, self.progress.step, &mut self.batch)?;
        self.optimizer.catch_up(&mut self.params, self.batch.support.tokens())?;
        self.optimizer.catch_up(&mut self.params, self.batch.query.tokens())?;
        let inner = self.config.inner();
        let view = self.batch.view(&self.params.shape)?;
        self.engine.run(&self.params, &view, &inner, &mut self.gradient)?;
        let loss = self.gradient.meta_loss();
        // The gradient can overflow where the loss does not yet; it must not reach the weights.
        if !loss.is_finite() || !self.gradient.is_finite() {
            let (step, lr, episodes) = (self.progress.step, self.config.inner_lr, self.diverged());
            let detail = format!("loss {loss} at step {step} diverged; a smaller rate may help (inner_lr is {lr})");
            let detail = if episodes.is_empty() { detail } else { format!("{detail}; in episodes {episodes:?}") };
            return Err(Error::config("learning rate", detail));
        }
        self.optimizer.step(&mut self.params, &self.gradient)?;
        let (hits, predictions) = self.batch.hits(self.engine.query_outputs());
        let p = &mut self.progress;
        p.step += 1;
        p.loss_sum += loss;
        p.hits += hits as u64;
        p.predictions += predictions as u64;
        p.steps_since += 1;
        Ok(())
    }

    /// The episodes of the last batch whose inner loop diverged.
    fn diverged(&self) -> Vec<usize> {
        let outcomes = self.gradient.outcomes.iter().enumerate();
        outcomes.filter(|(_, o)| **o == Outcome::Diverged).map(|(t, _)| t).collect()
    }

    fn report(&mut self) -> Result<Report> {
        self.optimizer.flush(&mut self.params)?;
        let valid = if self.has_validation { Some(self.validate()?) } else { None };
        let p = &mut self.progress;
        let best = match (valid, p.best_score) {
            (Some((_, score, _)), Some(best)) => score > best,
            _ => true,
        };
        if best {
            (p.best_score, p.best_step) = (valid.map(|v| v.1), p.step);
            self.best.clone_from(&self.params);
        }
        let report = Report {
            step: p.step,
            lr: self.config.schedule.rate(p.step - 1),
            train_loss: p.loss_sum / p.steps_since.max(1) as f64,
            train_accuracy: p.hits as f64 / p.predictions.max(1) as f64,
            valid_loss: valid.and_then(|v| v.0),
            valid_accuracy: valid.map(|v| v.1),
            valid_diverged: valid.map_or(0, |v| v.2),
            best,
        };
        (p.loss_sum, p.hits, p.predictions, p.steps_since) = (0.0, 0, 0, 0);
        Ok(report)
    }

    /// Mean loss over the validation episodes that did not diverge, share of right answers over all, and how many
    /// diverged: the same episodes each time.
    fn validate(&mut self) -> Result<(Option<f64>, f64, usize)> {
        let (mut loss, mut episodes, mut diverged, mut hits, mut all) = (0.0, 0, 0, 0, 0);
        for i in 0..self.config.valid_batches {
            self.source.draw(Part::Valid, self.config.seed, i, &mut self.batch)?;
            let view = self.batch.view(&self.params.shape)?;
            self.engine.run(&self.params, &view, &self.config.evaluation(), &mut self.gradient)?;
            let finite = self.gradient.query_loss.iter().filter(|l| l.is_finite());
            loss += finite.map(|&l| f64::from(l)).sum::<f64>();
            let lost = self.diverged().len();
            (episodes, diverged) = (episodes + self.gradient.query_loss.len() - lost, diverged + lost);
            let (h, n) = self.batch.hits(self.engine.query_outputs());
            (hits, all) = (hits + h, all + n);
        }
        let loss = (episodes > 0).then(|| loss / episodes as f64);
        Ok((loss, hits as f64 / all.max(1) as f64, diverged))
    }

    fn is_stale(&self) -> bool {
        let (p, every) = (&self.progress, self.config.valid_every);
        let patience = self.config.patience.saturating_mul(every);
        patience > 0 && self.has_validation && p.step - p.best_step >= patience
    }

    /// The run as it stands, to be resumed: brings all weights up to date first, which changes no later bit.
    pub fn checkpoint(&self, about: &About) -> Result<Checkpoint> {
        let (mut params, mut optimizer) = (self.params.clone(), self.optimizer.clone());
        optimizer.flush(&mut params)?;
        let run = RunState { progress: self.progress, optimizer: optimizer.state(), best: self.best.clone() };
        Ok(about.checkpoint(params, Some(run)))
    }

    /// The finished model: the best weights of the run.
    pub fn model(&self, about: &About) -> Checkpoint {
        about.checkpoint(self.best.clone(), None)
    }
}

/// What a checkpoint says beside weights and state.
#[derive(Clone, Debug)]
pub struct About {
    /// The task's name.
    pub task: String,
    /// Vectors the task needs.
    pub aux: BTreeMap<String, Vec<f32>>,
    /// All settings of the run.
    pub config: Value,
    /// How text becomes tokens.
    pub text_config: Value,
    /// The classes' names.
    pub label_names: Vec<String>,
}

impl About {
    fn checkpoint(&self, params: Params<f32>, run: Option<RunState>) -> Checkpoint {
        Checkpoint {
            task: self.task.clone(),
            params,
            aux: self.aux.clone(),
            config: self.config.clone(),
            text_config: self.text_config.clone(),
            label_names: self.label_names.clone(),
            run,
        }
    }
}
