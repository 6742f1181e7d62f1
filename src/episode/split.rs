//! What may be trained on: languages and texts are both divided, so that no translation of an evaluated text is seen.
//!
//! A text belongs to the evaluated part by its `text_id` alone, in every language: parallel data would leak otherwise
//! (a model that has seen a sentence in Spanish is not tested by its Portuguese translation).
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::rng::{Purpose, Rng};

/// The part of a dataset an episode is drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Trained on.
    Train,
    /// Measured on between steps, to choose when to stop.
    Valid,
}

/// How a dataset is divided.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SplitConfig {
    /// Languages that are neither trained nor validated on.
    pub exclude_languages: Vec<String>,
    /// Languages to validate on; never trained on.
    pub valid_languages: Vec<String>,
    /// Share of the texts, by their id and so in all languages, that validation uses and training does not.
    pub valid_texts: f64,
}

/// A dataset's rows, divided.
#[derive(Clone, Debug)]
pub struct Split {
    /// Rows of training languages whose text is not set aside.
    pub train: Vec<u32>,
    /// Rows of validation languages whose text is set aside (all their rows if no texts are).
    pub valid: Vec<u32>,
    /// Rows of training languages whose text is set aside: neither trained on nor, by themselves, validated on.
    pub aside: Vec<u32>,
}

impl Split {
    /// Divides the rows of `data`; which texts are set aside follows from `seed` and their ids.
    ///
    /// Fails for a language the dataset does not have, or a share outside [0, 1).
    pub fn new(data: &Dataset, config: &SplitConfig, seed: u64) -> Result<Self> {
        if !(0.0..1.0).contains(&config.valid_texts) {
            return Err(Error::config("valid_texts", format!("{} does not lie in [0, 1)", config.valid_texts)));
        }
        let names = data.language_names();
        let number = |name: &String| {
            let found = names.iter().position(|n| n == name);
            let unknown = || format!("`{name}` is not in the dataset; it has {}", names.join(" "));
            found.map(|n| n as u16).ok_or_else(|| Error::config("language", unknown()))
        };
        let exclude = config.exclude_languages.iter().map(number).collect::<Result<Vec<_>>>()?;
        let valid = config.valid_languages.iter().map(number).collect::<Result<Vec<_>>>()?;
        let aside = |i: usize| set_aside(seed, data.text_ids()[i], config.valid_texts);
        let mut split = Split { train: Vec::new(), valid: Vec::new(), aside: Vec::new() };
        for (i, language) in data.languages().iter().enumerate() {
            if exclude.contains(language) {
                continue;
            }
            let apart = aside(i);
            if valid.contains(language) {
                if apart || config.valid_texts == 0.0 {
                    split.valid.push(i as u32);
                }
            } else if apart {
                split.aside.push(i as u32);
            } else {
                split.train.push(i as u32);
            }
        }
        Ok(split)
    }

    /// The rows of a part.
    pub fn rows(&self, part: Part) -> &[u32] {
        match part {
            Part::Train => &self.train,
            Part::Valid => &self.valid,
        }
    }
}

/// Whether a text is set aside, the same in every language and every dataset.
fn set_aside(seed: u64, text_id: u32, share: f64) -> bool {
    share > 0.0 && Rng::new(seed, u64::from(text_id), 0, Purpose::Split).unit() < share
}
