//! Scores of the applied tasks, and how sure they are.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use super::reading::{Piece, pieces};
use crate::text::{TextConfig, clean};

/// The rank of the right candidate by its score, from 1. Candidates with the same score rank before it: a model that
/// cannot tell them apart earns nothing.
///
/// ```
/// use metaglot::task::rank_of;
///
/// assert_eq!(rank_of(&[0.1, 0.9, 0.5], 2), 2);
/// assert_eq!(rank_of(&[1.0, 1.0], 0), 2);
/// ```
pub fn rank_of<T: PartialOrd>(scores: &[T], right: usize) -> usize {
    1 + scores.iter().enumerate().filter(|(i, score)| *i != right && **score >= scores[right]).count()
}

/// The mean, and half the width of its 95% confidence interval by the normal approximation: 1.96 s / sqrt(n), s with
/// n - 1. Fewer than two values have no interval: infinity.
///
/// ```
/// use metaglot::task::mean_interval;
///
/// let (mean, half) = mean_interval(&[1.0, 0.0, 1.0, 0.0]);
/// assert!(mean == 0.5 && (half - 1.96 * (1.0f64 / 3.0).sqrt() / 2.0).abs() < 1e-3);
/// assert_eq!(mean_interval(&[3.0]), (3.0, f64::INFINITY));
/// ```
pub fn mean_interval(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n.max(1.0);
    if values.len() < 2 {
        return (mean, f64::INFINITY);
    }
    let variance = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / (n - 1.0);
    (mean, 1.959_964 * (variance / n).sqrt())
}

/// ROUGE-1 F1 (Lin, 2004): shared words, counted with repetitions, against the words of both. No stemming; case, markup
/// and spelling forms are folded. In scripts without spaces a character is a word.
///
/// ```
/// use metaglot::task::rouge_1;
///
/// assert_eq!(rouge_1("the cat sat", "The cat, the CAT!"), 2.0 * 2.0 / 7.0);
/// assert_eq!(rouge_1("今天好", "今天"), 4.0 / 5.0);
/// ```
pub fn rouge_1(candidate: &str, reference: &str) -> f64 {
    let (a, b) = (clean(candidate, &TextConfig::default()), clean(reference, &TextConfig::default()));
    let (a, b) = (tokens(&a), tokens(&b));
    let mut left: HashMap<&str, usize> = HashMap::new();
    a.iter().for_each(|token| *left.entry(token).or_default() += 1);
    let shared = b.iter().filter(|token| match left.get_mut(**token) {
        Some(count) if *count > 0 => {
            *count -= 1;
            true
        }
        _ => false,
    });
    f1(shared.count(), a.len(), b.len())
}

/// ROUGE-L F1: as [`rouge_1`], but of the longest common subsequence, so order counts.
///
/// ```
/// use metaglot::task::rouge_l;
///
/// assert_eq!(rouge_l("cats chase dogs", "dogs chase cats"), 1.0 / 3.0);
/// ```
pub fn rouge_l(candidate: &str, reference: &str) -> f64 {
    let (a, b) = (clean(candidate, &TextConfig::default()), clean(reference, &TextConfig::default()));
    let (a, b) = (tokens(&a), tokens(&b));
    // lcs[j]: of the tokens of a so far and the first j of b.
    let mut lcs = vec![0usize; b.len() + 1];
    for x in &a {
        let mut diagonal = 0;
        for j in 0..b.len() {
            let above = lcs[j + 1];
            lcs[j + 1] = if *x == b[j] { diagonal + 1 } else { above.max(lcs[j]) };
            diagonal = above;
        }
    }
    f1(lcs[b.len()], a.len(), b.len())
}

/// F1 of precision `shared / a` and recall `shared / b`.
fn f1(shared: usize, a: usize, b: usize) -> f64 {
    if a + b == 0 { 0.0 } else { 2.0 * shared as f64 / (a + b) as f64 }
}

fn tokens(cleaned: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    for piece in pieces(cleaned) {
        match piece {
            Piece::Word(word) => tokens.push(word),
            Piece::Run(run) => tokens.extend(run.char_indices().map(|(at, c)| &run[at..at + c.len_utf8()])),
        }
    }
    tokens
}
