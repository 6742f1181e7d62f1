//! One training run: its settings, its folder (config.toml, metrics.jsonl, curves.svg, checkpoint, model), its progress.
#![forbid(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use super::curves;
use super::device::{DeviceArg, GpuEngine};
use super::progress::StepProgress;
use crate::checkpoint::Checkpoint;
use crate::cpu::Cpu;
use crate::dataset::Dataset;
use crate::episode::{
    EpisodeSource, LabelledSource, LabelledSpec, ListSource, ListSpec, PairSource, PairSpec, Part, Split, SplitConfig,
};
use crate::error::{Error, Result};
use crate::model::{InputKind, MlpShape};
use crate::train::{About, Algorithm, Control, Ending, Event, Report, TrainConfig, Trainer};
use crate::{AtomicFile, task};

/// Set by Ctrl-C: the step in progress is finished, then the run is saved and ends.
pub(super) static STOP: AtomicBool = AtomicBool::new(false);

/// Everything that decides a run's result. Stored in its folder as config.toml and in its checkpoints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RunConfig {
    /// The dataset file.
    pub data: PathBuf,
    /// Outputs of the hidden layers; none: a linear model.
    pub hidden: Vec<usize>,
    /// Dimensions of the shared space (translation only).
    pub dimensions: usize,
    /// What is held out.
    pub split: SplitConfig,
    /// The task, and what its episodes look like.
    pub episodes: Episodes,
    /// The outer loop.
    pub train: TrainConfig,
}

/// A task's episodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "task")]
pub(super) enum Episodes {
    Classify(LabelledSpec),
    Translate(PairSpec),
    Summarize(ListSpec),
    Answer(ListSpec),
}

impl Episodes {
    /// The task's name.
    pub fn task(&self) -> &'static str {
        match self {
            Episodes::Classify(_) => task::CLASSIFY,
            Episodes::Translate(_) => task::TRANSLATE,
            Episodes::Summarize(_) => task::SUMMARIZE,
            Episodes::Answer(_) => task::ANSWER,
        }
    }
}

/// A source of episodes with what a checkpoint must know of it.
struct Source<'a> {
    episodes: Box<dyn EpisodeSource + 'a>,
    shape: MlpShape,
    about: About,
    validates: bool,
}

impl RunConfig {
    fn source<'a>(&self, data: &'a Dataset) -> Result<Source<'a>> {
        let split = Split::new(data, &self.split, self.train.seed)?;
        let mut about = About {
            task: self.episodes.task().to_string(),
            aux: data.idf().map(|idf| ("idf".to_string(), idf.to_vec())).into_iter().collect(),
            config: serde_json::to_value(self).expect("settings are numbers, names and paths"),
            text_config: serde_json::from_str(data.text_config_json())
                .map_err(|e| Error::format(&self.data, format!("its text settings: {e}")))?,
            label_names: Vec::new(),
        };
        let bag = |outputs: usize| self.shape(InputKind::Bag, data.vocabulary() as usize, outputs);
        Ok(match &self.episodes {
            Episodes::Classify(spec) => {
                let source = LabelledSource::new(data, &split, spec.clone())?;
                about.label_names = data.label_names().to_vec();
                let validates = source.languages(Part::Valid) > 0;
                Source { shape: bag(data.label_names().len()), validates, episodes: Box::new(source), about }
            }
            Episodes::Translate(spec) => {
                let source = PairSource::new(data, &split, spec.clone())?;
                let validates = source.languages(Part::Valid) > 0;
                Source { shape: bag(self.dimensions), validates, episodes: Box::new(source), about }
            }
            Episodes::Summarize(spec) | Episodes::Answer(spec) => {
                let source = ListSource::new(data, &split, spec.clone())?;
                let (mean, scale) = source.standardisation();
                about.aux.insert("signal_mean".to_string(), mean.to_vec());
                about.aux.insert("signal_scale".to_string(), scale.to_vec());
                let shape = self.shape(InputKind::Dense, mean.len(), 1);
                let validates = source.languages(Part::Valid) > 0;
                Source { shape, validates, episodes: Box::new(source), about }
            }
        })
    }

    /// A run at its start.
    fn trainer<'a>(&self, cpu: &Cpu, device: DeviceArg, source: &'a Source) -> Result<Trainer<'a>> {
        let (shape, episodes, validates) = (&source.shape, &*source.episodes, source.validates);
        let DeviceArg::Cuda(number) = device else {
            return Trainer::new(cpu, shape, self.train.clone(), episodes, validates);
        };
        let prototypes = matches!(self.train.algorithm, Algorithm::ProtoNet | Algorithm::ProtoMaml);
        if prototypes || !matches!(self.episodes, Episodes::Classify(_)) {
            let found = format!("{} with {:?}", self.episodes.task(), self.train.algorithm);
            return Err(Error::config("--device", format!("{found} runs on the CPU alone")));
        }
        let engine = |limits| Ok(GpuEngine::new(number, cpu, shape, limits)?.engine);
        Trainer::with_engine(cpu, shape, self.train.clone(), episodes, validates, engine)
    }

    fn shape(&self, kind: InputKind, input: usize, outputs: usize) -> MlpShape {
        MlpShape { input, kind, widths: self.hidden.iter().copied().chain([outputs]).collect() }
    }
}

/// The files of a run.
pub(super) struct RunFolder(PathBuf);

impl RunFolder {
    pub fn new(path: &Path) -> Self {
        RunFolder(path.to_path_buf())
    }

    /// The finished model.
    pub fn model(&self) -> PathBuf {
        self.0.join("model.safetensors")
    }

    fn checkpoint(&self) -> PathBuf {
        self.0.join("checkpoint.safetensors")
    }

    fn config(&self) -> PathBuf {
        self.0.join("config.toml")
    }

    fn metrics(&self) -> PathBuf {
        self.0.join("metrics.jsonl")
    }

    /// Fails if there is a run in the folder.
    pub fn refuse_run(&self) -> Result<()> {
        if !self.config().exists() {
            return Ok(());
        }
        Err(Error::config("--run", format!("{} holds a run already; --resume continues it", self.0.display())))
    }

    /// Makes the folder for a new run.
    fn create(&self, config: &RunConfig) -> Result<()> {
        fs::create_dir_all(&self.0).map_err(|e| Error::io("create", &self.0, e))?;
        let text = toml::to_string(config).map_err(|e| Error::config("config.toml", e.to_string()))?;
        write_whole(&self.config(), text.as_bytes())
    }

    /// The settings of the run in the folder.
    pub fn read_config(&self) -> Result<RunConfig> {
        let path = self.config();
        let text = fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e))?;
        toml::from_str(&text).map_err(|e| Error::format(&path, e.message().to_string()))
    }

    /// Cuts reports after `step` off, as they will be made again.
    fn truncate_metrics(&self, step: u64) -> Result<Vec<Report>> {
        let path = self.metrics();
        let Ok(file) = File::open(&path) else { return Ok(Vec::new()) };
        let mut kept = Vec::new();
        for line in BufReader::new(file).lines() {
            let line = line.map_err(|e| Error::io("read", &path, e))?;
            // A line that a crash cut short is the last one and is made again.
            let Ok(report) = serde_json::from_str::<Report>(&line) else { break };
            if report.step <= step {
                kept.push(report);
            }
        }
        let text: String = kept.iter().map(json_line).collect();
        write_whole(&path, text.as_bytes())?;
        Ok(kept)
    }

    fn append_metrics(&self, report: &Report) -> Result<()> {
        let path = self.metrics();
        let file = OpenOptions::new().create(true).append(true).open(&path);
        file.and_then(|mut f| f.write_all(json_line(report).as_bytes())).map_err(|e| Error::io("write", &path, e))
    }
}

fn json_line(report: &Report) -> String {
    serde_json::to_string(report).expect("numbers are always valid JSON") + "\n"
}

fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = AtomicFile::create(path)?;
    file.write_all(bytes).map_err(|e| Error::io("write", path, e))?;
    file.commit()
}

/// Trains; writes metrics, curves, a checkpoint at each report and the model at the end. Returns how the run ended, and
/// after which step.
pub(super) fn train(
    cpu: &Cpu,
    device: DeviceArg,
    config: &RunConfig,
    data: &Dataset,
    folder: &RunFolder,
    resume: bool,
) -> Result<(Ending, u64)> {
    let source = config.source(data)?;
    let mut trainer = config.trainer(cpu, device, &source)?;
    let mut reports = Vec::new();
    if !resume {
        // Only now: settings and data that do not fit leave no folder.
        folder.create(config)?;
    } else {
        let checkpoint = Checkpoint::open(folder.checkpoint())?;
        trainer.resume(&checkpoint)?;
        reports = folder.truncate_metrics(trainer.step())?;
    }
    let mut bar = StepProgress::new(config.episodes.task(), trainer.step(), config.train.schedule.steps);
    let ending = trainer.run(|trainer, event| {
        match event {
            Event::Step(step) => bar.step(step),
            Event::Report(report) => {
                bar.report(report);
                reports.push(*report);
                folder.append_metrics(report)?;
                trainer.checkpoint(&source.about)?.save(folder.checkpoint())?;
            }
        }
        Ok(if STOP.load(Ordering::Relaxed) { Control::Stop } else { Control::Continue })
    })?;
    bar.finish();
    let curves = curves::svg(&format!("{}: {}", config.episodes.task(), source.episodes.describe()), &reports)?;
    trainer.checkpoint(&source.about)?.save(folder.checkpoint())?;
    write_whole(&folder.0.join("curves.svg"), curves.as_bytes())?;
    if ending != Ending::Stopped {
        trainer.model(&source.about).save(folder.model())?;
    }
    Ok((ending, trainer.step()))
}
