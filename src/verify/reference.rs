//! An MLP and its inner loop in plain f64 loops: what the engine is compared with. It shares no code with the engine beside
//! the shape of a model and the settings of an inner loop.
#![forbid(unsafe_code)]

use crate::meta::{Adapt, InnerLoop, Rates, Start, Update};
use crate::model::{InputKind, MlpShape};

/// The examples of one episode's support or query set: a dense row each, with a class, or with values to meet.
pub(super) struct Examples {
    pub x: Vec<Vec<f64>>,
    pub y: Vec<u32>,
    pub values: Option<Vec<f64>>,
}

/// The weights an inner step moves, and the context that stands in the last inputs of all examples.
#[derive(Clone)]
pub(super) struct Weights {
    pub theta: Vec<f64>,
    pub context: Vec<f64>,
}

/// A loss, its gradient, and each example's inputs of every layer.
struct Pass {
    loss: f64,
    gradient: Weights,
    acts: Vec<Vec<Vec<f64>>>,
}

/// One layer in the flat vector of weights (first layer, its bias, head: weights and bias by layers).
#[derive(Clone, Copy)]
struct Layer {
    at: usize,
    inputs: usize,
    outputs: usize,
    /// An embedding table: inputs x outputs.
    table: bool,
}

impl Layer {
    fn weight(&self, o: usize, i: usize) -> usize {
        self.at + if self.table { i * self.outputs + o } else { o * self.inputs + i }
    }

    fn bias(&self, o: usize) -> usize {
        self.at + self.inputs * self.outputs + o
    }
}

fn layers(shape: &MlpShape) -> Vec<Layer> {
    let mut at = 0;
    let mut inputs = shape.input;
    let layer = |(l, &outputs): (usize, &usize)| {
        let layer = Layer { at, inputs, outputs, table: l == 0 && shape.kind == InputKind::Bag };
        (at, inputs) = (at + (inputs + 1) * outputs, outputs);
        layer
    };
    shape.widths.iter().enumerate().map(layer).collect()
}

/// The plain evaluation of one model; collects the signs of all hidden units it meets.
pub(super) struct Reference<'a> {
    shape: &'a MlpShape,
    layers: Vec<Layer>,
    pub signs: Vec<bool>,
}

impl<'a> Reference<'a> {
    pub fn new(shape: &'a MlpShape) -> Self {
        Self { shape, layers: layers(shape), signs: Vec::new() }
    }

    /// The mean loss of a set.
    pub fn loss(&mut self, at: &Weights, set: &Examples) -> f64 {
        self.pass(at, set).loss
    }

    /// The gradient of the mean loss with respect to the weights.
    pub fn gradient(&mut self, at: &Weights, set: &Examples) -> Vec<f64> {
        self.pass(at, set).gradient.theta
    }

    /// The weighted query losses after each inner step (only the last one without weights), and the adapted weights.
    pub fn adapted(&mut self, theta: &[f64], sets: [&Examples; 2], inner: &InnerLoop) -> (f64, Weights) {
        let [support, query] = sets;
        let context = vec![0.0; if let Adapt::Context(n) = inner.adapt { n } else { 0 }];
        let mut phi = Weights { theta: theta.to_vec(), context };
        if inner.start == Start::Prototypes {
            self.start_at_prototypes(&mut phi, support);
        }
        let start = phi.clone();
        let (mut m, mut s) = (vec![0.0; theta.len()], vec![0.0; theta.len()]);
        let mut total = 0.0;
        for k in 0..inner.steps {
            let g = self.pass(&phi, support).gradient;
            if let Rates::Same(lr) = inner.rates {
                phi.context.iter_mut().zip(&g.context).for_each(|(c, g)| *c -= lr * g);
            }
            for i in 0..theta.len() {
                let [w, w0] = [phi.theta[i], start.theta[i]];
                let step = match inner.update {
                    Update::Sgd { momentum, weight_decay } => {
                        m[i] = momentum * m[i] + g.theta[i] + weight_decay * w + inner.proximal * (w - w0);
                        m[i]
                    }
                    Update::Adam { beta1, beta2, eps } => {
                        m[i] = beta1 * m[i] + (1.0 - beta1) * g.theta[i];
                        s[i] = beta2 * s[i] + (1.0 - beta2) * g.theta[i] * g.theta[i];
                        let t = k as i32 + 1;
                        m[i] / (1.0 - beta1.powi(t)) / (s[i] / (1.0 - beta2.powi(t)) + eps).sqrt()
                    }
                };
                phi.theta[i] -= self.rate(inner, k, i) * step;
            }
            if let Some(weight) = inner.step_weights.get(k) {
                total += weight * self.loss(&phi, query);
            }
        }
        if inner.step_weights.is_empty() {
            total = self.loss(&phi, query);
        }
        (total, phi)
    }

    /// The rate of weight i in step k; 0 where it is not adapted.
    fn rate(&self, inner: &InnerLoop, k: usize, i: usize) -> f64 {
        let l = self.layers.iter().rposition(|layer| layer.at <= i).unwrap_or(0);
        let (layer, last) = (self.layers[l], self.layers.len() - 1);
        if matches!(inner.adapt, Adapt::Context(_)) || (inner.adapt == Adapt::Last && l < last) {
            return 0.0;
        }
        let (j, weights) = (i - layer.at, layer.inputs * layer.outputs);
        let unit = match layer.table {
            _ if j >= weights => j - weights,
            true => j % layer.outputs,
            false => j / layer.inputs,
        };
        match inner.rates {
            Rates::Same(lr) => lr,
            Rates::Layers(rates) => rates[k * self.layers.len() + l],
            Rates::Units(rates) => rates[self.shape.widths[..l].iter().sum::<usize>() + unit],
            Rates::Weights(rates) => rates[i],
        }
    }

    /// W_c = 2 c and b_c = -|c|^2 in the last layer, c the mean of the class's last hidden activations.
    fn start_at_prototypes(&mut self, phi: &mut Weights, support: &Examples) {
        let (acts, last) = (self.pass(phi, support).acts, self.layers[self.layers.len() - 1]);
        for class in 0..last.outputs {
            let own: Vec<usize> = (0..support.y.len()).filter(|&n| support.y[n] as usize == class).collect();
            let mut mean = vec![0.0; last.inputs];
            for &n in &own {
                mean.iter_mut().zip(&acts[n][self.layers.len() - 1]).for_each(|(m, a)| *m += a / own.len() as f64);
            }
            mean.iter().enumerate().for_each(|(i, m)| phi.theta[last.weight(class, i)] = 2.0 * m);
            let norm: f64 = mean.iter().map(|m| m * m).sum();
            phi.theta[last.bias(class)] = -norm;
        }
    }

    /// Forward and back, example by example.
    fn pass(&mut self, at: &Weights, set: &Examples) -> Pass {
        let gradient = Weights { theta: vec![0.0; at.theta.len()], context: vec![0.0; at.context.len()] };
        let mut pass = Pass { loss: 0.0, gradient, acts: Vec::new() };
        for (n, x) in set.x.iter().enumerate() {
            let acts = self.forward(at, x);
            let out = &acts[self.layers.len()];
            let (loss, dout) = output_gradient(out, set, n);
            pass.loss += loss;
            self.backward(&at.theta, &acts, dout, &mut pass.gradient);
            pass.acts.push(acts);
        }
        pass
    }

    /// The inputs of every layer, and the outputs.
    fn forward(&mut self, at: &Weights, x: &[f64]) -> Vec<Vec<f64>> {
        let mut first = x.to_vec();
        let from = first.len() - at.context.len();
        first[from..].copy_from_slice(&at.context);
        let mut acts = vec![first];
        for (l, layer) in self.layers.iter().enumerate() {
            let input = &acts[l];
            let product = |o: usize| (0..layer.inputs).map(|i| at.theta[layer.weight(o, i)] * input[i]).sum::<f64>();
            let mut z: Vec<f64> = (0..layer.outputs).map(|o| at.theta[layer.bias(o)] + product(o)).collect();
            if l + 1 < self.layers.len() {
                self.signs.extend(z.iter().map(|&z| z > 0.0));
                z.iter_mut().for_each(|z| *z = z.max(0.0));
            }
            acts.push(z);
        }
        acts
    }

    /// Adds one example's part to the gradient, from that of its outputs.
    fn backward(&self, theta: &[f64], acts: &[Vec<f64>], mut delta: Vec<f64>, gradient: &mut Weights) {
        for (l, layer) in self.layers.iter().enumerate().rev() {
            let mut below = vec![0.0; layer.inputs];
            for (o, &d) in delta.iter().enumerate() {
                for (i, below) in below.iter_mut().enumerate() {
                    gradient.theta[layer.weight(o, i)] += d * acts[l][i];
                    *below += d * theta[layer.weight(o, i)];
                }
                gradient.theta[layer.bias(o)] += d;
            }
            if l > 0 {
                below.iter_mut().zip(&acts[l]).for_each(|(b, &a)| *b = if a > 0.0 { *b } else { 0.0 });
            } else {
                let from = below.len() - gradient.context.len();
                gradient.context.iter_mut().zip(&below[from..]).for_each(|(c, b)| *c += b);
            }
            delta = below;
        }
    }
}

/// One example's share of the mean loss, and its gradient: cross-entropy, or the squared error over the outputs.
fn output_gradient(out: &[f64], set: &Examples, n: usize) -> (f64, Vec<f64>) {
    let share = 1.0 / set.x.len() as f64;
    if let Some(values) = &set.values {
        let (share, wanted) = (share / out.len() as f64, &values[n * out.len()..][..out.len()]);
        let errors: Vec<f64> = out.iter().zip(wanted).map(|(o, y)| o - y).collect();
        return (share * errors.iter().map(|e| e * e).sum::<f64>(), errors.iter().map(|e| 2.0 * share * e).collect());
    }
    let (max, label) = (out.iter().copied().fold(f64::NEG_INFINITY, f64::max), set.y[n] as usize);
    let sum: f64 = out.iter().map(|o| (o - max).exp()).sum();
    let p = |o: f64| (o - max).exp() / sum;
    let dout = out.iter().enumerate().map(|(c, &o)| share * (p(o) - if c == label { 1.0 } else { 0.0 })).collect();
    (share * (max + sum.ln() - out[label]), dout)
}
