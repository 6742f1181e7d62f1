//! CAVIA: only a context vector, an additional input of every example that starts at 0, is adapted; the weights are
//! shared by all episodes (Zintgraf et al., "Fast context adaptation via meta-learning", 2019, section 3).
#![forbid(unsafe_code)]

use super::{Adapt, InnerLoop, Order};

/// `steps` of SGD at rate `lr` on a context of `size` elements, which are added to the last `size` inputs of the model.
pub const fn inner_loop(steps: usize, lr: f64, size: usize) -> InnerLoop<'static> {
    InnerLoop { adapt: Adapt::Context(size), ..InnerLoop::sgd(steps, lr, Order::Second) }
}
