//! `metaglot train`: a dataset in, a model out; a run folder in between that can be resumed.
#![forbid(unsafe_code)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use clap::{Args, ValueEnum};

use super::device::DeviceArg;
use super::output_error;
use super::run::{self, Episodes, RunConfig, RunFolder, STOP};
use crate::dataset::Dataset;
use crate::episode::{LabelledSpec, ListSpec, PairSpec, SplitConfig};
use crate::error::{Error, Result};
use crate::optim::{Rule, Schedule};
use crate::train::{Algorithm, Ending, TrainConfig};

const EXAMPLE: &str = "\
Example (on data that `metaglot demo` leaves):
  metaglot train metaglot-demo/classify.mgd --task classify --run runs/names \\
    --valid-languages nld,swe --valid-texts 0.2
  metaglot train --resume --run runs/names";

/// Meta-train a model on a dataset.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub struct Train {
    /// A dataset made by `metaglot prepare`
    #[arg(required_unless_present = "resume", value_name = "DATASET")]
    data: Option<PathBuf>,
    /// What to learn
    #[arg(long, value_enum, required_unless_present = "resume")]
    task: Option<TaskArg>,
    /// The run's folder: settings, metrics, curves, checkpoint and model
    #[arg(long, value_name = "FOLDER")]
    run: PathBuf,
    /// Continue the run in the folder, with its own settings
    #[arg(long, conflicts_with_all = ["data", "task"])]
    resume: bool,
    /// Threads; 0: one for each core. The result does not depend on it
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
    /// Where meta-gradients are computed: cpu, or an NVIDIA GPU by its number, as in cuda:0 (classify; a build with CUDA)
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    device: DeviceArg,
    #[command(flatten)]
    held_out: HeldOut,
    #[command(flatten)]
    settings: Settings,
}

/// What to learn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TaskArg {
    Classify,
    Translate,
    Summarize,
    Answer,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "What is held out")]
struct HeldOut {
    /// Languages neither trained nor validated on
    #[arg(long, value_delimiter = ',', value_name = "CODES")]
    exclude_languages: Vec<String>,
    /// Languages to validate on, never trained on
    #[arg(long, value_delimiter = ',', value_name = "CODES")]
    valid_languages: Vec<String>,
    /// Share of the texts, with all their translations, kept for validation
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    valid_texts: f64,
}

/// Settings with a default for each task; one that a task does not have is an error.
#[derive(Args, Debug)]
#[command(next_help_heading = "Settings (each task has its own defaults)")]
struct Settings {
    /// Names all random numbers of the run
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Outer steps
    #[arg(long, value_name = "N")]
    steps: Option<u64>,
    /// Outer learning rate: warms up, then falls along a cosine
    #[arg(long, value_name = "RATE")]
    lr: Option<f64>,
    /// Steps of warm-up
    #[arg(long, value_name = "N")]
    warmup: Option<u64>,
    /// The outer optimiser
    #[arg(long, value_enum)]
    optimizer: Option<OptimizerArg>,
    /// Weight decay
    #[arg(long, value_name = "X")]
    weight_decay: Option<f64>,
    /// How episodes adapt, and what is learned from them
    #[arg(long, value_enum)]
    algorithm: Option<AlgorithmArg>,
    /// Inner steps on the support set; 0: joint training
    #[arg(long, value_name = "N")]
    inner_steps: Option<usize>,
    /// Learning rate of the inner steps
    #[arg(long, value_name = "RATE")]
    inner_lr: Option<f64>,
    /// Leave the second-order part of the meta-gradient out
    #[arg(long)]
    first_order: bool,
    /// Widths of the hidden layers, or `none` for a linear model
    #[arg(long, value_name = "N,..", value_parser = widths)]
    hidden: Option<Widths>,
    /// Dimensions of the shared space (translate)
    #[arg(long, value_name = "N")]
    dimensions: Option<usize>,
    /// Standard deviation of the embedding table's initial weights (classify, translate)
    #[arg(long, value_name = "X")]
    embedding_std: Option<f64>,
    /// Episodes in a meta-batch
    #[arg(long, value_name = "N")]
    meta_batch: Option<usize>,
    /// Classes in an episode (classify)
    #[arg(long, value_name = "N")]
    n_way: Option<usize>,
    /// Support examples of a class (classify), support pairs or lists (others)
    #[arg(long, value_name = "K")]
    k_shot: Option<usize>,
    /// Query examples of a class (classify), query pairs or lists (others)
    #[arg(long, value_name = "N")]
    queries: Option<usize>,
    /// Share of episodes whose queries are in another language (classify)
    #[arg(long, value_name = "SHARE")]
    cross_lingual: Option<f64>,
    /// Share of a training text's tokens left out (classify, translate)
    #[arg(long, value_name = "SHARE")]
    dropout: Option<f64>,
    /// Only pairs with this language on the right (translate)
    #[arg(long, value_name = "CODE")]
    pivot: Option<String>,
    /// Steps between validations
    #[arg(long, value_name = "N")]
    valid_every: Option<u64>,
    /// Meta-batches in a validation
    #[arg(long, value_name = "N")]
    valid_batches: Option<u64>,
    /// Stop after so many validations without a better score; 0: never
    #[arg(long, value_name = "N")]
    patience: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AlgorithmArg {
    /// Through every inner step, second order included
    Maml,
    /// The query gradient at the adapted weights
    Fomaml,
    /// Only the last layer is adapted
    Anil,
    /// Towards the adapted weights
    Reptile,
    /// Class centroids of the last hidden layer, no inner step (classify)
    Protonet,
    /// The last layer starts at class centroids and is adapted with the others (classify)
    Protomaml,
}

impl AlgorithmArg {
    fn algorithm(self) -> Algorithm {
        match self {
            AlgorithmArg::Maml => Algorithm::Maml,
            AlgorithmArg::Fomaml => Algorithm::Fomaml,
            AlgorithmArg::Anil => Algorithm::Anil,
            AlgorithmArg::Reptile => Algorithm::Reptile,
            AlgorithmArg::Protonet => Algorithm::ProtoNet,
            AlgorithmArg::Protomaml => Algorithm::ProtoMaml,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OptimizerArg {
    Adamw,
    Sgd,
}

/// Widths of hidden layers, as one value of a flag.
#[derive(Clone, Debug)]
struct Widths(Vec<usize>);

fn widths(text: &str) -> std::result::Result<Widths, String> {
    if text == "none" {
        return Ok(Widths(Vec::new()));
    }
    let parsed = text.split(',').map(|w| w.parse().ok().filter(|&w| w > 0)).collect::<Option<Vec<usize>>>();
    parsed.map(Widths).ok_or_else(|| "wanted widths like 64 or 256,128, or none".to_string())
}

impl Train {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<()> {
        let threads = if self.threads == 0 { num_threads() } else { self.threads };
        let cpu = crate::cli::cpu()?.threads(threads)?;
        let folder = RunFolder::new(&self.run);
        let config = match (&self.data, self.task) {
            (Some(data), Some(task)) => self.config(data, task)?,
            _ => folder.read_config()?,
        };
        let data = Dataset::open(&config.data)?;
        if !self.resume {
            folder.refuse_run()?;
        }
        stop_on_ctrl_c();
        let (ending, step) = run::train(&cpu, self.device, &config, &data, &folder, self.resume)?;
        let written = match ending {
            Ending::Stopped => {
                writeln!(out, "stopped after step {}; --resume continues", step).map_err(output_error)?;
                return Err(Error::Interrupted);
            }
            Ending::Early => format!("no better score any more: ended early at step {}", step),
            Ending::Complete => format!("all {} steps done", step),
        };
        writeln!(out, "{written}; model: {}", folder.model().display()).map_err(output_error)
    }

    fn config(&self, data: &Path, task: TaskArg) -> Result<RunConfig> {
        let mut config = defaults(task, data);
        config.split = SplitConfig {
            exclude_languages: self.held_out.exclude_languages.clone(),
            valid_languages: self.held_out.valid_languages.clone(),
            valid_texts: self.held_out.valid_texts,
        };
        self.settings.apply(&mut config)?;
        Ok(config)
    }
}

/// One for each core.
pub(super) fn num_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The first Ctrl-C ends the run after its step; the second ends the program.
fn stop_on_ctrl_c() {
    let stop = || {
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("metaglot: ending after this step; again to end at once");
    };
    // It can only fail if a handler is set already, by an earlier run of this process: that one does the same.
    let _ = ctrlc::set_handler(stop);
}

/// Each task's settings.
fn defaults(task: TaskArg, data: &Path) -> RunConfig {
    match task {
        TaskArg::Classify => classify_defaults(data),
        TaskArg::Translate => translate_defaults(data),
        TaskArg::Summarize => ranking_defaults(data, Episodes::Summarize),
        TaskArg::Answer => ranking_defaults(data, Episodes::Answer),
    }
}

/// A run's outer loop with AdamW.
fn outer(steps: u64, lr: f64, inner_steps: usize, inner_lr: f64, weight_decay: f64) -> TrainConfig {
    TrainConfig {
        seed: 1,
        embedding_std: 0.02,
        algorithm: Algorithm::Maml,
        inner_steps,
        inner_lr,
        first_order: false,
        optimizer: Rule::Adamw { beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay },
        schedule: Schedule { lr, warmup: steps / 20, steps, floor: 0.02 },
        valid_every: (steps / 10).max(1),
        valid_batches: 16,
        patience: 0,
    }
}

/// Topics of texts.
pub(super) fn classify_defaults(data: &Path) -> RunConfig {
    let spec = LabelledSpec { n_way: 5, k_shot: 5, queries: 5, meta_batch: 8, cross_lingual: 0.0, dropout: 0.3 };
    RunConfig {
        data: data.to_path_buf(),
        hidden: vec![64],
        dimensions: 0,
        split: SplitConfig::default(),
        episodes: Episodes::Classify(spec),
        train: outer(300, 1e-2, 1, 0.2, 0.0),
    }
}

/// A shared space of translations.
pub(super) fn translate_defaults(data: &Path) -> RunConfig {
    let spec = PairSpec { support: 40, query: 60, meta_batch: 4, dropout: 0.3, pivot: None };
    RunConfig {
        data: data.to_path_buf(),
        hidden: vec![],
        dimensions: 128,
        split: SplitConfig::default(),
        episodes: Episodes::Translate(spec),
        train: TrainConfig { embedding_std: 0.1, ..outer(300, 1e-2, 3, 100.0, 0.0) },
    }
}

/// One right candidate of a list, by its signals.
pub(super) fn ranking_defaults(data: &Path, episodes: fn(ListSpec) -> Episodes) -> RunConfig {
    RunConfig {
        data: data.to_path_buf(),
        hidden: vec![16],
        dimensions: 0,
        split: SplitConfig::default(),
        episodes: episodes(ListSpec { support: 8, query: 16, meta_batch: 4 }),
        train: outer(400, 5e-3, 1, 0.01, 0.1),
    }
}

impl Settings {
    /// Replaces the defaults by what was given.
    fn apply(&self, config: &mut RunConfig) -> Result<()> {
        let train = &mut config.train;
        train.seed = self.seed;
        train.first_order = self.first_order;
        set(&mut train.algorithm, self.algorithm.map(AlgorithmArg::algorithm));
        set(&mut train.inner_steps, self.inner_steps);
        set(&mut train.inner_lr, self.inner_lr);
        set(&mut train.embedding_std, self.embedding_std);
        set(&mut train.schedule.lr, self.lr);
        if let Some(steps) = self.steps {
            train.schedule = Schedule { steps, warmup: steps / 20, ..train.schedule };
            train.valid_every = (steps / 10).max(1);
        }
        set(&mut train.schedule.warmup, self.warmup);
        set(&mut train.valid_every, self.valid_every);
        set(&mut train.valid_batches, self.valid_batches);
        set(&mut train.patience, self.patience);
        train.optimizer = self.rule(train.optimizer);
        set(&mut config.hidden, self.hidden.as_ref().map(|w| w.0.clone()));
        if config.episodes.task() == crate::task::TRANSLATE {
            set(&mut config.dimensions, self.dimensions);
        } else if self.dimensions.is_some() {
            return Err(foreign("--dimensions", config.episodes.task()));
        }
        self.apply_episodes(&mut config.episodes)
    }

    fn rule(&self, default: Rule) -> Rule {
        let decay = match default {
            Rule::Adamw { weight_decay, .. } | Rule::Sgd { weight_decay, .. } => weight_decay,
        };
        let weight_decay = self.weight_decay.unwrap_or(decay);
        match self.optimizer {
            Some(OptimizerArg::Sgd) => Rule::Sgd { momentum: 0.9, weight_decay },
            _ => Rule::Adamw { beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay },
        }
    }

    fn apply_episodes(&self, episodes: &mut Episodes) -> Result<()> {
        let task = episodes.task();
        let given = [
            ("--n-way", self.n_way.is_some()),
            ("--cross-lingual", self.cross_lingual.is_some()),
            ("--dropout", self.dropout.is_some()),
            ("--pivot", self.pivot.is_some()),
        ];
        let prototypes = matches!(self.algorithm, Some(AlgorithmArg::Protonet | AlgorithmArg::Protomaml));
        if prototypes && task != crate::task::CLASSIFY {
            return Err(foreign("--algorithm protonet or protomaml", task));
        }
        let known: &[&str] = match episodes {
            Episodes::Classify(_) => &["--n-way", "--cross-lingual", "--dropout"],
            Episodes::Translate(_) => &["--dropout", "--pivot"],
            _ => &[],
        };
        if let Some((flag, _)) = given.iter().find(|(flag, given)| *given && !known.contains(flag)) {
            return Err(foreign(flag, task));
        }
        match episodes {
            Episodes::Classify(spec) => {
                set(&mut spec.n_way, self.n_way);
                set(&mut spec.k_shot, self.k_shot);
                set(&mut spec.queries, self.queries);
                set(&mut spec.meta_batch, self.meta_batch);
                set(&mut spec.cross_lingual, self.cross_lingual);
                set(&mut spec.dropout, self.dropout);
            }
            Episodes::Translate(spec) => {
                set(&mut spec.support, self.k_shot);
                set(&mut spec.query, self.queries);
                set(&mut spec.meta_batch, self.meta_batch);
                set(&mut spec.dropout, self.dropout);
                spec.pivot.clone_from(&self.pivot);
            }
            Episodes::Summarize(spec) | Episodes::Answer(spec) => {
                set(&mut spec.support, self.k_shot);
                set(&mut spec.query, self.queries);
                set(&mut spec.meta_batch, self.meta_batch);
            }
        }
        Ok(())
    }
}

fn set<T>(setting: &mut T, given: Option<T>) {
    if let Some(value) = given {
        *setting = value;
    }
}

fn foreign(flag: &str, task: &str) -> Error {
    Error::config(flag, format!("the task {task} has no such setting"))
}
