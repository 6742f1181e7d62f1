//! Words and sentences of every script, by Unicode's rules (UAX 29) and, where a script has no spaces, a dictionary.
#![forbid(unsafe_code)]

use std::sync::LazyLock;

use icu_segmenter::options::{SentenceBreakInvariantOptions, WordBreakInvariantOptions};
use icu_segmenter::{SentenceSegmenter, SentenceSegmenterBorrowed, WordSegmenter, WordSegmenterBorrowed};

// The dictionary, not the LSTM that `new_auto` takes for Thai, Lao, Khmer and Burmese: on the declaration of human rights
// it runs at 20 MB/s against 0.2 MB/s, and it is the only one of the two for Chinese and Japanese.
static WORDS: LazyLock<WordSegmenterBorrowed<'static>> =
    LazyLock::new(|| WordSegmenter::new_dictionary(WordBreakInvariantOptions::default()));

static SENTENCES: LazyLock<SentenceSegmenterBorrowed<'static>> =
    LazyLock::new(|| SentenceSegmenter::new(SentenceBreakInvariantOptions::default()));

/// The words of a text, in order: runs of letters, digits or ideographs; no punctuation, no symbols, no spaces.
///
/// ```
/// use metaglot::text::words;
///
/// assert!(words("It's 3.5 km (or so)!").eq(["It's", "3.5", "km", "or", "so"]));
/// assert!(words("今天天气很好。").eq(["今天", "天气", "很好"]));
/// ```
pub fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut start = 0;
    let segments = WORDS.segment_str(text).map(move |end| &text[std::mem::replace(&mut start, end)..end]);
    // Not icu's `is_word_like`: as of 2.4 that is false for whatever ends in a combining mark, most of Hindi among it.
    segments.filter(|segment| segment.chars().any(char::is_alphanumeric))
}

/// The sentences of a text, in order and without the white space around them.
///
/// A line break, and a ` ¶ ` between spaces (how one-line records mark paragraphs), always ends a sentence. Scripts
/// without a full stop (Thai, Lao) get one sentence a line; an abbreviation before a capital ("Dr. Who") is cut in two,
/// for telling them apart takes a list per language.
///
/// ```
/// use metaglot::text::sentences;
///
/// let text = "One, 1.5 and e.g. this. Two? ¶ heading ¶ 三。四！";
/// assert!(sentences(text).eq(["One, 1.5 and e.g. this.", "Two?", "heading", "三。", "四！"]));
/// ```
pub fn sentences(text: &str) -> impl Iterator<Item = &str> {
    lines(text)
        .flat_map(|line| {
            let mut start = 0;
            SENTENCES.segment_str(line).map(move |end| {
                let sentence = &line[start..end];
                start = end;
                sentence.trim()
            })
        })
        .filter(|sentence| !sentence.is_empty())
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split(['\n', '\r', '\u{b}', '\u{c}', '\u{85}', '\u{2028}', '\u{2029}']).flat_map(paragraphs)
}

/// Cuts at every `¶` that has white space, or the line's end, on both sides: "¶3" is a reference, not a mark.
fn paragraphs(line: &str) -> impl Iterator<Item = &str> {
    let mut start = 0;
    let marks = line.match_indices('¶').filter(|(at, mark)| {
        let before = line[..*at].chars().next_back();
        let after = line[at + mark.len()..].chars().next();
        before.is_none_or(char::is_whitespace) && after.is_none_or(char::is_whitespace)
    });
    let ends = marks.map(|(at, mark)| (at, at + mark.len())).chain([(line.len(), line.len())]);
    ends.map(move |(end, next)| &line[std::mem::replace(&mut start, next)..end])
}
