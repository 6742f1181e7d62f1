//! Checkpoints: everything a model needs to be applied or trained on, in one safetensors file.
//!
//! Specification, version 1. Metadata (strings): `format` = `metaglot-checkpoint`, `version` = `1`, `task`, `shape`
//! (JSON: input, kind, widths), `config` (JSON: the settings it was trained with), `text_config` (JSON; `{}` where
//! inputs are not text), `label_names` (JSON array), `state` (JSON: the run's position; absent in a finished model),
//! `crc32.<tensor>` (8 hex digits) for each tensor, and `crc32`, the checksum of all other keys: of each in byte order
//! the key, a zero byte, the value, a zero byte. Tensors, all f32, finite and one-dimensional: `theta.first`,
//! `theta.bias`, `theta.head` (the weights, laid out as in [`Params`]); `aux.<name>` (vectors the task needs, such as
//! `idf`); with `state` also `m.*`, `v.*` (the optimiser's moments) and `best.*` (the best weights so far); no others.
//!
//! Random numbers need no state: they are named by seed, step and episode. Written whole or not at all, with checksums;
//! read with every size and checksum compared. What could not be read is not written.
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
use crate::tensor_file::crc_text;

/// The value of the metadata key `format`.
pub const FORMAT: &str = "metaglot-checkpoint";
const VERSION: &str = "1";
/// The metadata key of the checksum of the others.
const METADATA_CRC: &str = "crc32";

/// A value, or what is wrong; the caller adds the file's name.
type Check<T = ()> = std::result::Result<T, String>;

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

impl Progress {
    /// Fails for counters that no run can have.
    fn check(&self) -> Check {
        let finite = self.loss_sum.is_finite() && self.best_score.is_none_or(f64::is_finite);
        let ordered = self.best_step <= self.step && self.steps_since <= self.step && self.hits <= self.predictions;
        // Far above any real count, far below where adding to it could overflow.
        let counted = self.predictions <= 1 << 53;
        if finite && ordered && counted { Ok(()) } else { Err(format!("metadata `state` is impossible: {self:?}")) }
    }
}

/// Fails where a tensor has another length than its shape asks for, or a value that is not finite.
fn check_values(name: &str, values: &[f32], wanted: Option<usize>) -> Check {
    if let Some(wanted) = wanted.filter(|&n| n != values.len()) {
        return Err(format!("`{name}` has {} values, but the shape asks for {wanted}", values.len()));
    }
    match values.iter().position(|v| !v.is_finite()) {
        Some(i) => Err(format!("`{name}` value {i} is not finite")),
        None => Ok(()),
    }
}

/// The checksum of the metadata, checksums themselves left out.
fn metadata_crc<'a>(sorted: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    let mut hasher = crc32fast::Hasher::new();
    for (key, value) in sorted.filter(|(key, _)| !key.starts_with(METADATA_CRC)) {
        [key, "\0", value, "\0"].into_iter().for_each(|piece| hasher.update(piece.as_bytes()));
    }
    crc_text(hasher.finalize())
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

    /// Writes it to a temporary file, syncs, renames, syncs the folder. Fails for what [`Checkpoint::open`] would refuse.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        write::save(self, path.as_ref())
    }
}
