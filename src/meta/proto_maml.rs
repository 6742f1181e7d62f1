//! ProtoMAML: an episode's last layer starts where a prototypical network stands, at the class centroids c of the
//! support set's last hidden activations, W_c = 2 c and b_c = -|c|^2, and is adapted from there with all other layers;
//! the gradient goes through the start as well (Triantafillou et al., "Meta-Dataset", 2020, section 3.2). The model's own
//! last layer is not used, and its gradient is 0.
#![forbid(unsafe_code)]

use super::{InnerLoop, Order, Start};

/// `steps` of SGD at rate `lr` on all weights from the prototypes, differentiated through.
pub const fn inner_loop(steps: usize, lr: f64) -> InnerLoop<'static> {
    InnerLoop { start: Start::Prototypes, ..InnerLoop::sgd(steps, lr, Order::Second) }
}
