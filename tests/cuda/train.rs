//! A whole training run whose meta-steps are a device's: the one outer loop, its losses those of the CPU. On the
//! interpreter.

use crate::datasets::{Made, texts};
use crate::support::simulator::simulators;
use metaglot::cpu::Cpu;
use metaglot::cuda::MetaStep;
use metaglot::dataset::Kind;
use metaglot::episode::{EpisodeSource, LabelledSource, LabelledSpec, Split, SplitConfig};
use metaglot::model::{InputKind, MlpShape};
use metaglot::optim::{Rule, Schedule};
use metaglot::train::{Algorithm, Control, Ending, Event, Report, TrainConfig, Trainer};
use metaglot::{Purpose, Rng};

const VOCABULARY: usize = 40;

/// Tokens 0 to 29 tell the class, ten each; the others are noise.
fn rows(seed: u64) -> Vec<Made> {
    let mut rng = Rng::new(seed, 0, 0, Purpose::Data);
    let mut row = |text: u32, language: &str| {
        let class = (text % 3) as usize;
        let mut tokens = (0..3).map(|_| 10 * class + rng.below(10)).collect::<Vec<_>>();
        tokens.extend((0..2).map(|_| 30 + rng.below(10)));
        tokens.sort_unstable();
        tokens.dedup();
        let tokens = tokens.into_iter().map(|t| t as u32).collect();
        Made { language: language.into(), label: Some(format!("class {class}")), text, tokens, signals: vec![] }
    };
    (0..60).flat_map(|text| [row(text, "aa"), row(text, "bb"), row(text, "cc")]).collect()
}

/// All reports of a run.
fn reports(mut trainer: Trainer) -> Vec<Report> {
    let mut reports = vec![];
    let ending = trainer.run(|_, event| {
        if let Event::Report(report) = event {
            reports.push(*report);
        }
        Ok(Control::Continue)
    });
    assert_eq!(ending.unwrap(), Ending::Complete);
    reports
}

#[test]
fn a_training_run_has_the_losses_of_the_cpu() {
    let seed = 5;
    let data = texts(Kind::Labelled, VOCABULARY as u32, &rows(seed));
    let held_out = SplitConfig { valid_languages: vec!["cc".into()], valid_texts: 0.3, ..SplitConfig::default() };
    let split = Split::new(&data, &held_out, seed).unwrap();
    let spec = LabelledSpec { n_way: 3, k_shot: 2, queries: 2, meta_batch: 2, cross_lingual: 0.5, dropout: 0.1 };
    let source = LabelledSource::new(&data, &split, spec).unwrap();
    let shape = MlpShape { input: VOCABULARY, kind: InputKind::Bag, widths: vec![8, 3] };
    let cpu = Cpu::new().threads(1).unwrap();
    for (algorithm, mut simulator) in
        [Algorithm::Maml, Algorithm::Anil, Algorithm::Reptile].into_iter().zip(simulators())
    {
        let arch = metaglot::cuda::Device::arch(&simulator);
        simulator.seed = seed;
        let config = TrainConfig {
            seed,
            embedding_std: 0.3,
            inner_steps: 2,
            inner_lr: 0.3,
            algorithm,
            first_order: false,
            optimizer: Rule::Sgd { momentum: 0.9, weight_decay: 0.0 },
            schedule: Schedule { lr: 0.2, warmup: 2, steps: 12, floor: 0.1 },
            valid_every: 4,
            valid_batches: 1,
            patience: 0,
        };
        let source: &dyn EpisodeSource = &source;
        let wanted = reports(Trainer::new(&cpu, &shape, config.clone(), source, true).unwrap());
        let engine = |limits| Ok(Box::new(MetaStep::new(simulator, &shape, limits)?) as _);
        let found = reports(Trainer::with_engine(&cpu, &shape, config, source, true, engine).unwrap());
        assert_eq!((found.len(), wanted.len()), (3, 3));
        for (f, w) in found.iter().zip(&wanted) {
            // 12 steps that each round differently: some hundred eps.
            let near = |f: f64, w: f64| (f - w).abs() <= 1e-4 * w.abs();
            let what = format!("{arch} {algorithm:?} seed {seed}: {f:?}, wanted {w:?}");
            assert!(near(f.train_loss, w.train_loss), "{what}");
            assert!(near(f.valid_loss.unwrap(), w.valid_loss.unwrap()), "{what}");
            assert_eq!(
                (f.step, f.train_accuracy, f.valid_accuracy),
                (w.step, w.train_accuracy, w.valid_accuracy),
                "{what}"
            );
        }
        assert!(found[2].train_loss < found[0].train_loss, "{arch} {algorithm:?}: it learns: {found:?}");
    }
}
