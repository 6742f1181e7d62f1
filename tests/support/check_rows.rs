//! Element-wise operations and updates of every table against the truth, whole and cut in two.

use metaglot::backend::Lane;
use metaglot::cpu::KernelElement;
use metaglot::{Element, Purpose, Rng};

use metaglot::cpu::contract::AdamwStep;

use super::cases::RowCase;
use super::padded::Padded;
use super::tables::{Tables, assert_met, label};
use super::truth::{self, Sum, Wanted, precision};

/// The factors of an update: all are rounded to `T` before the truth sees them.
fn rounded<T: Element>(x: f64) -> f64 {
    T::from_f64(x).to_f64()
}

fn draw_row<T: Element>(case: &RowCase, which: u64) -> Padded<T> {
    let mut rng = Rng::new(case.seed, which, 0, Purpose::Data);
    Padded::row(case.n, (case.offset + which as usize * 3) % 16, || case.fill.draw(&mut rng))
}

/// Runs `f(lane, range)` on the whole row and again in two parts, compares the outputs with the truth and with each
/// other. `f` reads and writes `outputs` in the range.
fn whole_and_cut<T: KernelElement>(
    tables: &mut Tables<T>,
    op: &str,
    case: &RowCase,
    outputs: &[Padded<T>],
    wanted: &[Vec<Wanted>],
    f: impl Fn(&mut Lane<T>, std::ops::Range<usize>, &mut [Padded<T>]),
) {
    let cut = Rng::new(case.seed, 99, 0, Purpose::Data).below(case.n + 1);
    for (isa, lane) in &mut tables.lanes {
        let what = label::<T>(*isa, 1, op, case);
        let mut whole = outputs.to_vec();
        f(lane, 0..case.n, &mut whole);
        let mut parts = outputs.to_vec();
        f(lane, 0..cut, &mut parts);
        f(lane, cut..case.n, &mut parts);
        for ((found, part), wanted) in whole.iter().zip(&parts).zip(wanted) {
            found.assert_frame(&what);
            assert_met(&what, wanted, &found.values());
            assert!(found.bits() == part.bits(), "{what}: other bits when cut at {cut}");
        }
    }
}

/// `max(x, 0)`; the truth of NaN is whatever a lane says, as long as it is 0 or NaN.
pub fn relu<T: KernelElement>(tables: &mut Tables<T>, case: &RowCase) {
    let (src, dst) = (draw_row::<T>(case, 0), Padded::<T>::row(case.n, case.offset, || f64::NAN));
    let wanted = src.values().into_iter().map(|x| truth::relu(Wanted::exactly(x))).collect();
    whole_and_cut(tables, "relu", case, &[dst], &[wanted], |lane, r, out| {
        lane.relu(&src.slice()[r.clone()], &mut out[0].slice_mut()[r]).unwrap();
    });
    for (isa, lane) in &mut tables.lanes {
        let (nan, mut out) = (vec![T::from_f64(f64::NAN); case.n], vec![T::ONE; case.n]);
        lane.relu(&nan, &mut out).unwrap();
        let fits = out.iter().all(|x| *x == T::ZERO || x.to_f64().is_nan());
        assert!(fits, "{}: NaN became a number", label::<T>(*isa, 1, "relu", case));
    }
}

/// `d = 0 where a <= 0`.
pub fn relu_mask<T: KernelElement>(tables: &mut Tables<T>, case: &RowCase) {
    let (a, d) = (draw_row::<T>(case, 0), draw_row::<T>(case, 1));
    let pairs = a.values().into_iter().zip(d.values());
    let wanted = pairs.map(|(a, d)| Wanted::exactly(if a > 0.0 { d } else { 0.0 })).collect();
    whole_and_cut(tables, "relu_mask", case, &[d], &[wanted], |lane, r, out| {
        lane.relu_mask(&a.slice()[r.clone()], &mut out[0].slice_mut()[r]).unwrap();
    });
}

/// The same into another place.
pub fn relu_mask_to<T: KernelElement>(tables: &mut Tables<T>, case: &RowCase) {
    let (a, d) = (draw_row::<T>(case, 0), draw_row::<T>(case, 1));
    let pairs = a.values().into_iter().zip(d.values());
    let wanted = pairs.map(|(a, d)| Wanted::exactly(if a > 0.0 { d } else { 0.0 })).collect();
    let dst = Padded::<T>::row(case.n, case.offset, || f64::NAN);
    whole_and_cut(tables, "relu_mask_to", case, &[dst], &[wanted], |lane, r, out| {
        lane.relu_mask_to(&a.slice()[r.clone()], &d.slice()[r.clone()], &mut out[0].slice_mut()[r]).unwrap();
    });
}

/// `y = alpha x + beta y`, and over NaN with beta = 0.
pub fn axpby<T: KernelElement>(tables: &mut Tables<T>, case: &RowCase) {
    let (x, y) = (draw_row::<T>(case, 0), draw_row::<T>(case, 1));
    let nan = Padded::<T>::row(case.n, case.offset, || f64::NAN);
    let alpha = rounded::<T>(-0.3);
    for (beta, y) in [(0.7, &y), (0.0, &nan)] {
        let beta = rounded::<T>(beta);
        let one = |(x, y)| truth::product(precision::<T>(), [(alpha, x)].into_iter(), 1.0, beta, y, None);
        let wanted = x.values().into_iter().zip(y.values()).map(one).collect();
        whole_and_cut(tables, "axpby", case, std::slice::from_ref(y), &[wanted], |lane, r, out| {
            let (alpha, beta) = (T::from_f64(alpha), T::from_f64(beta));
            lane.axpby(alpha, &x.slice()[r.clone()], beta, &mut out[0].slice_mut()[r]).unwrap();
        });
    }
}

/// `y += alpha x`.
pub fn axpy<T: KernelElement>(tables: &mut Tables<T>, case: &RowCase) {
    let (x, y) = (draw_row::<T>(case, 0), draw_row::<T>(case, 1));
    let alpha = rounded::<T>(-0.3);
    let one = |(x, y)| {
        let mut sum = Sum::default();
        sum.add(alpha, x);
        sum.add(1.0, y);
        sum.wanted(precision::<T>())
    };
    let wanted = x.values().into_iter().zip(y.values()).map(one).collect();
    whole_and_cut(tables, "axpy", case, &[y], &[wanted], |lane, r, out| {
        lane.axpy(T::from_f64(alpha), &x.slice()[r.clone()], &mut out[0].slice_mut()[r]).unwrap();
    });
}

/// SGD with momentum and weight decay.
pub fn sgd<T: KernelElement>(tables: &mut Tables<T>, case: &RowCase) {
    let (g, v, w) = (draw_row::<T>(case, 0), draw_row::<T>(case, 1), draw_row::<T>(case, 2));
    let factors = [0.05, 0.9, 0.01].map(rounded::<T>);
    let one = |i| truth::sgd(precision::<T>(), factors, g.at(0, i), v.at(0, i), w.at(0, i));
    let wanted: Vec<[Wanted; 2]> = (0..case.n).map(one).collect();
    let wanted = [0, 1].map(|o| wanted.iter().map(|x| x[o]).collect());
    let [lr, momentum, decay] = factors.map(T::from_f64);
    whole_and_cut(tables, "sgd", case, &[v, w], &wanted, |lane, r, out| {
        let [v, w] = out else { unreachable!() };
        let (v, w) = (&mut v.slice_mut()[r.clone()], &mut w.slice_mut()[r.clone()]);
        lane.sgd(lr, momentum, decay, Some(&g.slice()[r]), v, w).unwrap();
    });
}

/// AdamW at its tenth step, with a gradient and without one; without has the bits of a gradient of zeros.
pub fn adamw<T: KernelElement>(tables: &mut Tables<T>, case: &RowCase) {
    let (g, m, w) = (draw_row::<T>(case, 0), draw_row::<T>(case, 1), draw_row::<T>(case, 2));
    let v = draw_row::<T>(case, 3).values().into_iter().map(f64::abs).collect::<Vec<_>>();
    let v = Padded::<T>::of(&v, case.offset);
    let r = rounded::<T>;
    let (c1, c2) = (1.0 / (1.0 - 0.9f64.powi(10)), 1.0 / (1.0 - 0.999f64.powi(10)));
    let [lr, beta1, beta2, eps, decay, c1, c2] = [0.01, 0.9, 0.999, 1e-8, 0.1, c1, c2].map(r);
    let s = truth::Adamw { lr, beta1, beta2, eps, decay, correction1: c1, correction2: c2 };
    let [lr, beta1, beta2, eps, weight_decay, correction1, correction2] =
        [lr, beta1, beta2, eps, decay, c1, c2].map(T::from_f64);
    let step = AdamwStep { lr, beta1, beta2, eps, weight_decay, correction1, correction2 };
    let zeros = vec![T::ZERO; case.n];
    for with_gradient in [true, false] {
        let gradient = |i| if with_gradient { g.at(0, i) } else { 0.0 };
        let one = |i| truth::adamw(precision::<T>(), &s, gradient(i), m.at(0, i), v.at(0, i), w.at(0, i));
        let wanted: Vec<[Wanted; 3]> = (0..case.n).map(one).collect();
        let wanted = [0, 1, 2].map(|o| wanted.iter().map(|x| x[o]).collect::<Vec<_>>());
        let start = [m.clone(), v.clone(), w.clone()];
        whole_and_cut(tables, "adamw", case, &start, &wanted, |lane, r, out| {
            let g = with_gradient.then(|| &g.slice()[r.clone()]);
            update(lane, &step, g, r, out);
        });
    }
    for (isa, lane) in &mut tables.lanes {
        let mut absent = [m.clone(), v.clone(), w.clone()];
        let mut zero = absent.clone();
        update(lane, &step, None, 0..case.n, &mut absent);
        update(lane, &step, Some(&zeros), 0..case.n, &mut zero);
        let same = absent.iter().zip(&zero).all(|(a, z)| a.bits() == z.bits());
        assert!(same, "{}: no gradient is not a gradient of zeros", label::<T>(*isa, 1, "adamw", case));
    }
}

fn update<T: KernelElement>(
    lane: &mut Lane<T>,
    step: &AdamwStep<T>,
    g: Option<&[T]>,
    r: std::ops::Range<usize>,
    out: &mut [Padded<T>],
) {
    let [m, v, w] = out else { unreachable!("three outputs") };
    let (m, v, w) = (&mut m.slice_mut()[r.clone()], &mut v.slice_mut()[r.clone()], &mut w.slice_mut()[r]);
    lane.adamw(step, g, m, v, w).unwrap();
}
