//! Tokens -> episodes: small support and query sets drawn from a dataset, the same for the same (seed, step, episode).
//!
//! A source knows a dataset and how to draw from it; it fills an [`EpisodeBatch`], whose view is what the
//! meta-gradient takes. There is a source for each kind of data: [`LabelledSource`] (N-way K-shot classification),
//! [`PairSource`] (translations of each other) and [`ListSource`] (one right candidate in a list).
#![forbid(unsafe_code)]

mod batch;
mod labelled;
mod lists;
mod pairs;
mod split;

pub use batch::{EpisodeBatch, SetBuffer, TargetKind};
pub use labelled::{LabelledSource, LabelledSpec};
pub use lists::{ListSource, ListSpec};
pub use pairs::{PairSource, PairSpec};
pub use split::{Part, Split, SplitConfig};

use crate::error::Result;
use crate::model::MlpShape;

/// Something episodes can be drawn from.
pub trait EpisodeSource: Sync {
    /// Replaces `batch` by the meta-batch number `step` of that part of the data.
    fn draw(&self, part: Part, seed: u64, step: u64, batch: &mut EpisodeBatch) -> Result<()>;

    /// The largest meta-batch it draws.
    fn limits(&self) -> crate::meta::Limits;

    /// Fails where a model of that shape cannot take its episodes.
    fn check_shape(&self, shape: &MlpShape) -> Result<()>;

    /// What a batch holds, in one line for reports.
    fn describe(&self) -> String;
}
