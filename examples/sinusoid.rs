//! Sinusoid regression (Finn et al., "Model-agnostic meta-learning for fast adaptation of deep networks", 2017, section
//! 5.1 and figure 3): amplitude from [0.1, 5], phase from [0, pi], x from [-5, 5], a 1-40-40-1 network, mean squared error;
//! one inner step at rate 0.01, 25 tasks in a meta-batch, Adam at 1e-3. As in the authors' code, K points of a task are the
//! support and K others the query, and weights begin as normal numbers of deviation 0.01. Joint training fits all tasks at
//! once with the same points; it is fine-tuned at the rate that does best on validation tasks, as in the paper.
//!
//!     cargo run --release --example sinusoid [OUTER_STEPS]

use metaglot::cpu::Cpu;
use metaglot::meta::{BatchTargets, EpisodeSet, GramSpace, InnerLoop, Inputs, Limits, MetaBatch, MetaGradient, Order};
use metaglot::model::{InputKind, MlpShape, Params};
use metaglot::optim::{Optimizer, Rule, Schedule};
use metaglot::{MatRef, Purpose, Result, Rng};

const SEEDS: [u64; 3] = [1, 2, 3];
const META_BATCH: usize = 25;
const TEST_TASKS: usize = 600;
/// Query points of a test task: the error is that over the whole range, not of a few points.
const TEST_POINTS: usize = 100;
const TEST_STEPS: [usize; 3] = [0, 1, 10];
const INNER_LR: f64 = 0.01;
/// A task with this error or more has diverged: a sinusoid itself has a mean square of 12.5 at most.
const DIVERGED: f64 = 100.0;
/// Of fine-tuning after joint training.
const RATES: [f64; 8] = [1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1];

/// Name, inner steps in training, order.
const ALGORITHMS: [(&str, usize, Order); 3] =
    [("MAML", 1, Order::Second), ("FOMAML", 1, Order::First), ("joint training", 0, Order::Second)];

/// The stacked points of several tasks.
#[derive(Default)]
struct Points {
    x: Vec<f32>,
    y: Vec<f64>,
    rows: Vec<usize>,
}

impl Points {
    fn clear(&mut self) {
        self.x.clear();
        self.y.clear();
        self.rows.clear();
        self.rows.push(0);
    }

    fn push(&mut self, rng: &mut Rng, [amplitude, phase]: [f64; 2], n: usize) {
        for _ in 0..n {
            let x = 10.0 * rng.unit() - 5.0;
            self.x.push(x as f32);
            self.y.push(amplitude * (x - phase).sin());
        }
        self.rows.push(self.x.len());
    }

    fn set(&self) -> Result<EpisodeSet<'_, f32>> {
        let inputs = Inputs::Dense(MatRef::new(&self.x, self.x.len(), 1)?);
        Ok(EpisodeSet { inputs, rows: &self.rows, targets: BatchTargets::Values(&self.y) })
    }
}

/// Support and query points of some tasks.
#[derive(Default)]
struct Tasks {
    support: Points,
    query: Points,
}

impl Tasks {
    fn draw(&mut self, rng: &mut Rng, tasks: usize, shots: usize, queries: usize) {
        self.support.clear();
        self.query.clear();
        for _ in 0..tasks {
            let sine = [0.1 + 4.9 * rng.unit(), std::f64::consts::PI * rng.unit()];
            self.support.push(rng, sine, shots);
            self.query.push(rng, sine, queries);
        }
    }

    fn batch(&self) -> Result<MetaBatch<'_, f32>> {
        Ok(MetaBatch { support: self.support.set()?, query: self.query.set()? })
    }
}

fn train(cpu: &Cpu, shape: &MlpShape, shots: usize, seed: u64, inner: &InnerLoop, steps: u64) -> Result<Params<f32>> {
    let (mut params, mut rng) = (Params::<f32>::zeros(shape)?, Rng::new(seed, 0, 0, Purpose::Init));
    params.first.fill_with(|| (0.01 * rng.normal()) as f32);
    // Biases begin at 0: in the head they follow the 40 x 40 weights, and end it.
    let head = [0..1600, 1640..1680];
    head.into_iter().for_each(|range| params.head[range].fill_with(|| (0.01 * rng.normal()) as f32));
    let rule = Rule::Adamw { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 };
    let mut optimizer = Optimizer::new(cpu, shape, rule, Schedule { lr: 1e-3, warmup: 0, steps, floor: 1.0 })?;
    let mut tasks = Tasks::default();
    tasks.draw(&mut Rng::new(seed, 0, 0, Purpose::Data), META_BATCH, shots, shots);
    let limits = Limits::of(&tasks.batch()?, inner);
    let (mut gram, mut gradient) = (GramSpace::new(cpu, shape, limits)?, MetaGradient::new(shape, &limits));
    for step in 0..steps {
        tasks.draw(&mut Rng::new(seed, step, 0, Purpose::Episode), META_BATCH, shots, shots);
        gram.run(&params, &tasks.batch()?, inner, &mut gradient)?;
        optimizer.step(&mut params, &gradient)?;
    }
    Ok(params)
}

/// Which tasks are evaluated: the same for every algorithm and seed.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Valid,
    Test,
}

/// The error of each task after so many steps.
fn evaluate(cpu: &Cpu, params: &Params<f32>, part: Part, shots: usize, steps: usize, lr: f64) -> Result<Vec<f64>> {
    let inner = InnerLoop::sgd(steps, lr, Order::Evaluate);
    let mut tasks = Tasks::default();
    tasks.draw(&mut Rng::new(0, 0, part as u64, Purpose::Data), TEST_TASKS, shots, TEST_POINTS);
    let batch = tasks.batch()?;
    let mut found = MetaGradient::without_storage();
    GramSpace::new(cpu, &params.shape, Limits::of(&batch, &inner))?.run(params, &batch, &inner, &mut found)?;
    Ok(found.query_loss.iter().map(|&l| f64::from(l)).collect())
}

/// The rate of fine-tuning with the least error on validation tasks, without one that diverges.
fn tuned_rate(cpu: &Cpu, params: &Params<f32>, shots: usize, steps: usize) -> Result<f64> {
    let mut best = (f64::INFINITY, 0.0);
    for rate in RATES {
        let errors = evaluate(cpu, params, Part::Valid, shots, steps, rate)?;
        let mean = errors.iter().sum::<f64>() / errors.len() as f64;
        if mean < best.0 {
            best = (mean, rate);
        }
    }
    Ok(best.1)
}

/// The mean, and half of its 95% interval.
fn mean_interval(x: &[f64]) -> (f64, f64) {
    let n = x.len() as f64;
    let mean = x.iter().sum::<f64>() / n;
    let variance = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (n - 1.0);
    (mean, 1.96 * (variance / n).sqrt())
}

/// One line: the error after each number of steps, over all seeds' tasks and by seed; tasks that diverged are named and
/// left out of the means.
fn line(name: &str, shots: usize, steps: usize, by_seed: &[Vec<f64>]) {
    let kept = |x: &Vec<f64>| x.iter().copied().filter(|&x| x < DIVERGED).collect::<Vec<f64>>();
    let shown = |x: &[f64]| {
        let (mean, half) = mean_interval(x);
        format!("{mean:.3} ± {half:.3}")
    };
    let all = shown(&by_seed.iter().flat_map(kept).collect::<Vec<f64>>());
    let seeds: Vec<String> = by_seed.iter().map(|x| shown(&kept(x))).collect();
    let mut diverged = Vec::new();
    for (errors, seed) in by_seed.iter().zip(SEEDS) {
        // Not finite counts as well.
        let lost = (0..errors.len()).filter(|&t| !matches!(errors[t], x if x < DIVERGED));
        diverged.extend(lost.map(|t| format!("{t} (seed {seed})")));
    }
    let diverged = if diverged.is_empty() { "none".to_string() } else { diverged.join(", ") };
    println!("| {name} | {shots} | {steps} | {all} | {} | {diverged} |", seeds.join(" | "));
}

fn main() -> Result<()> {
    let steps = std::env::args().nth(1).and_then(|s| s.parse().ok()).unwrap_or(70_000);
    let (cpu, shape) = (Cpu::new(), MlpShape { input: 1, kind: InputKind::Dense, widths: vec![40, 40, 1] });
    println!(
        "{steps} outer steps; {TEST_TASKS} test tasks, {TEST_POINTS} query points each; mean squared error ± 95%\n"
    );
    println!(
        "| algorithm | shots | test steps | all seeds | seed 1 | seed 2 | seed 3 \
         | tasks that diverged |\n|---|---|---|---|---|---|---|---|"
    );
    for shots in [5, 10] {
        for (name, inner_steps, order) in ALGORITHMS {
            let inner = InnerLoop::sgd(inner_steps, INNER_LR, order);
            let models: Vec<Params<f32>> =
                SEEDS.iter().map(|&seed| train(&cpu, &shape, shots, seed, &inner, steps)).collect::<Result<_>>()?;
            for test_steps in TEST_STEPS {
                let errors = models.iter().map(|params| {
                    let tuned = inner_steps == 0 && test_steps > 0;
                    let rate = if tuned { tuned_rate(&cpu, params, shots, test_steps)? } else { INNER_LR };
                    evaluate(&cpu, params, Part::Test, shots, test_steps, rate)
                });
                line(name, shots, test_steps, &errors.collect::<Result<Vec<_>>>()?);
            }
        }
    }
    Ok(())
}
