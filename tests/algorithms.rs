//! Every setting of the inner loop: its meta-gradient against central differences of the adapted loss, Gram space against
//! the plain form, and the adapted weights against a loop that shares no code.

mod support;

use metaglot::meta::{
    Adapt, ConjugateGradient, Dense, GramSpace, InnerLoop, Limits, MetaGradient, Order, Outcome, Rates, Start, Update,
    cavia,
};
use metaglot::model::{InputKind, Params};
use metaglot::{Purpose, Rng};
use support::{LossKind, Problem, oracle, relative_error, shape};

const KINDS: [InputKind; 2] = [InputKind::Dense, InputKind::Bag];
const STEPS: usize = 4;
const DIMS: [usize; 4] = [6, 7, 5, 3];
const SOLVER: ConjugateGradient = ConjugateGradient { tolerance: 1e-12, iterations: 200 };

/// A meta-gradient as one vector, the gradient of the rates, the losses.
struct Found {
    theta: Vec<f64>,
    rates: Vec<f64>,
    losses: Vec<f64>,
    outcomes: Vec<Outcome>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    Gram,
    Recompute,
    Dense,
}

fn run(p: &Problem, params: &Params<f64>, inner: InnerLoop, form: Form) -> Found {
    p.with_batch::<f64, _>(|batch| {
        let limits = Limits { recompute: form == Form::Recompute, ..Limits::of(batch, &inner) };
        let mut g = MetaGradient::new(&p.shape, &limits);
        if form == Form::Dense {
            Dense::new(&support::cpu(), &p.shape, limits).unwrap().run(params, batch, &inner, &mut g).unwrap();
        } else {
            GramSpace::new(&support::cpu(), &p.shape, limits).unwrap().run(params, batch, &inner, &mut g).unwrap();
        }
        let mut theta = if inner.order == Order::Evaluate { vec![] } else { g.dense_first(&p.shape) };
        theta.extend(&g.bias);
        theta.extend(&g.head);
        Found { theta, rates: g.rates.clone(), losses: g.query_loss.clone(), outcomes: g.outcomes.clone() }
    })
}

/// Rates around 0.1, with random differences.
fn random_rates(seed: u64, n: usize) -> Vec<f64> {
    let mut rng = Rng::new(seed, 9, 0, Purpose::Data);
    (0..n).map(|_| 0.1 + 0.03 * rng.normal()).collect()
}

/// Learned rates of every layout, for the shape of [`DIMS`].
struct Learned {
    layers: Vec<f64>,
    units: Vec<f64>,
    weights: Vec<f64>,
}

impl Learned {
    fn new(seed: u64, p: &Problem) -> Self {
        Self {
            layers: random_rates(seed, STEPS * p.shape.layers()),
            units: random_rates(seed, p.shape.widths.iter().sum()),
            weights: random_rates(seed, p.shape.len()),
        }
    }
}

const STEP_WEIGHTS: [f64; STEPS] = [0.1, 0.2, 0.0, 0.7];

/// Name, inner loop; all differentiable through.
fn settings(learned: &Learned) -> Vec<(&'static str, InnerLoop<'_>)> {
    let maml = InnerLoop::sgd(STEPS, 0.1, Order::Second);
    let sgd = |momentum, weight_decay| Update::Sgd { momentum, weight_decay };
    let layers = Rates::Layers(&learned.layers);
    vec![
        ("maml", maml),
        ("anil", InnerLoop { adapt: Adapt::Last, ..maml }),
        ("momentum", InnerLoop { update: sgd(0.7, 0.0), ..maml }),
        ("weight decay", InnerLoop { update: sgd(0.0, 0.3), ..maml }),
        ("momentum and decay", InnerLoop { update: sgd(0.6, 0.2), ..maml }),
        ("proximal", InnerLoop { proximal: 0.8, ..maml }),
        ("everything", InnerLoop { update: sgd(0.6, 0.2), proximal: 0.5, step_weights: &STEP_WEIGHTS, ..maml }),
        ("rates per layer and step", InnerLoop { rates: layers, ..maml }),
        ("rates per unit", InnerLoop { rates: Rates::Units(&learned.units), ..maml }),
        ("rates per unit, momentum", InnerLoop { rates: Rates::Units(&learned.units), update: sgd(0.5, 0.0), ..maml }),
        ("step losses", InnerLoop { step_weights: &STEP_WEIGHTS, ..maml }),
        ("maml++", InnerLoop { rates: layers, step_weights: &STEP_WEIGHTS, ..maml }),
        ("anil, rates per layer", InnerLoop { rates: layers, adapt: Adapt::Last, ..maml }),
        ("anil, momentum", InnerLoop { update: sgd(0.5, 0.1), adapt: Adapt::Last, ..maml }),
        ("protomaml", InnerLoop { start: Start::Prototypes, ..maml }),
        ("protonet", InnerLoop { start: Start::Prototypes, steps: 0, ..maml }),
        ("anil from prototypes", InnerLoop { start: Start::Prototypes, adapt: Adapt::Last, ..maml }),
        ("micro-batches", InnerLoop { micro_batch: 3, ..maml }),
        ("micro-batches, momentum", InnerLoop { micro_batch: 2, update: sgd(0.5, 0.1), ..maml }),
    ]
}

/// What only the plain form can do.
fn dense_settings(learned: &Learned) -> Vec<(&'static str, InnerLoop<'_>)> {
    let maml = InnerLoop::sgd(STEPS, 0.02, Order::Second);
    let adam = Update::Adam { beta1: 0.8, beta2: 0.9, eps: 1e-3 };
    vec![
        ("meta-sgd", InnerLoop { rates: Rates::Weights(&learned.weights), ..maml }),
        ("adam", InnerLoop { update: adam, ..maml }),
        ("adam, rates per weight", InnerLoop { rates: Rates::Weights(&learned.weights), update: adam, ..maml }),
        ("adam, step losses", InnerLoop { update: adam, step_weights: &STEP_WEIGHTS, ..maml }),
    ]
}

fn mean(x: &[f64]) -> f64 {
    x.iter().sum::<f64>() / x.len() as f64
}

/// The adapted loss at `params + t * direction`.
fn loss_along(p: &Problem, params: &Params<f64>, d: &[f64], t: f64, inner: InnerLoop, form: Form) -> f64 {
    let mut moved = params.clone();
    let all = moved.first.iter_mut().chain(&mut moved.bias).chain(&mut moved.head);
    all.zip(d).for_each(|(w, d)| *w += t * d);
    mean(&run(p, &moved, InnerLoop { order: Order::Evaluate, ..inner }, form).losses)
}

/// Richardson's extrapolation of two central differences.
fn slope(f: impl Fn(f64) -> f64) -> f64 {
    let central = |h: f64| (f(h) - f(-h)) / (2.0 * h);
    (4.0 * central(1e-5) - central(2e-5)) / 3.0
}

fn norm(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The same rates moved by `t * d`, given to `f`.
fn with_rates<R>(rates: Rates, d: &[f64], t: f64, f: impl FnOnce(Rates) -> R) -> R {
    let moved = |r: &[f64]| r.iter().zip(d).map(|(r, d)| r + t * d).collect::<Vec<_>>();
    match rates {
        Rates::Same(lr) => f(Rates::Same(lr)),
        Rates::Layers(r) => f(Rates::Layers(&moved(r))),
        Rates::Units(r) => f(Rates::Units(&moved(r))),
        Rates::Weights(r) => f(Rates::Weights(&moved(r))),
    }
}

/// Compares the gradient with differences along three directions of the weights and of the rates.
fn assert_is_the_derivative(p: &Problem, name: &str, inner: InnerLoop, form: Form) {
    let params = p.params();
    let found = run(p, &params, inner, form);
    let mut rng = Rng::new(p.seed, 2, 0, Purpose::Data);
    let about = format!("{name}, seed {}, {:?}, {form:?}", p.seed, p.shape.kind);
    for _ in 0..3 {
        let d: Vec<f64> = found.theta.iter().map(|_| rng.normal()).collect();
        let wanted = slope(|t| loss_along(p, &params, &d, t, inner, form));
        let error = (dot(&found.theta, &d) - wanted).abs() / norm(&found.theta);
        assert!(error < 1e-7, "{about}: {error:e}");
        assert_eq!(found.rates.len(), inner.rates.len(), "{about}");
        let d: Vec<f64> = found.rates.iter().map(|_| rng.normal()).collect();
        if d.is_empty() {
            continue;
        }
        let wanted = slope(|t| {
            with_rates(inner.rates, &d, t, |rates| {
                mean(&run(p, &params, InnerLoop { rates, order: Order::Evaluate, ..inner }, form).losses)
            })
        });
        let error = (dot(&found.rates, &d) - wanted).abs() / norm(&found.rates);
        assert!(error < 1e-7, "{about}, rates: {error:e}");
    }
}

fn problem(seed: u64, kind: InputKind) -> Problem {
    Problem::random(seed, shape(kind, &DIMS), LossKind::Classes, 3, 7, 6)
}

#[test]
fn every_meta_gradient_equals_central_differences() {
    for kind in KINDS {
        // Seeds away from a ReLU's kink, over which a difference of losses is no derivative.
        let p = problem(700, kind);
        let learned = Learned::new(1, &p);
        for (name, inner) in settings(&learned) {
            assert_is_the_derivative(&p, name, inner, Form::Gram);
            assert_is_the_derivative(&p, name, inner, Form::Dense);
        }
        let p = problem(702, kind);
        for (name, inner) in dense_settings(&learned) {
            assert_is_the_derivative(&p, name, inner, Form::Dense);
        }
    }
}

#[test]
fn gram_space_equals_the_plain_form_in_every_order() {
    for kind in KINDS {
        for seed in 710..714 {
            let p = problem(seed, kind);
            let (params, learned) = (p.params(), Learned::new(seed, &p));
            for (name, inner) in settings(&learned) {
                for order in [Order::Second, Order::First, Order::Displacement, Order::Evaluate] {
                    let inner = InnerLoop { order, ..inner };
                    let reptile = order == Order::Displacement;
                    let joined = inner.start == Start::Prototypes || !inner.step_weights.is_empty();
                    if reptile && (joined || inner.needs_plain_form().is_some()) {
                        continue;
                    }
                    let about = format!("{name}, {order:?}, seed {seed}, {kind:?}");
                    let dense = run(&p, &params, inner, Form::Dense);
                    for form in [Form::Gram, Form::Recompute] {
                        let gram = run(&p, &params, inner, form);
                        assert!(relative_error(&gram.losses, &dense.losses) < 1e-12, "{about}");
                        let error = relative_error(&gram.theta, &dense.theta);
                        assert!(error < 1e-11, "{about}, {form:?}: {error:e}");
                        assert!(
                            reptile || relative_error(&gram.rates, &dense.rates) < 1e-11,
                            "{about}, {form:?}: rates"
                        );
                        assert_eq!(gram.outcomes, dense.outcomes, "{about}");
                    }
                }
            }
        }
    }
}

/// A single layer is its own last one, and has nothing below it.
#[test]
fn the_last_layer_of_one_is_all_of_them() {
    for kind in KINDS {
        for seed in 715..718 {
            let p = Problem::random(seed, shape(kind, &[6, 3]), LossKind::Classes, 3, 7, 6);
            for order in [Order::Second, Order::First, Order::Displacement, Order::Evaluate] {
                let all = InnerLoop { order, ..InnerLoop::sgd(STEPS, 0.1, Order::Second) };
                let last = InnerLoop { adapt: Adapt::Last, ..all };
                for form in [Form::Gram, Form::Recompute, Form::Dense] {
                    let [all, last] = [all, last].map(|inner| run(&p, &p.params(), inner, form));
                    let about = format!("{order:?}, {form:?}, seed {seed}, {kind:?}");
                    assert!(all.losses.iter().all(|&loss| loss > 0.0), "{about}");
                    assert_eq!((all.theta, all.losses), (last.theta, last.losses), "{about}");
                }
            }
        }
    }
}

const CONTEXT: usize = 2;

fn context_problem(seed: u64, kind: InputKind) -> Problem {
    Problem::random(seed, shape(kind, &[9, 7, 5, 3]), LossKind::Classes, 3, 7, 6).with_context(CONTEXT)
}

const CAVIA: InnerLoop = cavia::inner_loop(STEPS, 0.5, CONTEXT);

#[test]
fn an_adapted_context_is_differentiated_through() {
    for kind in KINDS {
        // Seeds away from a kink, as above.
        for seed in 764..768 {
            let p = context_problem(seed, kind);
            assert_is_the_derivative(&p, "cavia", CAVIA, Form::Gram);
            assert_is_the_derivative(&p, "cavia", CAVIA, Form::Dense);
            let params = p.params();
            for order in [Order::Second, Order::First] {
                let forms = [Form::Gram, Form::Recompute, Form::Dense];
                let [gram, again, dense] = forms.map(|form| run(&p, &params, InnerLoop { order, ..CAVIA }, form));
                assert!(gram.theta == again.theta, "seed {seed}, {kind:?}");
                let error = relative_error(&gram.theta, &dense.theta);
                assert!(error < 1e-11 && relative_error(&gram.losses, &dense.losses) < 1e-12, "seed {seed}: {error:e}");
            }
        }
    }
}

#[test]
fn a_context_is_adapted_as_a_loop_that_shares_no_code_does() {
    for kind in KINDS {
        let p = context_problem(764, kind);
        let params = p.params();
        let theta = oracle::flatten(&params);
        let losses = run(&p, &params, InnerLoop { order: Order::Evaluate, ..CAVIA }, Form::Gram).losses;
        for (t, found) in losses.iter().enumerate() {
            let mut c = vec![0.0; CONTEXT];
            for _ in 0..STEPS {
                let g = oracle::gradient(|c| oracle::context_loss(&p, &p.support, t, &theta, c), &c, 1e-4);
                c.iter_mut().zip(&g).for_each(|(c, g)| *c -= 0.5 * g);
            }
            let wanted = oracle::context_loss(&p, &p.query, t, &theta, &c);
            assert!(
                c.iter().all(|c| c.abs() > 1e-4) && (found - wanted).abs() < 1e-9,
                "seed 764, {kind:?}, episode {t}"
            );
        }
    }
}

#[test]
fn a_context_that_an_example_uses_is_refused() {
    for kind in KINDS {
        let p = problem(765, kind);
        let mut g = MetaGradient::without_storage();
        p.with_batch::<f64, _>(|batch| {
            let limits = Limits::of(batch, &CAVIA);
            let params = p.params();
            let inner = InnerLoop { order: Order::Evaluate, ..CAVIA };
            let gram = GramSpace::new(&support::cpu(), &p.shape, limits).unwrap().run(&params, batch, &inner, &mut g);
            let dense = Dense::new(&support::cpu(), &p.shape, limits).unwrap().run(&params, batch, &inner, &mut g);
            assert!(gram.is_err() && dense.is_err(), "{kind:?}");
        });
    }
}

#[test]
fn recomputed_steps_have_the_same_bits() {
    for kind in KINDS {
        let p = problem(720, kind);
        let (params, learned) = (p.params(), Learned::new(2, &p));
        for (name, inner) in settings(&learned) {
            let (kept, again) = (run(&p, &params, inner, Form::Gram), run(&p, &params, inner, Form::Recompute));
            assert!(kept.theta == again.theta && kept.rates == again.rates, "{name}, seed 720, {kind:?}");
        }
    }
}

#[test]
fn the_implicit_gradient_solves_its_system() {
    for kind in KINDS {
        for seed in 730..733 {
            let p = Problem::random(seed, shape(kind, &DIMS), LossKind::Classes, 1, 7, 6);
            let params = p.params();
            let lambda = 2.0;
            let inner = InnerLoop { proximal: lambda, ..InnerLoop::sgd(12, 0.1, Order::Implicit(SOLVER)) };
            let found = [Form::Gram, Form::Dense].map(|form| run(&p, &params, inner, form));
            assert!(relative_error(&found[0].theta, &found[1].theta) < 1e-10, "seed {seed} {kind:?}");
            assert!(found.iter().all(|f| f.outcomes == [Outcome::Adapted]));
            // The adapted weights: theta minus what Reptile gives.
            let moved = run(&p, &params, InnerLoop { order: Order::Displacement, ..inner }, Form::Dense).theta;
            let mut adapted = params.clone();
            let all = adapted.first.iter_mut().chain(&mut adapted.bias).chain(&mut adapted.head);
            all.zip(&moved).for_each(|(w, m)| *w -= m);
            let b = run(&p, &adapted, InnerLoop::sgd(0, 0.0, Order::Second), Form::Dense).theta;
            let hg = p.with_batch::<f64, _>(|batch| {
                let mut g = Params::<f64>::zeros(&p.shape).unwrap();
                let all = g.first.iter_mut().chain(&mut g.bias).chain(&mut g.head);
                all.zip(&found[0].theta).for_each(|(g, f)| *g = *f);
                let mut hg = Params::zeros(&p.shape).unwrap();
                let limits = Limits::of(batch, &inner);
                let mut dense = Dense::new(&support::cpu(), &p.shape, limits).unwrap();
                dense.support_hvp(&adapted, batch, &g, &mut hg, &mut Vec::new()).unwrap();
                [hg.first, hg.bias, hg.head].concat()
            });
            let left: Vec<f64> = found[0].theta.iter().zip(&hg).map(|(g, h)| g + h / lambda).collect();
            assert!(relative_error(&left, &b) < 1e-11, "seed {seed} {kind:?}");
        }
    }
}

#[test]
fn an_unsolved_system_and_a_diverged_episode_are_reported() {
    let p = problem(740, InputKind::Dense);
    let params = p.params();
    let hasty = ConjugateGradient { iterations: 1, ..SOLVER };
    let implicit = InnerLoop { proximal: 0.5, ..InnerLoop::sgd(3, 0.1, Order::Implicit(hasty)) };
    let steep = InnerLoop::sgd(9, 1e200, Order::Second);
    for form in [Form::Gram, Form::Dense] {
        assert_eq!(run(&p, &params, implicit, form).outcomes, [Outcome::Unsolved; 3], "{form:?}");
        assert_eq!(run(&p, &params, steep, form).outcomes, [Outcome::Diverged; 3], "{form:?}");
    }
}

/// theta after the steps of `rule`, which gets theta, the gradient and the step from 0; gradients by differences.
fn oracle_steps(p: &Problem, theta: &[f64], mut rule: impl FnMut(&mut [f64], &[f64], usize)) -> Vec<f64> {
    let mut phi = theta.to_vec();
    for k in 0..STEPS {
        let g = oracle::gradient(|x| oracle::loss(p, &p.support, 0, x), &phi, 1e-4);
        rule(&mut phi, &g, k);
    }
    phi
}

#[test]
fn adapted_weights_equal_a_loop_that_shares_no_code() {
    let p = Problem::random(751, shape(InputKind::Dense, &[4, 5, 3]), LossKind::Classes, 1, 6, 5);
    let params = p.params();
    let theta = oracle::flatten(&params);
    let mut m = vec![0.0; theta.len()];
    let heavy = oracle_steps(&p, &theta, |phi, g, _| {
        for (i, w) in phi.iter_mut().enumerate() {
            m[i] = 0.6 * m[i] + g[i] + 0.2 * *w + 0.5 * (*w - theta[i]);
            *w -= 0.1 * m[i];
        }
    });
    let (mut m, mut s) = (vec![0.0; theta.len()], vec![0.0; theta.len()]);
    let adam = oracle_steps(&p, &theta, |phi, g, k| {
        for (i, w) in phi.iter_mut().enumerate() {
            m[i] = 0.8 * m[i] + 0.2 * g[i];
            s[i] = 0.9 * s[i] + 0.1 * g[i] * g[i];
            let (m, s) = (m[i] / (1.0 - 0.8f64.powi(k as i32 + 1)), s[i] / (1.0 - 0.9f64.powi(k as i32 + 1)));
            *w -= 0.1 * m / (s + 1e-3).sqrt();
        }
    });
    let reptile = InnerLoop::sgd(STEPS, 0.1, Order::Displacement);
    let updates = [
        (heavy, InnerLoop { update: Update::Sgd { momentum: 0.6, weight_decay: 0.2 }, proximal: 0.5, ..reptile }),
        (adam, InnerLoop { update: Update::Adam { beta1: 0.8, beta2: 0.9, eps: 1e-3 }, ..reptile }),
    ];
    for (phi, inner) in updates {
        let wanted: Vec<f64> = theta.iter().zip(&phi).map(|(w, p)| w - p).collect();
        let found = run(&p, &params, inner, Form::Dense).theta;
        let error = relative_error(&found, &wanted);
        assert!(error < 1e-8, "{:?}, seed 751: {error:e}", inner.update);
    }
}

#[test]
fn adam_has_a_derivative_where_the_gradient_is_zero() {
    // Rows of zeros: the first layer's weights have a gradient of exactly 0 at every step.
    let mut p = Problem::random(760, shape(InputKind::Dense, &[4, 5, 3]), LossKind::Classes, 1, 6, 5);
    p.support.dense.fill(0.0);
    let inner = InnerLoop {
        update: Update::Adam { beta1: 0.9, beta2: 0.99, eps: 1e-6 },
        ..InnerLoop::sgd(STEPS, 0.01, Order::Second)
    };
    let found = run(&p, &p.params(), inner, Form::Dense);
    assert!(found.theta.iter().all(|x| x.is_finite()) && norm(&found.theta) > 0.0);
}

/// Everything a meta-step writes, for batches cut into chunks of `chunk` episodes.
fn chunked(p: &Problem, inner: InnerLoop, chunk: usize, threads: usize) -> Vec<f64> {
    p.with_batch::<f64, _>(|batch| {
        let limits = Limits { task_chunk: chunk, ..Limits::of(batch, &inner) };
        let mut g = MetaGradient::new(&p.shape, &limits);
        let mut gram = GramSpace::new(&support::cpu().threads(threads).unwrap(), &p.shape, limits).unwrap();
        gram.run(&p.params(), batch, &inner, &mut g).unwrap();
        let outputs = (0..gram.query_outputs().rows()).flat_map(|i| gram.query_outputs().row(i).to_vec());
        [g.dense_first(&p.shape), g.bias, g.head, g.rates, g.query_loss, outputs.collect()].concat()
    })
}

#[test]
fn chunks_of_a_batch_have_the_same_bits() {
    for kind in KINDS {
        let p = Problem::random(770, shape(kind, &DIMS), LossKind::Classes, 7, 7, 6);
        let learned = Learned::new(3, &p);
        for (name, inner) in settings(&learned) {
            let whole = chunked(&p, inner, 0, 1);
            for (chunk, threads) in [(1, 1), (2, 2), (3, 1), (5, 2), (7, 1)] {
                assert!(chunked(&p, inner, chunk, threads) == whole, "{name}, chunks of {chunk}, seed 770, {kind:?}");
            }
        }
    }
}

#[test]
fn gradients_of_single_episodes_add_up_to_the_batch() {
    for kind in KINDS {
        let p = Problem::random(780, shape(kind, &DIMS), LossKind::Classes, 5, 7, 6);
        let (params, inner) = (p.params(), InnerLoop::sgd(STEPS, 0.1, Order::Second));
        let whole = run(&p, &params, inner, Form::Gram);
        let sum = p.with_batch::<f64, _>(|batch| {
            let limits = Limits::of(batch, &inner);
            let mut g = MetaGradient::new(&p.shape, &limits);
            let mut gram = GramSpace::new(&support::cpu(), &p.shape, limits).unwrap();
            let mut sum = vec![0.0; p.shape.len()];
            for t in 0..5 {
                gram.run_episodes(&params, batch, &inner, t..t + 1, &mut g).unwrap();
                assert_eq!(g.query_loss, [whole.losses[t]], "seed 780");
                let all = [g.dense_first(&p.shape), g.bias.clone(), g.head.clone()].concat();
                sum.iter_mut().zip(&all).for_each(|(s, g)| *s += g / 5.0);
            }
            sum
        });
        assert!(relative_error(&sum, &whole.theta) < 1e-13, "seed 780, {kind:?}");
    }
}
