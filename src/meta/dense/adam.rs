//! Adam as the inner rule (Kingma and Ba, "Adam: a method for stochastic optimization", 2015, algorithm 1), with eps inside
//! the root: at a gradient of exactly 0 the step is 0 and has a derivative.
//!
//! ```text
//! m' = b1 m + (1 - b1) g          s' = b2 s + (1 - b2) g^2          step t = k + 1
//! update = m^ / sqrt(s^ + eps),   m^ = m' / (1 - b1^t),   s^ = s' / (1 - b2^t)
//! back:  m_bar += u_bar r / (1 - b1^t),   s_bar -= u_bar m^ r^3 / (2 (1 - b2^t)),   r = (s^ + eps)^(-1/2),  u_bar = -A v
//!        g_bar = (1 - b1) m_bar + 2 (1 - b2) g s_bar;   m_bar *= b1,  s_bar *= b2
//! ```
#![forbid(unsafe_code)]

use super::Dense;
use crate::cpu::KernelElement;
use crate::meta::{InnerLoop, Update};

/// b1, b2, eps and the bias corrections 1 / (1 - b^t) of step k.
fn constants(inner: &InnerLoop, k: usize) -> [f64; 5] {
    let Update::Adam { beta1, beta2, eps } = inner.update else { return [0.0, 0.0, 1.0, 1.0, 1.0] };
    let t = i32::try_from(k + 1).unwrap_or(i32::MAX);
    [beta1, beta2, eps, 1.0 / (1.0 - beta1.powi(t)), 1.0 / (1.0 - beta2.powi(t))]
}

/// What the rate of step k multiplies, from the moments after it.
pub(super) fn update<T: KernelElement>(inner: &InnerLoop, k: usize, m: T, s: T) -> T {
    let [_, _, eps, c1, c2] = constants(inner, k).map(T::from_f64);
    m * c1 / (s * c2 + eps).sqrt()
}

impl<T: KernelElement> Dense<T> {
    /// The moments after step k, from the gradient in `g`.
    pub(super) fn adam_moments(&mut self, inner: &InnerLoop, k: usize) {
        let [b1, b2, ..] = constants(inner, k).map(T::from_f64);
        for ((m, s), &g) in self.m.iter_mut().zip(&mut self.s).zip(&self.g) {
            *m = b1 * *m + (T::ONE - b1) * g;
            *s = b2 * *s + (T::ONE - b2) * g * g;
        }
    }

    /// Back over step k's update: leaves the gradient's adjoint in `g`.
    pub(super) fn adam_adjoints(&mut self, inner: &InnerLoop, k: usize) {
        let [b1, b2, eps, c1, c2] = constants(inner, k).map(T::from_f64);
        let (p, half) = (self.sum.len(), T::from_f64(0.5));
        let (kept, two) = (&self.history[3 * k * p..][..3 * p], T::ONE + T::ONE);
        for i in 0..p {
            let (m, s, g) = (kept[i], kept[p + i], kept[2 * p + i]);
            let r = T::ONE / (s * c2 + eps).sqrt();
            let u_bar = -self.alpha[i] * self.v[i];
            let m_bar = self.m_bar[i] + u_bar * r * c1;
            let s_bar = self.s_bar[i] - half * u_bar * m * c1 * r * r * r * c2;
            self.g[i] = (T::ONE - b1) * m_bar + two * (T::ONE - b2) * g * s_bar;
            (self.m_bar[i], self.s_bar[i]) = (b1 * m_bar, b2 * s_bar);
        }
    }
}
