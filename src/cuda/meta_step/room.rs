//! Where the numbers of a batch's episodes lie in device memory while their steps are launches over all of them (`wide.rs`).
//!
//! In matrices with a row an example all episodes' rows lie one behind the other without gaps; each matrix begins at a
//! multiple of 16 bytes. "act(l)" is layer l's output after ReLU (layers count from 1), p the softmax, d(l) the loss's gradient
//! with respect to l's pre-activations, ract(l) and rd(l) their R-tangents. Layer l's weights are followed by its bias.
#![forbid(unsafe_code)]

use crate::model::MlpShape;

/// The sizes of a batch, and what its inner loop keeps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub episodes: usize,
    /// Support and query rows of all episodes.
    pub support: usize,
    pub query: usize,
    /// Steps that are kept for the way back.
    pub saved: usize,
    /// Whether only the last of several layers takes steps.
    pub frozen: bool,
}

/// Places in memory, in numbers from its start. In a type that sizes below 2^31 cannot overflow.
pub(super) struct Room<'a> {
    shape: &'a MlpShape,
    sizes: Sizes,
    c: u128,
    acts: u128,
    passes: u128,
    heads: u128,
    losses: u128,
    /// First of the query pass, then of the sweep.
    scratch: u128,
    len: u128,
}

/// The next multiple of 16 bytes.
fn aligned(numbers: u128) -> u128 {
    numbers.next_multiple_of(4)
}

impl<'a> Room<'a> {
    pub fn new(shape: &'a MlpShape, sizes: Sizes) -> Self {
        let (c, zero) = (0, 0);
        let (acts, passes, heads, losses, scratch) = (zero, zero, zero, zero, zero);
        let mut room = Room { shape, sizes, c, acts, passes, heads, losses, scratch, len: 0 };
        let last = shape.layers();
        let steps = sizes.saved.max(1) as u128;
        room.acts = if sizes.frozen { 0 } else { room.support(1..2) };
        room.passes = room.acts + if sizes.frozen { 1 } else { steps } * room.support(1..last);
        room.heads = room.passes + steps * room.pass_len();
        room.losses = room.heads + steps * sizes.episodes as u128 * room.head_stride() as u128;
        room.scratch = room.losses + aligned(sizes.query as u128);
        let query = room.rows(sizes.query, 1..last + 1);
        let sweep = room.support(1..last) + room.support(room.own_layers());
        room.len = room.scratch + query.max(sweep);
        room
    }

    /// Numbers of all of it.
    pub fn len(&self) -> u128 {
        self.len
    }

    /// Outputs of layer l.
    fn width(&self, l: usize) -> usize {
        self.shape.widths[l - 1]
    }

    /// Numbers of matrices with that many rows, one for each of these layers.
    fn rows(&self, rows: usize, layers: std::ops::Range<usize>) -> u128 {
        layers.map(|l| aligned(rows as u128 * self.width(l) as u128)).sum()
    }

    fn support(&self, layers: std::ops::Range<usize>) -> u128 {
        self.rows(self.sizes.support, layers)
    }

    /// The layers whose d is kept: those behind the first, or it alone; the last where only that takes steps.
    fn own_layers(&self) -> std::ops::Range<usize> {
        let last = self.shape.layers();
        let first = if self.sizes.frozen { last } else { last.min(2) };
        first..last + 1
    }

    /// p and d of a step.
    fn pass_len(&self) -> u128 {
        let last = self.shape.layers();
        self.support(last..last + 1) + self.support(self.own_layers())
    }

    /// Where layer l begins in a head.
    pub fn layer(&self, l: usize) -> usize {
        (2..l).map(|i| self.width(i) * (self.width(i - 1) + 1)).sum()
    }

    /// The head's first number that takes steps.
    pub fn first_adapted(&self) -> usize {
        if self.sizes.frozen { self.layer(self.shape.layers()) } else { 0 }
    }

    /// From one episode's adapted numbers to the next one's.
    pub fn head_stride(&self) -> usize {
        (self.shape.head_len() - self.first_adapted()).next_multiple_of(4)
    }

    /// The first layer's coefficients, later their adjoints.
    pub fn c(&self) -> u128 {
        self.c
    }

    /// act(l) of step slot k.
    pub fn act(&self, k: usize, l: usize) -> u128 {
        let last = self.shape.layers();
        self.acts + k as u128 * self.support(1..last) + self.support(1..l)
    }

    /// The logits, then the softmax of slot k.
    pub fn p(&self, k: usize) -> u128 {
        self.passes + k as u128 * self.pass_len()
    }

    /// d(l) of slot k.
    pub fn d(&self, k: usize, l: usize) -> u128 {
        let last = self.shape.layers();
        self.p(k) + self.support(last..last + 1) + self.support(self.own_layers().start..l)
    }

    /// All episodes' adapted numbers of the head, slot k.
    pub fn head(&self, k: usize) -> u128 {
        self.heads + k as u128 * self.sizes.episodes as u128 * self.head_stride() as u128
    }

    /// Query rows' losses.
    pub fn losses(&self) -> u128 {
        self.losses
    }

    /// Layer l's activations in the query pass, later their gradient; of the last layer the gradient alone.
    pub fn query_act(&self, l: usize) -> u128 {
        self.scratch + self.rows(self.sizes.query, 1..l)
    }

    pub fn ract(&self, l: usize) -> u128 {
        self.scratch + self.support(1..l)
    }

    pub fn rd(&self, l: usize) -> u128 {
        self.scratch + self.support(1..self.shape.layers()) + self.support(self.own_layers().start..l)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::InputKind;

    /// Where each piece begins and how many numbers it has, of the query pass or of the sweep.
    fn pieces(room: &Room, sizes: &Sizes, query: bool) -> Vec<(u128, u128)> {
        let last = room.shape.layers();
        let of = |rows: usize, l: usize| rows as u128 * room.width(l) as u128;
        let mut all = vec![(room.losses(), sizes.query as u128)];
        if !sizes.frozen {
            all.push((room.c(), of(sizes.support, 1)));
        }
        for k in 0..sizes.saved.max(1) {
            all.push((room.head(k), (sizes.episodes * room.head_stride()) as u128));
            all.push((room.p(k), of(sizes.support, last)));
            all.extend(room.own_layers().map(|l| (room.d(k, l), of(sizes.support, l))));
            if k == 0 || !sizes.frozen {
                all.extend((1..last).map(|l| (room.act(k, l), of(sizes.support, l))));
            }
        }
        if query {
            all.extend((1..=last).map(|l| (room.query_act(l), of(sizes.query, l))));
        } else {
            all.extend((1..last).map(|l| (room.ract(l), of(sizes.support, l))));
            all.extend(room.own_layers().map(|l| (room.rd(l), of(sizes.support, l))));
        }
        all
    }

    #[test]
    fn pieces_are_aligned_and_do_not_overlap() {
        for widths in [vec![5], vec![9, 4], vec![9, 6, 4], vec![33, 7, 6, 3]] {
            let shape = MlpShape { input: 10, kind: InputKind::Dense, widths };
            for (saved, frozen) in [(0, false), (3, false), (0, true), (3, true)] {
                let frozen = frozen && shape.layers() > 1;
                let sizes = Sizes { episodes: 3, support: 17, query: 23, saved, frozen };
                let room = Room::new(&shape, sizes);
                for query in [false, true] {
                    let mut all = pieces(&room, &sizes, query);
                    all.sort_unstable();
                    let what = format!("{:?} {sizes:?}: {all:?}", shape.widths);
                    assert!(all.iter().all(|(at, _)| at.is_multiple_of(4)), "{what}");
                    assert!(all.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0), "{what}");
                    let (at, len) = all[all.len() - 1];
                    assert!(at + len <= room.len(), "{what}");
                }
            }
        }
    }
}
