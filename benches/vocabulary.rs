//! A training step of a token-bag model against the size of its vocabulary: the exact second-order meta-gradient of 32
//! episodes (25 support and 75 query examples of 60 tokens, 5 inner steps, H = 256) and the outer AdamW step of the rows
//! it touches, for tables in f32, f16 and bf16. Prints a table: milliseconds (median of the repetitions) and bytes.
//!
//! Two kinds of text. `same words`: the same words at every size, spread evenly over the table, so that only the table
//! grows. `uniform`: every token anywhere, the worst case for the caches; there a larger table has more different words.
//! Times are in steady state: every row of a batch has been touched before, and missed no step of the optimiser.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use metaglot::cpu::{Cpu, StoredElement};
use metaglot::meta::{BatchTargets, EpisodeSet, GramSpace, InnerLoop, Inputs, Limits, MetaBatch, MetaGradient, Order};
use metaglot::model::{InputKind, MlpShape, Params};
use metaglot::optim::{Optimizer, Rule, Schedule};
use metaglot::{Bags, Purpose, Rng, bf16, f16};

/// The system's allocator, counting the bytes in use and the most there were.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    // Zeros come from the system as such: pages of a table that is never touched take no time.
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const EPISODES: usize = 32;
const TOKENS: usize = 60;
const HIDDEN: usize = 256;
/// Different words of the text that is the same at every size.
const WORDS: usize = 10_000;
const REPETITIONS: usize = 7;
const INNER: InnerLoop = InnerLoop::sgd(5, 0.05, Order::Second);

/// Where the tokens of a text lie in the table.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Text {
    SameWords,
    Uniform,
}

/// The stacked bags of one side of a batch.
struct Side {
    ends: Vec<usize>,
    labels: Vec<u32>,
    tokens: Vec<u32>,
    weights: Vec<f32>,
    offsets: Vec<usize>,
}

impl Side {
    fn new(text: Text, vocabulary: usize, rows: usize, stream: u64) -> Self {
        let mut rng = Rng::new(2, stream, 0, Purpose::Data);
        let n = EPISODES * rows;
        let tokens: Vec<u32> = (0..n).flat_map(|_| bag(&mut rng, text, vocabulary)).collect();
        Self {
            ends: (0..=EPISODES).map(|t| t * rows).collect(),
            labels: (0..n).map(|i| (i % 5) as u32).collect(),
            weights: vec![1.0 / (TOKENS as f32).sqrt(); tokens.len()],
            offsets: (0..=n).map(|i| i * TOKENS).collect(),
            tokens,
        }
    }

    fn set(&self, vocabulary: usize) -> EpisodeSet<'_, f32> {
        let bags = Bags::new(&self.tokens, &self.weights, &self.offsets, vocabulary).unwrap();
        EpisodeSet { inputs: Inputs::Bags(bags), rows: &self.ends, targets: BatchTargets::Classes(&self.labels) }
    }
}

/// Different tokens, rising; of the same words the first come more often, as in text.
fn bag(rng: &mut Rng, text: Text, vocabulary: usize) -> Vec<u32> {
    let mut tokens = std::collections::BTreeSet::new();
    while tokens.len() < TOKENS {
        tokens.insert(match text {
            Text::Uniform => rng.below(vocabulary),
            Text::SameWords => {
                let bound = 1 + rng.below(WORDS);
                rng.below(bound) * (vocabulary / WORDS)
            }
        } as u32);
    }
    tokens.into_iter().collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Times both halves of a training step and prints a line of the table.
fn measure<S: StoredElement<f32>>(text: Text, vocabulary: usize, threads: usize) {
    let shape = MlpShape { input: vocabulary, kind: InputKind::Bag, widths: vec![HIDDEN, 5] };
    let (support, query) = (Side::new(text, vocabulary, 25, 0), Side::new(text, vocabulary, 75, 1));
    let batch = MetaBatch { support: support.set(vocabulary), query: query.set(vocabulary) };
    let cpu = Cpu::new().threads(threads).unwrap();
    let (limits, start) = (Limits::of(&batch, &INNER), LIVE.load(Ordering::Relaxed));
    let mut params = Params::<f32, S>::stored_zeros(&shape).unwrap();
    let mut rng = Rng::new(3, 0, 0, Purpose::Init);
    params.head.iter_mut().for_each(|w| *w = 0.1 * rng.normal() as f32);
    // Only what is read needs numbers; the rest of the table stays as the system gave it.
    for &token in support.tokens.iter().chain(&query.tokens) {
        let mut state = Rng::new(3, u64::from(token), 1, Purpose::Init);
        let row = &mut params.first[token as usize * HIDDEN..][..HIDDEN];
        let x = state.normal() as f32;
        row.iter_mut().enumerate().for_each(|(h, w)| *w = S::narrow(x * (h as f32 * 0.7).sin()));
    }
    let schedule = Schedule { lr: 1e-3, warmup: 0, steps: 1000, floor: 1.0 };
    let rule = Rule::Adamw { beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.0 };
    let mut optimizer = Optimizer::new(&cpu, &shape, rule, schedule).unwrap();
    let tables = LIVE.load(Ordering::Relaxed) - start;
    PEAK.store(LIVE.load(Ordering::Relaxed), Ordering::Relaxed);
    let mut gradient = MetaGradient::new(&shape, &limits);
    let mut gram = GramSpace::new(&cpu, &shape, limits).unwrap();
    let (mut meta, mut outer) = (vec![], vec![]);
    cpu.install(|| {
        for repetition in 0..REPETITIONS + 2 {
            let at = Instant::now();
            gram.run(&params, &batch, &INNER, &mut gradient).unwrap();
            let middle = Instant::now();
            optimizer.step(&mut params, &gradient).unwrap();
            if repetition >= 2 {
                meta.push((middle - at).as_secs_f64() * 1e3);
                outer.push(middle.elapsed().as_secs_f64() * 1e3);
            }
        }
    });
    assert!(gradient.is_finite() && gradient.meta_loss() < 1.7, "it does not learn: {}", gradient.meta_loss());
    let beside = PEAK.load(Ordering::Relaxed) - start - tables;
    println!(
        "{:<10} {vocabulary:>8} {:>5} {threads} {:>9} {:>10.2} {:>10.2} {:>14} {tables:>14}",
        if text == Text::Uniform { "uniform" } else { "same words" },
        S::STORED.name(),
        gradient.rows.len(),
        median(meta),
        median(outer),
        beside,
    );
}

fn main() {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    println!("text       vocabulary table threads rows  meta ms  adamw ms   bytes beside  bytes of tables and moments");
    for text in [Text::SameWords, Text::Uniform] {
        for vocabulary in [10_000, 100_000, 1_000_000] {
            measure::<f32>(text, vocabulary, 1);
            measure::<f16>(text, vocabulary, 1);
            measure::<bf16>(text, vocabulary, 1);
        }
    }
    if cpus > 1 {
        measure::<bf16>(Text::SameWords, 1_000_000, 2);
        measure::<f32>(Text::Uniform, 1_000_000, 2);
    }
}
