//! Extractive summaries: which of its candidates says best what a document is about? What the model is told of each.
//!
//! | signal       | value                                                                                        |
//! |--------------|----------------------------------------------------------------------------------------------|
//! | `first`      | 1 in the first sentence                                                                      |
//! | `position`   | the sentence's number over the last one's                                                    |
//! | `length`     | l = ln(words + 1)                                                                            |
//! | `longer`     | l minus the mean of ln(words + 1) of the reference summaries known; 0 if there are none      |
//! | `unlike`     | its absolute value                                                                           |
//! | `colon`      | 1 if it ends with a colon: a heading                                                         |
//! | `list`       | 1 if it begins as an item of a list                                                          |
//! | `central`    | cosine of its n-grams with the centroid of the document's sentences                          |
//! | `central_below` | that minus the largest of the document                                                    |
//! | `salience`   | sum of idf of its words, over 50                                                             |
//! | `novelty`    | 1 minus the largest cosine with an earlier sentence                                          |
//! | `part`       | 1 if it is not a whole sentence                                                              |
//! | `suffix`     | 1 if it begins inside its sentence                                                           |
//! | `dropped`    | how many first words it lacks, over 4                                                        |
#![forbid(unsafe_code)]

use super::candidates::{Candidate, Cut};
use super::frequencies::Frequencies;
use super::metrics::rouge_1;
use super::reading::{Reading, shared};
use super::vector::{Sparse, centroid, dot, unit};

/// The names of the signals, in the order of a row.
pub const SIGNALS: &[&str] = &[
    "first",
    "position",
    "length",
    "longer",
    "unlike",
    "colon",
    "list",
    "central",
    "central_below",
    "salience",
    "novelty",
    "part",
    "suffix",
    "dropped",
];

/// How frequent words and n-grams are in a language's documents, and how long its reference summaries are.
#[derive(Clone, Debug, Default)]
pub struct SummaryCorpus {
    documents: Frequencies,
    references: u64,
    length_sum: f64,
}

impl SummaryCorpus {
    /// Of no text yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts a document, given by its whole sentences.
    pub fn add_document(&mut self, sentences: &[Reading]) {
        let words = sentences.iter().flat_map(|s| s.words().iter().map(|word| word.hash));
        self.documents.add(words.chain(sentences.iter().flat_map(|s| s.grams().iter().map(|gram| gram.0))));
    }

    /// Counts a reference summary.
    pub fn add_reference(&mut self, reference: &Reading) {
        self.references += 1;
        self.length_sum += length(reference);
    }

    fn unit(&self, reading: &Reading) -> Sparse {
        unit(reading.grams(), |gram| self.documents.idf(gram))
    }
}

/// A row of [`SIGNALS`] for each candidate, one after the other; `readings` are those of their texts. The whole
/// sentences come first, as in [`candidates`](super::candidates).
pub fn signals(candidates: &[Candidate], readings: &[Reading], corpus: &SummaryCorpus) -> Vec<f32> {
    let sentences = candidates.iter().filter(|c| c.cut == Cut::Whole).count();
    let vectors: Vec<Sparse> = readings.iter().map(|reading| corpus.unit(reading)).collect();
    let centre = centroid(&vectors[..sentences]);
    let central: Vec<f64> = vectors.iter().map(|vector| dot(vector, &centre)).collect();
    let most = central.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut rows = Vec::with_capacity(candidates.len() * SIGNALS.len());
    for (i, (candidate, reading)) in candidates.iter().zip(readings).enumerate() {
        let earlier = vectors[..candidate.sentence].iter().map(|other| dot(&vectors[i], other));
        let salience: f64 = reading.words().iter().map(|word| corpus.documents.idf(word.hash)).sum();
        let [longer, unlike] = against_references(reading, corpus);
        let [part, suffix, dropped] = cut_signals(candidate.cut);
        let row = [
            f64::from(candidate.sentence == 0),
            candidate.sentence as f64 / sentences.saturating_sub(1).max(1) as f64,
            length(reading),
            longer,
            unlike,
            f64::from(candidate.text.trim_end().ends_with([':', '：'])),
            f64::from(is_list_item(&candidate.text)),
            central[i],
            central[i] - most,
            salience / 50.0,
            1.0 - earlier.fold(0.0, f64::max),
            part,
            suffix,
            dropped,
        ];
        rows.extend(row.map(|x| x as f32));
    }
    rows
}

/// The candidate with the best ROUGE-1 F1 against the reference, the first of equals; none if no word is shared.
pub fn best_candidate(candidates: &[Candidate], reference: &str) -> Option<usize> {
    let scores: Vec<f64> = candidates.iter().map(|c| rouge_1(&c.text, reference)).collect();
    let best = scores.iter().copied().fold(0.0, f64::max);
    scores.iter().position(|score| *score == best && best > 0.0)
}

/// The overlap of each candidate with the best one, as far as the scores know which that is: sum over j of
/// softmax(scores)_j F1(i, j), with F1 of the words that candidates i and j share, counted with repetitions.
pub fn expected_overlap(readings: &[Reading], scores: &[f32]) -> Vec<f32> {
    let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let chances: Vec<f64> = scores.iter().map(|score| f64::from(score - most).exp()).collect();
    let all: f64 = chances.iter().sum();
    let sorted = |reading: &Reading| {
        let mut words = reading.order().to_vec();
        words.sort_unstable();
        words
    };
    let words: Vec<Vec<u64>> = readings.iter().map(sorted).collect();
    let f1 = |a: &[u64], b: &[u64]| 2.0 * shared(a, b) as f64 / (a.len() + b.len()).max(1) as f64;
    let expected = |a: &Vec<u64>| words.iter().zip(&chances).map(|(b, chance)| chance * f1(a, b)).sum::<f64>() / all;
    words.iter().map(|a| expected(a) as f32).collect()
}

fn length(reading: &Reading) -> f64 {
    (reading.order().len() as f64 + 1.0).ln()
}

fn against_references(reading: &Reading, corpus: &SummaryCorpus) -> [f64; 2] {
    if corpus.references == 0 {
        return [0.0, 0.0];
    }
    let longer = length(reading) - corpus.length_sum / corpus.references as f64;
    [longer, longer.abs()]
}

fn cut_signals(cut: Cut) -> [f64; 3] {
    match cut {
        Cut::Whole => [0.0, 0.0, 0.0],
        Cut::Prefix => [1.0, 0.0, 0.0],
        Cut::Suffix => [1.0, 1.0, 0.0],
        Cut::Dropped(n) => [1.0, 1.0, n as f64 / 4.0],
    }
}

/// `- item`, `* item`, `• item`, `1. item`, `2) item`.
fn is_list_item(text: &str) -> bool {
    let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let numbered = rest.len() < text.len() && rest.starts_with(['.', ')']);
    numbered || text.starts_with(['-', '*', '•', '·', '+', '–'])
}
