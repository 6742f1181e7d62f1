//! Implicit MAML: the inner loop descends a proximal problem, and its gradient is taken at the minimum by the implicit
//! function theorem (Rajeswaran et al., "Meta-learning with implicit gradients", 2019, equations 3 and 6).
//!
//! ```text
//! phi* ~ argmin of loss(phi) + lambda / 2 |phi - theta|^2,  by plain gradient steps
//! (I + H / lambda) g = gradient of the query loss at phi*,  H = Hessian of the support loss at phi*
//! ```
//!
//! Memory does not depend on the number of steps.
#![forbid(unsafe_code)]

use super::{ConjugateGradient, InnerLoop, Order};

/// `steps` of gradient descent at rate `lr` on the support loss plus lambda / 2 |phi - theta|^2.
pub const fn inner_loop(steps: usize, lr: f64, lambda: f64, solver: ConjugateGradient) -> InnerLoop<'static> {
    InnerLoop { proximal: lambda, ..InnerLoop::sgd(steps, lr, Order::Implicit(solver)) }
}
