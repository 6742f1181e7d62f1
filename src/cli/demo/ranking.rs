//! Summaries of applications' descriptions, and which English description a summary in a new language belongs to.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use serde_json::json;

use super::data::{self, App, NEW, TRAINED};
use super::{Row, Stage};
use crate::Result;
use crate::rng::{Purpose, Rng};
use crate::task::{Choice, Cut, RankingModel, RankingTask, mean_interval, rouge_1};

/// Examples of a new language.
const SUPPORT: usize = 10;
/// Descriptions to choose from.
const CANDIDATES: usize = 5;
/// Lists for each application, with other descriptions each time.
const DRAWS: u64 = 5;
/// The descriptions' language.
const ENGLISH: &str = "eng";

/// Documents to one sentence: the sentence of the description, or part of one, closest to the summary.
pub(super) fn summarize(stage: &Stage) -> Result<Vec<Row>> {
    let apps = data::apps();
    let trained = |a: &&App| TRAINED.contains(&&*a.language) && !data::held_out(&a.id, stage.seed);
    let header = std::iter::once("app\tlanguage\tsummary\tdescription".to_string());
    let line = |a: &App| format!("{}\t{}\t{}\t{}", a.id, a.language, a.summary, a.description);
    let file = data::write_lines(&stage.path("summarize.tsv"), header.chain(apps.iter().filter(trained).map(line)))?;
    let columns = ["--text", "description", "--text2", "summary", "--language", "language", "--id", "app"];
    let columns = [&["--kind", "summarize"], &columns[..]].concat();
    let model = stage.learn("summarize", &file, &columns, &["--steps", "200", "--valid-every", "20"])?;
    let model = RankingModel::new(&model, RankingTask::Summarize)?;
    let measure = |language| {
        let choices = |held: bool| -> Vec<(Choice, &str)> {
            let own = apps.iter().filter(|a| a.language == language && data::held_out(&a.id, stage.seed) == held);
            own.map(|a| (Choice::document(&a.description, Some(&a.summary), &model.text), &*a.summary)).collect()
        };
        let support: Vec<Choice> = choices(false).into_iter().map(|c| c.0).take(SUPPORT).collect();
        let (queries, references): (Vec<Choice>, Vec<&str>) = choices(true).into_iter().unzip();
        let scores = model.rank(&stage.cpu, &support, &queries)?;
        let rouge = |choice: &Choice, reference: &str, best: usize| rouge_1(&choice.candidates()[best].text, reference);
        let lead = |i: usize| rouge(&queries[i], references[i], 0);
        let chosen = |i: usize| rouge(&queries[i], references[i], best_sentence(&queries[i], &scores[i]));
        Ok(Row {
            task: "summarize",
            language,
            support: format!("{SUPPORT} documents"),
            metric: "ROUGE-1",
            floor_name: "lead sentence",
            floor: mean_interval(&(0..queries.len()).map(lead).collect::<Vec<_>>()),
            result: mean_interval(&(0..queries.len()).map(chosen).collect::<Vec<_>>()),
        })
    };
    NEW.into_iter().map(measure).collect()
}

/// A list: a summary, descriptions, and which of them is its own.
struct List<'a> {
    app: &'a str,
    question: &'a str,
    descriptions: Vec<&'a str>,
    right: usize,
}

/// Lists of a language's applications, held out or not; the other descriptions are of applications of the same kind.
fn lists<'a>(apps: &'a [App], language: &str, held: bool, seed: u64) -> Vec<List<'a>> {
    let items = data::by_item(apps, |id| data::held_out(id, seed) == held, |a| (&a.id, &a.language));
    let english: Vec<(&str, &str)> =
        items.iter().filter_map(|(id, texts)| Some((*id, texts.get(ENGLISH)?.description.as_str()))).collect();
    let mut lists = Vec::new();
    for (number, (&app, texts)) in items.iter().enumerate() {
        let Some(own) = texts.get(language).filter(|_| texts.contains_key(ENGLISH)) else { continue };
        for draw in 0..DRAWS {
            let mut rng = Rng::new(seed, draw, number as u64, Purpose::Data);
            let mut others: Vec<_> = english.iter().filter(|(id, _)| *id != app).collect();
            rng.choose_front(&mut others, CANDIDATES - 1);
            let right = rng.below(CANDIDATES);
            let mut descriptions: Vec<&str> = others[..CANDIDATES - 1].iter().map(|(_, text)| *text).collect();
            descriptions.insert(right, &texts[ENGLISH].description);
            lists.push(List { app, question: &own.summary, descriptions, right });
        }
    }
    lists
}

/// A summary in one language, five descriptions in English: which is its own?
pub(super) fn answer(stage: &Stage) -> Result<Vec<Row>> {
    let apps = data::apps();
    let trained = TRAINED.iter().flat_map(|language| {
        let line = move |l: List| {
            json!({"app": l.app, "language": language, "summary": l.question, "descriptions": l.descriptions, "own": l.right})
        };
        lists(&apps, language, false, stage.seed).into_iter().map(move |l| line(l).to_string())
    });
    let file = data::write_lines(&stage.path("answer.jsonl"), trained)?;
    let columns = ["--text", "summary", "--candidates", "descriptions", "--answer", "own"];
    let more = ["--language", "language", "--id", "app", "--kind", "answer"];
    let model = stage.learn(
        "answer",
        &file,
        &[&columns[..], &more[..]].concat(),
        &["--steps", "200", "--valid-every", "20"],
    )?;
    let model = RankingModel::new(&model, RankingTask::Answer)?;
    NEW.into_iter().map(|language| measure_answers(stage, &apps, &model, language)).collect()
}

fn measure_answers(stage: &Stage, apps: &[App], model: &RankingModel, language: &'static str) -> Result<Row> {
    let choice = |l: &List| {
        let descriptions = l.descriptions.iter().map(|d| d.to_string()).collect();
        Choice::question(l.question, descriptions, Some(l.right), &model.text)
    };
    let known = lists(apps, language, false, stage.seed);
    let support: Vec<Choice> = known.iter().step_by(DRAWS as usize).take(SUPPORT).map(choice).collect();
    let asked = lists(apps, language, true, stage.seed);
    let queries: Vec<Choice> = asked.iter().map(choice).collect();
    let scores = model.rank(&stage.cpu, &support, &queries)?;
    // Lists of one application are not independent: its share of right ones is one value.
    let by_app = |right: &dyn Fn(usize) -> bool| {
        let mut apps: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        (0..asked.len()).for_each(|i| apps.entry(asked[i].app).or_default().push(f64::from(right(i))));
        mean_interval(&apps.values().map(|v| v.iter().sum::<f64>() / v.len() as f64).collect::<Vec<_>>())
    };
    Ok(Row {
        task: "answer",
        language,
        support: format!("{SUPPORT} lists of {CANDIDATES}"),
        metric: "accuracy@1",
        floor_name: "word overlap",
        floor: by_app(&|i| best(&queries[i].floor()) == asked[i].right),
        result: by_app(&|i| best(&scores[i]) == asked[i].right),
    })
}

/// The best candidate that is a whole sentence; whole ones come first.
fn best_sentence(choice: &Choice, scores: &[f32]) -> usize {
    let whole = choice.candidates().iter().take_while(|c| c.cut == Cut::Whole).count();
    best(&scores[..whole.max(1)])
}

/// The place of the largest score; of equals, the first.
fn best<T: PartialOrd + Copy>(scores: &[T]) -> usize {
    (1..scores.len()).fold(0, |best, i| if scores[i] > scores[best] { i } else { best })
}
