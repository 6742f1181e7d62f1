//! ANIL, almost no inner loop: only the last layer is adapted, all layers are differentiated (Raghu et al., "Rapid
//! learning or feature reuse?", 2020, section 4).
#![forbid(unsafe_code)]

use super::{Adapt, InnerLoop, Order};

/// `steps` of SGD at rate `lr` on the last layer, differentiated through.
pub const fn inner_loop(steps: usize, lr: f64) -> InnerLoop<'static> {
    InnerLoop { adapt: Adapt::Last, ..InnerLoop::sgd(steps, lr, Order::Second) }
}
