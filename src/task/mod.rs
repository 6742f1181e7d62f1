//! Checkpoint -> answers: each task adapts a model to a few examples of a new language, then applies it.
#![forbid(unsafe_code)]

mod candidates;
mod choice;
mod classify;
mod frequencies;
mod metrics;
pub mod qa;
mod ranker;
mod reading;
pub mod summarize;
mod translate;
mod vector;

pub use candidates::{Candidate, Cut, candidates};
pub use choice::{Choice, Corpus, List, RankingTask};
pub use classify::{Classifier, Example};
pub use frequencies::Frequencies;
pub use metrics::{mean_interval, rank_of, rouge_1, rouge_l};
pub use ranker::{Ranker, RankingModel};
pub use reading::{Reading, Word};
pub use translate::{Sentence, Translator};

/// The name of few-shot classification in checkpoints.
pub const CLASSIFY: &str = "classify";
/// The name of translation retrieval.
pub const TRANSLATE: &str = "translate";
/// The name of extractive summarisation.
pub const SUMMARIZE: &str = "summarize";
/// The name of answer-sentence selection.
pub const ANSWER: &str = "answer";

use serde::Deserialize;
use serde_json::Value;

use crate::checkpoint::Checkpoint;
use crate::episode::SetBuffer;
use crate::error::{Error, Result};
use crate::meta::{InnerLoop, Order};
use crate::text::{Bag, Featurizer, Idf, TextConfig};
use crate::train::Algorithm;

/// Fails where a checkpoint is for another task.
fn expect_task(checkpoint: &Checkpoint, task: &str) -> Result<()> {
    if checkpoint.task == task {
        return Ok(());
    }
    Err(Error::config("checkpoint", format!("it is for the task `{}`, not `{task}`", checkpoint.task)))
}

/// How a checkpoint's model reads text.
fn text_pipeline(checkpoint: &Checkpoint) -> Result<(Featurizer, Option<Idf>)> {
    let config: TextConfig = serde_json::from_value(checkpoint.text_config.clone())
        .map_err(|e| Error::config("checkpoint", format!("its text settings: {e}")))?;
    let featurizer = Featurizer::new(config)?;
    let vocabulary = featurizer.config().vocabulary();
    let idf = checkpoint.aux.get("idf").map(|v| Idf::new(v.clone())).transpose()?;
    let fits = checkpoint.params.shape.input == vocabulary;
    if !fits || idf.as_ref().is_some_and(|idf| idf.as_slice().len() != vocabulary) {
        let detail = format!("its text settings make {vocabulary} tokens, its model takes another number");
        return Err(Error::config("checkpoint", detail));
    }
    Ok((featurizer, idf))
}

/// The inner loop a checkpoint was trained with, for adapting without a gradient.
fn inner_loop(checkpoint: &Checkpoint) -> Result<InnerLoop<'static>> {
    let train = &checkpoint.config["train"];
    let algorithm = match &train["algorithm"] {
        Value::Null => Algorithm::default(),
        name => {
            Algorithm::deserialize(name).map_err(|e| Error::config("checkpoint", format!("train.algorithm: {e}")))?
        }
    };
    match (train["inner_steps"].as_u64(), train["inner_lr"].as_f64()) {
        (Some(steps), Some(lr)) => Ok(InnerLoop { order: Order::Evaluate, ..algorithm.inner_loop(steps as usize, lr) }),
        _ => Err(Error::config("checkpoint", "its settings lack train.inner_steps or train.inner_lr")),
    }
}

fn push(set: &mut SetBuffer, bag: &Bag) {
    set.push_bag(bag.tokens.iter().copied().zip(bag.weights.iter().copied()));
}
