//! First-order MAML: the gradient of the query loss at the adapted weights, taken as if they did not depend on the
//! initial ones (Finn et al., "Model-agnostic meta-learning for fast adaptation of deep networks", 2017, section 5.2).
#![forbid(unsafe_code)]

use super::{InnerLoop, Order};

/// `steps` of SGD at rate `lr` on all weights.
pub const fn inner_loop(steps: usize, lr: f64) -> InnerLoop<'static> {
    InnerLoop::sgd(steps, lr, Order::First)
}
