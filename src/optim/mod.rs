//! The outer loop's update: SGD or AdamW over a learning-rate schedule, dense layers and embedding rows alike.
//!
//! A row of an embedding table that no text of a batch contains has a gradient of zero, but a dense optimiser would
//! still move it (moments decay, weights shrink). Those updates are made late: before a row is read or updated, the
//! steps it missed are caught up one by one, with the same operations a dense optimiser would have done. So the result
//! has the same bits as dense AdamW or SGD, and a step costs what it touches, and what that missed since it was last
//! touched: at most one small update for each row and step, as late as can be.
//!
//! A first layer stored in half precision is widened a row at a time, updated and rounded to the nearest half, ties to even;
//! its moments are f32. An update below half the distance to the next half (1/256 of the weight in bf16 and 1/2048 in
//! f16, at most) therefore leaves the weight as it is, however often it comes: the moments do not save up what rounding
//! took. So half precision needs a rate well above these, as AdamW's steps of about `lr` usually are for weights of the
//! size of `lr` to 100 `lr`. A missed step rounds as a step would have; late and dense updates have the same bits here too.
#![forbid(unsafe_code)]

mod adamw;
mod rows;
mod schedule;
mod sgd;

pub use schedule::Schedule;

use rows::{Row, Rows};
use serde::{Deserialize, Serialize};

use crate::backend::{Lane, Team};
use crate::cpu::{Cpu, KernelElement};
use crate::dtype::Stored;
use crate::error::{Error, Result};
use crate::meta::MetaGradient;
use crate::model::{InputKind, MlpShape, Params};

/// Which update rule, and its constants.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind", deny_unknown_fields)]
pub enum Rule {
    /// Stochastic gradient descent with heavy-ball momentum (Polyak, 1964).
    Sgd {
        /// Share of the last velocity that is kept.
        momentum: f64,
        /// Weights' share added to the gradient.
        weight_decay: f64,
    },
    /// AdamW (Loshchilov and Hutter, 2019, algorithm 2).
    Adamw {
        /// Decay of the first moment.
        beta1: f64,
        /// Decay of the second moment.
        beta2: f64,
        /// Added to the root of the second moment.
        eps: f64,
        /// Decoupled weight decay, per unit of learning rate.
        weight_decay: f64,
    },
}

impl Rule {
    /// AdamW with the usual constants.
    pub const ADAMW: Rule = Rule::Adamw { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 };

    /// Checks every constant's range.
    pub fn validate(&self) -> Result<()> {
        let (decays, others) = match *self {
            Rule::Sgd { momentum, weight_decay } => (vec![momentum], vec![weight_decay]),
            Rule::Adamw { beta1, beta2, eps, weight_decay } => (vec![beta1, beta2], vec![eps, weight_decay]),
        };
        // Compared as f32, in which training runs: there 1 - 1e-12 is 1, and 1e-60 is 0.
        let need = |ok: bool, what: &str| {
            if ok { Ok(()) } else { Err(Error::config("optimizer", format!("{what}: {self:?}"))) }
        };
        need(decays.iter().all(|&d| d >= 0.0 && (d as f32) < 1.0), "decays lie in [0, 1)")?;
        need(
            others.iter().all(|&o| o >= 0.0 && (o as f32).is_finite()),
            "the other constants are finite and not negative",
        )?;
        match *self {
            // Without it a weight that never had a gradient would be moved by 0 / 0.
            Rule::Adamw { eps, .. } => need(eps as f32 >= f32::MIN_POSITIVE, "eps is above 0"),
            Rule::Sgd { .. } => Ok(()),
        }
    }

    /// Applies step `t` (from 1) at rate `lr` to moments and weights; a gradient of `None` is zero.
    fn apply<T: KernelElement>(
        &self,
        lane: &mut Lane<T>,
        t: u64,
        lr: f64,
        g: Option<&[T]>,
        [m, v, w]: [&mut [T]; 3],
    ) -> Result<()> {
        match *self {
            Rule::Sgd { momentum, weight_decay } => sgd::apply(lane, lr, momentum, weight_decay, g, m, w),
            Rule::Adamw { beta1, beta2, eps, weight_decay } => {
                lane.adamw(&adamw::step(t, lr, beta1, beta2, eps, weight_decay), g, m, v, w)
            }
        }
    }
}

/// Elements of rows that are worth more than one thread.
const ENOUGH: usize = 1 << 15;

/// An optimiser with its state for one set of weights.
#[derive(Clone)]
pub struct Optimizer<T: KernelElement> {
    rule: Rule,
    schedule: Schedule,
    team: Team<T>,
    /// Steps done.
    step: u64,
    /// First moment (AdamW) or velocity (SGD).
    m: Params<T>,
    /// Second moment; stays zero for SGD.
    v: Params<T>,
    /// For token bags: the step up to which each embedding row has been brought.
    rows_at: Vec<u64>,
    /// For each thread a row of a first layer in half precision, widened.
    wide: Vec<T>,
    /// Rows to be caught up.
    late: Vec<u32>,
}

/// What a step does to a row of the first layer, wherever it is.
#[derive(Clone, Copy)]
struct Now {
    rule: Rule,
    schedule: Schedule,
    /// Steps done.
    step: u64,
}

impl Now {
    /// Whether a row that was brought to step `done` lacks some; one that was never touched and does not shrink stays as it is.
    fn is_late(&self, done: u64) -> bool {
        let decay = match self.rule {
            Rule::Sgd { weight_decay, .. } | Rule::Adamw { weight_decay, .. } => weight_decay,
        };
        done < self.step && !(done == 0 && decay == 0.0)
    }

    /// Catches a row up, and takes this step where it has a gradient.
    fn change<T: KernelElement, S: Stored<T>>(&self, lane: &mut Lane<T>, row: Row<T, S>) -> Result<()> {
        let Row { w, m, v, at, g, wide } = row;
        let mut apply = |t: u64, g: Option<&[T]>| {
            let lr = self.schedule.rate(t);
            S::change_row(w, wide, |w| self.rule.apply(lane, t + 1, lr, g, [&mut *m, &mut *v, w]))
        };
        if let Some(at) = at {
            if self.is_late(*at) {
                (*at..self.step).try_for_each(|t| apply(t, None))?;
                *at = self.step;
            }
            if g.is_some() {
                *at = self.step + 1;
            }
        }
        if g.is_some() { apply(self.step, g) } else { Ok(()) }
    }
}

/// An optimiser's state as a checkpoint keeps it.
#[derive(Clone, Debug, PartialEq)]
pub struct State<T> {
    /// Steps done.
    pub step: u64,
    /// First moment or velocity.
    pub m: Params<T>,
    /// Second moment.
    pub v: Params<T>,
}

/// Elements of a row of the first layer.
fn width(shape: &MlpShape) -> usize {
    if shape.kind == InputKind::Bag { shape.hidden() } else { shape.input }
}

impl<T: KernelElement> Optimizer<T> {
    /// State at step 0 for weights of that shape.
    pub fn new(cpu: &Cpu, shape: &MlpShape, rule: Rule, schedule: Schedule) -> Result<Self> {
        rule.validate()?;
        schedule.validate()?;
        let rows = if shape.kind == InputKind::Bag { shape.input } else { 0 };
        let (m, v) = (Params::zeros(shape)?, Params::zeros(shape)?);
        let (team, late) = (Team::new(cpu), Vec::new());
        let wide = vec![T::ZERO; team.len() * width(shape)];
        Ok(Self { rule, schedule, team, step: 0, m, v, rows_at: vec![0; rows], wide, late })
    }

    /// Continues from a saved state, taken after [`Optimizer::flush`]. Fails if it is of another shape.
    pub fn restore(&mut self, state: State<T>) -> Result<()> {
        if state.m.shape != self.m.shape || state.v.shape != self.v.shape {
            return Err(Error::shape("optimizer", "the saved moments are of another shape than the weights"));
        }
        self.rows_at.fill(state.step);
        (self.step, self.m, self.v) = (state.step, state.m, state.v);
        Ok(())
    }

    /// A copy of the state. Call [`Optimizer::flush`] first.
    pub fn state(&self) -> State<T> {
        State { step: self.step, m: self.m.clone(), v: self.v.clone() }
    }

    /// Steps done.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// The learning rate of the next step.
    pub fn next_lr(&self) -> f64 {
        self.schedule.rate(self.step)
    }

    /// Brings the embedding rows of `tokens` up to date; call it before a batch with these tokens is computed.
    pub fn catch_up<S: Stored<T>>(&mut self, params: &mut Params<T, S>, tokens: &[u32]) -> Result<()> {
        self.check(params, tokens)?;
        let (now, mut late) = (self.now(), std::mem::take(&mut self.late));
        late.clear();
        late.extend(tokens.iter().copied().filter(|&token| now.is_late(self.rows_at[token as usize])));
        late.sort_unstable();
        late.dedup();
        let done = self.update(params, Some(&late), None);
        self.late = late;
        done
    }

    /// Brings everything up to date: before weights are read as a whole, saved or validated.
    pub fn flush<S: Stored<T>>(&mut self, params: &mut Params<T, S>) -> Result<()> {
        self.check(params, &[])?;
        if self.rows_at.is_empty() { Ok(()) } else { self.update(params, None, None) }
    }

    /// Fails for weights of another shape, or tokens without a row.
    fn check<S: Stored<T>>(&self, params: &Params<T, S>, tokens: &[u32]) -> Result<()> {
        if params.shape != self.m.shape {
            let detail = format!("weights of {:?}, moments of {:?}", params.shape, self.m.shape);
            return Err(Error::shape("optimizer", detail));
        }
        match tokens.iter().find(|&&token| token as usize >= self.rows_at.len()) {
            Some(token) => Err(Error::shape("optimizer", format!("row {token} of {}", self.rows_at.len()))),
            None => Ok(()),
        }
    }

    /// Catches rows of the first layer up, all or some (rising and different), and where there is a gradient of them takes this
    /// step; on all threads.
    fn update<S: Stored<T>>(
        &mut self,
        params: &mut Params<T, S>,
        which: Option<&[u32]>,
        g: Option<&[T]>,
    ) -> Result<()> {
        let (now, width) = (self.now(), width(&params.shape));
        let (m, v, at, wide) = (&mut self.m.first, &mut self.v.first, &mut self.rows_at, &mut self.wide);
        let rows = Rows { which, start: 0, width, w: &mut params.first, m, v, at, g, wide };
        let few = rows.len() * width < ENOUGH;
        let run = |lane: &mut Lane<T>, rows: Rows<T, S>| rows.try_for_each(|row| now.change(lane, row));
        if few { run(self.team.lane(), rows) } else { self.team.spread(rows, Rows::split, run) }
    }

    fn now(&self) -> Now {
        Now { rule: self.rule, schedule: self.schedule, step: self.step }
    }

    /// One step down the gradient. The rows of `gradient` are caught up here if they were not before.
    ///
    /// Fails, with nothing changed, where weights and gradient are not of the optimiser's shape or the gradient's rows do not rise.
    pub fn step<S: Stored<T>>(&mut self, params: &mut Params<T, S>, gradient: &MetaGradient<T>) -> Result<()> {
        self.check_gradient(gradient)?;
        self.check(params, &gradient.rows)?;
        let (t, lr) = (self.step + 1, self.schedule.rate(self.step));
        let rows = (params.shape.kind == InputKind::Bag).then_some(&gradient.rows[..]);
        let len = rows.map_or(gradient.first.len(), |rows| rows.len() * params.shape.hidden());
        self.update(params, rows, Some(&gradient.first[..len]))?;
        let (lane, m, v) = (self.team.lane(), &mut self.m, &mut self.v);
        self.rule.apply(lane, t, lr, Some(&gradient.bias), [&mut m.bias, &mut v.bias, &mut params.bias])?;
        self.rule.apply(lane, t, lr, Some(&gradient.head), [&mut m.head, &mut v.head, &mut params.head])?;
        self.step = t;
        Ok(())
    }

    fn check_gradient(&self, g: &MetaGradient<T>) -> Result<()> {
        let shape = &self.m.shape;
        let first_fits = match shape.kind {
            InputKind::Dense => g.first.len() == shape.first_len() && g.rows.is_empty(),
            InputKind::Bag => g.first.len() / shape.hidden() >= g.rows.len(),
        };
        if !g.rows.is_sorted_by(|a, b| a < b) {
            return Err(Error::shape("optimizer", "a gradient's rows must rise"));
        }
        if first_fits && g.bias.len() == shape.hidden() && g.head.len() == shape.head_len() {
            return Ok(());
        }
        let (first, rows, bias, head) = (g.first.len(), g.rows.len(), g.bias.len(), g.head.len());
        let detail = format!("a gradient of {first} ({rows} rows), {bias} and {head} values does not fit {shape:?}");
        Err(Error::shape("optimizer", detail))
    }
}
