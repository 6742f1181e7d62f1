//! MAML, FOMAML, ANIL, Reptile, ProtoNet and joint training on the demo's emoji names: which of 8 groups does a name
//! belong to, from 5 examples of each group, in languages never trained on?
//!
//! All train on the same episodes (8 languages, three quarters of the emoji) for the same number of outer steps of AdamW.
//! Each algorithm's rates, its initial embedding and its steps at test time are chosen by accuracy on two other training
//! languages, with emoji that were not trained on; then it is trained with three seeds and tested on 150 episodes in each
//! of four new languages, of emoji that were not trained on. Joint training is fine-tuned on the support set.
//!
//!     cargo run --release --example few_shot

use std::io::Read;

use flate2::read::GzDecoder;
use metaglot::cpu::Cpu;
use metaglot::episode::{EpisodeBatch, TargetKind};
use metaglot::meta::{
    GramSpace, InnerLoop, Limits, MetaGradient, Order, Outcome, anil, fomaml, maml, protonet, reptile,
};
use metaglot::model::{InputKind, MlpShape, Params};
use metaglot::optim::{Optimizer, Rule, Schedule};
use metaglot::task::mean_interval;
use metaglot::text::{Bag, Featurizer, Idf, TextConfig};
use metaglot::{Purpose, Result, Rng};

static EMOJI: &[u8] = include_bytes!("../data/demo/emoji.tsv.gz");
const TRAINED: [&str; 8] = ["eng", "deu", "fra", "spa", "por", "nld", "swe", "rus"];
const VALIDATED: [&str; 2] = ["pol", "cmn"];
const NEW: [&str; 4] = ["cat", "slk", "hun", "fin"];
/// Share of the emoji, in all languages, that is not trained on.
const HELD_OUT: f64 = 0.25;
const SHOTS: usize = 5;
const QUERIES: usize = 5;
const META_BATCH: usize = 4;
const OUTER_STEPS: u64 = 150;
const TRAIN_STEPS: usize = 5;
const SEEDS: [u64; 3] = [1, 2, 3];
const TEST_EPISODES: u64 = 600;
const VALID_EPISODES: u64 = 60;
const DROPOUT: f64 = 0.3;
const OUTER_LRS: [f64; 2] = [3e-3, 1e-2];
const INNER_LRS: [f64; 4] = [0.1, 0.3, 1.0, 3.0];
/// Standard deviations of the embedding table's initial weights.
const DEVIATIONS: [f64; 2] = [0.02, 0.3];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Algorithm {
    Maml,
    Fomaml,
    Anil,
    Reptile,
    ProtoNet,
    Joint,
}

use Algorithm::{Anil, Fomaml, Joint, Maml, ProtoNet, Reptile};

impl Algorithm {
    fn inner(self, lr: f64) -> InnerLoop<'static> {
        match self {
            Maml => maml::inner_loop(TRAIN_STEPS, lr),
            Fomaml => fomaml::inner_loop(TRAIN_STEPS, lr),
            Anil => anil::inner_loop(TRAIN_STEPS, lr),
            Reptile => reptile::inner_loop(TRAIN_STEPS, lr),
            ProtoNet => protonet::inner_loop(),
            Joint => InnerLoop::sgd(0, lr, Order::Second),
        }
    }

    /// Whether a model has to be trained for every inner rate.
    fn trains_with_rate(self) -> bool {
        !matches!(self, ProtoNet | Joint)
    }

    /// Steps at test time that are compared.
    fn test_steps(self) -> &'static [usize] {
        if self == ProtoNet { &[0] } else { &[0, 5, 20, 50] }
    }
}

/// What was chosen on the validation languages.
#[derive(Clone, Copy, Debug)]
struct Chosen {
    deviation: f64,
    outer_lr: f64,
    inner_lr: f64,
    test_steps: usize,
    accuracy: f64,
}

/// The emoji of one language: bags by group.
type Language = Vec<Vec<Bag>>;

struct Data {
    train: Vec<Language>,
    valid: Vec<Language>,
    test: Vec<Language>,
    shape: MlpShape,
}

impl Data {
    fn new() -> Result<Self> {
        let mut text = String::new();
        GzDecoder::new(EMOJI).read_to_string(&mut text).expect("the file is whole");
        let rows: Vec<[String; 4]> = text.lines().skip(1).map(row).collect();
        let mut groups: Vec<&String> = rows.iter().map(|r| &r[1]).collect();
        groups.sort();
        groups.dedup();
        let featurizer = Featurizer::new(TextConfig { hash_bits: 16, ..TextConfig::default() })?;
        let vocabulary = featurizer.config().vocabulary();
        let texts: Vec<(&str, &str)> = rows.iter().map(|r| (&*r[3], &*r[2])).collect();
        let counts = featurizer.counts_batch(&texts);
        let is_new =
            |code: &str| Rng::new(1, u64::from(crc32fast::hash(code.as_bytes())), 0, Purpose::Split).unit() < HELD_OUT;
        let trained = |r: &[String; 4]| TRAINED.contains(&&*r[2]) && !is_new(&r[0]);
        let (mut frequencies, mut documents) = (vec![0; vocabulary], 0);
        for (_, c) in rows.iter().zip(&counts).filter(|(r, _)| trained(r)) {
            c.tokens.iter().for_each(|&t| frequencies[t as usize] += 1);
            documents += 1;
        }
        let idf = Idf::from_document_frequencies(&frequencies, documents);
        let language = |code: &str, new: bool| -> Language {
            let own = |group: &&String| {
                let rows =
                    rows.iter().zip(&counts).filter(|(r, _)| r[2] == code && r[1] == **group && is_new(&r[0]) == new);
                rows.map(|(_, c)| featurizer.bag(c, Some(&idf))).collect()
            };
            groups.iter().map(own).collect()
        };
        let widths = vec![64, groups.len()];
        Ok(Self {
            train: TRAINED.iter().map(|l| language(l, false)).collect(),
            valid: VALIDATED.iter().map(|l| language(l, true)).collect(),
            test: NEW.iter().map(|l| language(l, true)).collect(),
            shape: MlpShape { input: vocabulary, kind: InputKind::Bag, widths },
        })
    }
}

/// Code, group, language, text.
fn row(line: &str) -> [String; 4] {
    let f: Vec<&str> = line.split('\t').collect();
    [f[0].to_string(), f[1].to_string(), f[2].to_string(), format!("{} {}", f[3], f[4].replace('|', " "))]
}

/// One episode of a language: all groups, different emoji in support and query.
fn push_episode(language: &Language, rng: &mut Rng, dropout: f64, batch: &mut EpisodeBatch) {
    for (group, bags) in language.iter().enumerate() {
        let mut drawn: Vec<&Bag> = bags.iter().collect();
        rng.choose_front(&mut drawn, SHOTS + QUERIES);
        for (i, bag) in drawn[..SHOTS + QUERIES].iter().enumerate() {
            let set = if i < SHOTS { &mut batch.support } else { &mut batch.query };
            let scale = 1.0 / (1.0 - dropout) as f32;
            let kept: Vec<(u32, f32)> = (bag.tokens.iter().zip(&bag.weights))
                .filter(|_| dropout == 0.0 || rng.unit() >= dropout)
                .map(|(&t, &w)| (t, w * scale))
                .collect();
            set.push_bag(kept.into_iter());
            set.label(group as u32);
        }
    }
    batch.support.end_episode();
    batch.query.end_episode();
}

fn train(cpu: &Cpu, data: &Data, inner: &InnerLoop, outer: [f64; 2], seed: u64) -> Result<Params<f32>> {
    let [outer_lr, deviation] = outer;
    let mut params = Params::<f32>::random(&data.shape, deviation, seed)?;
    let rule = Rule::Adamw { beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.0 };
    let schedule = Schedule { lr: outer_lr, warmup: OUTER_STEPS / 20, steps: OUTER_STEPS, floor: 0.02 };
    let mut optimizer = Optimizer::new(cpu, &data.shape, rule, schedule)?;
    let mut batch = EpisodeBatch::new(TargetKind::Classes);
    for step in 0..OUTER_STEPS {
        batch.clear();
        for episode in 0..META_BATCH as u64 {
            let mut rng = Rng::new(seed, step, episode, Purpose::Episode);
            let language = rng.below(data.train.len());
            push_episode(&data.train[language], &mut rng, DROPOUT, &mut batch);
        }
        for set in [&batch.support, &batch.query] {
            optimizer.catch_up(&mut params, set.tokens())?;
        }
        let view = batch.view(&data.shape)?;
        let limits = Limits::of(&view, inner);
        let mut gradient = MetaGradient::new(&data.shape, &limits);
        GramSpace::new(cpu, &data.shape, limits)?.run(&params, &view, inner, &mut gradient)?;
        if !gradient.meta_loss().is_finite() || !gradient.is_finite() {
            // It stays where it was: the selection sees a poor model, the table a poor result.
            break;
        }
        optimizer.step(&mut params, &gradient)?;
    }
    optimizer.flush(&mut params)?;
    Ok(params)
}

/// The accuracy of each episode, the same ones for all; and how many diverged.
fn accuracies(
    cpu: &Cpu,
    params: &Params<f32>,
    languages: &[Language],
    episodes: u64,
    inner: InnerLoop,
) -> Result<(Vec<f64>, usize)> {
    let inner = InnerLoop { order: Order::Evaluate, ..inner };
    let (mut right, mut diverged) = (Vec::new(), 0);
    for episode in 0..episodes {
        let mut batch = EpisodeBatch::new(TargetKind::Classes);
        let mut rng = Rng::new(0, 0, episode, Purpose::Data);
        push_episode(&languages[episode as usize % languages.len()], &mut rng, 0.0, &mut batch);
        let view = batch.view(&params.shape)?;
        let mut gram = GramSpace::new(cpu, &params.shape, Limits::of(&view, &inner))?;
        let mut found = MetaGradient::without_storage();
        gram.run(params, &view, &inner, &mut found)?;
        let (hits, all) = batch.hits(gram.query_outputs());
        right.push(hits as f64 / all as f64);
        diverged += found.outcomes.iter().filter(|o| **o == Outcome::Diverged).count();
    }
    Ok((right, diverged))
}

/// The best settings on the validation languages.
fn choose(cpu: &Cpu, data: &Data, algorithm: Algorithm) -> Result<Chosen> {
    let mut best = Chosen { deviation: 0.0, outer_lr: 0.0, inner_lr: 0.0, test_steps: 0, accuracy: -1.0 };
    for [outer_lr, deviation] in OUTER_LRS.into_iter().flat_map(|lr| DEVIATIONS.map(|std| [lr, std])) {
        let shared = match algorithm.trains_with_rate() {
            true => None,
            false => Some(train(cpu, data, &algorithm.inner(INNER_LRS[0]), [outer_lr, deviation], 0)?),
        };
        for inner_lr in INNER_LRS {
            let inner = algorithm.inner(inner_lr);
            let own = if shared.is_none() { Some(train(cpu, data, &inner, [outer_lr, deviation], 0)?) } else { None };
            let Some(params) = shared.as_ref().or(own.as_ref()) else { continue };
            for &test_steps in algorithm.test_steps() {
                let inner = InnerLoop { steps: test_steps, ..inner };
                let (right, _) = accuracies(cpu, params, &data.valid, VALID_EPISODES, inner)?;
                let accuracy = mean_interval(&right).0;
                if accuracy > best.accuracy {
                    best = Chosen { deviation, outer_lr, inner_lr, test_steps, accuracy };
                }
            }
        }
    }
    Ok(best)
}

fn main() -> Result<()> {
    let cpu = Cpu::new().threads(2)?;
    cpu.install(|| compare(&cpu))
}

fn compare(cpu: &Cpu) -> Result<()> {
    let data = Data::new()?;
    println!("{OUTER_STEPS} outer steps of {META_BATCH} episodes, 8-way {SHOTS}-shot, {TRAIN_STEPS} inner steps");
    println!("accuracy in percent ± 95% over {TEST_EPISODES} episodes a seed, in {}\n", NEW.join(", "));
    println!(
        "| algorithm | deviation | outer rate | inner rate | test steps | validation | all seeds | seed 1 | seed 2 \
         | seed 3 | diverged |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    for algorithm in [Maml, Fomaml, Anil, Reptile, ProtoNet, Joint] {
        let chosen = choose(cpu, &data, algorithm)?;
        let inner = algorithm.inner(chosen.inner_lr);
        let (mut all, mut seeds, mut diverged) = (Vec::new(), Vec::new(), 0);
        for seed in SEEDS {
            let params = train(cpu, &data, &inner, [chosen.outer_lr, chosen.deviation], seed)?;
            let inner = InnerLoop { steps: chosen.test_steps, ..inner };
            let (right, lost) = accuracies(cpu, &params, &data.test, TEST_EPISODES, inner)?;
            let (mean, half) = mean_interval(&right);
            seeds.push(format!("{:.1} ± {:.1}", 100.0 * mean, 100.0 * half));
            all.extend(right);
            diverged += lost;
        }
        let ((mean, half), seeds) = (mean_interval(&all), seeds.join(" | "));
        let Chosen { deviation, outer_lr, inner_lr, test_steps, accuracy } = chosen;
        let rate = if algorithm == ProtoNet { "-".to_string() } else { inner_lr.to_string() };
        println!(
            "| {algorithm:?} | {deviation} | {outer_lr} | {rate} | {test_steps} | {:.1} | {:.1} ± {:.1} | {seeds} \
             | {diverged} |",
            100.0 * accuracy,
            100.0 * mean,
            100.0 * half
        );
    }
    Ok(())
}
