//! ProtoMAML: an episode's last layer starts where a prototypical network stands, at the class centroids c of the
//! support set's last hidden activations, W_c = 2 c and b_c = -|c|^2, and is adapted from there with all other layers;
//! the gradient goes through the start as well (Triantafillou et al., "Meta-Dataset", 2020, section 3.2). The model's own
//! last layer is not used, and its gradient is 0.
#![forbid(unsafe_code)]

use super::{InnerLoop, Order, Start};
use crate::cpu::KernelElement;
use crate::error::{Error, Result};
use crate::model::Targets;
use crate::view::MatRef;

/// `steps` of SGD at rate `lr` on all weights from the prototypes, differentiated through.
pub const fn inner_loop(steps: usize, lr: f64) -> InnerLoop<'static> {
    InnerLoop { start: Start::Prototypes, ..InnerLoop::sgd(steps, lr, Order::Second) }
}

/// The last layer of `acts` (n x width): for each class of the labels its weights 2 c, and then all biases -|c|^2. A class
/// without an example has c = 0. Fails for targets without classes.
pub(super) fn prototypes<T: KernelElement>(acts: MatRef<T>, targets: &Targets, last: &mut [T]) -> Result<()> {
    let (labels, width) = (classes(targets)?, acts.cols());
    let (weights, biases) = last.split_at_mut(last.len() / (width + 1) * width);
    weights.fill(T::ZERO);
    for (i, &label) in labels.iter().enumerate() {
        let scale: T = share(labels, label);
        let centroid = &mut weights[label as usize * width..][..width];
        centroid.iter_mut().zip(acts.row(i)).for_each(|(c, &a)| *c += scale * a);
    }
    for (weights, bias) in weights.chunks_exact_mut(width).zip(biases) {
        *bias = weights.iter().fold(T::ZERO, |sum, &c| sum - c * c);
        weights.iter_mut().for_each(|w| *w += *w);
    }
    Ok(())
}

/// The way back: from the adjoint `last_bar` of the layer `last` that [`prototypes`] made to that of the activations,
/// `dacts` (n x width, written): c_bar = 2 W_bar - 2 c b_bar, spread over the class. `last_bar` becomes 0.
pub(super) fn back<T: KernelElement>(
    width: usize,
    targets: &Targets,
    last: &[T],
    last_bar: &mut [T],
    dacts: &mut [T],
) -> Result<()> {
    let labels = classes(targets)?;
    let (weights, _) = last.split_at(last.len() / (width + 1) * width);
    let (weights_bar, biases_bar) = last_bar.split_at_mut(weights.len());
    for (&label, row) in labels.iter().zip(dacts.chunks_exact_mut(width)) {
        let class = label as usize * width..(label as usize + 1) * width;
        // The weights are 2 c.
        let (scale, bias_bar): (T, T) = (share(labels, label), biases_bar[label as usize]);
        for ((d, &w), &w_bar) in row.iter_mut().zip(&weights[class.clone()]).zip(&weights_bar[class]) {
            *d = scale * (w_bar + w_bar - w * bias_bar);
        }
    }
    last_bar.fill(T::ZERO);
    Ok(())
}

fn classes<'a>(targets: &Targets<'a>) -> Result<&'a [u32]> {
    match targets {
        Targets::Classes(labels) => Ok(labels),
        _ => Err(Error::config("start", "prototypes need targets that are classes")),
    }
}

/// 1 over the number of examples of a class.
fn share<T: KernelElement>(labels: &[u32], label: u32) -> T {
    T::ONE / T::from_f64(labels.iter().filter(|&&l| l == label).count() as f64)
}
