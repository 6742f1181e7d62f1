//! `metaglot classify`: few-shot topics of texts in any language.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use rayon::prelude::*;
use serde_json::json;

use super::lines::Lines;
use super::{output_error, train};
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::task::{Classifier, Example};
use crate::text::Bag;

const EXAMPLE: &str = "\
Example (with the model that `metaglot demo` leaves):
  printf 'animal\\tgat negre\\nanimal\\tgos gran\\nfood\\tpa i vi\\nfood\\tsopa calenta\\n' > support.tsv
  metaglot classify --checkpoint metaglot-demo/classify/model.safetensors --language cat \\
    --support support.tsv --text 'un gat petit'";

/// Classify texts from a few examples of each class.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub struct Classify {
    /// A model from `metaglot train --task classify`
    #[arg(long, value_name = "FILE")]
    checkpoint: PathBuf,
    /// Many episodes: lines of episode, role (support or query), label, class, text, separated by tabs, no header.
    /// Prints one label a query line, in order; what stands as label and class of a query line is ignored. Texts of one
    /// file are taken to be in one language
    #[arg(long, value_name = "FILE", required_unless_present = "support", conflicts_with_all = ["support", "text"])]
    episodes: Option<PathBuf>,
    /// One episode's examples: lines of class and text, separated by a tab
    #[arg(long, value_name = "FILE", requires = "text")]
    support: Option<PathBuf>,
    /// A text to classify; may be given more than once
    #[arg(long, value_name = "TEXT", requires = "support")]
    text: Vec<String>,
    /// The texts' language: its stop words, where the model leaves those out
    #[arg(long, value_name = "CODE", default_value = "und")]
    language: String,
    /// Each query by itself: do not use the other texts of the file
    #[arg(long)]
    alone: bool,
    /// Inner steps of the adaptation; otherwise those of the training
    #[arg(long, value_name = "N")]
    inner_steps: Option<usize>,
    /// Learning rate of the inner steps; otherwise that of the training
    #[arg(long, value_name = "RATE")]
    inner_lr: Option<f64>,
    /// Threads; 0: one for each core. The result does not depend on it
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
    /// One JSON object a query, with all scores
    #[arg(long)]
    json: bool,
}

/// One episode of the file: line numbers into its texts.
#[derive(Default)]
struct Episode {
    /// Label, class name and text of each support line.
    support: Vec<(String, String, usize)>,
    queries: Vec<usize>,
}

/// What the input holds: every text once, and the episodes in order.
#[derive(Default)]
struct Input {
    texts: Vec<String>,
    episodes: Vec<(String, Episode)>,
    /// For each query line in order: its episode, and its place among that episode's queries.
    order: Vec<(usize, usize)>,
}

impl Classify {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<()> {
        let input = match (&self.episodes, &self.support) {
            (Some(path), _) => read_episodes(path)?,
            (None, Some(path)) => one_episode(path, &self.text)?,
            (None, None) => return Err(Error::config("--episodes", "an episodes file, or --support and --text")),
        };
        let threads = if self.threads == 0 { train::num_threads() } else { self.threads };
        let cpu = crate::cli::cpu()?.threads(threads)?;
        // Episodes are spread over the threads, so each is computed on one.
        let mut classifier = Classifier::new(&crate::cli::cpu()?, &Checkpoint::open(&self.checkpoint)?)?;
        classifier.set_inner_loop(self.inner_steps, self.inner_lr);
        let texts: Vec<_> = input.texts.iter().map(|t| (t.as_str(), self.language.as_str())).collect();
        let bags = cpu.install(|| classifier.bags(&texts));
        let answer = |(_, episode): &(String, Episode)| self.answer(&classifier, episode, &bags);
        let answers = cpu.install(|| input.episodes.par_iter().map(answer).collect::<Result<Vec<_>>>())?;
        for &(episode, query) in &input.order {
            let (labels, scores) = &answers[episode];
            self.print(&input.episodes[episode].0, labels, &scores[query], out).map_err(output_error)?;
        }
        Ok(())
    }

    /// The episode's labels, and a row of scores for each query.
    fn answer(&self, classifier: &Classifier, episode: &Episode, bags: &[Bag]) -> Result<(Vec<String>, Vec<Vec<f32>>)> {
        let mut classes: BTreeMap<&str, &str> = BTreeMap::new();
        episode.support.iter().for_each(|(label, class, _)| _ = classes.insert(label, class));
        let labels: Vec<&str> = classes.keys().copied().collect();
        let names: Vec<String> = classes.values().map(|c| c.to_string()).collect();
        let class_of = |label: &String| labels.iter().position(|l| l == label).expect("every label is in the map");
        let support: Vec<_> =
            episode.support.iter().map(|(l, _, t)| Example { class: class_of(l), bag: &bags[*t] }).collect();
        let queries: Vec<&Bag> = episode.queries.iter().map(|&t| &bags[t]).collect();
        let labels: Vec<String> = labels.iter().map(|l| l.to_string()).collect();
        if self.alone {
            return Ok((labels, classifier.scores_alone(&names, &support, &queries)?));
        }
        let own = |t: &usize| !episode.queries.contains(t) && !episode.support.iter().any(|s| s.2 == *t);
        let pool: Vec<&Bag> = (0..bags.len()).filter(own).map(|t| &bags[t]).collect();
        Ok((labels, classifier.scores(&names, &support, &queries, &pool)?))
    }

    fn print(&self, episode: &str, labels: &[String], scores: &[f32], out: &mut dyn Write) -> std::io::Result<()> {
        let best = (0..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap_or(0);
        if !self.json {
            return writeln!(out, "{}", labels[best]);
        }
        let all: BTreeMap<_, _> = labels.iter().zip(scores).collect();
        writeln!(out, "{}", json!({"episode": episode, "label": labels[best], "scores": all}))
    }
}

/// Lines of episode, role, label, class, text.
fn read_episodes(path: &Path) -> Result<Input> {
    let mut input = Input::default();
    let mut numbers = BTreeMap::new();
    let mut seen = BTreeMap::new();
    for line in Lines::open(path)? {
        let (number, line) = line?;
        let fields: Vec<&str> = line.splitn(5, '\t').collect();
        let &[name, role, label, class, text] = &fields[..] else {
            let detail = format!("{} columns; wanted episode, role, label, class, text", fields.len());
            return Err(Error::input(path, number, detail));
        };
        let at = *numbers.entry(name.to_string()).or_insert_with(|| {
            input.episodes.push((name.to_string(), Episode::default()));
            input.episodes.len() - 1
        });
        let text = *seen.entry(text.to_string()).or_insert_with(|| {
            input.texts.push(text.to_string());
            input.texts.len() - 1
        });
        let episode = &mut input.episodes[at].1;
        match role {
            "support" => episode.support.push((label.to_string(), class.to_string(), text)),
            "query" => {
                input.order.push((at, episode.queries.len()));
                episode.queries.push(text);
            }
            other => return Err(Error::input(path, number, format!("role `{other}`; wanted support or query"))),
        }
    }
    let lacking = input.episodes.iter().find(|(_, e)| e.support.is_empty() || e.queries.is_empty());
    match lacking {
        None if input.episodes.is_empty() => Err(Error::input(path, 0, "it is empty; wanted lines of an episode")),
        None => Ok(input),
        Some((name, _)) => Err(Error::input(path, 0, format!("episode `{name}` needs support and query lines"))),
    }
}

/// Lines of class and text, and the texts to classify.
fn one_episode(path: &Path, texts: &[String]) -> Result<Input> {
    let mut input = Input::default();
    let mut episode = Episode::default();
    for line in Lines::open(path)? {
        let (number, line) = line?;
        let Some((class, text)) = line.split_once('\t') else {
            return Err(Error::input(path, number, "one column; wanted class and text, separated by a tab"));
        };
        episode.support.push((class.to_string(), class.to_string(), input.texts.len()));
        input.texts.push(text.to_string());
    }
    if episode.support.is_empty() {
        return Err(Error::input(path, 0, "it is empty; wanted lines of class and text"));
    }
    for text in texts {
        input.order.push((0, episode.queries.len()));
        episode.queries.push(input.texts.len());
        input.texts.push(text.clone());
    }
    input.episodes.push(("1".to_string(), episode));
    Ok(input)
}
