//! What a one-sentence summary may be: the document's sentences, and parts of the first ones.
//!
//! A reference summary is mostly shorter than a sentence and lacks its beginning ("X is a tool that ..."). So of the
//! first [`CUT_SENTENCES`] sentences also: what stands before and after each of the first [`CUT_MARKS`] of `, ; : ( –`
//! (of a parenthesis only before), and the sentence without what is in parentheses. Of the first sentence and its first
//! such part also: without its first 1 to [`DROPPED`] words, in scripts with spaces. No part comes twice.
#![forbid(unsafe_code)]

use std::collections::HashSet;

use super::reading::is_spaceless;
use crate::text::sentences;

/// Sentences after these are not looked at.
const SENTENCES: usize = 14;
const CUT_SENTENCES: usize = 3;
const CUT_MARKS: usize = 4;
const DROPPED: usize = 4;
/// A sentence, a part and a rest after dropped words have more than so many characters, and so many words.
const SENTENCE_WIDTH: usize = 8;
const PART_WIDTH: usize = 15;
const REST_WORDS: usize = 3;
const OPENING: [char; 2] = ['(', '（'];
/// How many letters one character of a script without spaces stands for.
const SPACELESS_WIDTH: usize = 3;

/// How a candidate was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// A whole sentence.
    Whole,
    /// The sentence up to a mark, or without its parentheses.
    Prefix,
    /// The sentence after a mark.
    Suffix,
    /// Without so many of its first words.
    Dropped(usize),
}

/// A possible summary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What it says.
    pub text: String,
    /// The number of its sentence in the document.
    pub sentence: usize,
    /// Which part of that sentence it is.
    pub cut: Cut,
}

/// The candidates of a document: whole sentences first, in order; then parts of them. Of a
/// document of short sentences alone, the first; none if it has no text.
///
/// ```
/// use metaglot::task::{Cut, candidates};
///
/// let found = candidates("Foo (old) shows pictures of cats, dogs and small birds. It is quite fast.");
/// let texts: Vec<_> = found.iter().filter(|c| c.cut != Cut::Whole).map(|c| &c.text[..]).collect();
/// assert!(texts.contains(&"Foo (old) shows pictures of cats") && texts.contains(&"dogs and small birds"));
/// assert!(texts.contains(&"Foo shows pictures of cats, dogs and small birds."));
/// assert!(texts.contains(&"pictures of cats, dogs and small birds."));
/// ```
pub fn candidates(document: &str) -> Vec<Candidate> {
    let mut all: Vec<&str> = sentences(document).filter(|s| width(s) > SENTENCE_WIDTH).take(SENTENCES).collect();
    if all.is_empty() {
        all.extend(sentences(document).next());
    }
    let whole = |(sentence, text): (usize, &&str)| Candidate { text: text.to_string(), sentence, cut: Cut::Whole };
    let mut candidates: Vec<Candidate> = all.iter().enumerate().map(whole).collect();
    for (sentence, text) in all.iter().enumerate().take(CUT_SENTENCES) {
        candidates.extend(parts(text).into_iter().map(|(cut, text)| Candidate { text, sentence, cut }));
    }
    let part = candidates.get(all.len()).filter(|part| part.sentence == 0).map(|part| part.text.clone());
    for text in all.first().map(|s| s.to_string()).into_iter().chain(part) {
        let rests = rests(&text).map(|(n, text)| Candidate { text, sentence: 0, cut: Cut::Dropped(n) });
        candidates.extend(rests);
    }
    let mut seen = HashSet::new();
    candidates.retain(|candidate| candidate.cut == Cut::Whole || seen.insert(candidate.text.clone()));
    candidates
}

/// The parts of a sentence before and after its first marks, and the sentence without parentheses.
fn parts(sentence: &str) -> Vec<(Cut, String)> {
    let mut parts = Vec::new();
    let trim =
        |text: &str| text.trim_matches(|c: char| c.is_whitespace() || ",;:()，、；：（）.".contains(c)).to_string();
    let marks = sentence.char_indices().filter(|&(at, c)| is_mark(c, &sentence[at + c.len_utf8()..]));
    for (at, mark) in marks.take(CUT_MARKS) {
        parts.push((Cut::Prefix, trim(&sentence[..at])));
        // What begins inside parentheses is no summary.
        if !OPENING.contains(&mark) {
            parts.push((Cut::Suffix, trim(&sentence[at + mark.len_utf8()..])));
        }
    }
    let bare = without_parentheses(sentence);
    if bare != sentence {
        parts.push((Cut::Prefix, bare));
    }
    parts.retain(|(_, text)| width(text) > PART_WIDTH);
    parts
}

/// Whether a sentence may be cut at this character; `1,5` and `10:30` are not.
fn is_mark(c: char, rest: &str) -> bool {
    match c {
        ',' | ';' | ':' => rest.starts_with(char::is_whitespace),
        '(' | '–' | '—' | '，' | '、' | '；' | '：' | '（' => true,
        _ => false,
    }
}

/// Without what stands in parentheses that are closed, and the spaces before them.
fn without_parentheses(sentence: &str) -> String {
    let (mut bare, mut rest) = (String::new(), sentence);
    while let Some(open) = rest.find(OPENING) {
        let Some(close) = rest[open..].find([')', '）']) else { break };
        let end = open + close + rest[open + close..].chars().next().map_or(0, char::len_utf8);
        bare.push_str(rest[..open].trim_end());
        rest = &rest[end..];
    }
    bare.push_str(rest);
    bare.trim().to_string()
}

/// A text without its first 1, 2, ... words.
fn rests(text: &str) -> impl Iterator<Item = (usize, String)> {
    let spaceless = text.chars().filter(|c| is_spaceless(*c)).count() * 2 > text.chars().count();
    let words: Vec<&str> = if spaceless { Vec::new() } else { text.split_whitespace().collect() };
    let most = words.len().saturating_sub(REST_WORDS).min(DROPPED);
    (1..=most).map(move |n| (n, words[n..].join(" ")))
}

/// Characters, those of scripts without spaces counting for several.
fn width(text: &str) -> usize {
    text.chars().map(|c| if is_spaceless(c) { SPACELESS_WIDTH } else { 1 }).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(document: &str) -> Vec<String> {
        candidates(document).into_iter().map(|c| c.text).collect()
    }

    #[test]
    fn whole_sentences_come_first_and_short_ones_not_at_all() {
        let found = candidates("A first sentence. ¶ No. ¶ Another sentence.");
        let whole: Vec<_> = found.iter().filter(|c| c.cut == Cut::Whole).map(|c| (c.sentence, &c.text[..])).collect();
        assert_eq!(whole, [(0, "A first sentence."), (1, "Another sentence.")]);
        assert!(found[..2].iter().all(|c| c.cut == Cut::Whole));
        assert_eq!(candidates("No. ¶ Yes.").len(), 1);
        assert!(candidates(" ¶ ").is_empty());
    }

    #[test]
    fn numbers_are_not_cut_and_dropping_leaves_three_words() {
        let whole = "It takes 1,5 hours: wait";
        let dropped = ["takes 1,5 hours: wait", "1,5 hours: wait", "takes 1,5 hours"];
        assert_eq!(texts(whole), [&[whole, "It takes 1,5 hours"][..], &dropped].concat());
    }

    #[test]
    fn an_open_parenthesis_stays() {
        assert_eq!(without_parentheses("a (b) c (d"), "a c (d");
        assert_eq!(without_parentheses("好（坏）吗"), "好吗");
    }

    #[test]
    fn scripts_without_spaces_are_cut_at_their_own_marks() {
        let found = texts("这是一个自由软件，它可以显示图片。");
        assert_eq!(found[1..], ["这是一个自由软件", "它可以显示图片。"]);
    }
}
