//! The memory of one lane: where each piece of an episode's computation lies. One function lays it out for use and
//! counts it for the plan, so the two cannot differ.
#![forbid(unsafe_code)]

use std::ops::Range;

use crate::backend::Carver;
use crate::meta::InnerMemory;
use crate::model::{MlpShape, Targets, mlp, saved_len};

/// The sizes one episode's memory follows from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// Support rows.
    pub n: usize,
    /// Query rows.
    pub m: usize,
    /// Elements the losses keep for their R-operators.
    pub support_loss: usize,
    pub query_loss: usize,
    /// Stored pairs of the larger set of bags that is indexed by token; 0 for dense inputs.
    pub pairs: usize,
    /// Steps whose values are kept at once: all, or with recomputation those of one segment; 1 where none is kept.
    pub segment: usize,
    /// States kept to compute again the segments before the last.
    pub checkpoints: usize,
    /// What the inner loop needs; its `micro_batch` is 0 where that covers all rows.
    pub inner: InnerMemory,
}

impl Sizes {
    /// Rows and kept elements of the two sets, under an inner loop.
    pub fn new(inner: InnerMemory, recompute: bool, support: (usize, usize), query: (usize, usize)) -> Self {
        let steps = inner.saved_steps;
        let segment = if recompute { root(steps) } else { steps }.max(1);
        let micro_batch = if inner.micro_batch < support.0 { inner.micro_batch } else { 0 };
        Self {
            n: support.0,
            m: query.0,
            support_loss: support.1,
            query_loss: query.1,
            pairs: 0,
            segment,
            checkpoints: steps.div_ceil(segment).saturating_sub(1),
            inner: InnerMemory { micro_batch, ..inner },
        }
    }

    /// The same for bags of so many stored pairs in the support and in the query set.
    pub fn with_pairs(self, [support, query]: [usize; 2]) -> Self {
        Self { pairs: if self.inner.implicit { support.max(query) } else { support }, ..self }
    }

    /// Whether velocities are formed: the steps are more than plain SGD at one rate, or their gradient comes in parts.
    pub fn forms_velocities(&self) -> bool {
        self.inner.momentum || self.inner.decay || self.inner.rates > 0 || self.inner.micro_batch > 0
    }

    /// Steps are kept for the way back.
    pub fn keeps_steps(&self) -> bool {
        self.inner.saved_steps > 0
    }

    /// The rows handled at once: (how many, what their loss keeps).
    fn pass(&self) -> (usize, usize) {
        match self.inner.micro_batch {
            0 => (self.n, self.support_loss),
            rows => (rows, self.support_loss.div_ceil(self.n.max(1)) * rows),
        }
    }

    /// Elements of the pass over the rows handled at once.
    fn pass_len(&self, shape: &MlpShape) -> usize {
        let (rows, loss) = self.pass();
        mlp::Saved::<u8>::len(shape, rows, loss)
    }

    /// The parts of `0..n` that are handled at once.
    pub fn passes(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (n, rows) = (self.n, self.pass().0.max(1));
        (0..n).step_by(rows).map(move |start| start..n.min(start + rows))
    }
}

/// The smallest integer not below the square root.
fn root(n: usize) -> usize {
    (0..=n).find(|r| r * r >= n).unwrap_or(0)
}

/// What one inner step leaves for the way back. Empty pieces are not needed by the inner loop at hand.
pub(super) struct Slot<'a, T> {
    /// The head before the step.
    pub phi: &'a mut [T],
    /// Z_k where the passes over micro-batches are computed again.
    pub z: &'a mut [T],
    /// The pass over the support set; over one micro-batch where there are several.
    pub pass: &'a mut [T],
    /// p_k, the share of the initial weights.
    pub share: &'a mut [T],
    /// The velocities after the step, for the gradient of the rates: coefficients of the first layer, and the head's.
    pub coefficient_velocity: &'a mut [T],
    pub head_velocity: &'a mut [T],
    /// Weighted gradients of the query loss after the step.
    pub eps: &'a mut [T],
    pub dphi_query: &'a mut [T],
}

impl<'a, T> Slot<'a, T> {
    pub fn lay_out(shape: &MlpShape, s: &Sizes, own: &mut Carver<'a, T>, shared: &mut Carver<'a, T>) -> Self {
        let (nh, head, inner) = (s.n * shape.hidden(), shape.head_len(), &s.inner);
        let micro = inner.micro_batch > 0;
        let pass = s.pass_len(shape);
        Self {
            phi: own.take(head),
            z: own.take_if(micro && (s.keeps_steps() || inner.implicit), nh),
            pass: if micro { shared.take(pass) } else { own.take(pass) },
            share: own.take_if(inner.decay && !inner.last_layer, 1),
            coefficient_velocity: own.take_if(inner.rates > 0 && !inner.last_layer, nh),
            head_velocity: own.take_if(inner.rates > 0, head),
            eps: own.take_if(inner.step_losses && s.keeps_steps(), s.m * shape.hidden()),
            dphi_query: own.take_if(inner.step_losses && s.keeps_steps(), head),
        }
    }

    /// Elements of its own, and shared by all slots.
    fn len(shape: &MlpShape, s: &Sizes) -> (usize, usize) {
        let (mut own, mut shared) = (Carver::counting(), Carver::counting());
        Slot::<T>::lay_out(shape, s, &mut own, &mut shared);
        (own.used(), shared.used())
    }
}

/// A slot's pass over `rows` support rows with these targets.
pub(super) fn saved_pass<'a, T>(
    pass: &'a mut [T],
    shape: &MlpShape,
    targets: &Targets,
    rows: usize,
) -> mlp::Saved<'a, T> {
    mlp::Saved::lay_out(shape, rows, saved_len(targets, rows, shape.outputs()), &mut Carver::over(pass))
}

/// The state between two steps from which the later ones follow.
pub(super) struct State<'a, T> {
    /// C: the first layer is p W_0 - C^T X.
    pub c: &'a mut [T],
    pub phi: &'a mut [T],
    /// The velocity of the first layer is q W_0 + E^T X.
    pub coefficient_velocity: &'a mut [T],
    pub head_velocity: &'a mut [T],
    /// p and q.
    pub shares: &'a mut [T],
}

impl<'a, T: Copy> State<'a, T> {
    fn lay_out(shape: &MlpShape, s: &Sizes, kept: bool, memory: &mut Carver<'a, T>) -> Self {
        let (nh, head) = (s.n * shape.hidden(), shape.head_len());
        // A kept velocity matters to later steps only with momentum.
        let velocity = if kept { s.inner.momentum } else { s.forms_velocities() };
        Self {
            c: memory.take_if(!s.inner.last_layer, nh),
            phi: memory.take(head),
            coefficient_velocity: memory.take_if(velocity && !s.inner.last_layer, nh),
            head_velocity: memory.take_if(velocity, head),
            shares: memory.take_if(s.inner.decay && !s.inner.last_layer, 2),
        }
    }

    fn kept_len(shape: &MlpShape, s: &Sizes) -> usize {
        let mut memory = Carver::counting();
        State::<T>::lay_out(shape, s, true, &mut memory);
        memory.used()
    }

    /// Copies what of `src` is there in both.
    fn copy_from(&mut self, src: &State<T>) {
        let pieces = [
            (&mut *self.c, &*src.c),
            (&mut *self.phi, &*src.phi),
            (&mut *self.coefficient_velocity, &*src.coefficient_velocity),
            (&mut *self.head_velocity, &*src.head_velocity),
            (&mut *self.shares, &*src.shares),
        ];
        for (dst, src) in pieces {
            let n = dst.len().min(src.len());
            dst[..n].copy_from_slice(&src[..n]);
        }
    }
}

/// Everything between an episode's first pre-activations and their adjoints.
pub(super) struct Memory<'a, T> {
    sizes: Sizes,
    pub state: State<'a, T>,
    /// Z_k.
    pub z: &'a mut [T],
    /// delta where it comes in micro-batches.
    pub delta: &'a mut [T],
    pub slots: &'a mut [T],
    /// What the slots share.
    pub pass: &'a mut [T],
    checkpoints: &'a mut [T],
    pub query: &'a mut [T],
    /// Adjoint of Z'_0.
    pub eps: &'a mut [T],
    /// Adjoint of the head.
    pub v: &'a mut [T],
    /// Adjoint of Z_0.
    pub u: &'a mut [T],
    /// The way back; or the vectors of the conjugate-gradient method.
    pub back: Back<'a, T>,
}

/// Memory of the way back.
pub(super) struct Back<'a, T> {
    /// A direction, and the Hessian's product with it.
    pub rz: &'a mut [T],
    /// Adjoint of C.
    pub c_bar: &'a mut [T],
    /// Adjoint of the first layer's velocity.
    pub e_bar: &'a mut [T],
    /// Adjoint of the head's velocity.
    pub m_bar: &'a mut [T],
    /// What the pull to the initial head adds to its adjoint.
    pub pulled: &'a mut [T],
    pub scratch: &'a mut [T],
    /// X' X'^T + 1, for the norm of the query gradient.
    pub query_gram: &'a mut [T],
    /// Its product with the query gradient.
    pub query_product: &'a mut [T],
    /// The residual and the direction of the conjugate-gradient method: first layer's coefficients, then head.
    pub vectors: [&'a mut [T]; 2],
}

impl<'a, T: Copy> Memory<'a, T> {
    pub fn lay_out(shape: &MlpShape, s: &Sizes, memory: &mut Carver<'a, T>) -> Self {
        let (nh, mh, head) = (s.n * shape.hidden(), s.m * shape.hidden(), shape.head_len());
        let (slot, shared) = Slot::<T>::len(shape, s);
        let returns = s.keeps_steps() || s.inner.implicit;
        Self {
            sizes: *s,
            state: State::lay_out(shape, s, false, memory),
            z: memory.take(nh),
            delta: memory.take_if(s.inner.micro_batch > 0, nh),
            slots: memory.take(slot * s.segment),
            pass: memory.take(shared),
            checkpoints: memory.take(State::<T>::kept_len(shape, s) * s.checkpoints),
            query: memory.take(mlp::Saved::<T>::len(shape, s.m, s.query_loss)),
            eps: memory.take(mh),
            v: memory.take(head),
            u: memory.take_if(returns || s.inner.prototypes || (s.inner.displacement && !s.inner.last_layer), nh),
            back: Back::lay_out(shape, s, returns, memory),
        }
    }

    /// Keeps the state at the start of segment `i`.
    pub fn keep(&mut self, shape: &MlpShape, i: usize) {
        self.checkpoint(shape, i, |kept, state| kept.copy_from(state));
    }

    /// Goes back to the state at the start of segment `i`.
    pub fn restore(&mut self, shape: &MlpShape, i: usize) {
        self.checkpoint(shape, i, |kept, state| state.copy_from(kept));
    }

    fn checkpoint(&mut self, shape: &MlpShape, i: usize, copy: impl FnOnce(&mut State<T>, &mut State<T>)) {
        let len = State::<T>::kept_len(shape, &self.sizes);
        let mut memory = Carver::over(&mut self.checkpoints[i * len..][..len]);
        copy(&mut State::lay_out(shape, &self.sizes, true, &mut memory), &mut self.state);
    }
}

/// Slot `i` of `slots`.
pub(super) fn slot<'s, T>(shape: &MlpShape, s: &Sizes, slots: &'s mut [T], pass: &'s mut [T], i: usize) -> Slot<'s, T> {
    let (len, _) = Slot::<T>::len(shape, s);
    Slot::lay_out(shape, s, &mut Carver::over(&mut slots[i * len..][..len]), &mut Carver::over(pass))
}

impl<'a, T> Back<'a, T> {
    fn lay_out(shape: &MlpShape, s: &Sizes, wanted: bool, memory: &mut Carver<'a, T>) -> Self {
        let (nh, head, inner) = (s.n * shape.hidden(), shape.head_len(), &s.inner);
        let velocities = wanted && s.forms_velocities();
        let mut vector = || memory.take_if(inner.implicit, nh + head);
        let vectors = [vector(), vector()];
        Self {
            rz: memory.take_if(wanted, nh),
            c_bar: memory.take_if(wanted, nh),
            e_bar: memory.take_if(velocities, nh),
            m_bar: memory.take_if(velocities || inner.implicit, head),
            pulled: memory.take_if(wanted && inner.decay, head),
            scratch: memory.take_if(wanted, mlp::scratch_len(shape, s.pass().0)),
            query_gram: memory.take_if(inner.implicit, s.m * s.m),
            query_product: memory.take_if(inner.implicit, s.m * shape.hidden()),
            vectors,
        }
    }
}
