//! Checkpoints: everything a model needs to be applied or trained on, in one safetensors file.
//!
//! Specification, version 1. Metadata (strings): `format` = `metaglot-checkpoint`, `version` = `1`, `task`, `shape`
//! (JSON: input, kind, widths), `config` (JSON: the settings it was trained with), `text_config` (JSON; `{}` where
//! inputs are not text), `label_names` (JSON array), `state` (JSON: the run's position; absent in a finished model), and
//! `crc32.<tensor>` (8 hex digits) for each tensor. Tensors, all f32 and one-dimensional: `theta.first`, `theta.bias`,
//! `theta.head` (the weights, laid out as in [`Params`]); `aux.<name>` (vectors the task needs, such as `idf`); with
//! `state` also `m.*`, `v.*` (the optimiser's moments) and `best.*` (the best weights so far).
//!
//! Random numbers need no state: they are named by seed, step and episode. Written whole or not at all, with checksums;
//! read with every size and checksum compared.
#![forbid(unsafe_code)]

mod read;
mod write;

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Result;
use crate::model::Params;
use crate::optim;

/// The value of the metadata key `format`.
pub const FORMAT: &str = "metaglot-checkpoint";
const VERSION: &str = "1";

/// A model with what its task needs, and, inside a run, where that run stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Which task it is for: `classify`, `translate`, `summarize` or `answer`.
    pub task: String,
    /// The weights: the initialisation that adapts.
    pub params: Params<f32>,
    /// Named vectors the task needs beside the weights.
    pub aux: BTreeMap<String, Vec<f32>>,
    /// The settings it was trained with.
    pub config: Value,
    /// How text becomes tokens.
    pub text_config: Value,
    /// The classes' names, in the order of the outputs.
    pub label_names: Vec<String>,
    /// Where the run stands; none in a finished model.
    pub run: Option<RunState>,
}

/// Where a run stands between two steps.
#[derive(Clone, Debug, PartialEq)]
pub struct RunState {
    /// Counters and the best score.
    pub progress: Progress,
    /// The optimiser's step and moments.
    pub optimizer: optim::State<f32>,
    /// The weights with the best validation score so far.
    pub best: Params<f32>,
}

/// A run's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// The best validation score so far; none before the first validation.
    pub best_score: Option<f64>,
    /// The step it was reached at.
    pub best_step: u64,
    /// Training loss summed over the steps since the last report.
    pub loss_sum: f64,
    /// Right predictions since the last report.
    pub hits: u64,
    /// Predictions since the last report.
    pub predictions: u64,
    /// Steps since the last report.
    pub steps_since: u64,
}

impl Checkpoint {
    /// Reads a checkpoint. Fails with the invariant that does not hold; never panics on hostile bytes.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        read::open(path.as_ref())
    }

    /// Reads a checkpoint from memory; errors name `name`.
    pub fn from_bytes(bytes: &[u8], name: impl AsRef<Path>) -> Result<Self> {
        read::from_bytes(bytes, name.as_ref())
    }

    /// Writes it to a temporary file, syncs, renames, syncs the folder.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        write::save(self, path.as_ref())
    }
}
