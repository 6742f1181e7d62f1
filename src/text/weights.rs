//! From counts to weights: term frequency, inverse document frequency, Euclidean norm.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

use super::{Featurizer, TokenCounts};
use crate::{Error, Result};

/// The inverse document frequency of every token id: `ln((1 + n) / (1 + df)) + 1`, as in scikit-learn's
/// `TfidfTransformer` with its defaults. Never below 1, so no token ever vanishes. Stored as a plain list of numbers.
///
/// ```
/// use metaglot::text::Idf;
///
/// let idf = Idf::from_document_frequencies(&[0, 1, 3], 3);
/// assert_eq!(idf.as_slice(), [2.3862944, 1.6931472, 1.0]);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<f32>", into = "Vec<f32>")]
pub struct Idf(Vec<f32>);

impl Idf {
    /// From the number of documents, and for each token id the number of documents that hold it. A frequency above
    /// `documents` counts as `documents`.
    pub fn from_document_frequencies(frequencies: &[u32], documents: u64) -> Self {
        let weight = |&df: &u32| {
            let df = u64::from(df).min(documents);
            (((1.0 + documents as f64) / (1.0 + df as f64)).ln() + 1.0) as f32
        };
        Self(frequencies.iter().map(weight).collect())
    }

    /// From stored weights, which must be finite and positive.
    pub fn new(weights: Vec<f32>) -> Result<Self> {
        match weights.iter().position(|weight| !(weight.is_finite() && *weight > 0.0)) {
            Some(at) => {
                Err(Error::config("idf", format!("token {at} has weight {}, not a positive number", weights[at])))
            }
            None => Ok(Self(weights)),
        }
    }

    /// The weights, by token id.
    pub fn as_slice(&self) -> &[f32] {
        &self.0
    }
}

impl TryFrom<Vec<f32>> for Idf {
    type Error = Error;

    fn try_from(weights: Vec<f32>) -> Result<Self> {
        Self::new(weights)
    }
}

impl From<Idf> for Vec<f32> {
    fn from(idf: Idf) -> Self {
        idf.0
    }
}

/// A text as the engine takes it: strictly increasing token ids, each with its weight. Empty text: an empty bag.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bag {
    /// Token ids, strictly increasing.
    pub tokens: Vec<u32>,
    /// One finite, positive weight a token.
    pub weights: Vec<f32>,
}

impl Featurizer {
    /// Weighs counts as the configuration says. Without `idf` (it is not known yet, say), or with it switched off, every
    /// token counts alike.
    ///
    /// # Panics
    /// If `idf` has no weight for one of the tokens: it then belongs to another vocabulary, and the reader that lent it
    /// must compare `idf.as_slice().len()` with [`TextConfig::vocabulary`](super::TextConfig::vocabulary).
    ///
    /// ```
    /// use metaglot::text::{Featurizer, TextConfig, TokenCounts};
    ///
    /// let featurizer = Featurizer::new(TextConfig { l2: false, ..TextConfig::default() })?;
    /// let bag = featurizer.bag(&TokenCounts { tokens: vec![3, 7], counts: vec![1, 2] }, None);
    /// assert_eq!(bag.weights, [1.0, 1.6931472]);
    /// # Ok::<(), metaglot::Error>(())
    /// ```
    pub fn bag(&self, counts: &TokenCounts, idf: Option<&Idf>) -> Bag {
        let config = self.config();
        let idf = idf.filter(|_| config.idf);
        let weight = |(&token, &count): (&u32, &u32)| {
            let count = f64::from(count);
            let tf = if config.sublinear_tf { 1.0 + count.ln() } else { count };
            tf * idf.map_or(1.0, |idf| f64::from(idf.0[token as usize]))
        };
        let weights: Vec<f64> = counts.tokens.iter().zip(&counts.counts).map(weight).collect();
        let norm = if config.l2 { weights.iter().map(|w| w * w).sum::<f64>().sqrt() } else { 1.0 };
        Bag { tokens: counts.tokens.clone(), weights: weights.iter().map(|w| (w / norm) as f32).collect() }
    }
}
