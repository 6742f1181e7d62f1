//! Prototypical networks: a query's logits are minus the squared distances of its last hidden activations to the class
//! centroids c of the support set (Snell et al., "Prototypical networks for few-shot learning", 2017, equations 1 and 2).
//! -|f - c|^2 = 2 c f - |c|^2 - |f|^2, and |f|^2 is the same for all classes, so it cancels in the softmax: what is left is
//! ProtoMAML's last layer without an inner step.
#![forbid(unsafe_code)]

use super::{InnerLoop, Order, Start};

/// No step: the centroids classify.
pub const fn inner_loop() -> InnerLoop<'static> {
    InnerLoop { start: Start::Prototypes, ..InnerLoop::sgd(0, 0.0, Order::Second) }
}
