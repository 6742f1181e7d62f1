//! SGD with momentum.
#![forbid(unsafe_code)]

use crate::backend::Lane;
use crate::cpu::KernelElement;
use crate::error::Result;

/// One step; `velocity` is kept from step to step.
pub(super) fn apply<T: KernelElement>(
    lane: &mut Lane<T>,
    lr: f64,
    momentum: f64,
    weight_decay: f64,
    g: Option<&[T]>,
    velocity: &mut [T],
    w: &mut [T],
) -> Result<()> {
    lane.sgd(T::from_f64(lr), T::from_f64(momentum), T::from_f64(weight_decay), g, velocity, w)
}
