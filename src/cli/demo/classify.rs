//! Topics: to which group does an emoji belong, by its name and keywords?
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use super::data::{self, Emoji, NEW, TRAINED};
use super::{Row, Stage};
use crate::Result;
use crate::rng::{Purpose, Rng};
use crate::task::{Classifier, Example, mean_interval};
use crate::text::Bag;

const EPISODES: u64 = 60;
const SHOTS: usize = 5;
const QUERIES: usize = 5;

/// Trains, then measures the new languages.
pub(super) fn run(stage: &Stage) -> Result<Vec<Row>> {
    let emoji = data::emoji();
    let trained = |e: &&Emoji| TRAINED.contains(&&*e.language) && !data::held_out(&e.code, stage.seed);
    let line = |e: &Emoji| format!("{}\t{}\t{}\t{} {}", e.code, e.group, e.language, e.name, e.keywords);
    let header = std::iter::once("code\tgroup\tlanguage\ttext".to_string());
    let file = data::write_lines(&stage.path("classify.tsv"), header.chain(emoji.iter().filter(trained).map(line)))?;
    let columns = ["--text", "text", "--label", "group", "--language", "language", "--id", "code", "--hash-bits", "16"];
    let model = stage.learn("classify", &file, &columns, &["--n-way", "8", "--steps", "60", "--valid-every", "6"])?;
    let classifier = Classifier::new(&stage.cpu, &model)?;
    NEW.iter().map(|language| measure(stage, &classifier, &emoji, language)).collect()
}

/// 8-way episodes from emoji that no training text is about.
fn measure(stage: &Stage, classifier: &Classifier, emoji: &[Emoji], language: &'static str) -> Result<Row> {
    let own = emoji.iter().filter(|e| e.language == language && data::held_out(&e.code, stage.seed));
    let own: Vec<&Emoji> = own.collect();
    let texts: Vec<String> = own.iter().map(|e| format!("{} {}", e.name, e.keywords)).collect();
    let bags = stage.cpu.install(|| classifier.bags(&texts.iter().map(|t| (t.as_str(), language)).collect::<Vec<_>>()));
    let mut groups: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    own.iter().enumerate().for_each(|(i, e)| groups.entry(&e.group).or_default().push(i));
    groups.retain(|_, members| members.len() >= SHOTS + QUERIES);
    let classes: Vec<String> = groups.keys().map(|g| g.to_string()).collect();
    let (mut floor, mut result) = (Vec::new(), Vec::new());
    for episode in 0..EPISODES {
        let mut rng = Rng::new(stage.seed, 0, episode, Purpose::Data);
        let (mut support, mut queries) = (Vec::new(), Vec::new());
        for (class, members) in groups.values().enumerate() {
            let mut members = members.clone();
            rng.choose_front(&mut members, SHOTS + QUERIES);
            support.extend(members[..SHOTS].iter().map(|&i| Example { class, bag: &bags[i] }));
            queries.extend(members[SHOTS..SHOTS + QUERIES].iter().map(|&i| (class, i)));
        }
        let asked: Vec<&Bag> = queries.iter().map(|&(_, i)| &bags[i]).collect();
        let used: Vec<*const Bag> = support
            .iter()
            .map(|e| std::ptr::from_ref(e.bag))
            .chain(asked.iter().map(|b| std::ptr::from_ref(*b)))
            .collect();
        let pool: Vec<&Bag> = bags.iter().filter(|b| !used.contains(&std::ptr::from_ref(*b))).collect();
        let right = |scores: &[Vec<f32>]| {
            let hit = |(s, q): (&Vec<f32>, &(usize, usize))| (0..s.len()).all(|c| c == q.0 || s[c] < s[q.0]);
            scores.iter().zip(&queries).filter(|&(s, q)| hit((s, q))).count() as f64 / queries.len() as f64
        };
        floor.push(right(&classifier.centroid_similarity(classes.len(), &support, &asked)));
        result.push(right(&stage.cpu.install(|| classifier.scores(&classes, &support, &asked, &pool))?));
    }
    Ok(Row {
        task: "classify",
        language,
        support: format!("{}-way {SHOTS}-shot", classes.len()),
        metric: "accuracy",
        floor_name: "nearest centroid",
        floor: mean_interval(&floor),
        result: mean_interval(&result),
    })
}
