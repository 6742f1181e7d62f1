//! Episodes whose memory does not fit a block's: each product, loss and end of an inner step is one launch over all of them
//! (`kernels/grouped.cu`). The algebra is that of `kernels/episode.cu`; R{phi} = -a v, and u begins as 0:
//!
//! ```text
//! step k:   act(1) = relu(Z_0 - a G C)           C = 0 at first: no product            nn
//!           act(l) = relu(act(l-1) W^T + b)      l = 2 .. L, the last without ReLU     nt, a launch a layer
//!           p, d(L)                                                                    softmax_xent
//!           d(l-1) = d(l) W * [act(l-1) > 0]     l = L .. 2; d(1) is added to C        nn, and before the next l
//!           phi    = phi - a d(l)^T act(l-1)     with the bias: d(l)'s column sums     tn
//! query:    the same from Z'_0 - a G' C; outputs, losses, v in place of phi, eps in place of Z'_0
//! sweep:    c      = -a G'^T eps                                                       tn
//!  step k:  ract(1) = (c - a G u) * [act(1) > 0]                                       nn
//!           ract(l) = (-a (act(l-1) v^T + v_b) + ract(l-1) W^T) * [act(l) > 0]         nt, two products
//!           rd(L)                                                                      softmax_xent_rop
//!           rd(l-1) = (-a d(l) v + rd(l) W) * [act(l-1) > 0]; rd(1) is added to u      nn, two products
//!           v       = v + rd(l)^T act(l-1) + d(l)^T ract(l-1)                          tn, two products
//! ends:     mean losses, bias gradients, whether a gradient is finite
//! ```
//!
//! u takes Z_0's place; v is made where the episode's gradient is wanted. A product over no terms is an element-wise pass.
//! Where only the last layer takes steps its adjoint is gathered at act(L-1) and goes back through the body once.

use super::launches::Launches;
use super::plan::StepPlan;
use super::room::{Room, Sizes};
use crate::cuda::grouped::{self, Ends, Extent, Mask, Moved, NOTHING, Product};
use crate::cuda::rows::{self, Call};
use crate::cuda::{Device, Form, Operand};
use crate::error::Result;
use crate::meta::Order;

/// Support or query rows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Set {
    Support,
    Query,
}

/// All inner steps, query passes and sweeps of a batch, on a device.
pub(super) struct Wide<'a, D> {
    launches: &'a Launches<'a>,
    room: Room<'a>,
    device: &'a mut D,
}

/// What the batch takes of the workspace.
fn sizes(launches: &Launches) -> Sizes {
    let work = &launches.work;
    Sizes {
        episodes: work.episodes,
        support: work.support,
        query: work.query,
        saved: if work.order == Order::Second { work.steps } else { 0 },
        frozen: work.last_layer && launches.plan.shape.layers() > 1,
    }
}

impl<'a, D: Device> Wide<'a, D> {
    pub fn new(launches: &'a Launches<'a>, device: &'a mut D) -> Self {
        let room = Room::new(&launches.plan.shape, sizes(launches));
        debug_assert!(4 * room.len() <= launches.plan.spans.workspace.bytes as u128, "checked with the batch");
        Self { launches, room, device }
    }

    /// All of them.
    pub fn run(&mut self) -> Result<()> {
        let work = &self.launches.work;
        let (steps, order) = (work.steps, work.order);
        if self.frozen() {
            self.body(Set::Support)?;
        }
        (0..steps).try_for_each(|k| self.step(k))?;
        self.query()?;
        match order {
            Order::Second if steps > 0 && self.frozen() => self.sweep_frozen()?,
            Order::Second if steps > 0 => self.sweep()?,
            Order::Displacement => self.displacement()?,
            _ => {}
        }
        self.ends()
    }

    fn plan(&self) -> &'a StepPlan {
        self.launches.plan
    }

    fn layers(&self) -> usize {
        self.plan().shape.layers()
    }

    fn width(&self, l: usize) -> usize {
        self.plan().shape.widths[l - 1]
    }

    fn lr(&self) -> f32 {
        self.launches.work.lr
    }

    /// Whether only the last of several layers takes steps.
    fn frozen(&self) -> bool {
        self.launches.work.last_layer && self.layers() > 1
    }

    /// Whether the first layer takes steps.
    fn moves(&self) -> bool {
        !self.frozen() && self.launches.work.steps > 0
    }

    fn back(&self) -> bool {
        matches!(self.launches.work.order, Order::Second | Order::First)
    }

    /// The slot of step k's values.
    fn slot(&self, k: usize) -> usize {
        if self.launches.work.order == Order::Second { k } else { 0 }
    }

    /// The address of a place in `room`.
    fn at(&self, place: u128) -> u64 {
        self.plan().spans.workspace.at(self.launches.base) + 4 * place as u64
    }

    /// Rows of layer l's width.
    fn rows_at(&self, address: u64, l: usize) -> Operand {
        Operand { address, ld: self.width(l), stride: 0 }
    }

    /// act(l) of a set's rows at step k.
    fn act(&self, set: Set, k: usize, l: usize) -> Operand {
        let k = if self.frozen() { 0 } else { self.slot(k) };
        let place = if set == Set::Query { self.room.query_act(l) } else { self.room.act(k, l) };
        self.rows_at(self.at(place), l)
    }

    fn d(&self, k: usize, l: usize) -> Operand {
        self.rows_at(self.at(self.room.d(self.slot(k), l)), l)
    }

    fn p(&self, k: usize) -> Operand {
        self.rows_at(self.at(self.room.p(self.slot(k))), self.layers())
    }

    fn query_act(&self, l: usize) -> Operand {
        self.act(Set::Query, 0, l)
    }

    fn ract(&self, l: usize) -> Operand {
        self.rows_at(self.at(self.room.ract(l)), l)
    }

    fn rd(&self, l: usize) -> Operand {
        self.rows_at(self.at(self.room.rd(l)), l)
    }

    fn c(&self) -> Operand {
        self.rows_at(self.at(self.room.c()), 1)
    }

    /// Z_0 or Z'_0, later their adjoints.
    fn z(&self, set: Set) -> Operand {
        let before = if set == Set::Query { 0 } else { self.launches.work.query };
        let address = self.plan().spans.z.at(self.launches.base) + (4 * before * self.width(1)) as u64;
        self.rows_at(address, 1)
    }

    fn gram(&self, set: Set) -> Operand {
        let spans = &self.plan().spans;
        let span = if set == Set::Query { spans.gram_query } else { spans.gram };
        Operand { address: span.at(self.launches.base), ld: self.plan().gram_ld(), stride: 0 }
    }

    /// Layer l's weights after k steps.
    fn phi(&self, k: usize, l: usize) -> Operand {
        let (at, from) = (self.room.layer(l), self.room.first_adapted());
        let own = k > 0 && at >= from;
        let (address, stride) = match own {
            true => (self.at(self.room.head(self.slot(k - 1)) + (at - from) as u128), self.room.head_stride()),
            false => (self.plan().spans.head.at(self.launches.base) + 4 * at as u64, 0),
        };
        Operand { address, ld: self.width(l - 1), stride }
    }

    /// Their gradient.
    fn v(&self, l: usize) -> Operand {
        let before = self.plan().shape.hidden() + self.room.layer(l);
        let address = self.plan().spans.rows.at(self.launches.base) + 4 * before as u64;
        Operand { address, ld: self.width(l - 1), stride: self.plan().row_len() }
    }

    /// How many rows of a set an episode has.
    fn extent(&self, set: Set) -> Extent {
        let (spans, limits) = (&self.plan().spans, &self.plan().limits);
        let (span, most) = match set {
            Set::Support => (spans.support_rows, limits.support),
            Set::Query => (spans.query_rows, limits.query),
        };
        Extent::Rows { bounds: span.at(self.launches.base), most }
    }

    fn product(&mut self, product: Product) -> Result<()> {
        self.call(product.call()?)
    }

    fn call(&mut self, call: Call) -> Result<()> {
        // SAFETY: the plan's pieces and those of `room` have the batch's sizes, which the plan covers (checked); bounds lie within
        // them, labels are classes (validated). Nothing that is written overlaps what else a launch reads, but where
        // `grouped` and `rows` say it may.
        unsafe { call.run(self.device) }
    }

    /// m x n numbers and sums over k, with nothing around them.
    fn plain(&self, form: Form, m: Extent, n: usize, k: Extent, [a, b, c]: [Operand; 3]) -> Product {
        let (second, mask, episodes) = (None, Mask::None, self.launches.work.episodes);
        let (old, alpha, beta) = (NOTHING, 1.0, 0.0);
        Product { form, episodes, m, n, k, alpha, a, b, second, beta, old, c, mask, relu: false, bias: false }
    }

    /// A row of layer l's width for each row of a set, made of old ones alone.
    fn elements(&self, set: Set, l: usize, beta: f32, old: Operand, c: Operand) -> Product {
        let plain = self.plain(Form::Nn, self.extent(set), self.width(l), Extent::Same(0), [NOTHING, NOTHING, c]);
        Product { beta, old, ..plain }
    }

    /// `src W^T + b` for layer l's weights.
    fn forward(&self, set: Set, l: usize, src: Operand, w: Operand, dst: Operand) -> Product {
        let k = Extent::Same(self.width(l - 1));
        Product { bias: true, ..self.plain(Form::Nt, self.extent(set), self.width(l), k, [src, w, dst]) }
    }

    /// `d W * [act > 0]` for layer l's weights.
    fn backward(&self, set: Set, l: usize, d: Operand, w: Operand, act: Operand, dst: Operand) -> Product {
        let k = Extent::Same(self.width(l));
        let plain = self.plain(Form::Nn, self.extent(set), self.width(l - 1), k, [d, w, dst]);
        Product { mask: Mask::Products(act), ..plain }
    }

    /// `d^T act`, and d's column sums, to the shape of layer l's weights.
    fn weights(&self, set: Set, l: usize, d: Operand, act: Operand, dst: Operand) -> Product {
        let m = Extent::Same(self.width(l));
        Product { bias: true, ..self.plain(Form::Tn, m, self.width(l - 1), self.extent(set), [d, act, dst]) }
    }

    /// The pre-activations of layer 1 after k steps with ReLU, or the logits where it is the last: `Z_0 - a G C`.
    fn first(&mut self, set: Set, k: usize, dst: Operand) -> Result<()> {
        let z = self.z(set);
        let product = match k {
            0 => self.elements(set, 1, 1.0, z, dst),
            _ => {
                let operands = [self.gram(set), self.c(), dst];
                let plain = self.plain(Form::Nn, self.extent(set), self.width(1), self.extent(Set::Support), operands);
                Product { alpha: -self.lr(), beta: 1.0, old: z, ..plain }
            }
        };
        self.product(Product { relu: self.layers() > 1, ..product })
    }

    /// The activations before the last layer, from step-0 weights.
    fn body(&mut self, set: Set) -> Result<()> {
        self.first(set, 0, self.act(set, 0, 1))?;
        (2..self.layers()).try_for_each(|l| self.hidden(set, 0, l))
    }

    /// act(l) at step k.
    fn hidden(&mut self, set: Set, k: usize, l: usize) -> Result<()> {
        let (src, dst) = (self.act(set, k, l - 1), self.act(set, k, l));
        let product = self.forward(set, l, src, self.phi(k, l), dst);
        self.product(Product { relu: true, ..product })
    }

    /// The logits of all rows of a set, from its activations.
    fn logits(&mut self, set: Set, k: usize, dst: Operand) -> Result<()> {
        let last = self.layers();
        let product = self.forward(set, last, self.act(set, k, last - 1), self.phi(k, last), dst);
        self.product(product)
    }

    /// What the loss's kernels ask for.
    fn loss_rows(&self, set: Set) -> grouped::Rows {
        let (Extent::Rows { bounds, most }, episodes) = (self.extent(set), self.launches.work.episodes) else {
            unreachable!("a set has rows")
        };
        grouped::Rows { episodes, bounds, most, classes: self.width(self.layers()) }
    }

    /// Softmax and d(L) of logits.
    fn loss(&mut self, set: Set, z: Operand, p: Operand, dz: Operand) -> Result<()> {
        let spans = &self.plan().spans;
        let (labels, losses) = match set {
            Set::Support => (spans.support_labels, 0),
            Set::Query => (spans.query_labels, self.at(self.room.losses())),
        };
        let labels = labels.at(self.launches.base);
        let rows = self.loss_rows(set);
        self.call(grouped::softmax_xent(&rows, z.address, labels, [p.address, dz.address], losses)?)
    }

    /// `dst += src`, or `dst = src`, for layer 1's support rows.
    fn gather(&mut self, adds: bool, src: Operand, dst: Operand) -> Result<()> {
        let n = self.launches.work.support * self.width(1);
        self.call(rows::axpby(n, 1.0, src.address, f32::from(adds), dst.address))
    }

    /// Inner step k.
    fn step(&mut self, k: usize) -> Result<()> {
        let (last, p) = (self.layers(), self.p(k));
        if !self.frozen() {
            let dst = if last > 1 { self.act(Set::Support, k, 1) } else { p };
            self.first(Set::Support, k, dst)?;
            (2..last).try_for_each(|l| self.hidden(Set::Support, k, l))?;
        }
        if last > 1 {
            self.logits(Set::Support, k, p)?;
        }
        self.loss(Set::Support, p, p, self.d(k, last))?;
        for l in (2..=last).rev() {
            let (d, act) = (self.d(k, l), self.act(Set::Support, k, l - 1));
            if !self.frozen() {
                self.step_back(k, l, d, act)?;
            }
            let (old, dst) = (self.phi(k, l), self.phi(k + 1, l));
            let weights = self.weights(Set::Support, l, d, act, dst);
            self.product(Product { alpha: -self.lr(), beta: 1.0, old, ..weights })?;
            if self.frozen() {
                return Ok(());
            }
        }
        if last == 1 { self.gather(k > 0, self.d(k, 1), self.c()) } else { Ok(()) }
    }

    /// d(l-1) at step k, or C's share of it.
    fn step_back(&mut self, k: usize, l: usize, d: Operand, act: Operand) -> Result<()> {
        let (adds, dst) = if l == 2 { (k > 0, self.c()) } else { (false, self.d(k, l - 1)) };
        let product = self.backward(Set::Support, l, d, self.phi(k, l), act, dst);
        self.product(Product { beta: f32::from(adds), old: dst, ..product })
    }

    /// The query pass: outputs and losses; where there is a way back also v and, in place of Z'_0, eps.
    fn query(&mut self) -> Result<()> {
        let (last, steps) = (self.layers(), self.launches.work.steps);
        let out = self.rows_at(self.plan().spans.out.at(self.launches.base), last);
        let eps = self.z(Set::Query);
        let moved = if self.moves() { steps } else { 0 };
        self.first(Set::Query, moved, if last > 1 { self.query_act(1) } else { out })?;
        (2..last).try_for_each(|l| self.hidden(Set::Query, steps, l))?;
        if last > 1 {
            self.logits(Set::Query, steps, out)?;
        }
        let dz = if last > 1 { self.query_act(last) } else { eps };
        self.loss(Set::Query, out, dz, dz)?;
        if !self.back() {
            return Ok(());
        }
        for l in (2..=last).rev() {
            // d(l-1) takes the place of act(l-1) once the weights' gradient has read it.
            let (d, act) = (self.query_act(l), self.query_act(l - 1));
            let gradient = self.weights(Set::Query, l, d, act, self.v(l));
            self.product(gradient)?;
            let dst = if l == 2 { eps } else { act };
            let product = self.backward(Set::Query, l, d, self.phi(steps, l), act, dst);
            self.product(product)?;
        }
        Ok(())
    }

    /// The way back over all steps: u in place of Z_0, v.
    fn sweep(&mut self) -> Result<()> {
        let (rows, h) = (self.extent(Set::Support), self.width(1));
        let operands = [self.gram(Set::Query), self.z(Set::Query), self.c()];
        let c = self.plain(Form::Tn, rows, h, self.extent(Set::Query), operands);
        self.product(Product { alpha: -self.lr(), ..c })?;
        let steps = self.launches.work.steps;
        (0..steps).rev().try_for_each(|k| self.sweep_step(k, k + 1 < steps))
    }

    /// Back over step k; before the first of them (`adds` is false) u is 0 and not yet there.
    fn sweep_step(&mut self, k: usize, adds: bool) -> Result<()> {
        let last = self.layers();
        self.direction(k, adds)?;
        for l in 2..=last {
            self.rforward(k, l, Some(self.ract(l - 1)))?;
        }
        self.rloss(k)?;
        for l in (2..=last).rev() {
            let (adds, dst) = if l == 2 { (adds, self.z(Set::Support)) } else { (false, self.rd(l - 1)) };
            self.rbackward(k, l, adds, dst)?;
            let (rd, act) = (self.rd(l), self.act(Set::Support, k, l - 1));
            self.add_to_v(l, rd, act, Some([self.d(k, l), self.ract(l - 1)]))?;
        }
        if last == 1 { self.gather(adds, self.rd(1), self.z(Set::Support)) } else { Ok(()) }
    }

    /// `c - a G u`, with the sign of act(1): R{Z_k}. Without a head it is R{logits}.
    fn direction(&mut self, k: usize, u_is_there: bool) -> Result<()> {
        let has_head = self.layers() > 1;
        let (c, dst) = (self.c(), if has_head { self.ract(1) } else { self.rd(1) });
        let mask = if has_head { Mask::Result(self.act(Set::Support, k, 1)) } else { Mask::None };
        let rows = self.extent(Set::Support);
        let product = match u_is_there {
            false => self.elements(Set::Support, 1, 1.0, c, dst),
            true => {
                let operands = [self.gram(Set::Support), self.z(Set::Support), dst];
                let plain = self.plain(Form::Nn, rows, self.width(1), rows, operands);
                Product { alpha: -self.lr(), beta: 1.0, old: c, ..plain }
            }
        };
        self.product(Product { mask, ..product })
    }

    /// R{act(l)}, of the last layer R{logits}; `ract` is R{act(l-1)}, or none where that is zero.
    fn rforward(&mut self, k: usize, l: usize, ract: Option<Operand>) -> Result<()> {
        let is_last = l == self.layers();
        let dst = if is_last { self.rd(l) } else { self.ract(l) };
        let mask = if is_last { Mask::None } else { Mask::Result(self.act(Set::Support, k, l)) };
        let act = self.act(Set::Support, k, l - 1);
        let product = self.forward(Set::Support, l, act, self.v(l), dst);
        let second = ract.map(|ract| [ract, self.phi(k, l)]);
        self.product(Product { alpha: -self.lr(), second, mask, ..product })
    }

    /// rd(L) from R{logits}, in place.
    fn rloss(&mut self, k: usize) -> Result<()> {
        let (p, rd) = (self.p(k).address, self.rd(self.layers()).address);
        self.call(grouped::softmax_xent_rop(&self.loss_rows(Set::Support), p, rd, rd)?)
    }

    /// rd(l-1), or what u takes of it.
    fn rbackward(&mut self, k: usize, l: usize, adds: bool, dst: Operand) -> Result<()> {
        let act = self.act(Set::Support, k, l - 1);
        let product = self.backward(Set::Support, l, self.d(k, l), self.v(l), act, dst);
        let second = Some([self.rd(l), self.phi(k, l)]);
        self.product(Product { alpha: -self.lr(), second, beta: f32::from(adds), old: dst, ..product })
    }

    /// `v += d^T act + (d2^T act2)` for layer l's weights, and d's column sums for its bias.
    fn add_to_v(&mut self, l: usize, d: Operand, act: Operand, second: Option<[Operand; 2]>) -> Result<()> {
        let v = self.v(l);
        let product = self.weights(Set::Support, l, d, act, v);
        self.product(Product { second, beta: 1.0, old: v, ..product })
    }

    /// The whole way back where only the last layer took steps.
    fn sweep_frozen(&mut self) -> Result<()> {
        let (last, steps) = (self.layers(), self.launches.work.steps);
        let below = |wide: &Self, l: usize| if l > 2 { wide.ract(l - 1) } else { wide.z(Set::Support) };
        let act = self.act(Set::Support, 0, last - 1);
        for k in (0..steps).rev() {
            self.rforward(k, last, None)?;
            self.rloss(k)?;
            self.rbackward(k, last, k + 1 < steps, below(self, last))?;
            self.add_to_v(last, self.rd(last), act, None)?;
        }
        for l in (2..last).rev() {
            let (d, act, dst) = (self.ract(l), self.act(Set::Support, 0, l - 1), below(self, l));
            self.add_to_v(l, d, act, None)?;
            let product = self.backward(Set::Support, l, d, self.phi(0, l), act, dst);
            self.product(product)?;
        }
        Ok(())
    }

    /// theta - theta_S of the first layer: W_0 - (W_0 - a C^T X) = a C^T X.
    fn displacement(&mut self) -> Result<()> {
        let (beta, dst) = (if self.moves() { self.lr() } else { 0.0 }, self.z(Set::Support));
        self.product(self.elements(Set::Support, 1, beta, self.c(), dst))
    }

    /// What is left of each episode.
    fn ends(&mut self) -> Result<()> {
        let (work, base, spans) = (self.launches.work, self.launches.base, &self.plan().spans);
        let displacement = work.order == Order::Displacement;
        let of_support = displacement || work.order == Order::Second && work.steps > 0;
        let adjoint = |set, there| if there { self.z(set).address } else { 0 };
        let from = if work.steps > 0 { self.room.first_adapted() } else { self.plan().shape.head_len() };
        let moved = Moved {
            head: spans.head.at(base),
            adapted: self.at(self.room.head(self.slot(work.steps.saturating_sub(1)))),
            stride: self.room.head_stride(),
            from,
        };
        let ends = Ends {
            episodes: work.episodes,
            bounds: [spans.support_rows.at(base), spans.query_rows.at(base)],
            losses: [self.at(self.room.losses()), spans.losses.at(base)],
            hidden: self.width(1),
            adjoints: [adjoint(Set::Support, of_support), adjoint(Set::Query, self.back())],
            moved: displacement.then_some(moved),
            rows: if work.has_gradient() { spans.rows.at(base) } else { 0 },
            row_len: self.plan().row_len(),
            finite: spans.finite.at(base),
        };
        self.call(ends.call()?)
    }
}
