//! AdamW's constants of one step.
#![forbid(unsafe_code)]

use crate::cpu::contract::AdamwStep;
use crate::dtype::Element;

/// Step `t` from 1: the moments are divided by 1 - beta^t, because they began at zero (Kingma and Ba, "Adam", 2015,
/// algorithm 1).
pub(super) fn step<T: Element>(t: u64, lr: f64, beta1: f64, beta2: f64, eps: f64, weight_decay: f64) -> AdamwStep<T> {
    // powf, not powi: a run may have more steps than an i32 holds.
    let correction = |beta: f64| T::from_f64(1.0 / (1.0 - beta.powf(t as f64)));
    AdamwStep {
        lr: T::from_f64(lr),
        beta1: T::from_f64(beta1),
        beta2: T::from_f64(beta2),
        eps: T::from_f64(eps),
        weight_decay: T::from_f64(weight_decay),
        correction1: correction(beta1),
        correction2: correction(beta2),
    }
}
