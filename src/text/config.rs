//! Which steps text goes through: the settings stored beside every dataset and checkpoint.
#![forbid(unsafe_code)]

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

const HASH_BITS: RangeInclusive<u32> = 8..=24;
// Longer n-grams are whole words nearly everywhere, and those have a feature of their own.
const LONGEST_NGRAM: u32 = 8;

/// Which steps text goes through on its way to weighted token ids; each can be switched off.
///
/// A field that is unknown when read is an error, not ignored: a step this release lacks would change every token.
/// One that is absent takes its default.
///
/// ```
/// use metaglot::text::TextConfig;
///
/// let config: TextConfig = serde_json::from_str(r#"{"stop_words": true, "hash_bits": 18}"#).unwrap();
/// config.validate()?;
/// assert_eq!(config.vocabulary(), 1 << 18);
/// assert!(config.romanize && serde_json::from_str::<TextConfig>(r#"{"stopwords": true}"#).is_err());
/// # Ok::<(), metaglot::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TextConfig {
    /// Unicode NFKC: full-width and ligature forms, composed and decomposed letters become one.
    pub normalize: bool,
    /// Full Unicode case folding.
    pub casefold: bool,
    /// Remove HTML and XML tags, comments, script and style bodies; decode entities.
    pub strip_markup: bool,
    /// Remove URLs and e-mail addresses.
    pub strip_urls: bool,
    /// Remove control and invisible format characters, but not the joiners that a script's spelling needs.
    pub strip_control: bool,
    /// Drop the language's stop words. Off by default: some lists hold ordinary content words, and a language without a
    /// list would be treated unlike the others.
    pub stop_words: bool,
    /// Add the features of each word's romanised copy where it differs from the word, into the same hash domain, so that
    /// names and loanwords meet across scripts ("Борис", "Boris") and with diacritics left out ("café", "cafe").
    pub romanize: bool,
    /// Hash whole words.
    pub words: bool,
    /// Shortest character n-gram hashed, from 1; with `ngram_max` 0 as well: no n-grams.
    pub ngram_min: u32,
    /// Longest character n-gram hashed, up to 8. A word boundary counts as a character: "at" is `^at$`.
    pub ngram_max: u32,
    /// Token ids lie below `2^hash_bits`; 8 to 24.
    pub hash_bits: u32,
    /// Weigh a token that occurs `n` times by `1 + ln n`, not by `n`.
    pub sublinear_tf: bool,
    /// Weigh tokens by inverse document frequency, where one is given.
    pub idf: bool,
    /// Scale every bag to unit Euclidean norm, so that a text's length does not matter.
    pub l2: bool,
}

impl Default for TextConfig {
    fn default() -> Self {
        Self {
            normalize: true,
            casefold: true,
            strip_markup: true,
            strip_urls: true,
            strip_control: true,
            stop_words: false,
            romanize: true,
            words: true,
            ngram_min: 1,
            ngram_max: 4,
            hash_bits: 16,
            sublinear_tf: true,
            idf: true,
            l2: true,
        }
    }
}

impl TextConfig {
    /// Refuses settings outside their range, and settings that would leave no feature at all.
    pub fn validate(&self) -> Result<()> {
        if !HASH_BITS.contains(&self.hash_bits) {
            return Err(Error::config("hash_bits", format!("{} is not within 8 to 24", self.hash_bits)));
        }
        let (min, max) = (self.ngram_min, self.ngram_max);
        if (min, max) == (0, 0) {
            return if self.words {
                Ok(())
            } else {
                Err(Error::config("words", "false, with ngram_max 0, leaves no features; switch one of them on"))
            };
        }
        if min == 0 || min > max {
            return Err(Error::config(
                "ngram_min",
                format!("{min} is not within 1 to ngram_max, {max}; 0 and 0 is off"),
            ));
        }
        if max > LONGEST_NGRAM {
            return Err(Error::config("ngram_max", format!("{max} is above {LONGEST_NGRAM}")));
        }
        Ok(())
    }

    /// How many token ids there are: `2^hash_bits`.
    pub fn vocabulary(&self) -> usize {
        1 << self.hash_bits
    }
}
