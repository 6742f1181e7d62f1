//! The outer loop: it learns, and its bits depend neither on threads nor on stops in between.

#[path = "support/datasets.rs"]
mod datasets;

use std::collections::BTreeMap;

use datasets::{Made, lists, texts};
use metaglot::checkpoint::Checkpoint;
use metaglot::cpu::Cpu;
use metaglot::dataset::{Dataset, Kind};
use metaglot::episode::{
    EpisodeSource, LabelledSource, LabelledSpec, ListSource, ListSpec, PairSource, PairSpec, Split, SplitConfig,
};
use metaglot::model::{InputKind, MlpShape};
use metaglot::optim::{Rule, Schedule};
use metaglot::train::{About, Algorithm, Control, Ending, Event, Report, TrainConfig, Trainer};
use metaglot::{Purpose, Rng};
use serde_json::json;

const LANGUAGES: [&str; 4] = ["aa", "bb", "cc", "dd"];
const VOCABULARY: usize = 64;

/// Which source a test trains on.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Source {
    Labelled,
    Pairs,
    Lists,
}

const SOURCES: [Source; 3] = [Source::Labelled, Source::Pairs, Source::Lists];

/// `n` of the tokens from `from` to `to`, rising.
fn some(rng: &mut Rng, from: u32, to: u32, n: usize) -> Vec<u32> {
    let mut tokens: Vec<u32> = (from..to).collect();
    rng.choose_front(&mut tokens, n);
    tokens.truncate(n);
    tokens
}

fn row(language: &str, label: Option<String>, text: u32, mut tokens: Vec<u32>, signals: Vec<f32>) -> Made {
    tokens.sort_unstable();
    tokens.dedup();
    Made { language: language.into(), label, text, tokens, signals }
}

/// Tokens 0 to 29 tell the class, ten each; the others are noise of each language's own choice.
fn labelled() -> Dataset {
    let mut rng = Rng::new(1, 0, 0, Purpose::Data);
    let mut rows = Vec::new();
    for text in 0..90 {
        let class = text % 3;
        for language in LANGUAGES {
            let tokens = [some(&mut rng, 10 * class, 10 * class + 10, 3), some(&mut rng, 30, 64, 3)].concat();
            rows.push(row(language, Some(format!("class {class}")), text, tokens, vec![]));
        }
    }
    texts(Kind::Labelled, VOCABULARY as u32, &rows)
}

/// Translations share most of their tokens.
fn pairs() -> Dataset {
    let mut rng = Rng::new(2, 0, 0, Purpose::Data);
    let mut rows = Vec::new();
    for text in 0..60 {
        let shared = some(&mut rng, 0, 56, 5);
        for language in LANGUAGES {
            rows.push(row(language, None, text, [&shared[..], &some(&mut rng, 56, 64, 2)].concat(), vec![]));
        }
    }
    texts(Kind::Pairs, VOCABULARY as u32, &rows)
}

/// The right one of four candidates has the largest first signal.
fn ranked() -> Dataset {
    let mut rng = Rng::new(3, 0, 0, Purpose::Data);
    let mut group = |text: u32, language: &str| {
        let signals: Vec<Vec<f32>> = (0..4).map(|_| vec![rng.normal() as f32, rng.normal() as f32]).collect();
        let best = (0..4).max_by(|&a, &b| signals[a][0].total_cmp(&signals[b][0])).unwrap();
        let label = |i| Some(if i == best { "right" } else { "wrong" }.to_string());
        let mut rows = vec![row(language, None, text, vec![], vec![0.0, 0.0])];
        rows.extend(signals.into_iter().enumerate().map(|(i, s)| row(language, label(i), text, vec![], s)));
        rows
    };
    lists(&(0..200).map(|i| group(i, LANGUAGES[i as usize % 4])).collect::<Vec<_>>())
}

/// Calls `f` with a source, validated on another language and other texts, and a shape that fits.
fn with<R>(source: Source, f: impl FnOnce(&dyn EpisodeSource, &MlpShape) -> R) -> R {
    let bag = |outputs| MlpShape { input: VOCABULARY, kind: InputKind::Bag, widths: vec![12, outputs] };
    let dense = MlpShape { input: 2, kind: InputKind::Dense, widths: vec![8, 1] };
    let data = match source {
        Source::Labelled => labelled(),
        Source::Pairs => pairs(),
        Source::Lists => ranked(),
    };
    let valid_texts = if source == Source::Lists { 0.0 } else { 0.3 };
    let config = SplitConfig { valid_languages: vec!["dd".into()], valid_texts, ..SplitConfig::default() };
    let split = Split::new(&data, &config, 5).unwrap();
    let (n_way, k_shot, queries, meta_batch, cross_lingual) = (3, 2, 3, 5, 0.5);
    match source {
        Source::Labelled => {
            let spec = LabelledSpec { n_way, k_shot, queries, meta_batch, cross_lingual, dropout: 0.1 };
            f(&LabelledSource::new(&data, &split, spec).unwrap(), &bag(3))
        }
        Source::Pairs => {
            let spec = PairSpec { support: 4, query: 4, meta_batch, dropout: 0.1, pivot: None };
            f(&PairSource::new(&data, &split, spec).unwrap(), &bag(6))
        }
        Source::Lists => {
            let spec = ListSpec { support: 3, query: 4, meta_batch };
            f(&ListSource::new(&data, &split, spec).unwrap(), &dense)
        }
    }
}

fn config(steps: u64) -> TrainConfig {
    TrainConfig {
        seed: 11,
        embedding_std: 0.3,
        inner_steps: 2,
        inner_lr: 0.3,
        algorithm: Algorithm::Maml,
        first_order: false,
        optimizer: Rule::ADAMW,
        schedule: Schedule { lr: 0.02, warmup: 3, steps, floor: 0.1 },
        valid_every: 5,
        valid_batches: 2,
        patience: 0,
    }
}

fn about() -> About {
    About {
        task: "test".into(),
        aux: BTreeMap::new(),
        config: json!({"lr": 0.1}),
        text_config: json!({}),
        label_names: vec![],
    }
}

/// Saves and opens a checkpoint; its bytes too.
fn through_a_file(checkpoint: &Checkpoint) -> (Checkpoint, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    checkpoint.save(&path).unwrap();
    (Checkpoint::open(&path).unwrap(), std::fs::read(&path).unwrap())
}

/// All that a run leaves: its reports, its ending, the bytes of its state and of its model.
#[derive(Debug, PartialEq)]
struct Outcome {
    reports: Vec<String>,
    ending: Ending,
    state: Vec<u8>,
    model: Vec<u8>,
}

/// Runs to the end or until `stop` says so; the reports' numbers are printed to the last bit.
fn run(trainer: &mut Trainer, reports: &mut Vec<String>, stop: impl Fn(&Event) -> bool + Sync + Send) -> Ending {
    trainer
        .run(|_, event| {
            if let Event::Report(report) = &event {
                reports.push(format!("{report:?}"));
            }
            Ok(if stop(&event) { Control::Stop } else { Control::Continue })
        })
        .unwrap()
}

fn outcome(trainer: &Trainer, reports: Vec<String>, ending: Ending) -> Outcome {
    let state = through_a_file(&trainer.checkpoint(&about()).unwrap()).1;
    Outcome { reports, ending, state, model: through_a_file(&trainer.model(&about())).1 }
}

fn uninterrupted(cpu: &Cpu, source: Source, config: &TrainConfig) -> Outcome {
    with(source, |episodes, shape| {
        let mut trainer = Trainer::new(cpu, shape, config.clone(), episodes, true).unwrap();
        let mut reports = Vec::new();
        let ending = run(&mut trainer, &mut reports, |_| false);
        outcome(&trainer, reports, ending)
    })
}

/// A run that is stopped, saved, opened and resumed at every event `stop` names.
fn stopped_at(source: Source, config: &TrainConfig, stop: impl Fn(&Event) -> bool + Sync + Send) -> Outcome {
    with(source, |episodes, shape| {
        let mut trainer = Trainer::new(&Cpu::new(), shape, config.clone(), episodes, true).unwrap();
        let mut reports = Vec::new();
        loop {
            let ending = run(&mut trainer, &mut reports, &stop);
            if ending != Ending::Stopped {
                return outcome(&trainer, reports, ending);
            }
            let (opened, _) = through_a_file(&trainer.checkpoint(&about()).unwrap());
            trainer = Trainer::new(&Cpu::new(), shape, config.clone(), episodes, true).unwrap();
            trainer.resume(&opened).unwrap();
        }
    })
}

#[test]
fn a_run_has_the_same_bits_on_any_number_of_threads() {
    for source in SOURCES {
        let wanted = uninterrupted(&Cpu::new(), source, &config(12));
        assert_eq!((wanted.reports.len(), wanted.ending), (3, Ending::Complete));
        for threads in [2, 3, 8] {
            let found = uninterrupted(&Cpu::new().threads(threads).unwrap(), source, &config(12));
            assert!(found == wanted, "{source:?} on {threads} threads, seed 11: {:?}", found.reports);
        }
    }
}

#[test]
fn a_run_stopped_at_any_event_and_resumed_has_the_same_bits() {
    let sgd = Rule::Sgd { momentum: 0.9, weight_decay: 0.001 };
    let rest = Rule::Adamw { beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.0 };
    for (source, optimizer) in SOURCES.into_iter().flat_map(|s| [(s, Rule::ADAMW), (s, sgd), (s, rest)]) {
        let config = TrainConfig { optimizer, ..config(12) };
        let wanted = uninterrupted(&Cpu::new(), source, &config);
        for step in 1..=12 {
            let found = stopped_at(source, &config, |event| matches!(event, Event::Step(s) if *s == step));
            assert!(found == wanted, "{source:?} {optimizer:?} after step {step}: {:#?}", found.reports);
        }
        let found = stopped_at(source, &config, |event| matches!(event, Event::Report(_)));
        assert!(found == wanted, "{source:?} {optimizer:?} after each report: {:#?}", found.reports);
        let found = stopped_at(source, &config, |_| true);
        assert!(found == wanted, "{source:?} {optimizer:?} after everything: {:#?}", found.reports);
    }
}

#[test]
fn another_seed_gives_another_run() {
    let wanted = uninterrupted(&Cpu::new(), Source::Labelled, &config(5));
    let other = uninterrupted(&Cpu::new(), Source::Labelled, &TrainConfig { seed: 12, ..config(5) });
    assert!(wanted.state != other.state && wanted.reports != other.reports);
}

fn reports(source: Source, config: &TrainConfig) -> Vec<Report> {
    with(source, |episodes, shape| {
        let mut trainer = Trainer::new(&Cpu::new(), shape, config.clone(), episodes, true).unwrap();
        let mut reports = Vec::new();
        let ending = trainer.run(|_, event| {
            if let Event::Report(report) = event {
                reports.push(*report);
            }
            Ok(Control::Continue)
        });
        assert_eq!(ending.unwrap(), Ending::Complete);
        reports
    })
}

#[test]
fn training_lowers_the_loss_and_carries_over_to_a_new_language() {
    for (source, chance) in [(Source::Labelled, 1.0 / 3.0), (Source::Pairs, 0.25), (Source::Lists, 0.25)] {
        for first_order in [false, true] {
            let config = TrainConfig { first_order, valid_every: 10, valid_batches: 10, ..config(200) };
            let reports = reports(source, &config);
            let (first, last) = (reports[0], *reports.last().unwrap());
            let what = format!("{source:?}, first order {first_order}, seed 11: {first:?} to {last:?}");
            assert!(last.train_loss < 0.6 * first.train_loss, "{what}");
            let score = last.valid_accuracy.unwrap();
            assert!(score > chance + 0.6 * (1.0 - chance), "{what}");
            assert_eq!(last.step, 200);
        }
    }
}

const ALGORITHMS: [Algorithm; 6] = [
    Algorithm::Maml,
    Algorithm::Fomaml,
    Algorithm::Anil,
    Algorithm::Reptile,
    Algorithm::ProtoNet,
    Algorithm::ProtoMaml,
];

#[test]
fn every_algorithm_learns_and_resumes_to_the_same_bits() {
    let mut states = Vec::new();
    for algorithm in ALGORITHMS {
        let config = |steps| TrainConfig { algorithm, valid_every: 10, valid_batches: 10, ..config(steps) };
        let reports = reports(Source::Labelled, &config(200));
        let (first, last) = (reports[0], *reports.last().unwrap());
        let what = format!("{algorithm:?}, seed 11: {first:?} to {last:?}");
        assert!(last.valid_loss.unwrap() < 0.7 * first.valid_loss.unwrap(), "{what}");
        assert!(last.valid_accuracy.unwrap() > 0.8 && last.valid_diverged == 0, "{what}");
        let whole = uninterrupted(&Cpu::new(), Source::Labelled, &config(12));
        let found = stopped_at(Source::Labelled, &config(12), |event| matches!(event, Event::Step(5)));
        assert!(found == whole, "{algorithm:?}: {:#?}", found.reports);
        assert!(!states.contains(&whole.state), "{algorithm:?} trains as one before it");
        states.push(whole.state);
    }
}

#[test]
fn diverged_episodes_are_counted_and_named() {
    with(Source::Labelled, |episodes, shape| {
        let new = |inner_lr| {
            let config = TrainConfig { inner_lr, inner_steps: 4, ..config(10) };
            Trainer::new(&Cpu::new(), shape, config, episodes, true).unwrap()
        };
        // The report of step 5 is due when the run is resumed, and is made at the other rate.
        let mut sane = new(0.3);
        run(&mut sane, &mut vec![], |event| matches!(event, Event::Step(5)));
        let mut steep = new(1e30);
        steep.resume(&sane.checkpoint(&about()).unwrap()).unwrap();
        let mut reports = Vec::new();
        let ended = steep.run(|_, event| {
            if let Event::Report(report) = event {
                reports.push(*report);
            }
            Ok(Control::Continue)
        });
        assert_eq!((reports[0].valid_diverged, reports[0].valid_loss), (10, None), "2 batches of 5 episodes");
        let error = ended.unwrap_err().to_string();
        assert!(error.contains("in episodes [0, 1, 2, 3, 4]"), "{error}");
    });
}

#[test]
fn early_stopping_keeps_the_best_weights() {
    let config = TrainConfig { patience: 3, ..config(2000) };
    with(Source::Labelled, |episodes, shape| {
        let mut trainer = Trainer::new(&Cpu::new(), shape, config.clone(), episodes, true).unwrap();
        let (mut best, mut stale) = (None, 0);
        let ending = trainer.run(|trainer, event| {
            if let Event::Report(report) = event {
                stale = if report.best { 0 } else { stale + 1 };
                if report.best {
                    best = Some((report.valid_accuracy, trainer.checkpoint(&about())?.params));
                }
            }
            Ok(Control::Continue)
        });
        assert_eq!((ending.unwrap(), stale), (Ending::Early, 3));
        let (score, weights) = best.unwrap();
        assert!(trainer.step() < 2000);
        assert_eq!(trainer.best_score(), score);
        assert_eq!(trainer.model(&about()).params, weights);
        assert_ne!(trainer.checkpoint(&about()).unwrap().params, weights, "the last weights are others");

        let (opened, bytes) = through_a_file(&trainer.checkpoint(&about()).unwrap());
        let mut resumed = Trainer::new(&Cpu::new(), shape, config.clone(), episodes, true).unwrap();
        resumed.resume(&opened).unwrap();
        assert_eq!(run(&mut resumed, &mut vec![], |_| panic!("it is over")), Ending::Early);
        assert_eq!(through_a_file(&resumed.checkpoint(&about()).unwrap()).1, bytes);
    });
}

#[test]
fn a_diverging_run_is_an_error_and_its_weights_stay_finite() {
    for (source, inner_lr) in SOURCES.into_iter().flat_map(|s| [1e10, 1e19, 1e30, 1e300].map(|lr| (s, lr))) {
        with(source, |episodes, shape| {
            let config = TrainConfig { inner_lr, inner_steps: 4, ..config(60) };
            let mut trainer = Trainer::new(&Cpu::new(), shape, config, episodes, true).unwrap();
            match trainer.run(|_, _| Ok(Control::Continue)) {
                Ok(ending) => assert_eq!(ending, Ending::Complete),
                Err(error) => {
                    assert_eq!(error.code(), 3, "{error}");
                    assert!(error.to_string().contains("a smaller rate may help"), "{error}");
                }
            }
            assert!(inner_lr < 1e30 || trainer.step() < 60, "{source:?} at {inner_lr:e} did not diverge");
            let (opened, _) = through_a_file(&trainer.checkpoint(&about()).unwrap());
            assert!(opened.params.first.iter().all(|w| w.is_finite()), "{source:?} at {inner_lr:e}");
        });
    }
}

#[test]
fn settings_that_cannot_work_are_refused() {
    with(Source::Labelled, |episodes, shape| {
        let new = |config| Trainer::new(&Cpu::new(), shape, config, episodes, true);
        let refused: [fn(&mut TrainConfig); 7] = [
            |c| c.embedding_std = f64::NAN,
            |c| c.inner_lr = f64::NAN,
            |c| c.inner_lr = -0.1,
            |c| c.valid_batches = 0,
            |c| c.schedule.lr = 0.0,
            |c| c.optimizer = Rule::Sgd { momentum: 1.0, weight_decay: 0.0 },
            |c| c.inner_steps = usize::MAX,
        ];
        for (i, change) in refused.into_iter().enumerate() {
            let mut config = config(5);
            change(&mut config);
            let error = new(config).err().unwrap_or_else(|| panic!("case {i} must be refused"));
            assert_eq!(error.code(), 3, "{error}");
        }
        let wide = MlpShape { input: VOCABULARY + 1, ..shape.clone() };
        assert_eq!(Trainer::new(&Cpu::new(), &wide, config(5), episodes, true).err().unwrap().code(), 1);

        // As large as they get, for the sums of the loop.
        let endless = TrainConfig { patience: u64::MAX, valid_every: u64::MAX, ..config(2) };
        assert_eq!(run(&mut new(endless).unwrap(), &mut vec![], |_| false), Ending::Complete);

        let mut trainer = new(config(5)).unwrap();
        let finished = trainer.model(&about());
        assert_eq!(trainer.resume(&finished).unwrap_err().code(), 3);
        let mut other = trainer.checkpoint(&about()).unwrap();
        other.params.shape.widths = vec![13, 3];
        assert_eq!(trainer.resume(&other).unwrap_err().code(), 1);
    });
}
