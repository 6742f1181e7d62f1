//! Operands that do not fit together are refused with a shape error, by every entry point, and nothing is written.

mod support;

use metaglot::backend::{BagIndex, Finish, Form, Lane, Product, Team};
use metaglot::cpu::Cpu;
use metaglot::cpu::contract::AdamwStep;
use metaglot::{Bags, MatMut, MatRef, Result};

const SHAPE: u32 = 1;

/// Element values that every test's outputs must keep.
const KEPT: f32 = 42.0;

fn refused(what: &str, result: Result<impl Sized>, outputs: &[&[f32]]) {
    let code = result.err().map(|e| {
        assert!(!e.to_string().is_empty());
        e.code()
    });
    assert_eq!(code, Some(SHAPE), "{what}");
    assert!(outputs.iter().all(|o| o.iter().all(|&x| x == KEPT)), "{what}: an output was written");
}

fn a(data: &[f32], rows: usize, cols: usize) -> MatRef<'_, f32> {
    MatRef::new(data, rows, cols).unwrap()
}

fn m(data: &mut [f32], rows: usize, cols: usize) -> MatMut<'_, f32> {
    MatMut::new(data, rows, cols).unwrap()
}

#[test]
fn products_refuse_sizes_that_do_not_fit() {
    let (x, mut out) = ([0.5f32; 64], [KEPT; 64]);
    let mut lane = Lane::<f32>::new(&Cpu::new());
    // Right would be: a 3x4, b 4x5 (nn), 5x4 (nt), a 4x3 (tn), c 3x5. Each line breaks one size.
    for (am, ak, bk, bn, cm, cn) in [(3, 4, 3, 5, 3, 5), (3, 3, 4, 5, 3, 5), (3, 4, 4, 5, 2, 5), (3, 4, 4, 5, 3, 6)] {
        let what = format!("a {am}x{ak}, b {bk}x{bn}, c {cm}x{cn}");
        let (nn, nt, tn) = (a(&x, am, ak), a(&x, bn, bk), a(&x, ak, am));
        refused(&what, lane.gemm_nn(1.0, nn, a(&x, bk, bn), 0.0, m(&mut out, cm, cn)), &[&out]);
        refused(&what, lane.gemm_nt(1.0, nn, nt, 0.0, m(&mut out, cm, cn)), &[&out]);
        refused(&what, lane.gemm_tn(1.0, tn, a(&x, bk, bn), 0.0, m(&mut out, cm, cn)), &[&out]);
        refused(&what, lane.linear(nn, nt, &x[..bn], true, m(&mut out, cm, cn)), &[&out]);
        refused(&what, lane.gram(nn, nt, m(&mut out, cm, cn)), &[&out]);
        for threads in [1, 3] {
            let mut team = Team::<f32>::new(&Cpu::new().threads(threads).unwrap());
            let finish = Finish::scaled(1.0, 0.0);
            refused(&what, team.product(Form::Nn, nn, a(&x, bk, bn), m(&mut out, cm, cn), finish), &[&out]);
            refused(&what, team.gemm_tn(1.0, tn, a(&x, bk, bn), 0.0, m(&mut out, cm, cn)), &[&out]);
            refused(&what, team.linear(nn, nt, &x[..bn], m(&mut out, cm, cn)), &[&out]);
            refused(&what, team.linear(a(&x, 3, 4), a(&x, 5, 4), &x[..4], m(&mut out, 3, 5)), &[&out]);
        }
    }
    refused("bias", lane.linear(a(&x, 3, 4), a(&x, 5, 4), &x[..6], false, m(&mut out, 3, 5)), &[&out]);
}

#[test]
fn a_batch_is_refused_whole_where_one_product_does_not_fit() {
    let (x, mut outs) = ([0.5f32; 64], [[KEPT; 15]; 3]);
    for threads in [1, 2] {
        let mut team = Team::<f32>::new(&Cpu::new().threads(threads).unwrap());
        let sizes = [(3, 5), (3, 5), (5, 3)];
        let mut batch: Vec<_> = (outs.iter_mut().zip(sizes))
            .map(|(c, (rows, cols))| {
                let (a, b, c) = (a(&x, 3, 4), a(&x, 4, 5), m(c, rows, cols));
                Product { a, b, c, finish: Finish::scaled(1.0, 0.0) }
            })
            .collect();
        let said = team.product_batch(Form::Nn, &mut batch).unwrap_err().to_string();
        assert!(said.starts_with("gemm_nn: product 2 of the batch: a is 3x4, b is 4x5, c is 5x3"), "{said}");
        assert_eq!(outs, [[KEPT; 15]; 3]);
    }
}

#[test]
fn bag_operations_refuse_sizes_that_do_not_fit() {
    let (x, mut out) = ([0.5f32; 64], [KEPT; 64]);
    let mut lane = Lane::<f32>::new(&Cpu::new());
    let bags = Bags::new(&[0, 3, 1], &x[..3], &[0, 2, 3], 4).unwrap();
    let mut memory = vec![0; BagIndex::<f32>::memory_len(bags.nnz())];
    for (rows, cols) in [(2, 3), (1, 2), (3, 2)] {
        let index = BagIndex::new(bags, &mut memory).unwrap();
        refused(
            &format!("a gram of 2 by 2 rows into {rows}x{cols}"),
            index.gram(&bags, m(&mut out, rows, cols)),
            &[&out],
        );
    }
    let short = memory.len() - 1;
    refused("memory", BagIndex::new(bags, &mut memory[..short]).map(|_| ()), &[&out]);
    let table = a(&x, 4, 5);
    refused("weights", lane.gather_sum(&[0, 1], &x[..1], table, None, &mut out[..5]), &[&out]);
    refused("width", lane.gather_sum(&[0, 1], &x[..2], table, None, &mut out[..4]), &[&out]);
    refused("start", lane.gather_sum(&[0, 1], &x[..2], table, Some(&x[..6]), &mut out[..5]), &[&out]);
    refused("row", lane.gather_sum(&[0, 4], &x[..2], table, None, &mut out[..5]), &[&out]);
    for threads in [1, 3] {
        let mut team = Team::<f32>::new(&Cpu::new().threads(threads).unwrap());
        refused("rows", team.bag_linear(&bags, table, &x[..5], m(&mut out, 3, 5)), &[&out]);
        refused("hidden", team.bag_linear(&bags, table, &x[..5], m(&mut out, 2, 4)), &[&out]);
        refused("bias", team.bag_linear(&bags, table, &x[..4], m(&mut out, 2, 5)), &[&out]);
        refused("vocabulary", team.bag_linear(&bags, a(&x, 3, 5), &x[..5], m(&mut out, 2, 5)), &[&out]);
    }
}

#[test]
fn row_operations_refuse_sizes_that_do_not_fit() {
    let x = [0.5f32; 16];
    let ([mut p, mut q, mut r], [n, less]) = ([[KEPT; 16]; 3], [9usize, 8]);
    let mut lane = Lane::<f32>::new(&Cpu::new());
    refused("relu", lane.relu(&x[..n], &mut p[..less]), &[&p]);
    refused("relu_mask", lane.relu_mask(&x[..n], &mut p[..less]), &[&p]);
    refused("axpy", lane.axpy(1.0, &x[..n], &mut p[..less]), &[&p]);
    refused("col_sum", lane.col_sum(1.0, a(&x, 2, 3), 0.0, &mut p[..4]), &[&p]);
    for (zn, target, pn, dn) in [(n, 0, less, n), (n, 0, n, less), (n, n, n, n), (0, 0, 0, 0)] {
        let what = format!("softmax_xent {zn} {target} {pn} {dn}");
        refused(&what, lane.softmax_xent(&x[..zn], target, 1.0, &mut p[..pn], &mut q[..dn]), &[&p, &q]);
    }
    for (target, pn, dn) in [(0, less, n), (n, n, n), (0, 0, 0)] {
        let what = format!("softmax_xent_in_place {target} {pn} {dn}");
        refused(&what, lane.softmax_xent_in_place(target, 1.0, &mut p[..pn], &mut q[..dn]), &[&p, &q]);
    }
    refused("softmax_xent_rop", lane.softmax_xent_rop(&x[..n], 1.0, &mut p[..less]), &[&p]);
    let (lr, beta1, beta2, eps, weight_decay) = (0.1, 0.9, 0.999, 1e-8, 0.1);
    let step = AdamwStep { lr, beta1, beta2, eps, weight_decay, correction1: 1.0, correction2: 1.0 };
    for (gn, mn, vn) in [(less, n, n), (n, less, n), (n, n, less)] {
        let (g, m, v) = (&x[..gn], &mut p[..mn], &mut q[..vn]);
        refused("adamw", lane.adamw(&step, Some(g), m, v, &mut r[..n]), &[&p, &q, &r]);
        let (g, v) = (&x[..gn.min(mn)], &mut q[..vn]);
        refused("sgd", lane.sgd(0.1, 0.9, 0.0, Some(g), v, &mut r[..n]), &[&q, &r]);
    }
    refused("adamw", lane.adamw(&step, None, &mut p[..n], &mut q[..n], &mut r[..less]), &[&p, &q, &r]);
}
