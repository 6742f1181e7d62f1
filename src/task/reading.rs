//! A text as the ranking tasks compare it: its words and character n-grams, hashed, with no vocabulary.
//!
//! Words are those of UAX 29, cleaned first; their n-grams are 3 to 5 characters of `^word$`. A run of a script without
//! spaces has no such words: it counts as its character bigrams, and its n-grams are 1 to 3 characters without marks.
#![forbid(unsafe_code)]

use std::ops::Range;

use crate::text::fnv::Fnv;
use crate::text::{TextConfig, clean, words};

const MARKED_NGRAMS: Range<usize> = 3..6;
const SPACELESS_NGRAMS: Range<usize> = 1..4;
const TRIGRAM: usize = 3;

/// A text's words and n-grams.
///
/// ```
/// use metaglot::task::Reading;
/// use metaglot::text::TextConfig;
///
/// let reading = Reading::new("The cat, THE cat", &TextConfig::default());
/// assert_eq!((reading.order().len(), reading.words().len()), (4, 2));
/// // ^the$ has 3 trigrams, 2 4-grams, 1 5-gram; so has ^cat$; each occurs twice.
/// assert!(reading.grams().len() == 12 && reading.grams().iter().all(|gram| gram.1 == 2));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    order: Vec<u64>,
    words: Vec<Word>,
    grams: Vec<(u64, u32)>,
    chars: usize,
}

/// One distinct word of a text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Word {
    /// Its hash.
    pub hash: u64,
    /// Whether it has a digit.
    pub digit: bool,
    /// The hashes of the character trigrams of `^word$`, rising.
    pub trigrams: Vec<u64>,
}

impl Reading {
    /// Cleans a text as `config` says and reads it.
    pub fn new(text: &str, config: &TextConfig) -> Self {
        let cleaned = clean(text, config);
        let mut reading = Reading { chars: cleaned.chars().count(), ..Reading::default() };
        let mut grams = Vec::new();
        for piece in pieces(&cleaned) {
            match piece {
                Piece::Word(word) => {
                    let marked = marked(word.chars());
                    MARKED_NGRAMS.for_each(|n| grams.extend(marked.windows(n).map(|gram| hash(b'n', gram))));
                    reading.add_word(&marked);
                }
                Piece::Run(run) => {
                    let chars: Vec<char> = run.chars().collect();
                    SPACELESS_NGRAMS.for_each(|n| grams.extend(chars.windows(n).map(|gram| hash(b'n', gram))));
                    let bigrams = chars.windows(chars.len().min(2));
                    bigrams.for_each(|bigram| reading.add_word(&marked(bigram.iter().copied())));
                }
            }
        }
        reading.words.sort_unstable();
        reading.words.dedup();
        grams.sort_unstable();
        reading.grams = grams.chunk_by(|a, b| a == b).map(|run| (run[0], run.len() as u32)).collect();
        reading
    }

    fn add_word(&mut self, marked: &[char]) {
        let mut trigrams: Vec<u64> = marked.windows(TRIGRAM).map(|gram| hash(b't', gram)).collect();
        trigrams.sort_unstable();
        trigrams.dedup();
        let hash = hash(b'w', marked);
        self.order.push(hash);
        self.words.push(Word { hash, digit: marked.iter().any(|c| c.is_numeric()), trigrams });
    }

    /// The hashes of all words, in the order of the text.
    pub fn order(&self) -> &[u64] {
        &self.order
    }

    /// The distinct words, by rising hash.
    pub fn words(&self) -> &[Word] {
        &self.words
    }

    /// The distinct n-grams by rising hash, and how often each occurs.
    pub fn grams(&self) -> &[(u64, u32)] {
        &self.grams
    }

    /// The number of characters after cleaning.
    pub fn chars(&self) -> usize {
        self.chars
    }

    /// Whether the text has this word.
    pub fn has_word(&self, hash: u64) -> bool {
        self.words.binary_search_by_key(&hash, |word| word.hash).is_ok()
    }

    /// Whether the text has this n-gram.
    pub fn has_gram(&self, hash: u64) -> bool {
        self.grams.binary_search_by_key(&hash, |gram| gram.0).is_ok()
    }
}

/// What a text is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// A word of a script with spaces.
    Word(&'a str),
    /// Adjacent words of a script without spaces: where they end is a dictionary's guess.
    Run(&'a str),
}

/// Words, and runs of words without spaces, in order.
pub(super) fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut run: Range<usize> = 0..0;
    for word in words(text) {
        let start = word.as_ptr() as usize - text.as_ptr() as usize;
        let spaceless = word.chars().next().is_some_and(is_spaceless);
        if spaceless && run.end == start && !run.is_empty() {
            run.end += word.len();
            continue;
        }
        if !run.is_empty() {
            pieces.push(Piece::Run(&text[run]));
        }
        run = start..start;
        if spaceless {
            run.end += word.len();
        } else {
            pieces.push(Piece::Word(word));
        }
    }
    if !run.is_empty() {
        pieces.push(Piece::Run(&text[run]));
    }
    pieces
}

/// Whether a character belongs to a script that is written without spaces between words.
pub(super) fn is_spaceless(c: char) -> bool {
    matches!(c,
        '\u{e00}'..='\u{fff}' // Thai, Lao, Tibetan
        | '\u{1000}'..='\u{109f}' // Myanmar
        | '\u{1780}'..='\u{17ff}' // Khmer
        | '\u{3005}'..='\u{3007}'
        | '\u{3040}'..='\u{30ff}' // Hiragana, Katakana
        | '\u{31f0}'..='\u{31ff}'
        | '\u{3400}'..='\u{4dbf}' // Han
        | '\u{4e00}'..='\u{9fff}'
        | '\u{f900}'..='\u{faff}'
        | '\u{ff66}'..='\u{ff9f}' // half-width Katakana
        | '\u{20000}'..='\u{3ffff}')
}

/// How many elements two rising lists share; an element that both have twice counts twice.
pub(super) fn shared(a: &[u64], b: &[u64]) -> usize {
    let (mut i, mut j, mut count) = (0, 0, 0);
    while i < a.len() && j < b.len() {
        match a[i].cmp(&b[j]) {
            std::cmp::Ordering::Less => i += 1,
            std::cmp::Ordering::Greater => j += 1,
            std::cmp::Ordering::Equal => (i, j, count) = (i + 1, j + 1, count + 1),
        }
    }
    count
}

/// `^word$`: no word contains these two.
fn marked(word: impl Iterator<Item = char>) -> Vec<char> {
    ['^'].into_iter().chain(word).chain(['$']).collect()
}

fn hash(domain: u8, chars: &[char]) -> u64 {
    let bytes = chars.iter().flat_map(|c| (*c as u32).to_le_bytes());
    bytes.fold(Fnv::new(domain), Fnv::byte).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_without_spaces_make_runs() {
        let found = pieces("今天 2 km很好,ok 天");
        let wanted = ["今天", "2", "km", "很好", "ok", "天"];
        assert_eq!(found.len(), wanted.len(), "{found:?}");
        for (piece, text) in found.iter().zip(wanted) {
            let run = text.chars().all(is_spaceless);
            assert_eq!(*piece, if run { Piece::Run(text) } else { Piece::Word(text) });
        }
    }

    #[test]
    fn a_run_is_its_bigrams_and_short_ngrams() {
        let reading = |text| Reading::new(text, &TextConfig::default());
        let weather = reading("今天天");
        assert_eq!(weather.order(), [reading("今天").order(), reading("天天").order()].concat());
        // 今 天 今天 天天 今天天; 天 occurs twice.
        assert_eq!(weather.grams().iter().map(|gram| gram.1).collect::<Vec<_>>().iter().sum::<u32>(), 6);
        assert_eq!(weather.grams().len(), 5);
        assert!(weather.has_gram(reading("天").grams()[0].0) && reading("天").order().len() == 1);
    }
}
