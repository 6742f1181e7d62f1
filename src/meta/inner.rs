//! The inner loop: how an episode's weights are adapted to its support set, and how far that is differentiated.
//!
//! With g_k the gradient of the mean support loss at theta_k, each step is
//!
//! ```text
//! m_{k+1}     = momentum m_k + g_k + weight_decay theta_k + proximal (theta_k - theta_0)        m_0 = 0
//! theta_{k+1} = theta_k - A_k m_{k+1}                                          A_k: diagonal, the rates
//! ```
//!
//! or, for [`Update::Adam`], with bias-corrected moments of the same gradient,
//! `theta_{k+1} = theta_k - A_k m^ / sqrt(v^ + eps)`. The algorithms of this folder are settings of this one loop.
#![forbid(unsafe_code)]

use crate::error::{Error, Result};
use crate::model::MlpShape;

/// What the outer loop gets from an episode.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Order {
    /// The gradient of the query loss through the inner steps: MAML.
    Second,
    /// The gradient of the query loss at the adapted weights, as if they did not depend on the initial ones.
    First,
    /// The gradient through the proximal problem's minimum, by the implicit function theorem: iMAML.
    Implicit(ConjugateGradient),
    /// The initial weights minus the adapted ones: Reptile. The query set is only measured.
    Displacement,
    /// Nothing: adapt, answer the queries, report the loss.
    Evaluate,
}

/// When the conjugate-gradient method stops.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConjugateGradient {
    /// The norm of the residual over that of the right-hand side.
    pub tolerance: f64,
    /// The most iterations.
    pub iterations: usize,
}

/// Learning rates of the inner loop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rates<'a> {
    /// One for everything.
    Same(f64),
    /// One a step and layer (weights and bias alike): steps x layers, row-major. Learned: LSLR.
    Layers(&'a [f64]),
    /// One a unit, the same in all steps: layer after layer, one for each output (a row of the weights and its bias).
    Units(&'a [f64]),
    /// One a weight, the same in all steps: first layer, its bias, head, laid out as [`Params`](crate::model::Params).
    /// Learned: Meta-SGD. Not in Gram space.
    Weights(&'a [f64]),
}

impl Rates<'_> {
    /// How many learned numbers there are; 0 for one fixed rate.
    pub fn len(&self) -> usize {
        match self {
            Rates::Same(_) => 0,
            Rates::Layers(r) | Rates::Units(r) | Rates::Weights(r) => r.len(),
        }
    }

    /// Whether no rate is learned.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The rule of one inner step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Update {
    /// Gradient descent with heavy-ball momentum and weight decay, as at the head of this module.
    Sgd {
        /// Share of the last velocity that is kept.
        momentum: f64,
        /// Weights' share added to the gradient.
        weight_decay: f64,
    },
    /// Adam (Kingma and Ba, 2015, algorithm 1) with eps inside the root, so that the step has a derivative where the
    /// gradient is exactly 0. Not in Gram space.
    Adam {
        /// Decay of the first moment.
        beta1: f64,
        /// Decay of the second moment.
        beta2: f64,
        /// Added to the second moment under the root.
        eps: f64,
    },
}

impl Update {
    /// Plain gradient descent.
    pub const PLAIN: Update = Update::Sgd { momentum: 0.0, weight_decay: 0.0 };
}

/// Which weights the inner steps change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adapt {
    /// All of them.
    All,
    /// The last layer: ANIL.
    Last,
    /// None, but this many inputs that all examples of an episode share, the model's last ones: CAVIA.
    Context(usize),
}

/// Where an episode's last layer starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the weights given.
    Learned,
    /// At the class centroids of the support set's last hidden activations: ProtoMAML, and without a step ProtoNet.
    Prototypes,
}

/// The inner loop of every algorithm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InnerLoop<'a> {
    /// Steps; 0 gives the plain gradient of the query loss (joint training).
    pub steps: usize,
    /// Learning rates.
    pub rates: Rates<'a>,
    /// The rule of a step.
    pub update: Update,
    /// Strength of the pull to the initial weights: the support loss gains proximal / 2 |theta - theta_0|^2.
    pub proximal: f64,
    /// Which weights change.
    pub adapt: Adapt,
    /// Where the last layer starts.
    pub start: Start,
    /// Weights of the query losses after steps 1, 2, ..: the loss that is differentiated is their weighted sum (MAML++,
    /// multi-step loss). Empty: the loss after the last step alone.
    pub step_weights: &'a [f64],
    /// Support rows handled at once, the gradient being added up over them; 0: all. Results agree to rounding.
    pub micro_batch: usize,
    /// What the outer loop gets.
    pub order: Order,
}

impl InnerLoop<'static> {
    /// Plain SGD with one rate on all weights: MAML where `order` is [`Order::Second`].
    pub const fn sgd(steps: usize, lr: f64, order: Order) -> Self {
        Self {
            steps,
            rates: Rates::Same(lr),
            update: Update::PLAIN,
            proximal: 0.0,
            adapt: Adapt::All,
            start: Start::Learned,
            step_weights: &[],
            micro_batch: 0,
            order,
        }
    }
}

impl InnerLoop<'_> {
    /// The same loop with other steps or another rate, where given.
    pub fn changed(self, steps: Option<usize>, lr: Option<f64>) -> Self {
        Self { steps: steps.unwrap_or(self.steps), rates: lr.map_or(self.rates, Rates::Same), ..self }
    }

    /// Momentum and weight decay; 0 for Adam.
    pub(crate) fn momentum_and_decay(&self) -> (f64, f64) {
        match self.update {
            Update::Sgd { momentum, weight_decay } => (momentum, weight_decay),
            Update::Adam { .. } => (0.0, 0.0),
        }
    }

    /// How many inputs are a context that is adapted; 0 where weights are.
    pub(crate) fn context(&self) -> usize {
        match self.adapt {
            Adapt::Context(inputs) => inputs,
            Adapt::All | Adapt::Last => 0,
        }
    }

    /// Why the loop cannot run in Gram space, if it cannot: there every step of the first layer is a combination of the
    /// support inputs and one share of the initial weights.
    pub fn needs_plain_form(&self) -> Option<&'static str> {
        let (_, decay) = self.momentum_and_decay();
        match self.update {
            Update::Adam { .. } => Some("Adam divides each weight by its own second moment"),
            _ if matches!(self.rates, Rates::Weights(_)) => Some("each weight has its own rate"),
            _ if !self.rates.is_empty() && (decay != 0.0 || self.proximal != 0.0) => {
                Some("with decay, learned rates give each unit its own share of the initial weights")
            }
            _ if self.order == Order::Displacement && decay != 0.0 => Some("decay moves weights that no input touches"),
            _ => None,
        }
    }

    /// Weight of the query loss after `step` steps in what is differentiated.
    pub(crate) fn step_weight(&self, step: usize) -> f64 {
        match (self.step_weights, step) {
            ([], _) => f64::from(u8::from(step == self.steps)),
            (_, 0) => 0.0,
            (weights, _) => weights[step - 1],
        }
    }

    /// Whether the support rows' values are needed: without a step they are not, in most loops.
    pub(crate) fn reads_support(&self) -> bool {
        let needs =
            self.start == Start::Prototypes || self.adapt != Adapt::All || matches!(self.order, Order::Implicit(_));
        needs || self.steps > 0
    }

    /// Whether values of the steps are kept for the way back: for second order, and for the gradient of rates.
    pub(crate) fn keeps_steps(&self) -> bool {
        let through = self.order == Order::Second || (self.order == Order::First && !self.rates.is_empty());
        through && self.steps > 0
    }

    /// Checks every setting, alone and together, against a model.
    pub(crate) fn validate(&self, shape: &MlpShape) -> Result<()> {
        self.validate_rates(shape)?;
        self.validate_update()?;
        self.validate_context(shape)?;
        self.validate_parts(shape)
    }

    fn validate_context(&self, shape: &MlpShape) -> Result<()> {
        let Adapt::Context(inputs) = self.adapt else { return Ok(()) };
        if inputs == 0 || inputs >= shape.input {
            let detail = format!("{inputs} of {} inputs; at least 1 and not all are needed", shape.input);
            return Err(Error::config("context", detail));
        }
        let plain = Self {
            order: self.order,
            adapt: self.adapt,
            rates: self.rates,
            ..InnerLoop::sgd(self.steps, 0.0, self.order)
        };
        let order_fits = matches!(self.order, Order::Second | Order::First | Order::Evaluate);
        if *self == plain && matches!(self.rates, Rates::Same(_)) && order_fits {
            return Ok(());
        }
        Err(Error::config("context", "it is adapted by plain steps at one rate, from the weights given"))
    }

    fn validate_rates(&self, shape: &MlpShape) -> Result<()> {
        let (rates, wanted) = match self.rates {
            Rates::Same(lr) if lr.is_finite() => return Ok(()),
            Rates::Same(_) => return Err(Error::config("inner_lr", "a finite number is needed")),
            Rates::Layers(rates) => (rates, self.steps * shape.layers()),
            Rates::Units(rates) => (rates, shape.widths.iter().sum()),
            Rates::Weights(rates) => (rates, shape.len()),
        };
        if rates.len() != wanted {
            return Err(Error::config("rates", format!("{wanted} are needed, not {}", rates.len())));
        }
        match rates.iter().find(|r| !r.is_finite()) {
            Some(bad) => Err(Error::config("rates", format!("{bad} is not finite"))),
            None => Ok(()),
        }
    }

    fn validate_update(&self) -> Result<()> {
        let bad = |what: &str| Err(Error::config("inner update", format!("{what}: {:?}", self.update)));
        match self.update {
            Update::Sgd { momentum, weight_decay } => {
                if !(momentum.is_finite() && weight_decay.is_finite() && momentum >= 0.0 && weight_decay >= 0.0) {
                    return bad("momentum and weight decay are finite and not negative");
                }
            }
            Update::Adam { beta1, beta2, eps } => {
                let decays_fit = [beta1, beta2].iter().all(|b| (0.0..1.0).contains(b));
                if !decays_fit || !eps.is_finite() || eps <= 0.0 {
                    return bad("decays lie in [0, 1) and eps is above 0");
                }
                if self.proximal != 0.0 {
                    return bad("a proximal pull needs SGD");
                }
            }
        }
        if !(self.proximal.is_finite() && self.proximal >= 0.0) {
            return Err(Error::config("proximal", format!("{} is not finite or below 0", self.proximal)));
        }
        Ok(())
    }

    /// What does not go together.
    fn validate_parts(&self, shape: &MlpShape) -> Result<()> {
        let refuse = |what: &str, detail: &str| Err(Error::config(what, detail));
        if !self.step_weights.is_empty() && self.step_weights.len() != self.steps {
            let detail = format!("{} weights for {} steps", self.step_weights.len(), self.steps);
            return Err(Error::config("step_weights", detail));
        }
        if self.step_weights.iter().any(|w| !w.is_finite()) {
            return refuse("step_weights", "every weight is finite");
        }
        if !self.step_weights.is_empty() && !matches!(self.order, Order::Second | Order::First | Order::Evaluate) {
            return refuse("step_weights", "only gradients of the query loss can have one after each step");
        }
        if let Order::Implicit(cg) = self.order {
            if self.proximal <= 0.0 {
                return refuse("proximal", "the implicit gradient needs a pull above 0");
            }
            if self.adapt != Adapt::All || self.start != Start::Learned || self.update != Update::PLAIN {
                return refuse("order", "the implicit gradient is that of plain steps on all weights");
            }
            if cg.tolerance <= 0.0 || cg.tolerance.is_nan() {
                return refuse("order", "the conjugate-gradient tolerance is above 0");
            }
        }
        if self.order == Order::Displacement && self.start == Start::Prototypes {
            return refuse("order", "Reptile moves the weights an episode starts with; prototypes are none");
        }
        if self.start == Start::Prototypes && shape.layers() < 2 {
            return refuse("start", "prototypes need a hidden layer");
        }
        Ok(())
    }
}

/// What of an inner loop its memory depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InnerMemory {
    /// Steps whose values are kept for the way back; 0 where nothing is differentiated through.
    pub saved_steps: usize,
    /// Momentum: velocities.
    pub momentum: bool,
    /// Weight decay or a proximal pull.
    pub decay: bool,
    /// Query losses after every step.
    pub step_losses: bool,
    /// The adapted weights are the result: Reptile.
    pub displacement: bool,
    /// Adam's moments.
    pub adam: bool,
    /// The conjugate-gradient method's vectors.
    pub implicit: bool,
    /// Only the last layer is adapted.
    pub last_layer: bool,
    /// Inputs of the context, where only that is adapted.
    pub context: usize,
    /// The last layer starts at prototypes.
    pub prototypes: bool,
    /// Support rows handled at once; 0: all.
    pub micro_batch: usize,
    /// Learned rates.
    pub rates: usize,
}

impl InnerMemory {
    /// Of one inner loop.
    pub fn of(inner: &InnerLoop) -> Self {
        let (momentum, decay) = inner.momentum_and_decay();
        Self {
            saved_steps: if inner.keeps_steps() { inner.steps } else { 0 },
            momentum: momentum != 0.0,
            decay: decay != 0.0 || inner.proximal != 0.0,
            step_losses: !inner.step_weights.is_empty(),
            adam: matches!(inner.update, Update::Adam { .. }),
            displacement: inner.order == Order::Displacement,
            implicit: matches!(inner.order, Order::Implicit(_)),
            last_layer: inner.adapt == Adapt::Last,
            context: inner.context(),
            prototypes: inner.start == Start::Prototypes,
            micro_batch: inner.micro_batch,
            rates: inner.rates.len(),
        }
    }
}
