//! A plain f64 oracle: the loss of an MLP by nested loops, gradients by central differences, nothing shared with the
//! engine's code.

use metaglot::model::{InputKind, MlpShape, Params};

use super::{LossKind, Problem, Set};

/// All weights in one vector: first layer as hidden x input whatever the kind, its bias, the head.
pub fn flatten(params: &Params<f64>) -> Vec<f64> {
    let (d, h) = (params.shape.input, params.shape.hidden());
    let mut flat = params.first.clone();
    if params.shape.kind == InputKind::Bag {
        flat = (0..h * d).map(|i| params.first[(i % d) * h + i / d]).collect();
    }
    flat.extend(&params.bias);
    flat.extend(&params.head);
    flat
}

/// The outputs of one example.
fn outputs(shape: &MlpShape, theta: &[f64], x: &[f64]) -> Vec<f64> {
    let mut values = x.to_vec();
    let mut at = 0;
    for (l, &width) in shape.widths.iter().enumerate() {
        let inputs = values.len();
        let (w, b) = (&theta[at..at + width * inputs], &theta[at + width * inputs..][..width]);
        let z: Vec<f64> =
            (0..width).map(|o| b[o] + (0..inputs).map(|i| w[o * inputs + i] * values[i]).sum::<f64>()).collect();
        at += width * inputs + width;
        let hidden = l + 1 < shape.widths.len();
        values = z.into_iter().map(|v| if hidden && v < 0.0 { 0.0 } else { v }).collect();
    }
    values
}

fn cross_entropy(scores: &[f64], target: usize) -> f64 {
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    max + scores.iter().map(|s| (s - max).exp()).sum::<f64>().ln() - scores[target]
}

/// The mean loss of episode t of a set.
pub fn loss(problem: &Problem, set: &Set, t: usize, theta: &[f64]) -> f64 {
    let shape = &problem.shape;
    let range = set.rows[t]..set.rows[t + 1];
    let out: Vec<Vec<f64>> = range.clone().map(|i| outputs(shape, theta, &set.dense_row(shape, i))).collect();
    let terms: Vec<f64> = match problem.loss {
        LossKind::Classes => range.zip(&out).map(|(i, z)| cross_entropy(z, set.labels[i] as usize)).collect(),
        LossKind::Values => {
            let wanted = &set.values[range.start * shape.outputs()..range.end * shape.outputs()];
            out.iter().flatten().zip(wanted).map(|(o, y)| (o - y) * (o - y)).collect()
        }
        LossKind::Lists => (set.list_bounds[t]..set.list_bounds[t + 1])
            .map(|l| {
                let rows = set.lists[l] - set.rows[t]..set.lists[l + 1] - set.rows[t];
                let scores: Vec<f64> = out[rows].iter().map(|z| z[0]).collect();
                cross_entropy(&scores, set.positives[l] as usize)
            })
            .collect(),
        LossKind::Pairs => {
            let half = out.len() / 2;
            let root = (shape.outputs() as f64).sqrt();
            let score = |i: usize, j: usize| out[i].iter().zip(&out[half + j]).map(|(a, b)| a * b).sum::<f64>() / root;
            let row = |i: usize| cross_entropy(&(0..half).map(|j| score(i, j)).collect::<Vec<_>>(), i);
            let col = |j: usize| cross_entropy(&(0..half).map(|i| score(i, j)).collect::<Vec<_>>(), j);
            (0..half).flat_map(|i| [row(i), col(i)]).collect()
        }
    };
    terms.iter().sum::<f64>() / terms.len().max(1) as f64
}

/// The gradient of `f` at `x` by central differences with Richardson's extrapolation: error of order h^4.
pub fn gradient(f: impl Fn(&[f64]) -> f64, x: &[f64], h: f64) -> Vec<f64> {
    let mut x = x.to_vec();
    (0..x.len())
        .map(|i| {
            let keep = x[i];
            let mut difference = |step: f64| {
                x[i] = keep + step;
                let up = f(&x);
                x[i] = keep - step;
                let down = f(&x);
                x[i] = keep;
                (up - down) / (2.0 * step)
            };
            (4.0 * difference(h / 2.0) - difference(h)) / 3.0
        })
        .collect()
}

/// The mean loss of episode t of a set with `c` in the last inputs of every example; classes.
pub fn context_loss(problem: &Problem, set: &Set, t: usize, theta: &[f64], c: &[f64]) -> f64 {
    let shape = &problem.shape;
    let range = set.rows[t]..set.rows[t + 1];
    let n = range.len() as f64;
    range
        .map(|i| {
            let mut x = set.dense_row(shape, i);
            x[shape.input - c.len()..].copy_from_slice(c);
            cross_entropy(&outputs(shape, theta, &x), set.labels[i] as usize)
        })
        .sum::<f64>()
        / n
}

/// The mean query loss after `steps` steps of SGD on the support loss, for each episode; gradients by differences.
pub fn adapted_losses(problem: &Problem, theta: &[f64], steps: usize, lr: f64) -> Vec<f64> {
    (0..problem.support.rows.len() - 1)
        .map(|t| {
            let mut phi = theta.to_vec();
            for _ in 0..steps {
                let g = gradient(|x| loss(problem, &problem.support, t, x), &phi, 1e-4);
                phi.iter_mut().zip(&g).for_each(|(p, g)| *p -= lr * g);
            }
            loss(problem, &problem.query, t, &phi)
        })
        .collect()
}
