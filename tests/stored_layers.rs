//! First layers in half precision, dense ones and embedding tables: the meta-gradient is that of the widened weights, bit for
//! bit in f32 and within f32's rounding of f64; the query losses are those of a plain f64 oracle.

mod support;

use metaglot::cpu::{Cpu, Isa, KernelElement, StoredElement};
use metaglot::meta::{GramSpace, InnerLoop, Limits, MetaGradient, Order};
use metaglot::model::{InputKind, Params};
use metaglot::{Element, Stored, bf16, f16};
use support::{LossKind, Problem, oracle, relative_error, shape};

const INNER: InnerLoop = InnerLoop::sgd(2, 0.1, Order::Second);

fn gradient<T: KernelElement, S: StoredElement<T>>(p: &Problem, cpu: &Cpu, params: &Params<T, S>) -> MetaGradient<T> {
    p.with_batch::<T, _>(|batch| {
        let limits = Limits::of(batch, &INNER);
        let mut gradient = MetaGradient::new(&p.shape, &limits);
        GramSpace::new(cpu, &p.shape, limits).unwrap().run(params, batch, &INNER, &mut gradient).unwrap();
        gradient
    })
}

/// All of a gradient that counts.
fn flat<T: Element>(g: &MetaGradient<T>, hidden: usize) -> Vec<T> {
    [&g.first[..g.rows.len() * hidden], &g.bias, &g.head, &g.query_loss].concat()
}

fn widened<S: Stored<f32>>(params: &Params<f32, S>) -> Params<f64> {
    let wide = |values: &[f32]| values.iter().map(|&x| f64::from(x)).collect();
    Params {
        shape: params.shape.clone(),
        first: params.first.iter().map(|x| f64::from(x.widen())).collect(),
        bias: wide(&params.bias),
        head: wide(&params.head),
    }
}

fn a_half_layer_is_its_widened_layer<S: StoredElement<f32>>(kind: InputKind) {
    for (seed, hidden) in [(1, 5), (2, 8), (3, 67), (4, 130)] {
        let p = Problem::random(seed, shape(kind, &[40, hidden, 3]), LossKind::Classes, 2, 6, 7);
        let params: Params<f32, S> = p.params::<f32>().restored();
        let exact = widened(&params);
        let reference = gradient(&p, &Cpu::with_isa(Isa::Scalar).unwrap(), &exact);
        for cpu in Isa::ALL.into_iter().filter_map(|isa| Cpu::with_isa(isa).ok()) {
            let what = format!("{kind:?}, {:?}, {cpu:?}, hidden {hidden}, seed {seed}", S::STORED);
            let found = gradient(&p, &cpu, &params);
            let plain = gradient(&p, &cpu, &params.restored::<f32>());
            assert_eq!(found.rows, reference.rows, "{what}");
            let bits = |g| flat(g, hidden).into_iter().map(f32::to_bits).collect::<Vec<_>>();
            assert!(bits(&found) == bits(&plain), "{what}: other bits than the widened layer");
            let wanted: Vec<f32> = flat(&reference, hidden).iter().map(|&x| x as f32).collect();
            let error = relative_error(&flat(&found, hidden), &wanted);
            assert!(error < 1e-4, "{what}: error {error:e}");
        }
        // Differences need a problem away from ReLU's kink: this one is.
        if hidden == 5 {
            let losses = oracle::adapted_losses(&p, &oracle::flatten(&exact), INNER.steps, 0.1);
            let error = relative_error(&reference.query_loss, &losses);
            assert!(error < 1e-6, "{:?}, hidden {hidden}, seed {seed}: losses off by {error:e}", S::STORED);
        }
    }
}

#[test]
fn the_meta_gradient_of_a_half_table_is_that_of_its_widened_table() {
    a_half_layer_is_its_widened_layer::<f16>(InputKind::Bag);
    a_half_layer_is_its_widened_layer::<bf16>(InputKind::Bag);
}

#[test]
fn the_meta_gradient_of_a_dense_layer_in_half_precision_is_that_of_its_widened_layer() {
    a_half_layer_is_its_widened_layer::<f16>(InputKind::Dense);
    a_half_layer_is_its_widened_layer::<bf16>(InputKind::Dense);
}

#[test]
fn rounding_is_to_the_nearest_ties_to_even() {
    // 1 + 2^-8 lies between the bf16 neighbours 1 and 1 + 2^-7, 1 + 3 * 2^-8 between 1 + 2^-7 and 1 + 2^-6.
    let bf = |x: f32| <bf16 as Stored<f32>>::narrow(x).widen();
    let found: [f32; 3] = [bf(1.0 + 0.003_906_25), bf(1.0 + 3.0 * 0.003_906_25), bf(1.003_906_5)];
    assert_eq!(found, [1.0, 1.015_625, 1.007_812_5]);
    let half = |x: f32| <f16 as Stored<f32>>::narrow(x).widen();
    let found: [f32; 3] = [half(2049.0), half(2051.0), half(2049.01)];
    assert_eq!(found, [2048.0, 2052.0, 2050.0]);
    // A whole row is rounded as one number is: at every length around the vector.
    for n in 0..20 {
        let mut row: Vec<f16> = (0..n).map(|i| f16::from_f32(i as f32)).collect();
        let wanted: Vec<f16> = row.iter().map(|x| <f16 as Stored<f32>>::narrow(x.to_f32() * 1.000_5)).collect();
        f16::change_row(&mut row, &mut [0.0; 20], |wide| wide.iter_mut().for_each(|w| *w *= 1.000_5));
        assert_eq!(row, wanted, "{n} numbers");
    }
}
