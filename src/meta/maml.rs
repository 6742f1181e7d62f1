//! MAML: the gradient of the query loss through every inner step, second order included (Finn et al., "Model-agnostic
//! meta-learning for fast adaptation of deep networks", 2017, algorithm 1).
#![forbid(unsafe_code)]

use super::{InnerLoop, Order};

/// `steps` of SGD at rate `lr` on all weights, differentiated through.
pub const fn inner_loop(steps: usize, lr: f64) -> InnerLoop<'static> {
    InnerLoop::sgd(steps, lr, Order::Second)
}
