//! The outer optimisers: the update rules against an f64 oracle by plain loops, embedding rows updated late against a
//! dense optimiser, bit by bit.

use metaglot::cpu::{Cpu, Isa, KernelElement};
use metaglot::meta::{Limits, MetaGradient};
use metaglot::model::{InputKind, MlpShape, Params};
use metaglot::optim::{Optimizer, Rule, Schedule};
use metaglot::{Element, Purpose, Rng, Stored, bf16, f16};

const STEPS: u64 = 40;
const SCHEDULE: Schedule = Schedule { lr: 0.05, warmup: 5, steps: STEPS, floor: 0.1 };

fn rules() -> Vec<Rule> {
    let sgd = |momentum, weight_decay| Rule::Sgd { momentum, weight_decay };
    let adamw = |weight_decay| Rule::Adamw { beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay };
    vec![sgd(0.0, 0.0), sgd(0.9, 0.0), sgd(0.0, 0.02), sgd(0.9, 0.02), adamw(0.0), adamw(0.1)]
}

/// Every instruction set of this machine; one it lacks is said to be skipped.
fn cpus() -> Vec<Cpu> {
    let has = |isa: &Isa| {
        let there = isa.kernels().is_some();
        if !there {
            eprintln!("skipped: this machine lacks {}", isa.name());
        }
        there
    };
    Isa::ALL.into_iter().filter(has).map(|isa| Cpu::with_isa(isa).unwrap()).collect()
}

fn shape(kind: InputKind, input: usize, hidden: usize) -> MlpShape {
    MlpShape { input, kind, widths: vec![hidden, 3] }
}

fn normals<T: Element>(rng: &mut Rng, n: usize) -> Vec<T> {
    (0..n).map(|_| T::from_f64(rng.normal())).collect()
}

/// A gradient for a dense model; `touched` rows of `hidden` elements of the first layer are not zero.
fn gradient<T: KernelElement>(rng: &mut Rng, shape: &MlpShape, touched: &[u32]) -> MetaGradient<T> {
    let mut g = MetaGradient::new(shape, &Limits::default());
    g.first = vec![T::ZERO; shape.first_len()];
    for &row in touched {
        g.first[row as usize * shape.hidden()..][..shape.hidden()].copy_from_slice(&normals(rng, shape.hidden()));
    }
    (g.bias, g.head) = (normals(rng, shape.hidden()), normals(rng, shape.head_len()));
    g
}

/// The same gradient as a token-bag model gives it.
fn sparse<T: KernelElement>(g: &MetaGradient<T>, hidden: usize, touched: &[u32]) -> MetaGradient<T> {
    let rows = touched.iter().flat_map(|&r| g.first[r as usize * hidden..][..hidden].to_vec());
    // A plan's gradient is longer than what one batch fills.
    let first = rows.chain([T::from_f64(f64::NAN)]).collect();
    MetaGradient { rows: touched.to_vec(), first, ..g.clone() }
}

fn subset(rng: &mut Rng, of: usize, share: f64) -> Vec<u32> {
    (0..of as u32).filter(|_| rng.unit() < share).collect()
}

/// Scalars of one weight, updated as the papers say.
fn oracle_step(rule: &Rule, t: u64, lr: f64, g: f64, (m, v, w): (&mut f64, &mut f64, &mut f64)) {
    match *rule {
        Rule::Sgd { momentum, weight_decay } => {
            *m = momentum * *m + g + weight_decay * *w;
            *w -= lr * *m;
        }
        Rule::Adamw { beta1, beta2, eps, weight_decay } => {
            *m = beta1 * *m + (1.0 - beta1) * g;
            *v = beta2 * *v + (1.0 - beta2) * g * g;
            let (m_hat, v_hat) = (*m / (1.0 - beta1.powf(t as f64)), *v / (1.0 - beta2.powf(t as f64)));
            *w -= lr * (m_hat / (v_hat.sqrt() + eps) + weight_decay * *w);
        }
    }
}

fn flat<T: Element>(first: &[T], bias: &[T], head: &[T]) -> Vec<f64> {
    [first, bias, head].concat().into_iter().map(T::to_f64).collect()
}

fn follows_the_oracle<T: KernelElement>(cpu: &Cpu, rule: Rule, tolerance: f64) {
    let shape = shape(InputKind::Dense, 7, 5);
    let mut rng = Rng::new(31, 0, 0, Purpose::Data);
    let mut params = Params::<T>::random(&shape, 0.5, 31).unwrap();
    let mut optimizer = Optimizer::new(cpu, &shape, rule, SCHEDULE).unwrap();
    let mut w = flat(&params.first, &params.bias, &params.head);
    let (mut m, mut v) = (vec![0.0; w.len()], vec![0.0; w.len()]);
    for t in 0..STEPS {
        let all: Vec<u32> = (0..7).collect();
        let g = gradient::<T>(&mut rng, &shape, &all);
        assert_eq!(optimizer.next_lr(), SCHEDULE.rate(t));
        optimizer.step(&mut params, &g).unwrap();
        for (i, g) in flat(&g.first, &g.bias, &g.head).into_iter().enumerate() {
            oracle_step(&rule, t + 1, SCHEDULE.rate(t), g, (&mut m[i], &mut v[i], &mut w[i]));
        }
        let found = flat(&params.first, &params.bias, &params.head);
        let error = found.iter().zip(&w).map(|(a, b)| (a - b).abs() / b.abs().max(1.0)).fold(0.0, f64::max);
        assert!(error < tolerance, "{cpu:?} {rule:?} step {t}: error {error:e}, seed 31");
    }
}

#[test]
fn updates_follow_the_f64_oracle() {
    for cpu in cpus() {
        for rule in rules() {
            follows_the_oracle::<f64>(&cpu, rule, 1e-12);
            follows_the_oracle::<f32>(&cpu, rule, 1e-5);
        }
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

fn assert_same(a: &Params<f32>, b: &Params<f32>, what: &str) {
    assert!(bits(&a.first) == bits(&b.first), "{what}: first layer");
    assert!(bits(&a.bias) == bits(&b.bias), "{what}: bias");
    assert!(bits(&a.head) == bits(&b.head), "{what}: head");
}

/// A token-bag model with its table stored in `S`, trained late, and a dense f32 model of the same numbers, its first
/// layer rounded to `S` after every step, on the same gradients.
struct Race<S> {
    hidden: usize,
    late: (Params<f32, S>, Optimizer<f32>),
    dense: (Params<f32>, Optimizer<f32>),
}

impl<S: Stored<f32>> Race<S> {
    fn new(cpu: &Cpu, rule: Rule, vocabulary: usize, hidden: usize, seed: u64) -> Self {
        let bag = shape(InputKind::Bag, vocabulary, hidden);
        let dense = shape(InputKind::Dense, vocabulary, hidden);
        let params = Params::stored_random(&bag, 0.5, seed).unwrap();
        let same = Params { shape: dense.clone(), ..params.restored() };
        Race {
            hidden,
            late: (params, Optimizer::new(cpu, &bag, rule, SCHEDULE).unwrap()),
            dense: (same, Optimizer::new(cpu, &dense, rule, SCHEDULE).unwrap()),
        }
    }

    fn step(&mut self, rng: &mut Rng, touched: &[u32]) {
        let g = gradient(rng, &self.dense.0.shape, touched);
        self.late.1.step(&mut self.late.0, &sparse(&g, self.hidden, touched)).unwrap();
        self.dense.1.step(&mut self.dense.0, &g).unwrap();
        self.dense.0.first.iter_mut().for_each(|w| *w = S::narrow(*w).widen());
    }

    /// Reading rows after `catch_up` gives the dense weights of this very step.
    fn read(&mut self, tokens: &[u32], what: &str) {
        self.late.1.catch_up(&mut self.late.0, tokens).unwrap();
        for &token in tokens {
            let row = token as usize * self.hidden..(token as usize + 1) * self.hidden;
            let late: Vec<f32> = self.late.0.first[row.clone()].iter().map(|w| w.widen()).collect();
            assert!(bits(&late) == bits(&self.dense.0.first[row]), "{what}: row {token}");
        }
    }

    fn flush(&mut self, what: &str) {
        self.late.1.flush(&mut self.late.0).unwrap();
        assert_same(&self.late.0.restored(), &self.dense.0, what);
        let (late, dense) = (self.late.1.state(), self.dense.1.state());
        assert_eq!(late.step, dense.step);
        assert_same(&late.m, &dense.m, &format!("{what}: m"));
        assert_same(&late.v, &dense.v, &format!("{what}: v"));
    }
}

#[test]
fn rows_updated_late_have_the_bits_of_a_dense_optimiser() {
    late_rows_race::<f32>();
    late_rows_race::<f16>();
    late_rows_race::<bf16>();
}

fn late_rows_race<S: Stored<f32>>() {
    for (cpu, seed) in cpus().into_iter().flat_map(|cpu| (0..4).map(move |seed| (cpu.clone(), seed))) {
        for rule in rules() {
            let mut rng = Rng::new(seed, 0, 0, Purpose::Data);
            let (vocabulary, hidden) = (30 + rng.below(40), 1 + rng.below(19));
            let mut race = Race::<S>::new(&cpu, rule, vocabulary, hidden, seed);
            for t in 0..STEPS {
                let what = format!("{:?} {cpu:?} {rule:?} {vocabulary}x{hidden} step {t}, seed {seed}", S::STORED);
                let read = subset(&mut rng, vocabulary, 0.1);
                race.read(&read, &what);
                // Some of the rows that were read, and some that were not; a third of the vocabulary never.
                let touched = subset(&mut rng, vocabulary * 2 / 3, 0.08);
                race.step(&mut rng, &touched);
                if rng.below(15) == 0 {
                    race.flush(&what);
                }
            }
            race.flush(&format!("{cpu:?} {rule:?} {vocabulary}x{hidden} at the end, seed {seed}"));
        }
    }
}

/// Enough rows for all threads, on the one side or on the other; some asked for twice, in no order.
fn race_of_threads<S: Stored<f32>>() {
    for (seed, threads, late_has_them) in [(20, 3, true), (21, 3, false), (22, 5, true)] {
        let several = Cpu::new().threads(threads).unwrap();
        for rule in rules() {
            let (vocabulary, hidden) = (1900, 37);
            let mut rng = Rng::new(seed, 0, 0, Purpose::Data);
            let mut race = Race::<S>::new(&Cpu::new(), rule, vocabulary, hidden, seed);
            let own = |shape| Optimizer::new(&several, shape, rule, SCHEDULE).unwrap();
            match late_has_them {
                true => race.late.1 = own(&race.late.0.shape),
                false => race.dense.1 = own(&race.dense.0.shape),
            }
            for t in 0..5 {
                let what = format!("{:?} {threads} threads {rule:?} step {t}, seed {seed}", S::STORED);
                let mut read = subset(&mut rng, vocabulary, 0.6);
                read.reverse();
                read.extend_from_within(..read.len() / 2);
                race.read(&read, &what);
                let touched = subset(&mut rng, vocabulary, 0.5);
                race.step(&mut rng, &touched);
            }
            race.flush(&format!("{threads} threads {rule:?} at the end, seed {seed}"));
        }
    }
}

#[test]
fn threads_change_no_bit_of_an_update() {
    race_of_threads::<f32>();
    race_of_threads::<bf16>();
}

#[test]
fn rows_in_no_order_are_refused() {
    let mut race = Race::<f32>::new(&Cpu::new(), Rule::ADAMW, 9, 3, 1);
    let mut rng = Rng::new(1, 0, 0, Purpose::Data);
    let good = gradient(&mut rng, &race.dense.0.shape, &[2, 5]);
    for rows in [vec![5, 2], vec![5, 5]] {
        let bad = MetaGradient { rows, ..sparse(&good, 3, &[2, 5]) };
        let before = race.late.0.clone();
        let error = race.late.1.step(&mut race.late.0, &bad).unwrap_err();
        assert_eq!(error.code(), 1, "{error}");
        assert_same(&race.late.0, &before, "nothing is changed");
    }
}

/// The bits of a model whose first layer, in f32, is rounded after every step.
fn dense_rounding<S: Stored<f32>>() {
    for (cpu, seed) in cpus().into_iter().flat_map(|cpu| (0..4).map(move |seed| (cpu.clone(), seed))) {
        for rule in rules() {
            let mut rng = Rng::new(seed, 0, 0, Purpose::Data);
            let shape = shape(InputKind::Dense, 1 + rng.below(40), 1 + rng.below(19));
            let mut half: Params<f32, S> = Params::stored_random(&shape, 0.5, seed).unwrap();
            let mut full: Params<f32> = half.restored();
            let [mut of_half, mut of_full] = [0, 1].map(|_| Optimizer::new(&cpu, &shape, rule, SCHEDULE).unwrap());
            for t in 0..STEPS {
                let g = gradient(&mut rng, &shape, &(0..shape.input as u32).collect::<Vec<_>>());
                of_half.step(&mut half, &g).unwrap();
                of_full.step(&mut full, &g).unwrap();
                full.first.iter_mut().for_each(|w| *w = S::narrow(*w).widen());
                let what = format!("{:?} {cpu:?} {rule:?} {shape:?} step {t}, seed {seed}", S::STORED);
                assert_same(&half.restored(), &full, &what);
            }
        }
    }
}

#[test]
fn a_dense_layer_in_half_precision_is_rounded_after_every_step() {
    dense_rounding::<f16>();
    dense_rounding::<bf16>();
}

#[test]
fn a_restored_optimiser_goes_on_with_the_same_bits() {
    for rule in rules() {
        let mut rng = Rng::new(9, 0, 0, Purpose::Data);
        let mut race = Race::<f32>::new(&Cpu::new(), rule, 40, 6, 9);
        for t in 0..STEPS {
            let touched = subset(&mut rng, 30, 0.1);
            race.step(&mut rng, &touched);
            if t % 7 == 0 {
                race.flush(&format!("{rule:?} step {t}, seed 9"));
                let mut fresh = Optimizer::new(&Cpu::new(), &race.late.0.shape, rule, SCHEDULE).unwrap();
                fresh.restore(race.late.1.state()).unwrap();
                race.late.1 = fresh;
            }
        }
        race.flush(&format!("{rule:?} at the end, seed 9"));
    }
}

#[test]
fn a_weight_without_gradients_stays_finite() {
    for rule in rules() {
        let mut race = Race::<f32>::new(&Cpu::new(), rule, 4, 3, 1);
        let zero = gradient(&mut Rng::new(1, 0, 0, Purpose::Data), &race.dense.0.shape, &[]);
        race.dense.1.step(&mut race.dense.0, &zero).unwrap();
        assert!(race.dense.0.first.iter().all(|w| w.is_finite()), "{rule:?}");
    }
}

#[test]
fn constants_out_of_range_are_refused() {
    let sgd = |momentum, weight_decay| Rule::Sgd { momentum, weight_decay };
    let adamw = |beta1, beta2, eps, weight_decay| Rule::Adamw { beta1, beta2, eps, weight_decay };
    let nan = f64::NAN;
    let bad = [
        sgd(1.0, 0.0),
        sgd(-0.1, 0.0),
        sgd(nan, 0.0),
        sgd(0.9, -1.0),
        sgd(0.9, f64::INFINITY),
        adamw(1.0, 0.9, 1e-8, 0.0),
        adamw(0.9, 1.0, 1e-8, 0.0),
        adamw(0.9, nan, 1e-8, 0.0),
        adamw(0.9, 0.9, -1e-8, 0.0),
        adamw(0.9, 0.9, nan, 0.0),
        adamw(0.9, 0.9, 1e-8, nan),
        // 0 / 0 where a weight never had a gradient; in f32 this one is 0.
        adamw(0.9, 0.9, 0.0, 0.0),
        adamw(0.9, 0.9, 1e-60, 0.0),
        // 1 in f32, so that nothing would ever decay.
        adamw(0.9, 1.0 - 1e-12, 1e-8, 0.0),
    ];
    let shape = shape(InputKind::Dense, 2, 2);
    for rule in bad {
        let Err(error) = Optimizer::<f32>::new(&Cpu::new(), &shape, rule, SCHEDULE) else { panic!("{rule:?}") };
        assert_eq!(error.code(), 3, "{rule:?}: {error}");
        assert!(error.to_string().starts_with("optimizer: "), "{error}");
    }
    for schedule in [
        Schedule { lr: 0.0, ..SCHEDULE },
        Schedule { lr: nan, ..SCHEDULE },
        Schedule { lr: f64::INFINITY, ..SCHEDULE },
        Schedule { floor: 1.1, ..SCHEDULE },
        Schedule { floor: -0.1, ..SCHEDULE },
        Schedule { floor: nan, ..SCHEDULE },
    ] {
        let Err(error) = Optimizer::<f32>::new(&Cpu::new(), &shape, Rule::ADAMW, schedule) else {
            panic!("{schedule:?}")
        };
        assert_eq!(error.code(), 3, "{schedule:?}: {error}");
    }
}

#[test]
fn foreign_weights_and_gradients_are_refused() {
    let (bag, other) = (shape(InputKind::Bag, 8, 3), shape(InputKind::Bag, 5, 3));
    let mut params = Params::<f32>::random(&bag, 0.5, 1).unwrap();
    let mut optimizer = Optimizer::new(&Cpu::new(), &bag, Rule::ADAMW, SCHEDULE).unwrap();
    let before = params.clone();
    let code = |r: metaglot::Result<()>| r.expect_err("it must be refused").code();

    assert_eq!(code(optimizer.catch_up(&mut params, &[7, 8])), 1, "a token beyond the vocabulary");
    let mut foreign = Params::<f32>::random(&other, 0.5, 1).unwrap();
    assert_eq!(code(optimizer.catch_up(&mut foreign, &[0])), 1);
    assert_eq!(code(optimizer.flush(&mut foreign)), 1);

    let good = MetaGradient::<f32>::new(&bag, &Limits { nnz: 2, ..Limits::default() });
    let with = |rows: &[u32]| MetaGradient { rows: rows.to_vec(), ..good.clone() };
    assert_eq!(code(optimizer.step(&mut foreign, &good)), 1);
    assert_eq!(code(optimizer.step(&mut params, &with(&[8]))), 1, "a row beyond the table");
    assert_eq!(code(optimizer.step(&mut params, &with(&[0, 1, 2]))), 1, "more rows than values");
    assert_eq!(code(optimizer.step(&mut params, &MetaGradient { head: vec![], ..good.clone() })), 1);
    assert_eq!(code(optimizer.step(&mut params, &MetaGradient { bias: vec![], ..good.clone() })), 1);
    assert_eq!((optimizer.steps(), &params), (0, &before), "a refused step changes nothing");

    let state = Optimizer::<f32>::new(&Cpu::new(), &other, Rule::ADAMW, SCHEDULE).unwrap().state();
    assert_eq!(code(optimizer.restore(state)), 1);
    assert_eq!(optimizer.step(&mut params, &with(&[0, 7])).map_err(|e| e.to_string()), Ok(()));
}
