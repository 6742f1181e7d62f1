//! The plan names every byte a workspace takes, before anything runs; what runs takes no more.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use metaglot::bf16;
use metaglot::cpu::Cpu;
use metaglot::meta::{Dense, GramSpace, InnerLoop, Limits, MetaGradient, Order, Plan, Rates, Update, cavia};
use metaglot::model::{InputKind, Params};
use metaglot::optim::{Optimizer, Rule, Schedule};
use support::{LossKind, Problem, shape};

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

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const DIMS: [usize; 4] = [40, 33, 17, 3];

/// Planned bytes, and the most that making the workspace and two meta-steps took.
fn planned_and_measured(
    kind: InputKind,
    cpu: &Cpu,
    inner: InnerLoop,
    change: impl Fn(Limits) -> Limits,
) -> (usize, usize) {
    let p = Problem::random(12, shape(kind, &DIMS), LossKind::Classes, 9, 25, 30).with_context(3);
    let params = p.params::<f32>();
    p.with_batch::<f32, _>(|batch| {
        let limits = change(Limits::of(batch, &inner));
        let planned = Plan::new::<f32>(cpu, &p.shape, limits).unwrap().bytes();
        let mut gradient = MetaGradient::new(&p.shape, &limits);
        let before = LIVE.load(Ordering::Relaxed);
        PEAK.store(before, Ordering::Relaxed);
        let mut gram = GramSpace::<f32>::new(cpu, &p.shape, limits).unwrap();
        cpu.install(|| (0..2).for_each(|_| gram.run(&params, batch, &inner, &mut gradient).unwrap()));
        (planned, PEAK.load(Ordering::Relaxed) - before)
    })
}

/// Bytes that a whole training step takes beside the table and its moments, everything made anew: workspace, gradient,
/// the step itself and the optimiser's.
fn beside_the_table(vocabulary: usize) -> usize {
    let mut p = Problem::random(13, shape(InputKind::Bag, &[40, 9, 3]), LossKind::Classes, 5, 10, 12);
    p.shape.input = vocabulary;
    let cpu = Cpu::new();
    let mut params = Params::<f32, bf16>::stored_zeros(&p.shape).unwrap();
    params.head.iter_mut().enumerate().for_each(|(i, w)| *w = (i as f32).sin());
    params.bias.fill(0.5);
    let schedule = Schedule { lr: 0.1, warmup: 0, steps: 10, floor: 0.1 };
    let mut optimizer = Optimizer::<f32>::new(&cpu, &p.shape, Rule::ADAMW, schedule).unwrap();
    p.with_batch::<f32, _>(|batch| {
        let inner = InnerLoop::sgd(3, 0.1, Order::Second);
        let limits = Limits::of(batch, &inner);
        assert!(limits.nnz < 10_000, "a small vocabulary would bound the rows");
        let before = LIVE.load(Ordering::Relaxed);
        PEAK.store(before, Ordering::Relaxed);
        let mut gradient = MetaGradient::new(&p.shape, &limits);
        let mut gram = GramSpace::<f32>::new(&cpu, &p.shape, limits).unwrap();
        for _ in 0..3 {
            optimizer.catch_up(&mut params, &gradient.rows).unwrap();
            gram.run(&params, batch, &inner, &mut gradient).unwrap();
            optimizer.step(&mut params, &gradient).unwrap();
        }
        assert!(!gradient.rows.is_empty() && params.first[..40 * 9].iter().any(|w| w.to_f32() != 0.0));
        PEAK.load(Ordering::Relaxed) - before
    })
}

/// The same of the plain form: planned bytes, those its workspace took, and the most that two meta-steps took besides.
fn dense_planned_and_measured(kind: InputKind, cpu: &Cpu, inner: InnerLoop) -> [usize; 3] {
    let p = Problem::random(12, shape(kind, &DIMS), LossKind::Classes, 9, 25, 30).with_context(3);
    let params = p.params::<f32>();
    p.with_batch::<f32, _>(|batch| {
        let limits = Limits::of(batch, &inner);
        let planned = Dense::<f32>::planned_bytes(cpu, &p.shape, &limits).unwrap();
        let mut gradient = MetaGradient::new(&p.shape, &limits);
        let before = LIVE.load(Ordering::Relaxed);
        let mut dense = Dense::<f32>::new(cpu, &p.shape, limits).unwrap();
        let made = LIVE.load(Ordering::Relaxed);
        PEAK.store(made, Ordering::Relaxed);
        (0..2).for_each(|_| dense.run(&params, batch, &inner, &mut gradient).unwrap());
        [planned, made - before, PEAK.load(Ordering::Relaxed) - made]
    })
}

/// A program of its own: any other thread, the test harness's too, would be counted.
fn main() {
    let maml = |steps| InnerLoop::sgd(steps, 0.02, Order::Second);
    let heavy = InnerLoop { update: Update::Sgd { momentum: 0.5, weight_decay: 0.1 }, ..maml(7) };
    let loops = [
        maml(5),
        heavy,
        cavia::inner_loop(5, 0.1, 3),
        InnerLoop { micro_batch: 4, ..maml(5) },
        InnerLoop { order: Order::First, ..maml(50) },
    ];
    // They live to the end: the threads of a dropped pool free their memory at any later time.
    let cpus = [1, 2].map(|threads| Cpu::new().threads(threads).unwrap());
    for cpu in &cpus {
        for kind in [InputKind::Dense, InputKind::Bag] {
            for inner in loops {
                for (recompute, task_chunk) in [(false, 0), (true, 2)] {
                    let change = |limits| Limits { recompute, task_chunk, ..limits };
                    let (planned, measured) = planned_and_measured(kind, cpu, inner, change);
                    assert_eq!(planned, measured, "{cpu:?}, {kind:?}, {inner:?}, {recompute}, {task_chunk}, seed 12");
                }
            }
            let adam = Update::Adam { beta1: 0.9, beta2: 0.99, eps: 1e-6 };
            let rates = [0.01; 3 * 5];
            let rated = InnerLoop { rates: Rates::Layers(&rates), ..maml(5) };
            for inner in loops.into_iter().chain([InnerLoop { update: adam, ..maml(5) }, rated]) {
                let [planned, measured, more] = dense_planned_and_measured(kind, cpu, inner);
                assert_eq!(planned, measured, "plain form, {kind:?}, {inner:?}, seed 12");
                // Beside the workspace an episode holds a copy of the shape's widths, of a few layers each.
                assert!(more <= 3 * size_of_val(&DIMS), "plain form, {kind:?}, {inner:?}: {more} bytes more, seed 12");
            }
        }
        let (few, _) = planned_and_measured(InputKind::Dense, cpu, maml(10), |limits| limits);
        let (many, _) =
            planned_and_measured(InputKind::Dense, cpu, maml(100), |limits| Limits { recompute: true, ..limits });
        assert!(many <= 2 * few, "{many} bytes for 100 recomputed steps, {few} for 10");
    }
    let sizes = [10_000, 100_000, 1_000_000].map(beside_the_table);
    assert!(sizes.iter().all(|&bytes| bytes == sizes[0]), "{sizes:?} bytes for 10^4, 10^5, 10^6 tokens, seed 13");
    println!("a_larger_vocabulary_takes_no_more_beside_its_table ... ok");
    println!("planned_bytes_are_the_bytes_taken ... ok");
}
