//! Text of any language -> token ids: clean, cut into words, drop stop words, hash words and character n-grams.
//!
//! ```text
//! raw text -- clean --> cleaned -- segment --> words -- stopwords --> words -- features --> TokenCounts -- idf --> Bag
//! ```
//!
//! There is no trained vocabulary on purpose: few-shot learning meets languages of which there is no corpus to train one
//! on. Hashed features need none, give every language the same ids, and let a name meet itself across scripts (see
//! [`TextConfig::romanize`]).
//!
//! [`TextConfig`] says which steps run. It is stored in every dataset and checkpoint, so that text that arrives years
//! later goes through the very same steps.
//!
//! ```
//! use metaglot::text::{Featurizer, TextConfig};
//!
//! let featurizer = Featurizer::new(TextConfig::default())?;
//! let counts = featurizer.counts("<b>Борис</b> живёт в Москве: https://example.org", "rus");
//! let bag = featurizer.bag(&counts, None);
//! assert_eq!(bag.tokens.len(), bag.weights.len());
//! # Ok::<(), metaglot::Error>(())
//! ```
#![forbid(unsafe_code)]

mod clean;
mod config;
mod entities;
mod features;
pub(crate) mod fnv;
mod fold;
mod segment;
mod stopwords;
mod urls;
mod weights;

pub use clean::clean;
pub use config::{Romanize, TextConfig};
pub use features::{Featurizer, TokenCounts};
pub use segment::{sentences, words};
pub use stopwords::StopWords;
pub use weights::{Bag, Idf};
