//! The meta-step on a device: every algorithm, kind of input and depth, for every architecture, through the engine's own
//! launch code, on the interpreter and on a GPU where there is one; what it refuses; and the interpreter's proof that it
//! sees what may go wrong inside the kernels of the inner steps.

use crate::support::simulator::{Counts, Simulator, simulators};
use crate::support::{LossKind, Problem, cpu, relative_error, shape};
use metaglot::cuda::{Cuda, Device, MetaStep, Precision, StepPlan};
use metaglot::meta::{
    Adapt, ConjugateGradient, GramSpace, InnerLoop, InnerMemory, Limits, MetaBatch, MetaGradient, Order, Outcome,
    Rates, Start, Update, anil, fomaml, maml, reptile,
};
use metaglot::model::{InputKind, Params};
use metaglot::{MatRef, Result};

/// A problem whose numbers f32 holds exactly, so that both sides compute from the same ones. Its episodes have different
/// sizes: each boundary between two moves by up to 2 rows.
fn problem(seed: u64, kind: InputKind, dims: &[usize], [episodes, support, query]: [usize; 3]) -> Problem {
    let mut p = Problem::random(seed, shape(kind, dims), LossKind::Classes, episodes, support, query);
    for set in [&mut p.support, &mut p.query] {
        set.dense.iter_mut().chain(&mut set.weights).for_each(|x| *x = f64::from(*x as f32));
        for (t, row) in set.rows[1..episodes].iter_mut().enumerate() {
            *row = *row + t % 5 - 2;
        }
    }
    p
}

/// Its weights, in f32 and the same in f64.
fn weights(p: &Problem) -> (Params<f32>, Params<f64>) {
    let narrow = p.params::<f32>();
    let widen = |v: &[f32]| v.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
    let (first, bias, head) = (widen(&narrow.first), widen(&narrow.bias), widen(&narrow.head));
    let wide = Params { shape: p.shape.clone(), first, bias, head };
    (narrow, wide)
}

/// A gradient and the outputs it came with.
struct Found<T> {
    gradient: MetaGradient<T>,
    outputs: Vec<T>,
}

/// On the CPU in f64: the truth, itself compared with differences and a plain oracle in tests/gradients.rs.
fn truth(p: &Problem, inner: &InnerLoop) -> Found<f64> {
    let cpu = cpu();
    p.with_batch::<f64, _>(|batch| {
        let limits = Limits::of(batch, inner);
        let mut gram = GramSpace::new(&cpu, &p.shape, limits).unwrap();
        let mut gradient = MetaGradient::new(&p.shape, &limits);
        cpu.install(|| gram.run(&weights(p).1, batch, inner, &mut gradient)).unwrap();
        Found { gradient, outputs: rows(gram.query_outputs()) }
    })
}

/// The rows of a matrix, one behind the other.
fn rows<T: Copy>(m: MatRef<'_, T>) -> Vec<T> {
    (0..m.rows()).flat_map(|i| m.row(i).to_vec()).collect()
}

/// On a device; it comes back with what it found.
fn on<D: Device>(device: D, p: &Problem, inner: &InnerLoop) -> (D, Result<Found<f32>>) {
    p.with_batch::<f32, _>(|batch| {
        let limits = Limits::of(batch, inner);
        let mut step = MetaStep::new(device, &p.shape, limits).unwrap();
        let mut gradient = MetaGradient::new(&p.shape, &limits);
        let done = step.run(&weights(p).0, batch, inner, &mut gradient);
        let outputs = rows(step.query_outputs());
        (step.into_device(), done.map(|()| Found { gradient, outputs }))
    })
}

/// The most that a value may differ, over the largest of its kind. A sum of n rounded products is off by about sqrt(n)
/// eps, and at most 130 terms meet in one sum here: 11 eps; what passes through the steps and back adds up as its root
/// does, some 4 passes: 22 eps. Twice that. (Found: 8 eps.)
const TOLERANCE: f64 = 44.0 * f32::EPSILON as f64;

/// Compares all that a meta-step gives; returns the largest difference.
fn compare(p: &Problem, inner: &InnerLoop, found: &Found<f32>, what: &str) -> f64 {
    let wanted = truth(p, inner);
    let (f, w) = (&found.gradient, &wanted.gradient);
    let narrow = |v: &[f64]| v.iter().map(|&x| x as f32).collect::<Vec<_>>();
    let mut pairs = vec![
        ("query losses", f.query_loss.clone(), narrow(&w.query_loss)),
        ("outputs", found.outputs.clone(), narrow(&wanted.outputs)),
    ];
    if inner.order != Order::Evaluate {
        assert_eq!(f.rows, w.rows, "{what}: rows");
        pairs.push(("first", f.dense_first(&p.shape), narrow(&w.dense_first(&p.shape))));
        pairs.push(("bias", f.bias.clone(), narrow(&w.bias)));
        pairs.push(("head", f.head.clone(), narrow(&w.head)));
    }
    assert_eq!((&f.outcomes, &f.rates), (&w.outcomes, &w.rates), "{what}");
    let error = |(name, found, wanted): (&str, Vec<f32>, Vec<f32>)| {
        let error = relative_error(&found, &wanted);
        assert!(error <= TOLERANCE, "{what}: {name} differ by {error:e}: {found:?}, wanted {wanted:?}");
        error
    };
    pairs.into_iter().map(error).fold(0.0, f64::max)
}

/// Every algorithm the kernels have.
fn algorithms(steps: usize, lr: f64) -> [InnerLoop<'static>; 5] {
    let evaluate = InnerLoop::sgd(steps, lr, Order::Evaluate);
    let [maml, fomaml] = [maml::inner_loop(steps, lr), fomaml::inner_loop(steps, lr)];
    [maml, fomaml, anil::inner_loop(steps, lr), reptile::inner_loop(steps, lr), evaluate]
}

/// Shared memory for an episode, or none: then each part of a step is a launch over all episodes.
const WAYS: [(&str, u32); 2] = [("one launch", 227 * 1024), ("a launch a part", 0)];

/// One, two and three layers of dense inputs and token bags under every algorithm, the kernels taking turns; then sizes at
/// which a thread has a tile of 4 x 4 elements, no inner step, and many episodes.
fn check(mut simulator: Simulator) {
    let arch = simulator.arch();
    let (mut count, mut largest) = (0, 0.0f64);
    const WIDE: usize = 1;
    let mut one = |p: &Problem, inner: &InnerLoop, turn: usize| {
        let (way, shared) = WAYS[turn % 2];
        let mut device = std::mem::replace(&mut simulator, Simulator::new("sm_80"));
        device.shared_limit = shared;
        if turn % 4 == 2 {
            // As much as one episode takes: a block has a multiprocessor for itself, and twice the threads.
            let limits = p.with_batch::<f32, _>(|batch| Limits::of(batch, inner));
            device.shared_limit = StepPlan::new(&p.shape, limits, shared).unwrap().shared_bytes() as u32;
        }
        let (device, found) = on(device, p, inner);
        simulator = device;
        let what = format!("{arch} {way} seed {} {:?} {inner:?}", p.seed, p.shape);
        let found = found.unwrap_or_else(|e| panic!("{what}: {e}"));
        largest = largest.max(compare(p, inner, &found, &what));
        count += 1;
    };
    let depths: [&[usize]; 3] = [&[10, 4], &[10, 9, 4], &[10, 9, 6, 4]];
    for (i, kind) in [InputKind::Dense, InputKind::Bag].into_iter().enumerate() {
        for (j, dims) in depths.into_iter().enumerate() {
            let p = problem(100 + (3 * i + j) as u64, kind, dims, [3, 6, 7]);
            for (turn, inner) in algorithms(3, 0.2).iter().enumerate() {
                one(&p, inner, i + j + turn);
            }
            // No step: nothing moves, and Reptile's answer is zero.
            let [maml, _, anil, reptile, _] = algorithms(0, 0.2);
            for (turn, inner) in [maml, maml, anil, reptile].iter().enumerate() {
                one(&p, inner, i + j + turn);
            }
        }
    }
    // Four layers; episodes and widths about the sizes of tiles, 32 and 64.
    let deep = problem(202, InputKind::Dense, &[10, 9, 7, 6, 4], [3, 6, 7]);
    let edges = problem(203, InputKind::Dense, &[12, 65, 33, 5], [3, 64, 66]);
    for inner in algorithms(2, 0.1) {
        one(&deep, &inner, WIDE);
        one(&edges, &inner, WIDE);
    }
    let wide = problem(200, InputKind::Dense, &[24, 130, 20, 5], [2, 18, 24]);
    for (turn, inner) in algorithms(1, 0.05).iter().enumerate() {
        one(&wide, inner, turn);
    }
    // More classes than a few lanes take, rows of Z that begin at multiples of 16 bytes.
    let classes = problem(204, InputKind::Dense, &[12, 132, 10], [2, 18, 13]);
    for (turn, inner) in algorithms(2, 0.05).iter().enumerate() {
        one(&classes, inner, 2 * turn);
    }
    // Several parts of the first layer's gradient, several groups of episodes.
    let many = problem(201, InputKind::Dense, &[6, 5, 3], [66, 5, 5]);
    for (turn, inner) in algorithms(1, 0.05).iter().enumerate() {
        one(&many, inner, turn);
    }
    eprintln!("{arch}: {count} meta-steps, largest difference {largest:.1e}");
    simulator.assert_all_launched(&["episode"]);
}

/// The same on an architecture, if there are images for it.
fn check_on(arch: &str) {
    match simulators().into_iter().find(|s| s.arch().to_string() == arch) {
        Some(simulator) => check(simulator),
        None => eprintln!("skipped: nothing was built for {arch}"),
    }
}

#[test]
fn meta_steps_equal_the_truth_on_sm_80() {
    check_on("sm_80");
}

#[test]
fn meta_steps_equal_the_truth_on_sm_90a() {
    check_on("sm_90a");
}

#[test]
fn meta_steps_equal_the_truth_on_sm_100() {
    check_on("sm_100");
}

#[test]
fn meta_steps_equal_the_truth_on_a_gpu() {
    let mut cuda = match Cuda::new(0) {
        Ok(cuda) => cuda,
        Err(error) => {
            eprintln!("skipped: {error}");
            return;
        }
    };
    let sizes: [(&[usize], [usize; 3]); 3] =
        [(&[60, 5], [40, 25, 75]), (&[60, 32, 5], [40, 25, 75]), (&[60, 300, 40, 5], [7, 25, 75])];
    for (seed, kind) in [(300, InputKind::Dense), (310, InputKind::Bag)] {
        for (dims, sizes) in sizes {
            let p = problem(seed, kind, dims, sizes);
            for inner in algorithms(5, 0.05) {
                let (device, found) = on(cuda, &p, &inner);
                cuda = device;
                let what = format!("gpu seed {} {:?} {inner:?}", p.seed, p.shape);
                compare(&p, &inner, &found.unwrap_or_else(|e| panic!("{what}: {e}")), &what);
            }
        }
    }
}

#[test]
fn the_order_of_warps_and_blocks_changes_no_bit() {
    let p = problem(7, InputKind::Bag, &[10, 9, 6, 4], [3, 6, 7]);
    for (way, shared_limit) in WAYS {
        let one = |seed| {
            let mut simulator = Simulator::new("sm_80");
            (simulator.seed, simulator.shared_limit) = (seed, shared_limit);
            let found = on(simulator, &p, &maml::inner_loop(2, 0.2)).1.unwrap();
            format!("{:?} {:?}", found.gradient, found.outputs)
        };
        let first = one(1);
        assert!([2, 99].into_iter().all(|seed| one(seed) == first), "{way}");
    }
}

#[test]
fn an_episode_without_support_rows_stays_where_it_is() {
    let mut p = problem(8, InputKind::Dense, &[10, 9, 4], [3, 6, 7]);
    p.support.rows = vec![0, 9, 9, 18];
    let mut device = Simulator::new("sm_80");
    for (way, shared_limit) in WAYS {
        device.shared_limit = shared_limit;
        for inner in algorithms(2, 0.2) {
            let (back, found) = on(device, &p, &inner);
            compare(&p, &inner, &found.unwrap(), &format!("{way} seed {} {inner:?}", p.seed));
            device = back;
        }
    }
}

#[test]
fn diverged_episodes_are_named() {
    let mut p = problem(9, InputKind::Dense, &[10, 9, 4], [3, 6, 7]);
    // The middle episode's support inputs are huge: its own weights leave f32 behind, nobody else's do.
    let own = 10 * p.support.rows[1]..10 * p.support.rows[2];
    p.support.dense[own].iter_mut().for_each(|x| *x *= 1e18);
    let mut device = Simulator::new("sm_80");
    let [maml, fomaml, _, reptile, evaluate] = algorithms(3, 0.2);
    for (way, shared_limit) in WAYS {
        device.shared_limit = shared_limit;
        for inner in [maml, fomaml, reptile, evaluate] {
            let (back, found) = on(device, &p, &inner);
            device = back;
            let wanted = [Outcome::Adapted, Outcome::Diverged, Outcome::Adapted];
            assert_eq!(found.unwrap().gradient.outcomes, wanted, "{way} seed 9 {inner:?}");
        }
    }
}

/// What a step with these settings is refused with; nothing may have been launched.
fn refusal(loss: LossKind, inner: &InnerLoop) -> String {
    let outputs = if loss == LossKind::Lists { 1 } else { 4 };
    let p = Problem::random(11, shape(InputKind::Dense, &[10, 9, outputs]), loss, 2, 6, 6);
    let (device, found) = on(Simulator::new("sm_80"), &p, inner);
    assert_eq!(device.counts.launches, 0, "{inner:?}");
    match found {
        Ok(_) => "nothing".into(),
        Err(error) => {
            assert_eq!(error.code(), 3, "{error}");
            error.to_string()
        }
    }
}

#[test]
fn losses_other_than_of_classes_are_refused() {
    for loss in [LossKind::Lists, LossKind::Pairs, LossKind::Values] {
        assert_eq!(
            refusal(loss, &maml::inner_loop(2, 0.1)),
            "device: the kernels have no loss but that of classes; the CPU has"
        );
    }
}

#[test]
fn settings_that_only_the_cpu_has_are_refused() {
    let plain = maml::inner_loop(2, 0.1);
    let cg = ConjugateGradient { tolerance: 1e-6, iterations: 5 };
    let momentum = Update::Sgd { momentum: 0.9, weight_decay: 0.0 };
    let decay = Update::Sgd { momentum: 0.0, weight_decay: 0.1 };
    let adam = Update::Adam { beta1: 0.9, beta2: 0.99, eps: 1e-8 };
    let cases = [
        (InnerLoop { order: Order::Implicit(cg), proximal: 0.1, ..plain }, "implicit gradient"),
        (InnerLoop { rates: Rates::Layers(&[0.1; 4]), ..plain }, "learned rates"),
        (InnerLoop { rates: Rates::Units(&[0.1; 13]), ..plain }, "learned rates"),
        (InnerLoop { update: momentum, ..plain }, "inner momentum, decay or Adam"),
        (InnerLoop { update: decay, ..plain }, "inner momentum, decay or Adam"),
        (InnerLoop { update: adam, ..plain }, "inner momentum, decay or Adam"),
        (InnerLoop { proximal: 0.1, ..plain }, "proximal pull"),
        (InnerLoop { adapt: Adapt::Context(2), ..plain }, "context"),
        (InnerLoop { start: Start::Prototypes, ..plain }, "start at prototypes"),
        (InnerLoop { step_weights: &[0.5, 0.5], ..plain }, "loss after every step"),
        (InnerLoop { micro_batch: 2, ..plain }, "micro-batches"),
    ];
    for (inner, what) in cases {
        let wanted = format!("device: the kernels have no {what}; the CPU has");
        assert_eq!(refusal(LossKind::Classes, &inner), wanted, "{inner:?}");
    }
}

#[test]
fn batches_beyond_the_plan_are_refused() {
    let small = problem(12, InputKind::Dense, &[10, 9, 4], [3, 6, 7]);
    let (all, last) = (InnerLoop::sgd(2, 0.1, Order::Evaluate), anil::inner_loop(2, 0.1));
    let of = |p: &Problem, inner: &InnerLoop| p.with_batch::<f32, _>(|batch| Limits::of(batch, inner));
    // Both ways give the same answer.
    let run = |limits: Limits, p: &Problem, inner: &InnerLoop| {
        let one = |shared_limit| {
            let mut device = Simulator::new("sm_80");
            device.shared_limit = shared_limit;
            let mut step = MetaStep::new(device, &small.shape, limits).unwrap();
            let mut gradient = MetaGradient::new(&small.shape, &limits);
            p.with_batch::<f32, _>(|batch| step.run(&weights(p).0, batch, inner, &mut gradient)).map_err(|e| e.code())
        };
        let found = WAYS.map(|(_, shared_limit)| one(shared_limit));
        assert_eq!(found[0], found[1]);
        found[0]
    };
    let maml = maml::inner_loop(2, 0.1);
    assert_eq!(run(of(&small, &maml), &small, &maml), Ok(()));
    let large = problem(12, InputKind::Dense, &[10, 9, 4], [4, 6, 7]);
    assert_eq!(run(of(&small, &maml), &large, &maml), Err(1), "more episodes");
    assert_eq!(run(of(&small, &maml), &small, &maml::inner_loop(3, 0.1)), Err(1), "more steps are kept");
    // An evaluation that keeps nothing of the last layer's steps has no room for a Gram matrix.
    let alone = Limits { inner: InnerMemory { saved_steps: 0, ..InnerMemory::of(&last) }, ..of(&small, &last) };
    assert_eq!(run(alone, &small, &all), Err(1), "all layers in the memory of the last");
    let other = problem(12, InputKind::Dense, &[10, 8, 4], [3, 6, 7]);
    assert_eq!(run(of(&small, &maml), &other, &maml), Err(1), "another model");
}

#[test]
fn precisions_that_inputs_are_not_stored_in_are_refused() {
    let p = problem(13, InputKind::Dense, &[10, 9, 4], [2, 6, 7]);
    let limits = p.with_batch::<f32, _>(|batch| Limits::of(batch, &maml::inner_loop(1, 0.1)));
    let step = || MetaStep::new(Simulator::new("sm_80"), &p.shape, limits).unwrap();
    assert!(step().with_precision(Precision::Tf32x3).is_ok());
    for precision in [Precision::Bf16, Precision::F16] {
        assert_eq!(step().with_precision(precision).err().unwrap().code(), 3, "{precision:?}");
    }
}

#[test]
fn the_callers_memory_is_used_and_checked() {
    let p = problem(14, InputKind::Dense, &[10, 9, 4], [2, 6, 7]);
    let inner = maml::inner_loop(2, 0.1);
    let limits = p.with_batch::<f32, _>(|batch| Limits::of(batch, &inner));
    let mut device = Simulator::new("sm_80");
    let plan = StepPlan::new(&p.shape, limits, device.shared_limit()).unwrap();
    let small = device.alloc(plan.bytes() - 1).unwrap();
    let refused = MetaStep::in_memory(Simulator::new("sm_80"), plan.clone(), small);
    assert_eq!(refused.err().unwrap().code(), 2);
    let mut weak = Simulator::new("sm_80");
    weak.shared_limit = 1024;
    let own = device.alloc(plan.bytes()).unwrap();
    assert_eq!(MetaStep::in_memory(weak, plan.clone(), own).err().unwrap().code(), 3);
    let own = device.alloc(plan.bytes()).unwrap();
    let mut step = MetaStep::in_memory(device, plan, own).unwrap();
    let mut gradient = MetaGradient::new(&p.shape, &limits);
    p.with_batch::<f32, _>(|batch| step.run(&weights(&p).0, batch, &inner, &mut gradient)).unwrap();
    let outputs = rows(step.query_outputs());
    compare(&p, &inner, &Found { gradient, outputs }, "the caller's memory, seed 14");
}

#[test]
fn a_steady_state_allocates_nothing_and_waits_once_a_step() {
    for (kind, shared_limit) in
        [(InputKind::Dense, WAYS[0].1), (InputKind::Bag, WAYS[0].1), (InputKind::Dense, WAYS[1].1)]
    {
        let inner = maml::inner_loop(2, 0.2);
        // Two batches of the same sizes; their tokens, and so the rows of the table they touch, differ.
        let [mut a, mut b] = [20, 21].map(|seed| problem(seed, kind, &[30, 9, 4], [2, 6, 7]));
        b.shape = a.shape.clone();
        let of = |p: &Problem| p.with_batch::<f32, _>(|batch| Limits::of(batch, &inner));
        let (x, y) = (of(&a), of(&b));
        let limits = Limits {
            nnz: x.nnz.max(y.nnz),
            support_nnz: x.support_nnz.max(y.support_nnz),
            query_nnz: x.query_nnz.max(y.query_nnz),
            ..x
        };
        let mut device = Simulator::new("sm_80");
        device.shared_limit = shared_limit;
        let mut step = MetaStep::new(device, &a.shape, limits).unwrap();
        let mut gradient = MetaGradient::new(&a.shape, &limits);
        let mut counts = vec![step.device().counts];
        for _ in 0..3 {
            for p in [&mut a, &mut b] {
                let run = |batch: &MetaBatch<f32>| step.run(&weights(p).0, batch, &inner, &mut gradient);
                p.with_batch::<f32, _>(run).unwrap();
                counts.push(step.device().counts);
                let found = Found { gradient: gradient.clone(), outputs: rows(step.query_outputs()) };
                compare(p, &inner, &found, &format!("{kind:?} seed {} step {}", p.seed, counts.len() - 1));
            }
        }
        let made = counts[0].allocations;
        // Around the inner steps: Z_0, G and G', dW1, the mean. Of two steps and two layers: 2 S + 1 passes of 3 L - 1, and two.
        let steps = if shared_limit == 0 { (2 * 2 + 1) * (3 * 2 - 1) + 2 } else { 1 };
        assert_eq!(counts[1].launches, 5 + steps, "{kind:?}");
        for (i, pair) in counts.windows(2).enumerate() {
            let (before, after) = (pair[0], pair[1]);
            let wanted = Counts {
                allocations: made,
                copies: before.copies + 2,
                launches: before.launches + counts[1].launches,
                recordings: usize::from(i > 0),
                replays: i,
                waits: i + 1,
            };
            assert_eq!(after, wanted, "{kind:?}, step {}", i + 1);
        }
    }
}

#[test]
fn a_change_of_sizes_or_settings_is_seen_by_a_recorded_step() {
    let a = problem(30, InputKind::Dense, &[10, 9, 4], [3, 6, 7]);
    let small = problem(31, InputKind::Dense, &[10, 9, 4], [2, 5, 6]);
    let limits = a.with_batch::<f32, _>(|batch| Limits::of(batch, &maml::inner_loop(3, 0.2)));
    for (way, shared_limit) in WAYS {
        let mut device = Simulator::new("sm_80");
        device.shared_limit = shared_limit;
        let mut step = MetaStep::new(device, &a.shape, limits).unwrap();
        let mut gradient = MetaGradient::new(&a.shape, &limits);
        let settings =
            [(&a, 3, 0.2), (&a, 3, 0.2), (&a, 3, 0.1), (&a, 3, 0.2), (&small, 2, 0.2), (&small, 2, 0.2), (&a, 3, 0.2)];
        for (i, (p, steps, lr)) in settings.into_iter().enumerate() {
            let inner = maml::inner_loop(steps, lr);
            p.with_batch::<f32, _>(|batch| step.run(&weights(p).0, batch, &inner, &mut gradient)).unwrap();
            let found = Found { gradient: gradient.clone(), outputs: rows(step.query_outputs()) };
            compare(p, &inner, &found, &format!("{way} seed {} step {i}", p.seed));
        }
        // Recorded twice, replayed for the second, fourth and sixth step.
        let counts = step.device().counts;
        assert_eq!((counts.recordings, counts.replays), (2, 3), "{way}");
    }
}

/// A step of MAML with changed kernels; what is wrong then, empty if nothing is.
fn with_bug(arch: &str, (way, shared_limit): (&str, u32), edit: fn(&str) -> String) -> String {
    let p = problem(40, InputKind::Dense, &[10, 9, 6, 4], [2, 6, 7]);
    let inner = maml::inner_loop(2, 0.2);
    let mut device = Simulator::with_edit(arch, edit);
    device.shared_limit = shared_limit;
    match on(device, &p, &inner).1 {
        Err(error) => {
            let error = error.to_string();
            assert!(!error.contains("PTX line"), "{arch} {way}: the change is no PTX: {error}");
            error
        }
        Ok(found) => {
            let wanted = truth(&p, &inner).gradient;
            let same = |f: &[f32], w: &[f64]| f.iter().zip(w).all(|(f, w)| (f64::from(*f) - w).abs() < 1e-4);
            let good = same(&found.gradient.first, &wanted.first) && same(&found.gradient.head, &wanted.head);
            if good { String::new() } else { "other numbers".into() }
        }
    }
}

/// The text with every `nth` of the lines that hold `word` (from 0) changed; only in the file of the episode kernel.
fn change(ptx: &str, word: &str, nth: impl Fn(usize) -> bool, with: impl Fn(&str) -> String) -> String {
    change_in("episode_shared", ptx, word, nth, with)
}

/// The same in the file of another kernel.
fn change_in(
    kernel: &str,
    ptx: &str,
    word: &str,
    nth: impl Fn(usize) -> bool,
    with: impl Fn(&str) -> String,
) -> String {
    if !ptx.contains(kernel) {
        return ptx.into();
    }
    let mut seen = 0;
    let line = |line: &str| {
        let here = line.contains(word);
        seen += usize::from(here);
        if here && nth(seen - 1) { with(line) } else { line.to_string() }
    };
    ptx.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// The address in a line is `by` bytes further on.
fn shifted(line: &str, by: i64) -> String {
    let Some((before, after)) = line.split_once(']') else { return line.into() };
    let written = before.rsplit_once('+').and_then(|(start, offset)| Some((start, offset.parse::<i64>().ok()?)));
    let (start, offset) = written.unwrap_or((before, 0));
    format!("{start}+{}]{after}", offset + by)
}

#[test]
fn planted_bugs_are_caught() {
    for arch in ["sm_80", "sm_90a", "sm_100"] {
        assert_eq!(with_bug(arch, WAYS[0], str::to_string), "", "{arch}");
        let found = with_bug(arch, WAYS[0], |ptx| change(ptx, "bar.sync", |_| true, |_| String::new()));
        assert!(
            ["Race", "UninitializedShared"].iter().any(|kind| found.contains(kind)),
            "{arch}: no barrier: {found:?}"
        );
        let found = with_bug(arch, WAYS[0], |ptx| change(ptx, "st.shared", |_| true, |line| shifted(line, 4)));
        assert!(!found.is_empty(), "{arch}: results one element to the right");
        let found = with_bug(arch, WAYS[0], |ptx| change(ptx, "st.global", |_| true, |line| shifted(line, 1 << 21)));
        assert!(found.contains("OutOfBounds"), "{arch}: far behind the workspace: {found:?}");
        let found = with_bug(arch, WAYS[0], |ptx| change(ptx, "neg.f32", |_| true, |line| line.replace("neg", "mov")));
        assert!(!found.is_empty(), "{arch}: a sign");
        let found =
            with_bug(arch, WAYS[0], |ptx| change(ptx, "shfl.sync", |_| true, |line| line.replace("bfly", "down")));
        assert!(!found.is_empty(), "{arch}: only one lane has the sum");
    }
}

#[test]
fn planted_bugs_in_launches_over_all_episodes_are_caught() {
    /// Changes every line with a word.
    fn lines(ptx: &str, word: &str, with: impl Fn(&str) -> String) -> String {
        change_in("grouped_ends", ptx, word, |_| true, with)
    }
    for arch in ["sm_80", "sm_90a", "sm_100"] {
        let bug = |edit| with_bug(arch, WAYS[1], edit);
        assert_eq!(bug(str::to_string), "", "{arch}");
        let found = bug(|ptx| lines(ptx, "bar.sync", |_| String::new()));
        let kinds = ["Race", "UninitializedShared"];
        assert!(kinds.iter().any(|kind| found.contains(kind)), "{arch}: no barrier: {found:?}");
        let found = bug(|ptx| lines(ptx, "st.global", |line| shifted(line, 1 << 21)));
        assert!(found.contains("OutOfBounds"), "{arch}: far behind the workspace: {found:?}");
        let found = bug(|ptx| lines(ptx, "%ctaid.z", |line| line.replace("%ctaid.z", "0")));
        assert!(!found.is_empty(), "{arch}: products of one episode only");
        let found = bug(|ptx| lines(ptx, "setp.gt.f32", |line| line.replace("setp.gt", "setp.lt")));
        assert!(!found.is_empty(), "{arch}: masks turned round");
        let found = bug(|ptx| lines(ptx, "shfl.sync", |line| line.replace("bfly", "down")));
        assert!(!found.is_empty(), "{arch}: only one lane has the sum");
    }
}
