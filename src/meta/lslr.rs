//! Learned rates of the inner loop that Gram space carries: one per layer and step (LSLR; Antoniou et al., "How to train
//! your MAML", 2019, section 4), or one per unit.
#![forbid(unsafe_code)]

use super::{InnerLoop, Order, Rates};

/// `steps` of SGD with rate `rates[k * layers + l]` in step k on layer l, differentiated through.
pub const fn per_layer_and_step(steps: usize, rates: &[f64]) -> InnerLoop<'_> {
    InnerLoop { rates: Rates::Layers(rates), ..InnerLoop::sgd(steps, 0.0, Order::Second) }
}

/// `steps` of SGD with one rate for each unit of each layer, differentiated through.
pub const fn per_unit(steps: usize, rates: &[f64]) -> InnerLoop<'_> {
    InnerLoop { rates: Rates::Units(rates), ..InnerLoop::sgd(steps, 0.0, Order::Second) }
}
