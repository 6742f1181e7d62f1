//! Meta-SGD: a learned rate for every weight (Li et al., "Meta-SGD: learning to learn quickly for few-shot learning",
//! 2017, equation 2). A rate per weight of the first layer leaves the span of the support inputs, so it takes the plain
//! form.
//!
//! ```text
//! theta_{k+1} = theta_k - alpha * g(theta_k)        v = adjoint of theta_{k+1}
//! dalpha -= v * g(theta_k)                          v -= H(theta_k) (alpha * v)
//! ```
#![forbid(unsafe_code)]

use super::{InnerLoop, Order, Rates};

/// `steps` of SGD with rate `alpha[i]` on weight i (first layer, its bias, head), differentiated through.
pub const fn inner_loop(steps: usize, alpha: &[f64]) -> InnerLoop<'_> {
    InnerLoop { rates: Rates::Weights(alpha), ..InnerLoop::sgd(steps, 0.0, Order::Second) }
}
