//! Answer-sentence selection: which sentence of a passage answers a question? What the model is told of each.
//!
//! Signals compare the question q with each sentence s of the passage. They are shares and counts, so a model over them
//! applies to a language it was not trained on. Of n-grams g and words w with weights:
//!
//! | signal       | value                                                                                             |
//! |--------------|---------------------------------------------------------------------------------------------------|
//! | `grams`      | sum of idf(g) over the g of q that are in s, over the sum of all g of q                           |
//! | `local`      | the same with idf among the sentences of the passage                                              |
//! | `words`      | the same for words, weighted by m(w) = min(idf among sentences, idf among questions)              |
//! | `fuzzy`      | sum over w of q of m(w) d(w), over the sum of m: d = the best Dice of trigrams in s, 0 up to 0.4  |
//! | `unique`     | as `grams`, counting only those that no other sentence has                                        |
//! | `previous`   | what `grams` would gain if s were joined with the sentence before it                              |
//! | `next`       | ... with the sentence after it                                                                    |
//! | `run`        | the longest run of words that q and s share, over 5                                               |
//!
//! Each of these comes a second time minus the largest of the list (`grams_below`, ...): what counts is which sentence
//! fits best. Then `length` = ln(characters / mean of the passage), `first` (1 for the first sentence), `sentences`
//! = ln n, `news` = sum of idf of the words of s that are not in q, over 50, and `digits` = words with a digit that are
//! not in q, at most 3, over 3.
#![forbid(unsafe_code)]

use super::frequencies::Frequencies;
use super::reading::{Reading, Word, shared};

const COMPARED: usize = 8;
/// Words that have less in common are not one word's forms.
const LEAST_DICE: f64 = 0.4;

/// The names of the signals, in the order of a row.
pub const SIGNALS: &[&str] = &[
    "grams",
    "local",
    "words",
    "fuzzy",
    "unique",
    "previous",
    "next",
    "run",
    "grams_below",
    "local_below",
    "words_below",
    "fuzzy_below",
    "unique_below",
    "previous_below",
    "next_below",
    "run_below",
    "length",
    "first",
    "sentences",
    "news",
    "digits",
];

/// How frequent words and n-grams are in a language's sentences, and words in its questions.
#[derive(Clone, Debug, Default)]
pub struct AnswerCorpus {
    sentences: Frequencies,
    questions: Frequencies,
}

impl AnswerCorpus {
    /// Of no text yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts the sentences of a passage.
    pub fn add_passage(&mut self, sentences: &[Reading]) {
        for sentence in sentences {
            let words = sentence.words().iter().map(|word| word.hash);
            self.sentences.add(words.chain(sentence.grams().iter().map(|gram| gram.0)));
        }
    }

    /// Counts a question.
    pub fn add_question(&mut self, question: &Reading) {
        self.questions.add(question.words().iter().map(|word| word.hash));
    }

    fn gram(&self, hash: u64) -> f64 {
        self.sentences.idf(hash)
    }

    fn word(&self, hash: u64) -> f64 {
        self.sentences.idf(hash).min(self.questions.idf(hash))
    }
}

/// A row of [`SIGNALS`] for each sentence, one after the other.
pub fn signals(question: &Reading, sentences: &[Reading], corpus: &AnswerCorpus) -> Vec<f32> {
    let compared: Vec<[f64; COMPARED]> = compared(question, sentences, corpus);
    let mut most = [f64::NEG_INFINITY; COMPARED];
    compared.iter().for_each(|row| most.iter_mut().zip(row).for_each(|(m, x)| *m = m.max(*x)));
    let mean = sentences.iter().map(Reading::chars).sum::<usize>() as f64 / sentences.len().max(1) as f64;
    let mut rows = Vec::with_capacity(sentences.len() * SIGNALS.len());
    for (i, (sentence, row)) in sentences.iter().zip(&compared).enumerate() {
        rows.extend(row.iter().map(|x| *x as f32));
        rows.extend(row.iter().zip(&most).map(|(x, m)| (x - m) as f32));
        let new = || sentence.words().iter().filter(|word| !question.has_word(word.hash));
        let news: f64 = new().map(|word| corpus.sentences.idf(word.hash)).sum();
        let digits = new().filter(|word| word.digit).count().min(3);
        let length = (sentence.chars().max(1) as f64 / mean.max(1.0)).ln();
        let others = [length, f64::from(i == 0), (sentences.len() as f64).ln(), news / 50.0, digits as f64 / 3.0];
        rows.extend(others.map(|x| x as f32));
    }
    rows
}

/// The signals that come twice.
fn compared(question: &Reading, sentences: &[Reading], corpus: &AnswerCorpus) -> Vec<[f64; COMPARED]> {
    let grams: Vec<u64> = question.grams().iter().map(|gram| gram.0).collect();
    let holders: Vec<Vec<bool>> = grams.iter().map(|g| sentences.iter().map(|s| s.has_gram(*g)).collect()).collect();
    let count: Vec<usize> = holders.iter().map(|h| h.iter().filter(|held| **held).count()).collect();
    let n = sentences.len();
    let idf = |g: usize| corpus.gram(grams[g]);
    let local = |g: usize| ((n as f64 + 1.0) / (count[g] as f64 + 0.5)).ln();
    let share = |weight: &dyn Fn(usize) -> f64, held: &dyn Fn(usize) -> bool| {
        let all: f64 = (0..grams.len()).map(weight).sum();
        let some: f64 = (0..grams.len()).filter(|g| held(*g)).map(weight).sum();
        ratio(some, all)
    };
    let row = |i: usize| {
        let own = share(&idf, &|g| holders[g][i]);
        let joined = |other: Option<usize>| match other.filter(|j| *j < n) {
            Some(j) => share(&idf, &|g| holders[g][i] || holders[g][j]) - own,
            None => 0.0,
        };
        [
            own,
            share(&local, &|g| holders[g][i]),
            word_share(question, |w| corpus.word(w.hash), |w| f64::from(sentences[i].has_word(w.hash))),
            word_share(question, |w| corpus.word(w.hash), |w| best_dice(w, &sentences[i])),
            share(&idf, &|g| holders[g][i] && count[g] == 1),
            joined(i.checked_sub(1)),
            joined(Some(i + 1)),
            longest_run(question.order(), sentences[i].order()) as f64 / 5.0,
        ]
    };
    (0..n).map(row).collect()
}

/// Sum of weight times found over the question's distinct words, over the sum of weights.
fn word_share(question: &Reading, weight: impl Fn(&Word) -> f64, found: impl Fn(&Word) -> f64) -> f64 {
    let all: f64 = question.words().iter().map(&weight).sum();
    ratio(question.words().iter().map(|word| weight(word) * found(word)).sum(), all)
}

/// The largest Dice coefficient of a word's trigrams with those of a word of the sentence, 0 up to [`LEAST_DICE`].
fn best_dice(word: &Word, sentence: &Reading) -> f64 {
    let dice = |other: &Word| {
        let shared = shared(&word.trigrams, &other.trigrams);
        2.0 * shared as f64 / (word.trigrams.len() + other.trigrams.len()) as f64
    };
    let best = sentence.words().iter().map(dice).fold(0.0, f64::max);
    if best > LEAST_DICE { best } else { 0.0 }
}

/// The length of the longest list of adjacent words in both.
fn longest_run(a: &[u64], b: &[u64]) -> usize {
    let (mut ends, mut longest) = (vec![0; b.len() + 1], 0);
    for x in a {
        for j in (0..b.len()).rev() {
            ends[j + 1] = if b[j] == *x { ends[j] + 1 } else { 0 };
            longest = longest.max(ends[j + 1]);
        }
    }
    longest
}

/// The floor any model must beat: the share of the question's distinct words that are in the sentence.
pub fn word_overlap(question: &Reading, sentences: &[Reading]) -> Vec<f64> {
    sentences.iter().map(|s| word_share(question, |_| 1.0, |w| f64::from(s.has_word(w.hash)))).collect()
}

/// The other floor: the cosine of the n-gram vectors, weighted by (1 + ln tf) idf.
pub fn ngram_cosine(question: &Reading, sentences: &[Reading], corpus: &AnswerCorpus) -> Vec<f64> {
    let query = super::vector::unit(question.grams(), |gram| corpus.gram(gram));
    let cosine = |s: &Reading| super::vector::dot(&query, &super::vector::unit(s.grams(), |gram| corpus.gram(gram)));
    sentences.iter().map(cosine).collect()
}

fn ratio(part: f64, all: f64) -> f64 {
    if all > 0.0 { part / all } else { 0.0 }
}
