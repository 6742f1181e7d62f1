//! A whole meta-step: exact second order in Gram space, in the plain form, and a plain gradient of the same batch.

use std::time::{Duration, Instant};

use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime};
use metaglot::cpu::Cpu;
use metaglot::meta::{
    BatchTargets, Dense, EpisodeSet, GramSpace, InnerLoop, Inputs, Limits, MetaBatch, MetaGradient, Order,
};
use metaglot::model::{InputKind, MlpShape, Params};
use metaglot::{Bags, MatRef, Purpose, Rng};

const EPISODES: usize = 32;
const SUPPORT: usize = 25;
const QUERY: usize = 75;
const SECOND: InnerLoop = InnerLoop::sgd(5, 0.05, Order::Second);
/// No inner step: the gradient of joint training.
const PLAIN: InnerLoop = InnerLoop::sgd(0, 0.05, Order::First);

/// One side of the batch: dense rows or bags of `TOKENS` tokens, five classes.
struct Side {
    ends: Vec<usize>,
    labels: Vec<u32>,
    dense: Vec<f32>,
    tokens: Vec<u32>,
    weights: Vec<f32>,
    offsets: Vec<usize>,
    shape: MlpShape,
}

const TOKENS: usize = 60;

impl Side {
    fn new(shape: &MlpShape, rows: usize, stream: u64) -> Self {
        let mut rng = Rng::new(2, stream, 0, Purpose::Data);
        let n = EPISODES * rows;
        let ends = (0..=EPISODES).map(|t| t * rows).collect();
        let labels = (0..n).map(|i| (i % 5) as u32).collect();
        let (mut dense, mut tokens) = (vec![], vec![]);
        match shape.kind {
            InputKind::Dense => dense = (0..n * shape.input).map(|_| rng.normal() as f32).collect(),
            InputKind::Bag => (0..n).for_each(|_| tokens.extend(bag(&mut rng, shape.input))),
        }
        let weights = vec![1.0 / (TOKENS as f32).sqrt(); tokens.len()];
        let offsets = (0..=n).map(|i| i * TOKENS).collect();
        Self { ends, labels, dense, tokens, weights, offsets, shape: shape.clone() }
    }

    fn set(&self) -> EpisodeSet<'_, f32> {
        let inputs = match self.shape.kind {
            InputKind::Dense => Inputs::Dense(MatRef::new(&self.dense, self.labels.len(), self.shape.input).unwrap()),
            InputKind::Bag => {
                Inputs::Bags(Bags::new(&self.tokens, &self.weights, &self.offsets, self.shape.input).unwrap())
            }
        };
        EpisodeSet { inputs, rows: &self.ends, targets: BatchTargets::Classes(&self.labels) }
    }
}

/// Different tokens, rising; small ones come more often, as in text.
fn bag(rng: &mut Rng, vocabulary: usize) -> Vec<u32> {
    let mut tokens = std::collections::BTreeSet::new();
    while tokens.len() < TOKENS {
        let bound = 1 + rng.below(vocabulary);
        tokens.insert(rng.below(bound) as u32);
    }
    tokens.into_iter().collect()
}

/// The largest difference of the two over the largest value.
fn difference(a: &[f32], b: &[f32]) -> f32 {
    let largest = |values: &mut dyn Iterator<Item = f32>| values.map(f32::abs).fold(0.0, f32::max);
    largest(&mut a.iter().zip(b).map(|(a, b)| a - b)) / largest(&mut b.iter().copied())
}

fn run_gram(
    group: &mut BenchmarkGroup<WallTime>,
    name: &str,
    params: &Params<f32>,
    batch: &MetaBatch<f32>,
    inner: &InnerLoop,
) -> MetaGradient<f32> {
    let limits = Limits::of(batch, inner);
    let mut gradient = MetaGradient::new(&params.shape, &limits);
    let mut gram = GramSpace::new(&Cpu::new(), &params.shape, limits).unwrap();
    gram.run(params, batch, inner, &mut gradient).unwrap();
    group.bench_function(name, |b| b.iter(|| gram.run(params, batch, inner, &mut gradient).unwrap()));
    gradient
}

/// A 256-[128]-5 network on dense features.
fn dense(c: &mut Criterion) {
    let shape = MlpShape { input: 256, kind: InputKind::Dense, widths: vec![128, 5] };
    let (support, query) = (Side::new(&shape, SUPPORT, 0), Side::new(&shape, QUERY, 1));
    let batch = MetaBatch { support: support.set(), query: query.set() };
    let params = Params::<f32>::random(&shape, 0.1, 3).unwrap();
    let mut group = c.benchmark_group("step/256-128-5/32x25+75/5");
    let found = run_gram(&mut group, "gram", &params, &batch, &SECOND);
    run_gram(&mut group, "plain_gradient", &params, &batch, &PLAIN);
    let limits = Limits::of(&batch, &SECOND);
    let mut wanted = MetaGradient::new(&shape, &limits);
    let mut plain = Dense::new(&Cpu::new(), &shape, limits).unwrap();
    plain.run(&params, &batch, &SECOND, &mut wanted).unwrap();
    for (found, wanted) in [(&found.first, &wanted.first), (&found.head, &wanted.head), (&found.bias, &wanted.bias)] {
        let error = difference(found, wanted);
        assert!(error < 1e-4, "the two forms differ by {error:e}");
    }
    group.bench_function("dense", |b| b.iter(|| plain.run(&params, &batch, &SECOND, &mut wanted).unwrap()));
}

/// What exactness costs: seconds of a meta-step of S inner steps over seconds of a plain gradient, of the query examples alone
/// and of as many as support and query together, in turn, the medians of `ROUNDS`. A 256-[128]-5 network, one thread. Printed
/// as a table.
fn cost(_: &mut Criterion) {
    const ROUNDS: usize = 9;
    let shape = MlpShape { input: 256, kind: InputKind::Dense, widths: vec![128, 5] };
    let [support, query, all] =
        [(SUPPORT, 0), (QUERY, 1), (SUPPORT + QUERY, 2)].map(|(rows, stream)| Side::new(&shape, rows, stream));
    let batch = MetaBatch { support: support.set(), query: query.set() };
    let joint = MetaBatch { support: support.set(), query: all.set() };
    let params = Params::<f32>::random(&shape, 0.1, 3).unwrap();
    println!("steps  exact ms  plain, query ms  ratio  plain, all ms  ratio");
    for steps in [1, 5, 10, 50] {
        let runs = [(&batch, InnerLoop { steps, ..SECOND }), (&batch, PLAIN), (&joint, PLAIN)];
        let mut places = runs.map(|(batch, inner)| {
            let limits = Limits::of(batch, &inner);
            (GramSpace::new(&Cpu::new(), &shape, limits).unwrap(), MetaGradient::new(&shape, &limits))
        });
        let mut seconds = [const { vec![] }; 3];
        // The first round warms up.
        for round in 0..=ROUNDS {
            for ((batch, inner), (place, seconds)) in runs.iter().zip(places.iter_mut().zip(&mut seconds)) {
                let (gram, gradient) = place;
                let start = Instant::now();
                gram.run(&params, batch, inner, gradient).unwrap();
                assert!(gradient.is_finite());
                if round > 0 {
                    seconds.push(start.elapsed().as_secs_f64());
                }
            }
        }
        let [exact, query, all] = seconds.map(|mut s| {
            s.sort_by(f64::total_cmp);
            1e3 * s[s.len() / 2]
        });
        let ratios = [exact / query, exact / all];
        println!("{steps:>5}  {exact:>8.2}  {query:>15.2}  {:>5.2}  {all:>13.2}  {:>5.2}", ratios[0], ratios[1]);
    }
}

/// Bags of 60 tokens, an embedding table of 65536 x 64. The plain form is checked on the same batch; it is not timed,
/// because it copies the whole table at every step (16 MiB, 192 times over).
fn bags(c: &mut Criterion) {
    let shape = MlpShape { input: 65_536, kind: InputKind::Bag, widths: vec![64, 5] };
    let (support, query) = (Side::new(&shape, SUPPORT, 2), Side::new(&shape, QUERY, 3));
    let batch = MetaBatch { support: support.set(), query: query.set() };
    let params = Params::<f32>::random(&shape, 0.1, 4).unwrap();
    let mut group = c.benchmark_group("step/65536-64-5/32x25+75/5/60_tokens");
    let found = run_gram(&mut group, "gram", &params, &batch, &SECOND);
    run_gram(&mut group, "plain_gradient", &params, &batch, &PLAIN);
    let limits = Limits::of(&batch, &SECOND);
    let mut wanted = MetaGradient::new(&shape, &limits);
    Dense::new(&Cpu::new(), &shape, limits).unwrap().run(&params, &batch, &SECOND, &mut wanted).unwrap();
    assert_eq!(found.rows, wanted.rows);
    let error = difference(&found.first, &wanted.first);
    assert!(error < 1e-4, "the two forms differ by {error:e}");
}

criterion_group! {
    name = step;
    config = Criterion::default().sample_size(20).warm_up_time(Duration::from_millis(500));
    targets = dense, bags, cost
}
criterion_main!(step);
