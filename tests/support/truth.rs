//! What each kernel should give: plain f64 loops over the formula of the contract, sums in twice the precision (Ogita,
//! Rump and Oishi, "Accurate sum and dot product", 2005), each value with the error the contract allows.
//! Nothing of the engine is used.

use metaglot::{Dtype, Element};

/// How finely a type rounds.
#[derive(Clone, Copy, Debug)]
pub struct Precision {
    /// The distance from 1 to the next number.
    pub eps: f64,
    /// The smallest number above 0.
    pub tiny: f64,
}

/// The precision of `T`.
pub fn precision<T: Element>() -> Precision {
    match T::DTYPE {
        Dtype::F32 => Precision { eps: f64::from(f32::EPSILON), tiny: f64::from(f32::from_bits(1)) },
        Dtype::F16 | Dtype::Bf16 => unreachable!("nothing is computed in half precision"),
        Dtype::F64 => Precision { eps: f64::EPSILON, tiny: f64::from_bits(1) },
    }
}

/// A value and how far off a kernel may be.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub value: f64,
    pub slack: f64,
}

impl Wanted {
    /// A value that must be met exactly.
    pub fn exactly(value: f64) -> Self {
        Self { value, slack: 0.0 }
    }

    /// Infinities and NaN must be met as such.
    pub fn met_by(&self, found: f64) -> bool {
        if self.value.is_nan() {
            return found.is_nan();
        }
        found == self.value || (found - self.value).abs() <= self.slack
    }
}

/// A sum of products in twice the precision of f64.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    high: f64,
    low: f64,
    /// The plain sum: what counts where a term is not finite.
    plain: f64,
    /// The sum of the absolute values.
    pub magnitude: f64,
    pub terms: usize,
}

impl Sum {
    /// Adds `a * b`.
    pub fn add(&mut self, a: f64, b: f64) {
        let product = a * b;
        let product_error = a.mul_add(b, -product);
        let sum = self.high + product;
        let part = sum - self.high;
        let sum_error = (self.high - (sum - part)) + (product - part);
        self.high = sum;
        self.low += product_error + sum_error;
        self.plain += product;
        self.magnitude += product.abs();
        self.terms += 1;
    }

    /// Adds products in f64's own precision: a third of the time, and to the slack of f32 what it rounds is one part in 2^29.
    pub fn add_plainly(&mut self, terms: impl Iterator<Item = (f64, f64)>) {
        let (mut plain, mut magnitude, mut count) = (0.0, 0.0, 0);
        for (a, b) in terms {
            let product = a * b;
            plain += product;
            magnitude += product.abs();
            count += 1;
        }
        self.high += plain;
        self.plain += plain;
        self.magnitude += magnitude;
        self.terms += count;
    }

    /// Multiplies what was added so far.
    pub fn scale(&mut self, alpha: f64) {
        let product = alpha * self.high;
        self.low = alpha * self.low + alpha.mul_add(self.high, -product);
        self.high = product;
        self.plain *= alpha;
        self.magnitude *= alpha.abs();
    }

    /// The sum.
    pub fn value(&self) -> f64 {
        if self.plain.is_finite() { self.high + self.low } else { self.plain }
    }

    /// The sum with the contract's tolerance.
    pub fn wanted(&self, p: Precision) -> Wanted {
        Wanted { value: self.value(), slack: (self.terms + 2) as f64 * (p.eps * self.magnitude + p.tiny) }
    }
}

/// `alpha * sum of products + beta * old + bias`; with beta = 0 the old value does not count.
pub fn product(
    p: Precision,
    terms: impl Iterator<Item = (f64, f64)>,
    alpha: f64,
    beta: f64,
    old: f64,
    bias: Option<f64>,
) -> Wanted {
    let mut sum = Sum::default();
    if p.eps > f64::EPSILON {
        sum.add_plainly(terms);
    } else {
        terms.for_each(|(a, b)| sum.add(a, b));
    }
    sum.scale(alpha);
    if beta != 0.0 {
        sum.add(beta, old);
    }
    if let Some(bias) = bias {
        sum.add(1.0, bias);
    }
    sum.wanted(p)
}

/// max(x, 0) of a value with its tolerance.
pub fn relu(x: Wanted) -> Wanted {
    Wanted { value: if x.value > 0.0 || x.value.is_nan() { x.value } else { 0.0 }, slack: x.slack }
}

/// Softmax p and loss of a row of logits.
pub fn softmax_xent(p: Precision, z: &[f64], target: usize) -> (Vec<Wanted>, Wanted) {
    let max = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let largest = z.iter().filter(|x| x.is_finite()).fold(0.0, |m: f64, x| m.max(x.abs()));
    let mut sum = Sum::default();
    z.iter().for_each(|x| sum.add(1.0, (x - max).exp()));
    let slack = 4.0 * p.eps * (1.0 + largest);
    // The sum of n exponentials may be off by n eps of itself; its logarithm by n eps.
    let of_sum = z.len() as f64 * p.eps;
    let one = |x: &f64| {
        let value = (x - max).exp() / sum.value();
        Wanted { value, slack: slack + of_sum * value }
    };
    let softmax = z.iter().map(one).collect();
    let loss = Wanted { value: sum.value().ln() - (z[target] - max), slack: slack + of_sum };
    (softmax, loss)
}

/// `scale * p[i] * (rz[i] - sum of p[j] rz[j])`.
pub fn softmax_xent_rop(prec: Precision, p: &[f64], rz: &[f64], scale: f64) -> Vec<Wanted> {
    let mut mean = Sum::default();
    p.iter().zip(rz).for_each(|(&p, &r)| mean.add(p, r));
    let mean = mean.wanted(prec);
    let one = |(&p, &r): (&f64, &f64)| {
        let factor = scale * p;
        let rounding = 4.0 * prec.eps * (r.abs() + mean.value.abs());
        let slack = factor.abs() * (mean.slack + rounding) + 4.0 * prec.tiny * (1.0 + r.abs() + mean.value.abs());
        Wanted { value: factor * (r - mean.value), slack }
    };
    p.iter().zip(rz).map(one).collect()
}

/// The new v and w of an SGD step.
pub fn sgd(p: Precision, [lr, momentum, decay]: [f64; 3], g: f64, v: f64, w: f64) -> [Wanted; 2] {
    let mut velocity = Sum::default();
    velocity.add(momentum, v);
    velocity.add(1.0, g);
    velocity.add(decay, w);
    let velocity = velocity.wanted(p);
    let mut weight = Sum::default();
    weight.add(1.0, w);
    weight.add(-lr, velocity.value);
    let weight = weight.wanted(p);
    [velocity, Wanted { slack: weight.slack + lr * velocity.slack, ..weight }]
}

/// The settings of an AdamW step.
#[derive(Clone, Copy, Debug)]
pub struct Adamw {
    pub lr: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    pub decay: f64,
    pub correction1: f64,
    pub correction2: f64,
}

/// The new m, v and w of an AdamW step. All terms of v are positive, so its relative error is a few eps; w moves by
/// lr times a quotient with about eight roundings.
pub fn adamw(p: Precision, s: &Adamw, g: f64, m: f64, v: f64, w: f64) -> [Wanted; 3] {
    let mut first = Sum::default();
    first.add(s.beta1, m);
    first.add(1.0 - s.beta1, g);
    let first = first.wanted(p);
    let mut second = Sum::default();
    second.add(s.beta2, v);
    second.add((1.0 - s.beta2) * g, g);
    let second = second.wanted(p);
    let root = (second.value * s.correction2).sqrt() + s.eps;
    let direction = first.value * s.correction1 / root;
    let value = w - s.lr * s.decay * w - s.lr * direction;
    let underflow = (8.0 * p.tiny * s.correction2).sqrt() / root;
    let quotient = (8.0 * p.eps + underflow) * direction.abs() + first.slack * s.correction1 / root;
    let slack = 4.0 * p.eps * (w.abs() + (s.lr * direction).abs()) + s.lr * quotient + 4.0 * p.tiny;
    [first, second, Wanted { value, slack }]
}
