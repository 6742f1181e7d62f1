//! No kernel reads or writes outside its operands, by so much as a byte: each operand lies flush against a page that
//! faults, on either side. The results have the bits they have in ordinary memory.
#![cfg(target_os = "linux")]

mod support;

use metaglot::backend::{Finish, Form, Lane, Mask};
use metaglot::cpu::contract::AdamwStep;
use metaglot::cpu::{KernelElement, StoredElement};
use metaglot::{Element, MatMut, MatRef, Purpose, Rng, bf16, f16};
use support::guarded::{Guard, Guarded};
use support::tables::Tables;

fn bits<T: Element>(x: &[T]) -> Vec<u64> {
    x.iter().map(|x| x.to_f64().to_bits()).collect()
}

fn random<T: Element>(rng: &mut Rng, n: usize) -> Vec<T> {
    (0..n).map(|_| T::from_f64(rng.normal())).collect()
}

/// Runs `f(lane, inputs, outputs)` in ordinary and in guarded memory on every table, with arrays of the given lengths.
fn guarded<T: KernelElement>(
    tables: &mut Tables<T>,
    what: &str,
    inputs: &[usize],
    outputs: &[usize],
    f: impl Fn(&mut Lane<T>, &[&[T]], &mut [&mut [T]]),
) {
    let mut rng = Rng::new(31, 0, 0, Purpose::Data);
    let inputs: Vec<Vec<T>> = inputs.iter().map(|&n| random(&mut rng, n)).collect();
    let outputs: Vec<Vec<T>> = outputs.iter().map(|&n| random(&mut rng, n)).collect();
    for (isa, lane) in &mut tables.lanes {
        let mut wanted = outputs.clone();
        let plain: Vec<&[T]> = inputs.iter().map(Vec::as_slice).collect();
        f(lane, &plain, &mut wanted.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>());
        for guard in [Guard::Before, Guard::Behind] {
            let inputs: Vec<Guarded<T>> = inputs.iter().map(|x| Guarded::new(x, guard)).collect();
            let mut found: Vec<Guarded<T>> = outputs.iter().map(|x| Guarded::new(x, guard)).collect();
            let inputs: Vec<&[T]> = inputs.iter().map(|x| &**x).collect();
            f(lane, &inputs, &mut found.iter_mut().map(|x| &mut **x).collect::<Vec<_>>());
            for (w, x) in wanted.iter().zip(&found) {
                assert!(bits(w) == bits(x), "{}: {what}, {guard:?}: other bits", isa.name());
            }
        }
    }
}

fn view<T: Element>(x: &[T], rows: usize, cols: usize) -> MatRef<'_, T> {
    MatRef::new(x, rows, cols).unwrap()
}

fn row_operations<T: KernelElement>() {
    let tables = &mut Tables::<T>::new(&[]);
    let t = T::from_f64;
    let step = AdamwStep {
        lr: t(0.01),
        beta1: t(0.9),
        beta2: t(0.99),
        eps: t(1e-8),
        weight_decay: t(0.1),
        correction1: t(1.5),
        correction2: t(2.5),
    };
    for n in 0..=257 {
        guarded(tables, &format!("relu {n}"), &[n], &[n], |lane, x, y| lane.relu(x[0], y[0]).unwrap());
        guarded(tables, &format!("relu_mask {n}"), &[n], &[n], |lane, x, y| lane.relu_mask(x[0], y[0]).unwrap());
        guarded(tables, &format!("relu_mask_to {n}"), &[n, n], &[n], |lane, x, y| {
            lane.relu_mask_to(x[0], x[1], y[0]).unwrap();
        });
        guarded(tables, &format!("axpy {n}"), &[n], &[n], |lane, x, y| lane.axpy(t(0.3), x[0], y[0]).unwrap());
        guarded(tables, &format!("axpby {n}"), &[n], &[n], |lane, x, y| {
            lane.axpby(t(0.3), x[0], t(0.7), y[0]).unwrap();
        });
        guarded(tables, &format!("sgd {n}"), &[n], &[n, n], |lane, x, y| {
            let [v, w] = y else { unreachable!("two outputs") };
            lane.sgd(t(0.1), t(0.9), t(0.01), Some(x[0]), v, w).unwrap();
        });
        guarded(tables, &format!("adamw {n}"), &[n], &[n, n, n], |lane, x, y| {
            let [m, v, w] = y else { unreachable!("three outputs") };
            v.iter_mut().for_each(|v| *v = *v * *v);
            lane.adamw(&step, Some(x[0]), m, v, w).unwrap();
        });
    }
}

fn blocks_of_rows<T: KernelElement>() {
    let tables = &mut Tables::<T>::new(&[]);
    for n in (1..=72).chain([127, 128, 129, 257]) {
        let targets = [n as u32 - 1, 0, n as u32 / 2];
        guarded(tables, &format!("softmax_xent {n}"), &[3 * n], &[3 * n, 3 * n], |lane, x, y| {
            let [p, dz] = y else { unreachable!("two outputs") };
            let z = view(x[0], 3, n);
            lane.softmax_xent_rows(z, &targets, T::from_f64(0.25), p, dz).unwrap();
        });
        guarded(tables, &format!("softmax_xent_rop {n}"), &[3 * n], &[3 * n], |lane, x, y| {
            lane.softmax_xent_rop_rows(n, x[0], T::from_f64(0.25), y[0]).unwrap();
        });
        guarded(tables, &format!("col_sum {n}"), &[3 * n], &[n], |lane, x, y| {
            lane.col_sum(T::ONE, view(x[0], 3, n), T::from_f64(0.5), y[0]).unwrap();
        });
        let index = [4, 0, 4, 2];
        guarded(tables, &format!("gather_sum {n}"), &[4, 5 * n, n], &[n], |lane, x, y| {
            lane.gather_sum(&index, x[0], view(x[1], 5, n), Some(x[2]), y[0]).unwrap();
        });
    }
}

fn products<T: KernelElement>() {
    let tables = &mut Tables::<T>::new(&[]);
    for m in [1, 2, 5, 6, 7, 8, 13, 14, 15, 25] {
        for n in [1, 3, 4, 5, 8, 12, 13, 16, 17, 31, 32, 33, 67] {
            for k in [1, 3, 7, 16, 40] {
                let (alpha, beta) = (T::from_f64(0.7), T::from_f64(-0.5));
                let what = format!("{m}x{n}x{k}");
                guarded(tables, &format!("gemm_nn {what}"), &[m * k, k * n], &[m * n], |lane, x, y| {
                    let c = MatMut::new(y[0], m, n).unwrap();
                    lane.gemm_nn(alpha, view(x[0], m, k), view(x[1], k, n), beta, c).unwrap();
                });
                guarded(tables, &format!("gemm_tn {what}"), &[m * k, k * n], &[m * n], |lane, x, y| {
                    let c = MatMut::new(y[0], m, n).unwrap();
                    lane.gemm_tn(alpha, view(x[0], k, m), view(x[1], k, n), beta, c).unwrap();
                });
                guarded(tables, &format!("linear {what}"), &[m * k, n * k, n], &[m * n], |lane, x, y| {
                    let c = MatMut::new(y[0], m, n).unwrap();
                    lane.linear(view(x[0], m, k), view(x[1], n, k), x[2], true, c).unwrap();
                });
                let sizes = [m * k, k * n, m * n, m * n, n];
                guarded(tables, &format!("fused {what}"), &sizes, &[m * n, m * n], |lane, x, y| {
                    let (old, bias) = (Some(view(x[2], m, n)), Some(x[4]));
                    let masks = [Mask::Product(view(x[3], m, n)), Mask::Result(view(x[3], m, n))];
                    for (mask, y) in masks.into_iter().zip(y) {
                        let finish = Finish { alpha, beta, old, bias, relu: false, mask: Some(mask) };
                        let c = MatMut::new(y, m, n).unwrap();
                        lane.product(Form::Nn, view(x[0], m, k), view(x[1], k, n), c, finish).unwrap();
                    }
                });
                let sizes = [m * k, k * n, m * k, k * n, m * n];
                // With old values added as they are, products with few steps and few rows are thin.
                guarded(tables, &format!("thin {what}"), &sizes, &[m * n, m * n, m * n, m * n], |lane, x, y| {
                    let [nn, tn, pair_nn, pair_tn] = y else { unreachable!("four outputs") };
                    let factors = |i: usize, rows, cols| (view(x[i], rows, cols), view(x[i + 1], k, n));
                    let (a, b) = factors(0, m, k);
                    lane.gemm_nn(alpha, a, b, T::ONE, MatMut::new(nn, m, n).unwrap()).unwrap();
                    let (a, b) = factors(0, k, m);
                    lane.gemm_tn(alpha, a, b, T::ONE, MatMut::new(tn, m, n).unwrap()).unwrap();
                    let pair = [factors(0, m, k), factors(2, m, k)];
                    let (mask, c) = (Some(view(x[4], m, n)), MatMut::new(pair_nn, m, n).unwrap());
                    lane.product_pair(Form::Nn, pair, alpha, mask, T::ONE, c).unwrap();
                    let pair = [factors(0, k, m), factors(2, k, m)];
                    let c = MatMut::new(pair_tn, m, n).unwrap();
                    lane.product_pair(Form::Tn, pair, alpha, None, T::ONE, c).unwrap();
                });
                let sizes = [m * k, n * k, m * k, n * k, n];
                guarded(tables, &format!("few_columns_pair {what}"), &sizes, &[m * n], |lane, x, y| {
                    let pair = [(view(x[0], m, k), view(x[1], n, k)), (view(x[2], m, k), view(x[3], n, k))];
                    lane.few_columns_pair(pair, Some(x[4]), MatMut::new(y[0], m, n).unwrap()).unwrap();
                });
                guarded(tables, &format!("few_columns {what}"), &[m * k, n * k, n], &[m * n], |lane, x, y| {
                    let (a, b) = (view(x[0], m, k), view(x[1], n, k));
                    lane.few_columns(alpha, a, b, beta, Some(x[2]), MatMut::new(y[0], m, n).unwrap()).unwrap();
                });
            }
        }
    }
}

/// Products of operands stored in `S`, flush against the forbidden pages.
fn stored_products<S: StoredElement<f32>>() {
    let tables = &mut Tables::<f32>::new(&[]);
    let mut rng = Rng::new(32, 0, 0, Purpose::Data);
    let mut stored = |n: usize| -> Vec<S> { (0..n).map(|_| S::narrow(rng.normal() as f32)).collect() };
    for m in [1, 2, 6, 7, 13, 15] {
        for n in [1, 3, 8, 12, 17, 33] {
            for k in [1, 3, 5, 16] {
                let (a, b) = (stored(m * k), stored(k * n));
                for form in [Form::Nn, Form::Nt, Form::Tn] {
                    let [(ar, ac), (br, bc)] = match form {
                        Form::Nn => [(m, k), (k, n)],
                        Form::Nt => [(m, k), (n, k)],
                        Form::Tn => [(k, m), (k, n)],
                    };
                    for guard in [Guard::Before, Guard::Behind] {
                        let (a, b) = (Guarded::new(&a, guard), Guarded::new(&b, guard));
                        for (_, lane) in &mut tables.lanes {
                            let (a, b) = (MatRef::new(&a, ar, ac).unwrap(), MatRef::new(&b, br, bc).unwrap());
                            let mut c = Guarded::new(&vec![0.0; m * n], guard);
                            let dst = MatMut::new(&mut c, m, n).unwrap();
                            lane.product(form, a, b, dst, Finish::scaled(1.0, 0.0)).unwrap();
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn products_in_half_precision() {
    stored_products::<f16>();
    stored_products::<bf16>();
}

macro_rules! for_both_types {
    ($($name:ident)*) => {
        mod f32 {
            $(#[test] fn $name() { super::$name::<f32>(); })*
        }
        mod f64 {
            $(#[test] fn $name() { super::$name::<f64>(); })*
        }
    };
}

for_both_types! { row_operations blocks_of_rows products }
