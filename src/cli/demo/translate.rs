//! Translation retrieval: which English name belongs to an emoji's name?
#![forbid(unsafe_code)]

use super::data::{self, Emoji, NEW, TRAINED};
use super::{Row, Stage};
use crate::Result;
use crate::rng::{Purpose, Rng};
use crate::task::{Sentence, Translator, mean_interval};

const PAIRS: usize = 100;

/// Trains, then measures the new languages.
pub(super) fn run(stage: &Stage) -> Result<Vec<Row>> {
    let emoji = data::emoji();
    let trained = |e: &&Emoji| TRAINED.contains(&&*e.language) && !data::held_out(&e.code, stage.seed);
    let header = std::iter::once("code\tlanguage\tname".to_string());
    let lines = emoji.iter().filter(trained).map(|e| format!("{}\t{}\t{}", e.code, e.language, e.name));
    let file = data::write_lines(&stage.path("translate.tsv"), header.chain(lines))?;
    let columns = ["--text", "name", "--language", "language", "--id", "code", "--hash-bits", "15"];
    let model = stage.learn("translate", &file, &columns, &["--valid-every", "30"])?;
    let translator = Translator::new(&stage.cpu, &model)?;
    NEW.iter().map(|language| measure(stage, &translator, &emoji, language)).collect()
}

/// Names of emoji that no training text and no support pair is about, against all their English names.
fn measure(stage: &Stage, translator: &Translator, emoji: &[Emoji], language: &'static str) -> Result<Row> {
    let pairs_of = |held: bool| pairs(emoji, language, |code| data::held_out(code, stage.seed) == held);
    let (mut known, asked) = (pairs_of(false), pairs_of(true));
    Rng::new(stage.seed, 1, 0, Purpose::Data).choose_front(&mut known, PAIRS);
    known.truncate(PAIRS);
    let read = |texts: Vec<(&str, &str)>| stage.cpu.install(|| translator.sentences(&texts));
    let both = |pairs: &[(&str, &str)]| -> (Vec<Sentence>, Vec<Sentence>) {
        (read(pairs.iter().map(|p| (p.0, language)).collect()), read(pairs.iter().map(|p| (p.1, "eng")).collect()))
    };
    let (left, right) = both(&known);
    let (sources, candidates) = both(&asked);
    let support: Vec<_> = left.into_iter().zip(right).collect();
    // Two emoji may have one name: each of its places is right.
    let hit = |i: usize, scores: &[f64]| {
        let best = (0..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b]).then(b.cmp(&a)));
        f64::from(best.is_some_and(|best| asked[best].1 == asked[i].1))
    };
    let hits = |scores: &[Vec<f64>]| scores.iter().enumerate().map(|(i, s)| hit(i, s)).collect::<Vec<f64>>();
    let found = stage.cpu.install(|| translator.scores(&support, &sources, &candidates))?;
    Ok(Row {
        task: "translate",
        language,
        support: format!("{PAIRS} pairs, {} candidates", candidates.len()),
        metric: "accuracy@1",
        floor_name: "character n-grams",
        floor: mean_interval(&hits(&Translator::surface_similarity(&sources, &candidates))),
        result: mean_interval(&hits(&found)),
    })
}

/// The names of some emoji in a language and in English.
fn pairs<'a>(emoji: &'a [Emoji], language: &str, kept: impl Fn(&str) -> bool) -> Vec<(&'a str, &'a str)> {
    let items = data::by_item(emoji, kept, |e| (&e.code, &e.language));
    let name = |names: &std::collections::BTreeMap<&str, &'a Emoji>, language| names.get(language).map(|e| &*e.name);
    items.values().filter_map(|names| Some((name(names, language)?, name(names, "eng")?))).collect()
}
