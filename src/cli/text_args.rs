//! The flags that set a [`TextConfig`]: one for each of its switches.
#![forbid(unsafe_code)]

use clap::{Args, ValueEnum};

use crate::Result;
use crate::text::{Romanize, TextConfig};

/// How text becomes tokens. The settings are stored in the dataset.
#[derive(Args, Debug)]
#[command(next_help_heading = "Text to tokens")]
pub(super) struct TextArgs {
    /// Keep full-width, ligature and decomposed forms as they are (no Unicode NFKC)
    #[arg(long)]
    no_normalize: bool,
    /// Keep upper and lower case apart
    #[arg(long)]
    no_casefold: bool,
    /// Keep HTML and XML tags
    #[arg(long)]
    no_strip_markup: bool,
    /// Keep URLs and e-mail addresses
    #[arg(long)]
    no_strip_urls: bool,
    /// Keep control and invisible characters
    #[arg(long)]
    no_strip_control: bool,
    /// Drop stop words, of the languages that have a list
    #[arg(long)]
    stop_words: bool,
    /// Read words in ASCII letters: not, as well, or only so
    #[arg(long, value_enum, default_value = "only", value_name = "HOW")]
    romanize: RomanizeArg,
    /// Do not hash whole words
    #[arg(long)]
    no_words: bool,
    /// Lengths of the character n-grams to hash, or `none`
    #[arg(long, value_name = "MIN-MAX", default_value = "2-5", value_parser = ngrams)]
    ngrams: (u32, u32),
    /// The vocabulary has 2^BITS tokens
    #[arg(long, value_name = "BITS", default_value_t = TextConfig::default().hash_bits)]
    hash_bits: u32,
    /// Weigh a token by its count, not by 1 + ln(count)
    #[arg(long)]
    no_sublinear_tf: bool,
    /// Weigh frequent and rare tokens alike
    #[arg(long)]
    no_idf: bool,
    /// Do not scale each text's weights to unit length
    #[arg(long)]
    no_l2: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RomanizeArg {
    Off,
    Also,
    Only,
}

impl From<RomanizeArg> for Romanize {
    fn from(how: RomanizeArg) -> Self {
        match how {
            RomanizeArg::Off => Romanize::Off,
            RomanizeArg::Also => Romanize::Also,
            RomanizeArg::Only => Romanize::Only,
        }
    }
}

impl TextArgs {
    /// The settings, checked.
    pub(super) fn config(&self) -> Result<TextConfig> {
        let config = TextConfig {
            normalize: !self.no_normalize,
            casefold: !self.no_casefold,
            strip_markup: !self.no_strip_markup,
            strip_urls: !self.no_strip_urls,
            strip_control: !self.no_strip_control,
            stop_words: self.stop_words,
            romanize: self.romanize.into(),
            words: !self.no_words,
            ngram_min: self.ngrams.0,
            ngram_max: self.ngrams.1,
            hash_bits: self.hash_bits,
            sublinear_tf: !self.no_sublinear_tf,
            idf: !self.no_idf,
            l2: !self.no_l2,
        };
        config.validate()?;
        Ok(config)
    }
}

fn ngrams(text: &str) -> std::result::Result<(u32, u32), String> {
    if text == "none" {
        return Ok((0, 0));
    }
    let range = text.split_once('-').and_then(|(min, max)| Some((min.parse().ok()?, max.parse().ok()?)));
    range.ok_or_else(|| "wanted MIN-MAX, for example 2-5, or none".into())
}
