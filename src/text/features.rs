//! Words and character n-grams, hashed into token ids below `2^hash_bits`.
//!
//! The hash is part of the file formats: a dataset and a checkpoint agree only if both hashed alike. It is therefore
//! written out here (FNV-1a over bytes, then MurmurHash3's finaliser), and `golden_token_ids` pins it.
//!
//! Two domains keep a word apart from an n-gram of the same letters: the first byte hashed is `W` or `N`. In an n-gram
//! the word's boundaries are the bytes FE and FF, which no UTF-8 text contains. A romanised copy is hashed in the same
//! domains as the word itself, which is what makes it meet the Latin spelling.
#![forbid(unsafe_code)]

use any_ascii::any_ascii_char;
use rayon::prelude::*;

use super::fnv::Fnv;
use super::{Romanize, StopWords, TextConfig, clean, words};
use crate::Result;

const WORD_START: u8 = 0xfe;
const WORD_END: u8 = 0xff;

/// How often each token occurs in a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenCounts {
    /// Token ids, strictly increasing, below the vocabulary's size.
    pub tokens: Vec<u32>,
    /// One count a token, at least 1.
    pub counts: Vec<u32>,
}

/// Turns text into token ids, the way one [`TextConfig`] says.
///
/// ```
/// use metaglot::text::{Featurizer, TextConfig};
///
/// let words_only = TextConfig { ngram_min: 0, ngram_max: 0, ..TextConfig::default() };
/// let featurizer = Featurizer::new(words_only)?;
/// let counts = featurizer.counts("Boris sees Борис.", "rus");
/// assert_eq!((counts.tokens.len(), counts.counts.iter().sum::<u32>()), (2, 3)); // boris twice, once romanised; sees
/// # Ok::<(), metaglot::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Featurizer {
    config: TextConfig,
}

impl Featurizer {
    /// Checks the configuration.
    pub fn new(config: TextConfig) -> Result<Self> {
        config.validate()?;
        Ok(Self { config })
    }

    /// The configuration it was made with.
    pub fn config(&self) -> &TextConfig {
        &self.config
    }

    /// The token ids of a text and their counts. `language` (ISO 639) chooses the stop words, where those are asked for;
    /// a language without a list keeps all its words.
    pub fn counts(&self, text: &str, language: &str) -> TokenCounts {
        let stop_words = self.config.stop_words.then(|| StopWords::for_language(language)).flatten();
        let cleaned = clean(text, &self.config);
        let mut hasher =
            Hasher { config: &self.config, ids: Vec::with_capacity(8 * cleaned.len()), marked: Vec::new() };
        let mut romanised = String::new();
        for word in words(&cleaned).filter(|word| !stop_words.is_some_and(|list| list.contains(word))) {
            let differs = self.config.romanize != Romanize::Off && romanise(word, self.config.casefold, &mut romanised);
            if !(differs && self.config.romanize == Romanize::Only) {
                hasher.add(word);
            }
            if differs {
                hasher.add(&romanised);
            }
        }
        counted(hasher.ids)
    }

    /// [`counts`](Self::counts) of many `(text, language)` pairs, on all threads of the current rayon pool. The result
    /// does not depend on how many those are.
    pub fn counts_batch(&self, texts: &[(&str, &str)]) -> Vec<TokenCounts> {
        texts.par_iter().map(|(text, language)| self.counts(text, language)).collect()
    }
}

/// Run lengths of the sorted ids.
fn counted(mut ids: Vec<u32>) -> TokenCounts {
    ids.sort_unstable();
    let (tokens, counts) = ids.chunk_by(|a, b| a == b).map(|run| (run[0], run.len() as u32)).unzip();
    TokenCounts { tokens, counts }
}

/// Writes the word in ASCII letters and digits; false if there are none, or if that is the word itself. Apostrophes go:
/// they stand for soft signs and glottal stops, which Latin spellings of a name leave out.
fn romanise(word: &str, casefold: bool, romanised: &mut String) -> bool {
    if word.is_ascii() {
        return false;
    }
    romanised.clear();
    for c in word.chars() {
        // `any_ascii_char` leaves ASCII to the caller.
        let mut own = [0; 4];
        let ascii = if c.is_ascii() { c.encode_utf8(&mut own) } else { any_ascii_char(c) };
        let letters = ascii.chars().filter(char::is_ascii_alphanumeric);
        romanised.extend(letters.map(|c| if casefold { c.to_ascii_lowercase() } else { c }));
    }
    !romanised.is_empty()
}

/// Collects the ids of one text.
struct Hasher<'a> {
    config: &'a TextConfig,
    ids: Vec<u32>,
    /// The word between its boundary marks: one buffer for all words.
    marked: Vec<u8>,
}

impl Hasher<'_> {
    fn add(&mut self, word: &str) {
        if self.config.words {
            let id = self.id(word.bytes().fold(Fnv::new(b'W'), Fnv::byte));
            self.ids.push(id);
        }
        if self.config.ngram_max > 0 {
            self.marked.clear();
            self.marked.push(WORD_START);
            self.marked.extend_from_slice(word.as_bytes());
            self.marked.push(WORD_END);
            self.add_ngrams();
        }
    }

    /// All n-grams that begin at one character share the hash of their beginning, so each is one character's work. A
    /// boundary mark alone is no n-gram.
    fn add_ngrams(&mut self) {
        let (min, max) = (self.config.ngram_min, self.config.ngram_max);
        for start in (0..self.marked.len()).filter(|&at| starts_char(self.marked[at])) {
            let (mut hash, mut n) = (Fnv::new(b'N'), 0);
            for at in start..self.marked.len() {
                hash = hash.byte(self.marked[at]);
                if self.marked.get(at + 1).is_some_and(|&b| !starts_char(b)) {
                    continue;
                }
                n += 1;
                let lone_mark = n == 1 && self.marked[at] >= WORD_START;
                if n >= min && !lone_mark {
                    let id = self.id(hash);
                    self.ids.push(id);
                }
                if n == max {
                    break;
                }
            }
        }
    }

    fn id(&self, hash: Fnv) -> u32 {
        (hash.finish() >> (64 - self.config.hash_bits)) as u32
    }
}

/// Whether a byte starts a character, UTF-8's or a boundary mark.
fn starts_char(byte: u8) -> bool {
    byte & 0xc0 != 0x80
}
