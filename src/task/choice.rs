//! What the ranking tasks share: a choice (a text with candidates), the corpus it is seen against, and the list of
//! signals that comes of both.
#![forbid(unsafe_code)]

use super::candidates::{Candidate, Cut, candidates};
use super::reading::Reading;
use super::{ANSWER, SUMMARIZE, qa, summarize};
use crate::text::TextConfig;
use crate::text::fnv::Fnv;

/// A task that ranks candidates by dense signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RankingTask {
    /// Which sentence answers the question?
    Answer,
    /// Which sentence, or part of one, says what the document is about?
    Summarize,
}

impl RankingTask {
    /// The name in datasets' provenance, checkpoints and commands.
    pub fn name(self) -> &'static str {
        match self {
            RankingTask::Answer => ANSWER,
            RankingTask::Summarize => SUMMARIZE,
        }
    }

    /// The task of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [RankingTask::Answer, RankingTask::Summarize].into_iter().find(|task| task.name() == name)
    }

    /// The names of its signals.
    pub fn signal_names(self) -> &'static [&'static str] {
        match self {
            RankingTask::Answer => qa::SIGNALS,
            RankingTask::Summarize => summarize::SIGNALS,
        }
    }
}

/// A question with the sentences of a passage, or a document with its possible summaries.
#[derive(Clone, Debug)]
pub struct Choice {
    task: RankingTask,
    query: Reading,
    candidates: Vec<Candidate>,
    readings: Vec<Reading>,
    reference: Option<Reading>,
    right: Option<usize>,
}

impl Choice {
    /// A question; `right` is the number of the sentence that answers it.
    pub fn question(question: &str, sentences: Vec<String>, right: Option<usize>, config: &TextConfig) -> Self {
        let whole = |(sentence, text)| Candidate { text, sentence, cut: Cut::Whole };
        let candidates: Vec<Candidate> = sentences.into_iter().enumerate().map(whole).collect();
        Choice {
            task: RankingTask::Answer,
            query: Reading::new(question, config),
            readings: read(&candidates, config),
            candidates,
            reference: None,
            right,
        }
    }

    /// A document; the right candidate is the one closest to the reference summary.
    pub fn document(document: &str, reference: Option<&str>, config: &TextConfig) -> Self {
        let candidates = candidates(document);
        Choice {
            task: RankingTask::Summarize,
            query: Reading::default(),
            readings: read(&candidates, config),
            right: reference.and_then(|reference| summarize::best_candidate(&candidates, reference)),
            candidates,
            reference: reference.map(|reference| Reading::new(reference, config)),
        }
    }

    /// What can be chosen.
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// The number of the right candidate, if it is known.
    pub fn right(&self) -> Option<usize> {
        self.right
    }

    /// What a model's scores make of the candidates. For an answer, the scores themselves. For a summary, the overlap that
    /// is to be expected of each: candidates share words, so the chances of those that say the same add up.
    pub fn judged(&self, scores: Vec<f32>) -> Vec<f32> {
        match self.task {
            RankingTask::Answer => scores,
            RankingTask::Summarize => summarize::expected_overlap(&self.readings, &scores),
        }
    }

    /// The score of each candidate without any learning: word overlap; the lead sentence.
    pub fn floor(&self) -> Vec<f64> {
        match self.task {
            RankingTask::Answer => qa::word_overlap(&self.query, &self.readings),
            RankingTask::Summarize => (0..self.candidates.len()).map(|i| -(i as f64)).collect(),
        }
    }
}

fn read(candidates: &[Candidate], config: &TextConfig) -> Vec<Reading> {
    candidates.iter().map(|candidate| Reading::new(&candidate.text, config)).collect()
}

/// The texts of one language that frequencies are counted in.
#[derive(Clone, Debug)]
pub enum Corpus {
    /// For [`RankingTask::Answer`].
    Answer {
        /// The frequencies.
        corpus: qa::AnswerCorpus,
        /// A hash of the passage added last: questions on one passage follow each other, and it counts once.
        passage: u64,
    },
    /// For [`RankingTask::Summarize`].
    Summarize(summarize::SummaryCorpus),
}

impl Corpus {
    /// Of no text yet.
    pub fn new(task: RankingTask) -> Self {
        match task {
            RankingTask::Answer => Corpus::Answer { corpus: qa::AnswerCorpus::new(), passage: 0 },
            RankingTask::Summarize => Corpus::Summarize(summarize::SummaryCorpus::new()),
        }
    }

    /// Counts the texts of an choice. A passage that the example before had as well counts once.
    pub fn add(&mut self, choice: &Choice) {
        match self {
            Corpus::Answer { corpus, passage } => {
                corpus.add_question(&choice.query);
                let hash = passage_hash(&choice.candidates);
                if hash != *passage {
                    *passage = hash;
                    corpus.add_passage(&choice.readings);
                }
            }
            Corpus::Summarize(corpus) => {
                let whole = choice.candidates.iter().filter(|c| c.cut == Cut::Whole).count();
                corpus.add_document(&choice.readings[..whole]);
                choice.reference.iter().for_each(|reference| corpus.add_reference(reference));
            }
        }
    }

    /// The signals of a choice's candidates.
    pub fn list(&self, choice: &Choice) -> List {
        let signals = match self {
            Corpus::Answer { corpus, .. } => qa::signals(&choice.query, &choice.readings, corpus),
            Corpus::Summarize(corpus) => summarize::signals(&choice.candidates, &choice.readings, corpus),
        };
        List { signals, right: choice.right }
    }
}

fn passage_hash(candidates: &[Candidate]) -> u64 {
    // FF ends each sentence: no UTF-8 text contains it.
    let bytes = candidates.iter().flat_map(|c| c.text.bytes().chain([0xff]));
    bytes.fold(Fnv::new(b'p'), Fnv::byte).finish()
}

/// Candidates as the model takes them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct List {
    /// A row of signals for each candidate, one after the other, as computed: not standardised.
    pub signals: Vec<f32>,
    /// The number of the right one, if it is known.
    pub right: Option<usize>,
}
