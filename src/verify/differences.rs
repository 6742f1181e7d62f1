//! The meta-gradient as its definition says, by central differences of the plain reference.
#![forbid(unsafe_code)]

use super::problem::Problem;
use super::reference::{Reference, Weights};
use crate::meta::{InnerLoop, Order, Rates};

/// Width of a difference; with Richardson's extrapolation its error is of order h^4.
const H: f64 = 4e-5;

/// The gradient of the weights, then that of the learned rates; none where a ReLU changes sign inside a difference: there
/// the difference is no derivative.
pub(super) fn meta_gradient(p: &Problem, inner: &InnerLoop) -> Option<Vec<f64>> {
    let episodes = p.support.len();
    let mut mean = Vec::new();
    for t in 0..episodes {
        let gradient = match inner.order {
            Order::First => first_order(p, t, inner)?,
            Order::Displacement => displacement(p, t, inner),
            Order::Implicit(_) => implicit(p, t, inner)?,
            Order::Second | Order::Evaluate => through_all_steps(p, t, inner)?,
        };
        mean.resize(gradient.len(), 0.0);
        mean.iter_mut().zip(&gradient).for_each(|(m, g)| *m += g / episodes as f64);
    }
    Some(mean)
}

/// The mean over the episodes of the support loss's Hessian times the problem's direction.
pub(super) fn hessian_product(p: &Problem) -> Option<Vec<f64>> {
    let mut mean = vec![0.0; p.theta.len()];
    for set in &p.support {
        let along = |r: &mut Reference, step: f64| {
            let theta = p.theta.iter().zip(&p.v).map(|(w, v)| w + step * v).collect();
            r.gradient(&Weights { theta, context: Vec::new() }, set)
        };
        let product = difference(p, along)?;
        mean.iter_mut().zip(&product).for_each(|(m, g)| *m += g / p.support.len() as f64);
    }
    Some(mean)
}

/// Differences of the loss after adaptation, in every initial weight and every rate.
fn through_all_steps(p: &Problem, t: usize, inner: &InnerLoop) -> Option<Vec<f64>> {
    let sets = [&p.support[t], &p.query[t]];
    let mut gradient = coordinates(p, &p.theta, |r, theta| r.adapted(theta, sets, inner).0)?;
    let (Rates::Layers(rates) | Rates::Units(rates) | Rates::Weights(rates)) = inner.rates else {
        return Some(gradient);
    };
    gradient.extend(coordinates(p, rates, |r, rates| {
        let rates = match inner.rates {
            Rates::Same(lr) => Rates::Same(lr),
            Rates::Layers(_) => Rates::Layers(rates),
            Rates::Units(_) => Rates::Units(rates),
            Rates::Weights(_) => Rates::Weights(rates),
        };
        r.adapted(&p.theta, sets, &InnerLoop { rates, ..*inner }).0
    })?);
    Some(gradient)
}

/// Differences of the query loss around the adapted weights.
fn first_order(p: &Problem, t: usize, inner: &InnerLoop) -> Option<Vec<f64>> {
    let phi = Reference::new(&p.shape).adapted(&p.theta, [&p.support[t], &p.query[t]], inner).1;
    let at = |theta: &[f64]| Weights { theta: theta.to_vec(), context: phi.context.clone() };
    coordinates(p, &phi.theta, |r, theta| r.loss(&at(theta), &p.query[t]))
}

/// The initial weights minus the adapted ones.
fn displacement(p: &Problem, t: usize, inner: &InnerLoop) -> Vec<f64> {
    let phi = Reference::new(&p.shape).adapted(&p.theta, [&p.support[t], &p.query[t]], inner).1;
    p.theta.iter().zip(&phi.theta).map(|(w, phi)| w - phi).collect()
}

/// (I + H / lambda) g = query gradient at the adapted weights: H column by column from differences of the gradient, the
/// system by elimination.
fn implicit(p: &Problem, t: usize, inner: &InnerLoop) -> Option<Vec<f64>> {
    let phi = Reference::new(&p.shape).adapted(&p.theta, [&p.support[t], &p.query[t]], inner).1;
    let n = phi.theta.len();
    let mut columns = Vec::with_capacity(n);
    for j in 0..n {
        let mut column = difference(p, |r, step| {
            let mut moved = phi.clone();
            moved.theta[j] += step;
            r.gradient(&moved, &p.support[t])
        })?;
        column.iter_mut().for_each(|h| *h /= inner.proximal);
        column[j] += 1.0;
        columns.push(column);
    }
    let b = coordinates(p, &phi.theta, |r, theta| {
        r.loss(&Weights { theta: theta.to_vec(), context: Vec::new() }, &p.query[t])
    })?;
    Some(solved(&columns, b))
}

/// Gaussian elimination with pivots; `columns[j][i]` is the matrix's row i, column j.
fn solved(columns: &[Vec<f64>], b: Vec<f64>) -> Vec<f64> {
    let n = b.len();
    let mut rows: Vec<Vec<f64>> = (0..n).map(|i| (0..n).map(|j| columns[j][i]).chain([b[i]]).collect()).collect();
    for k in 0..n {
        let pivot = (k..n).max_by(|&a, &b| rows[a][k].abs().total_cmp(&rows[b][k].abs())).unwrap_or(k);
        rows.swap(k, pivot);
        let (above, below) = rows.split_at_mut(k + 1);
        for row in below {
            let factor = row[k] / above[k][k];
            row.iter_mut().zip(&above[k]).skip(k).for_each(|(x, y)| *x -= factor * y);
        }
    }
    let mut x = vec![0.0; n];
    for k in (0..n).rev() {
        let known: f64 = (k + 1..n).map(|j| rows[k][j] * x[j]).sum();
        x[k] = (rows[k][n] - known) / rows[k][k];
    }
    x
}

/// The derivative of `f` in each coordinate of `x`.
fn coordinates(p: &Problem, x: &[f64], f: impl Fn(&mut Reference, &[f64]) -> f64) -> Option<Vec<f64>> {
    let mut moved = x.to_vec();
    let mut gradient = Vec::with_capacity(x.len());
    for i in 0..x.len() {
        let slope = difference(p, |r, step| {
            moved[i] = x[i] + step;
            vec![f(r, &moved)]
        })?;
        moved[i] = x[i];
        gradient.push(slope[0]);
    }
    Some(gradient)
}

/// The derivative of `f` at 0 by two central differences, if no unit changes sign between their ends.
fn difference(p: &Problem, mut f: impl FnMut(&mut Reference, f64) -> Vec<f64>) -> Option<Vec<f64>> {
    let mut signs: Option<Vec<bool>> = None;
    let mut values = Vec::with_capacity(4);
    for step in [-H, -0.5 * H, 0.5 * H, H] {
        let mut reference = Reference::new(&p.shape);
        values.push(f(&mut reference, step));
        if *signs.get_or_insert_with(|| reference.signs.clone()) != reference.signs {
            return None;
        }
    }
    let [a, b, c, d] = [&values[0], &values[1], &values[2], &values[3]];
    Some((0..a.len()).map(|i| (4.0 * (c[i] - b[i]) / H - (d[i] - a[i]) / (2.0 * H)) / 3.0).collect())
}
