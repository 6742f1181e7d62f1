//! The applied tasks: what each makes of texts, the model at work, and the scores it is judged by.
#![forbid(unsafe_code)]

mod candidates;
mod example;
mod frequencies;
mod metrics;
pub mod qa;
mod ranker;
mod reading;
pub mod summarize;
mod vector;

pub use candidates::{Candidate, Cut, candidates};
pub use example::{Corpus, Example, List, RankingTask};
pub use frequencies::Frequencies;
pub use metrics::{mean_interval, rank_of, rouge_1, rouge_l};
pub use ranker::Ranker;
pub use reading::{Reading, Word};
