//! Reptile: the initial weights move towards the adapted ones (Nichol et al., "On first-order meta-learning algorithms",
//! 2018, algorithm 1 with a batch of episodes): the mean of theta - theta_S, to be used as a gradient. In Gram space the
//! first layer's part is a combination of support inputs, as it is for every gradient.
#![forbid(unsafe_code)]

use super::{InnerLoop, Order};

/// `steps` of SGD at rate `lr` on all weights.
pub const fn inner_loop(steps: usize, lr: f64) -> InnerLoop<'static> {
    InnerLoop::sgd(steps, lr, Order::Displacement)
}
