//! MAML++: MAML with learned rates per layer and step, a query loss after every step whose weights are annealed to the
//! last, and first order for the first epochs (Antoniou et al., "How to train your MAML", 2019, section 4; the annealing
//! as in the authors' code). Batch normalisation, its other subject, is not part of an MLP here.
#![forbid(unsafe_code)]

use super::{InnerLoop, Order, Rates};

/// How a MAML++ run is annealed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Annealing {
    /// Epochs over which the losses of the earlier steps fade; from then on only the last counts.
    pub step_loss_epochs: usize,
    /// Epochs of first order before the second.
    pub first_order_epochs: usize,
}

impl Annealing {
    /// Fills `weights`, one a step, for an epoch (from 0): equal at first, then moving to the last step linearly, the
    /// earlier ones never below 0.03 / steps until they end. Returns them, or none once only the last step counts.
    pub fn step_weights<'a>(&self, epoch: usize, weights: &'a mut [f64]) -> &'a [f64] {
        let steps = weights.len() as f64;
        if epoch >= self.step_loss_epochs || weights.len() < 2 {
            return &[];
        }
        let faded = epoch as f64 / self.step_loss_epochs as f64 / steps;
        let earlier = (1.0 / steps - faded).max(0.03 / steps);
        weights.fill(earlier);
        weights[weights.len() - 1] = 1.0 - (steps - 1.0) * earlier;
        weights
    }

    /// The order of differentiation in an epoch (from 0).
    pub fn order(&self, epoch: usize) -> Order {
        if epoch < self.first_order_epochs { Order::First } else { Order::Second }
    }
}

/// `steps` of SGD with learned rates (steps x layers) and the query losses after each step weighed by `step_weights`.
pub const fn inner_loop<'a>(steps: usize, rates: &'a [f64], step_weights: &'a [f64], order: Order) -> InnerLoop<'a> {
    InnerLoop { rates: Rates::Layers(rates), step_weights, ..InnerLoop::sgd(steps, 0.0, order) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_begin_equal_sum_to_one_and_end_at_the_last_step() {
        let annealing = Annealing { step_loss_epochs: 10, first_order_epochs: 3 };
        let mut weights = [0.0; 5];
        assert!(annealing.step_weights(0, &mut weights).iter().all(|w| (w - 0.2).abs() < 1e-15));
        for epoch in 0..10 {
            let now = annealing.step_weights(epoch, &mut weights);
            assert!((now.iter().sum::<f64>() - 1.0).abs() < 1e-12, "epoch {epoch}: {now:?}");
            assert!(now[0] >= 0.03 / 5.0 && now[4] > 0.2 - 1e-12);
        }
        assert!(annealing.step_weights(9, &mut weights)[4] > 0.9);
        assert!(annealing.step_weights(10, &mut weights).is_empty());
        assert_eq!((annealing.order(2), annealing.order(3)), (Order::First, Order::Second));
    }
}
