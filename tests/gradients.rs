//! The derivatives: against an oracle that shares no code, against central differences, and one way against the other.

mod support;

use metaglot::cpu::Cpu;
use metaglot::meta::{Dense, GramSpace, InnerLoop, Limits, MetaGradient, Order};
use metaglot::model::{InputKind, MlpShape, Params};
use metaglot::{Purpose, Rng};
use proptest::prelude::*;
use support::{LossKind, Problem, oracle, relative_error, shape};

const LOSSES: [LossKind; 4] = [LossKind::Classes, LossKind::Lists, LossKind::Pairs, LossKind::Values];
const KINDS: [InputKind; 2] = [InputKind::Dense, InputKind::Bag];

/// A meta-gradient as one vector, and the loss of each episode.
fn run(p: &Problem, params: &Params<f64>, inner: InnerLoop, gram: bool, cpu: &Cpu) -> (Vec<f64>, Vec<f64>) {
    p.with_batch::<f64, _>(|batch| {
        let limits = Limits::of(batch, &inner);
        let mut gradient = MetaGradient::new(&p.shape, &limits);
        if gram {
            GramSpace::new(cpu, &p.shape, limits).unwrap().run(params, batch, &inner, &mut gradient).unwrap();
        } else {
            Dense::new(cpu, &p.shape, limits).unwrap().run(params, batch, &inner, &mut gradient).unwrap();
        }
        let mut flat = gradient.dense_first(&p.shape);
        flat.extend(&gradient.bias);
        flat.extend(&gradient.head);
        (flat, gradient.query_loss.clone())
    })
}

/// One score a row for lists, otherwise the given sizes.
fn dims_for(loss: LossKind, dims: &[usize]) -> Vec<usize> {
    let mut dims = dims.to_vec();
    if loss == LossKind::Lists {
        *dims.last_mut().unwrap() = 1;
    }
    dims
}

#[test]
fn adapted_losses_equal_an_oracle_that_shares_no_code() {
    for (seed, loss) in (100..).zip(LOSSES) {
        for kind in KINDS {
            for steps in [0, 1, 3] {
                let p = Problem::random(seed, shape(kind, &dims_for(loss, &[4, 5, 3, 3])), loss, 2, 5, 4);
                let params = p.params();
                let inner = InnerLoop::sgd(steps, 0.2, Order::Evaluate);
                let wanted = oracle::adapted_losses(&p, &oracle::flatten(&params), steps, 0.2);
                for gram in [true, false] {
                    let (_, found) = run(&p, &params, inner, gram, &support::cpu());
                    let error = relative_error(&found, &wanted);
                    assert!(error < 1e-8, "seed {seed} {loss:?} {kind:?} steps {steps} gram {gram}: {error:e}");
                }
            }
        }
    }
}

/// The mean query loss after adaptation, at `params + t * direction`.
fn loss_along(p: &Problem, params: &Params<f64>, direction: &[f64], t: f64, inner: InnerLoop) -> f64 {
    let mut moved = params.clone();
    let all = moved.first.iter_mut().chain(&mut moved.bias).chain(&mut moved.head);
    all.zip(direction).for_each(|(w, d)| *w += t * d);
    let (_, losses) = run(p, &moved, InnerLoop { order: Order::Evaluate, ..inner }, false, &support::cpu());
    losses.iter().sum::<f64>() / losses.len() as f64
}

#[test]
fn second_order_meta_gradient_equals_central_differences() {
    for (seed, loss) in (200..).zip(LOSSES) {
        for kind in KINDS {
            for dims in [&[6, 3][..], &[6, 7, 3], &[5, 9, 4, 3]] {
                let p = Problem::random(seed, shape(kind, &dims_for(loss, dims)), loss, 3, 7, 6);
                let params = p.params();
                let inner = InnerLoop::sgd(4, 0.15, Order::Second);
                let (gradient, _) = run(&p, &params, inner, true, &support::cpu());
                let mut rng = Rng::new(seed, 2, 0, Purpose::Data);
                for _ in 0..4 {
                    let d: Vec<f64> = gradient.iter().map(|_| rng.normal()).collect();
                    let slope = |h: f64| {
                        let (up, down) =
                            (loss_along(&p, &params, &d, h, inner), loss_along(&p, &params, &d, -h, inner));
                        (up - down) / (2.0 * h)
                    };
                    let wanted = (4.0 * slope(1e-5) - slope(2e-5)) / 3.0;
                    let found: f64 = gradient.iter().zip(&d).map(|(g, d)| g * d).sum();
                    let scale = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
                    let error = (found - wanted).abs() / scale;
                    assert!(
                        error < 1e-7,
                        "seed {seed} {loss:?} {kind:?} {dims:?}: {found} is not {wanted} ({error:e})"
                    );
                }
            }
        }
    }
}

#[test]
fn first_and_second_order_differ() {
    for loss in LOSSES {
        let p = Problem::random(300, shape(InputKind::Dense, &dims_for(loss, &[6, 7, 3])), loss, 2, 6, 6);
        let params = p.params();
        let inner = |order| InnerLoop::sgd(3, 0.2, order);
        let (first, _) = run(&p, &params, inner(Order::First), true, &support::cpu());
        let (second, _) = run(&p, &params, inner(Order::Second), true, &support::cpu());
        assert!(relative_error(&first, &second) > 1e-2, "{loss:?}");
    }
}

#[test]
fn first_order_is_the_query_gradient_at_the_adapted_weights() {
    for (seed, loss) in (350..).zip(LOSSES) {
        let p = Problem::random(seed, shape(InputKind::Dense, &dims_for(loss, &[4, 5, 3])), loss, 1, 6, 5);
        let params = p.params();
        let mut phi = oracle::flatten(&params);
        for _ in 0..2 {
            let g = oracle::gradient(|x| oracle::loss(&p, &p.support, 0, x), &phi, 1e-4);
            phi.iter_mut().zip(&g).for_each(|(w, g)| *w -= 0.2 * g);
        }
        let wanted = oracle::gradient(|x| oracle::loss(&p, &p.query, 0, x), &phi, 1e-4);
        let (found, _) = run(&p, &params, InnerLoop::sgd(2, 0.2, Order::First), true, &support::cpu());
        let error = relative_error(&found, &wanted);
        assert!(error < 1e-7, "seed {seed} {loss:?}: {error:e}");
    }
}

#[test]
fn the_hessian_product_is_symmetric_and_the_difference_of_gradients() {
    for (seed, loss) in (400..).zip(LOSSES) {
        for kind in KINDS {
            let p = Problem::random(seed, shape(kind, &dims_for(loss, &[6, 7, 5, 3])), loss, 2, 7, 1);
            let params = p.params();
            let mut rng = Rng::new(seed, 3, 0, Purpose::Data);
            let mut direction = || {
                let mut v = Params::<f64>::zeros(&p.shape).unwrap();
                v.first.iter_mut().chain(&mut v.bias).chain(&mut v.head).for_each(|x| *x = rng.normal());
                v
            };
            let (u, v) = (direction(), direction());
            let (hu, hv) = p.with_batch::<f64, _>(|batch| {
                let mut dense =
                    Dense::new(&support::cpu(), &p.shape, Limits::of(batch, &InnerLoop::sgd(0, 0.0, Order::Evaluate)))
                        .unwrap();
                let mut product = |x| {
                    let mut hx = Params::zeros(&p.shape).unwrap();
                    dense.support_hvp(&params, batch, x, &mut hx, &mut Vec::new()).unwrap();
                    oracle::flatten(&hx)
                };
                (product(&u), product(&v))
            });
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let (u, v, theta) = (oracle::flatten(&u), oracle::flatten(&v), oracle::flatten(&params));
            let (uhv, vhu) = (dot(&u, &hv), dot(&v, &hu));
            assert!((uhv - vhu).abs() < 1e-12 * (1.0 + uhv.abs()), "seed {seed} {loss:?} {kind:?}: {uhv} is not {vhu}");
            // u . H v by differences of the oracle's gradient along v.
            let slope = |h: f64| {
                let at = |t: f64| theta.iter().zip(&v).map(|(w, v)| w + t * v).collect::<Vec<_>>();
                let mean = |x: &[f64]| (oracle::loss(&p, &p.support, 0, x) + oracle::loss(&p, &p.support, 1, x)) / 2.0;
                let (up, down) = (oracle::gradient(mean, &at(h), 1e-4), oracle::gradient(mean, &at(-h), 1e-4));
                (dot(&u, &up) - dot(&u, &down)) / (2.0 * h)
            };
            let wanted = (4.0 * slope(5e-5) - slope(1e-4)) / 3.0;
            assert!(
                (uhv - wanted).abs() < 1e-5 * (1.0 + wanted.abs()),
                "seed {seed} {loss:?} {kind:?}: {uhv}, {wanted}"
            );
        }
    }
}

#[test]
fn a_place_for_another_gradient_is_refused() {
    for kind in KINDS {
        let p = Problem::random(500, shape(kind, &[6, 7, 3]), LossKind::Classes, 2, 5, 4);
        let params = p.params::<f64>();
        let inner = InnerLoop::sgd(1, 0.1, Order::Second);
        p.with_batch::<f64, _>(|batch| {
            let limits = Limits::of(batch, &inner);
            let mut place = MetaGradient::without_storage();
            let gram =
                GramSpace::new(&support::cpu(), &p.shape, limits).unwrap().run(&params, batch, &inner, &mut place);
            let dense = Dense::new(&support::cpu(), &p.shape, limits).unwrap().run(&params, batch, &inner, &mut place);
            assert_eq!((gram.unwrap_err().code(), dense.unwrap_err().code()), (1, 1), "{kind:?}");
        });
    }
}

fn any_shape() -> impl Strategy<Value = MlpShape> {
    let size = prop::sample::select(vec![1usize, 3, 7, 17, 33, 64, 100]);
    let kind = prop::sample::select(KINDS.to_vec());
    (kind, prop::collection::vec(size, 2..=5)).prop_map(|(kind, dims)| shape(kind, &dims))
}

proptest! {
    #[test]
    fn gram_space_equals_the_dense_form(
        mut shape in any_shape(),
        loss in prop::sample::select(LOSSES.to_vec()),
        episodes in 1usize..=5,
        rows in prop::sample::select(vec![(1usize, 2usize), (5, 7), (25, 10), (33, 17)]),
        steps in 0usize..=8,
        second in any::<bool>(),
        seed in 0u64..1 << 32,
    ) {
        if loss == LossKind::Lists {
            *shape.widths.last_mut().unwrap() = 1;
        }
        let p = Problem::random(seed, shape, loss, episodes, rows.0, rows.1);
        let params = p.params();
        let order = if second { Order::Second } else { Order::First };
        // A small rate: a diverging inner loop would amplify rounding, not test the algebra.
        let inner = InnerLoop::sgd(steps, 0.01, order);
        let (gram, gram_loss) = run(&p, &params, inner, true, &support::cpu());
        let (dense, dense_loss) = run(&p, &params, inner, false, &support::cpu());
        // Deep nets over pairs can diverge at any rate; then there is nothing to compare.
        prop_assume!(dense_loss.iter().all(|l| l.is_finite() && *l < 30.0));
        let error = |found: &[f64], wanted: &[f64]| match found.iter().all(|x| x.is_finite()) {
            true => relative_error(found, wanted),
            false => f64::INFINITY,
        };
        let errors = [error(&gram_loss, &dense_loss), error(&gram, &dense)];
        if errors[0] >= 1e-10 || errors[1] >= 1e-9 {
            // Some diverge and come back.
            for earlier in 0..steps {
                let (_, losses) = run(&p, &params, InnerLoop::sgd(earlier, 0.01, Order::Evaluate), false, &support::cpu());
                prop_assume!(losses.iter().all(|l| l.is_finite() && *l < 30.0));
            }
        }
        prop_assert!(errors[0] < 1e-10, "seed {} losses {:e}", seed, errors[0]);
        prop_assert!(errors[1] < 1e-9, "seed {} gradient {:e}", seed, errors[1]);
    }
}
