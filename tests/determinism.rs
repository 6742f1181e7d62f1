//! The same bits on any number of threads.

mod support;

use metaglot::meta::{BatchTargets, EpisodeSet, GramSpace, InnerLoop, Inputs, Limits, MetaBatch, MetaGradient, Order};
use metaglot::model::{InputKind, Params};
use metaglot::{MatRef, Purpose, Rng};
use support::{LossKind, Problem, shape};

/// Everything a meta-step gives, as bits: gradient rows and values, losses, query outputs.
fn bits(params: &Params<f32>, batch: &MetaBatch<f32>, inner: &InnerLoop, threads: usize) -> Vec<u32> {
    let limits = Limits::of(batch, inner);
    let cpu = support::cpu().threads(threads).unwrap();
    let mut g = MetaGradient::new(&params.shape, &limits);
    let mut gram = GramSpace::new(&cpu, &params.shape, limits).unwrap();
    gram.run(params, batch, inner, &mut g).unwrap();
    let of_rows =
        if params.shape.kind == InputKind::Bag { g.rows.len() * params.shape.hidden() } else { g.first.len() };
    let outputs = gram.query_outputs();
    let values = g.first[..of_rows].iter().chain(&g.bias).chain(&g.head).chain(&g.query_loss);
    let outputs = (0..outputs.rows()).flat_map(|i| outputs.row(i));
    assert!(values.clone().all(|x| x.is_finite()));
    g.rows.iter().copied().chain(values.chain(outputs).map(|x| x.to_bits())).collect()
}

fn assert_same_on_all_threads(params: &Params<f32>, batch: &MetaBatch<f32>, inner: &InnerLoop, what: &str) {
    let wanted = bits(params, batch, inner, 1);
    for threads in [2, 3, 8] {
        let found = bits(params, batch, inner, threads);
        let differ = wanted.iter().zip(&found).filter(|(w, f)| w != f).count();
        assert!(wanted == found, "{what}: {differ} of {} values differ on {threads} threads", wanted.len());
    }
}

#[test]
fn meta_gradients_have_the_same_bits_on_any_number_of_threads() {
    for (seed, episodes) in (500..).zip([1, 3, 7, 16]) {
        for loss in [LossKind::Classes, LossKind::Lists, LossKind::Pairs] {
            for kind in [InputKind::Dense, InputKind::Bag] {
                for order in [Order::First, Order::Second] {
                    let outputs = if loss == LossKind::Lists { 1 } else { 5 };
                    let p = Problem::random(seed, shape(kind, &[50, 70, 19, outputs]), loss, episodes, 13, 10);
                    let inner = InnerLoop::sgd(3, 0.05, order);
                    let what = format!("seed {seed} {loss:?} {kind:?} {order:?} {episodes} episodes");
                    p.with_batch(|batch| assert_same_on_all_threads(&p.params(), batch, &inner, &what));
                }
            }
        }
    }
}

/// Large enough that the products outside the loop are blocked along every dimension.
#[test]
fn a_large_meta_step_has_the_same_bits_on_any_number_of_threads() {
    let p = Problem::random(600, shape(InputKind::Dense, &[600, 130, 5]), LossKind::Classes, 12, 25, 40);
    let inner = InnerLoop::sgd(2, 0.01, Order::Second);
    p.with_batch(|batch| assert_same_on_all_threads(&p.params(), batch, &inner, "seed 600"));
}

#[test]
fn episodes_of_very_different_sizes_have_the_same_bits_on_any_number_of_threads() {
    let (seed, sizes) = (700, [1usize, 40, 2, 3, 25, 1, 17]);
    let mut rng = Rng::new(seed, 0, 0, Purpose::Data);
    let shape = shape(InputKind::Dense, &[21, 34, 3]);
    let params = Params::<f32>::random(&shape, 0.5, seed).unwrap();
    let ends = |sizes: &mut dyn Iterator<Item = usize>| {
        sizes.fold(vec![0], |mut ends: Vec<usize>, n| {
            ends.push(ends.last().unwrap() + n);
            ends
        })
    };
    let (support, query) = (ends(&mut sizes.into_iter()), ends(&mut sizes.into_iter().rev()));
    let n = *support.last().unwrap();
    let mut x = || (0..n * shape.input).map(|_| rng.normal() as f32).collect::<Vec<f32>>();
    let (xs, xq) = (x(), x());
    let labels: Vec<u32> = (0..n).map(|_| rng.below(3) as u32).collect();
    let set = |x, rows| EpisodeSet {
        inputs: Inputs::Dense(MatRef::new(x, n, shape.input).unwrap()),
        rows,
        targets: BatchTargets::Classes(&labels),
    };
    let batch = MetaBatch { support: set(&xs, &support), query: set(&xq, &query) };
    let inner = InnerLoop::sgd(4, 0.05, Order::Second);
    assert_same_on_all_threads(&params, &batch, &inner, "seed 700, ragged");
}
