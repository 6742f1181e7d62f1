//! How the values pushed with a row become the weights stored in the file.
#![forbid(unsafe_code)]

use std::mem;

use half::f16;

use crate::text::{Featurizer, Idf, TokenCounts};

/// What [`super::Row::values`] are, and what is done to them.
#[derive(Debug)]
pub enum Weighing {
    /// There are none; all weights are 1 and not stored.
    Ones,
    /// They are the weights, rounded to f16.
    Given,
    /// They are counts of tokens; the weights are those [`Featurizer::bag`] gives, with the inverse document frequencies
    /// of this very dataset if its configuration asks for them. So new text is weighed by the same code.
    Text(Featurizer),
}

impl Weighing {
    /// Whether rows come with values, and the file has the tensor `weights`.
    pub(super) fn takes_values(&self) -> bool {
        !matches!(self, Weighing::Ones)
    }

    /// Whether a value can be one of a row.
    pub(super) fn accepts(&self, value: f32) -> bool {
        match self {
            Weighing::Ones => false,
            Weighing::Given => f16::from_f32(value).is_finite(),
            Weighing::Text(_) => value >= 1.0 && value.fract() == 0.0,
        }
    }

    /// Whether the file has the tensor `idf`.
    pub(super) fn uses_idf(&self) -> bool {
        matches!(self, Weighing::Text(featurizer) if featurizer.config().idf)
    }

    /// The inverse document frequencies, after the last row.
    pub(super) fn idf(&self, frequencies: &[u32], rows: u64) -> Option<Idf> {
        self.uses_idf().then(|| Idf::from_document_frequencies(frequencies, rows))
    }

    /// Makes a row's weights of its values, in place.
    pub(super) fn weigh(&self, tokens: &mut Vec<u32>, values: &mut Vec<f32>, idf: Option<&Idf>) {
        if let Weighing::Text(featurizer) = self {
            let counts = values.iter().map(|c| *c as u32).collect();
            let counts = TokenCounts { tokens: mem::take(tokens), counts };
            *values = featurizer.bag(&counts, idf).weights;
        }
    }
}
