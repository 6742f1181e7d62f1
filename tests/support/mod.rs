//! Shared by the tests: random problems of every kind, and a plain f64 oracle that uses nothing of the engine.
#![allow(dead_code, reason = "each test binary uses its part")]

pub mod cases;
#[cfg(feature = "cuda")]
pub mod check_device;
pub mod check_product;
pub mod check_rows;
pub mod check_sums;
#[cfg(feature = "cuda")]
pub mod edit;
#[cfg(target_os = "linux")]
pub mod guarded;
pub mod oracle;
pub mod padded;
#[cfg(feature = "cuda")]
pub mod simulator;
pub mod tables;
pub mod truth;

use metaglot::cpu::Cpu;
use metaglot::meta::{BatchTargets, EpisodeSet, Inputs, MetaBatch};
use metaglot::model::{InputKind, MlpShape, Params};
use metaglot::{Bags, Element, MatRef, Purpose, Rng};

/// The kernels a test runs on: the fastest, or those that `METAGLOT_ISA` names.
pub fn cpu() -> Cpu {
    let name = std::env::var("METAGLOT_ISA").ok();
    Cpu::named(name.as_deref()).unwrap_or_else(|error| panic!("METAGLOT_ISA: {error}"))
}

/// Which loss a random problem uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossKind {
    Classes,
    Lists,
    Pairs,
    Values,
}

/// A random meta-batch with its owned arrays; printed whole it names everything needed to see a failure again.
#[derive(Clone, Debug)]
pub struct Problem {
    pub seed: u64,
    pub shape: MlpShape,
    pub loss: LossKind,
    pub support: Set,
    pub query: Set,
}

/// One side of a meta-batch.
#[derive(Clone, Debug)]
pub struct Set {
    pub rows: Vec<usize>,
    pub dense: Vec<f64>,
    pub tokens: Vec<u32>,
    pub weights: Vec<f64>,
    pub offsets: Vec<usize>,
    pub labels: Vec<u32>,
    pub values: Vec<f64>,
    pub lists: Vec<usize>,
    pub positives: Vec<u32>,
    pub list_bounds: Vec<usize>,
}

impl Problem {
    /// `support` and `query` rows an episode (about; episodes differ by up to one list or pair).
    pub fn random(seed: u64, shape: MlpShape, loss: LossKind, episodes: usize, support: usize, query: usize) -> Self {
        let mut rng = Rng::new(seed, 0, 0, Purpose::Data);
        let support = Set::random(&mut rng, &shape, loss, episodes, support);
        let query = Set::random(&mut rng, &shape, loss, episodes, query);
        Problem { seed, shape, loss, support, query }
    }

    /// The same problem with nothing in its last `context` inputs.
    pub fn with_context(mut self, context: usize) -> Self {
        let from = self.shape.input - context;
        for set in [&mut self.support, &mut self.query] {
            for row in set.dense.chunks_exact_mut(self.shape.input) {
                row[from..].fill(0.0);
            }
            // A token of the context becomes one that the bag does not hold yet.
            for bag in set.offsets.windows(2) {
                let (tokens, weights) = (&mut set.tokens[bag[0]..bag[1]], &mut set.weights[bag[0]..bag[1]]);
                let used: Vec<u32> = tokens.to_vec();
                let free = (0..from as u32).filter(|t| !used.contains(t));
                let high = tokens.iter_mut().filter(|t| **t as usize >= from);
                high.zip(free).for_each(|(t, free)| *t = free);
                let mut pairs: Vec<_> = tokens.iter().copied().zip(weights.iter().copied()).collect();
                pairs.sort_unstable_by_key(|p| p.0);
                pairs.into_iter().enumerate().for_each(|(i, (t, w))| (tokens[i], weights[i]) = (t, w));
            }
        }
        self
    }

    /// Random weights with random biases, away from the symmetric start.
    pub fn params<T: Element>(&self) -> Params<T> {
        let mut params = Params::<T>::random(&self.shape, 0.5, self.seed).unwrap();
        // Less for wide layers, or deep wide nets would start far out, where the inner loop diverges.
        let widest = *self.shape.widths.iter().max().unwrap() as f64;
        let noise = 0.3 * (16.0 / widest).sqrt().min(1.0);
        let mut rng = Rng::new(self.seed, 1, 0, Purpose::Data);
        for b in params.bias.iter_mut().chain(&mut params.head) {
            *b += T::from_f64(noise * rng.normal());
        }
        params
    }

    /// Runs `f` on the batch in element type `T`.
    pub fn with_batch<T: metaglot::cpu::KernelElement, R>(&self, f: impl FnOnce(&MetaBatch<T>) -> R) -> R {
        let (support, query) = (self.support.convert::<T>(), self.query.convert::<T>());
        let batch = MetaBatch {
            support: self.support.view(&self.shape, self.loss, &support),
            query: self.query.view(&self.shape, self.loss, &query),
        };
        f(&batch)
    }
}

/// The real-valued arrays of a set in one element type.
pub struct Converted<T> {
    dense: Vec<T>,
    weights: Vec<T>,
}

impl Set {
    fn random(rng: &mut Rng, shape: &MlpShape, loss: LossKind, episodes: usize, about: usize) -> Self {
        let mut set = Set {
            rows: vec![0],
            dense: vec![],
            tokens: vec![],
            weights: vec![],
            offsets: vec![0],
            labels: vec![],
            values: vec![],
            lists: vec![0],
            positives: vec![],
            list_bounds: vec![0],
        };
        for _ in 0..episodes {
            let n = match loss {
                LossKind::Classes | LossKind::Values => about,
                LossKind::Lists => set.random_lists(rng, about),
                LossKind::Pairs => 2 * about.div_ceil(2),
            };
            set.rows.push(set.rows.last().unwrap() + n);
        }
        let n = *set.rows.last().unwrap();
        set.labels = (0..n).map(|_| rng.below(shape.outputs()) as u32).collect();
        if loss == LossKind::Values {
            set.values = (0..n * shape.outputs()).map(|_| rng.normal()).collect();
        }
        match shape.kind {
            InputKind::Dense => set.dense = (0..n * shape.input).map(|_| rng.normal()).collect(),
            InputKind::Bag => (0..n).for_each(|_| set.random_bag(rng, shape.input)),
        }
        set
    }

    /// Lists of 1 to 4 rows, `about` rows together; returns how many rows.
    fn random_lists(&mut self, rng: &mut Rng, about: usize) -> usize {
        let mut n = 0;
        while n < about {
            let len = 1 + rng.below(4);
            n += len;
            self.lists.push(self.lists.last().unwrap() + len);
            self.positives.push(rng.below(len) as u32);
        }
        self.list_bounds.push(self.positives.len());
        n
    }

    /// An empty bag now and then, otherwise a few tokens; the small ones come often, so bags overlap.
    fn random_bag(&mut self, rng: &mut Rng, vocabulary: usize) {
        let count = rng.below(6).min(vocabulary);
        let mut tokens: Vec<u32> =
            (0..count).map(|_| rng.below(vocabulary).min(rng.below(vocabulary)) as u32).collect();
        tokens.sort_unstable();
        tokens.dedup();
        self.weights.extend(tokens.iter().map(|_| rng.normal()));
        self.tokens.extend(tokens);
        self.offsets.push(self.tokens.len());
    }

    fn convert<T: Element>(&self) -> Converted<T> {
        let convert = |v: &[f64]| v.iter().map(|&x| T::from_f64(x)).collect();
        Converted { dense: convert(&self.dense), weights: convert(&self.weights) }
    }

    fn view<'a, T: metaglot::cpu::KernelElement>(
        &'a self,
        shape: &MlpShape,
        loss: LossKind,
        values: &'a Converted<T>,
    ) -> EpisodeSet<'a, T> {
        let n = *self.rows.last().unwrap();
        let inputs = match shape.kind {
            InputKind::Dense => Inputs::Dense(MatRef::new(&values.dense, n, shape.input).unwrap()),
            InputKind::Bag => {
                Inputs::Bags(Bags::new(&self.tokens, &values.weights, &self.offsets, shape.input).unwrap())
            }
        };
        let targets = match loss {
            LossKind::Classes => BatchTargets::Classes(&self.labels),
            LossKind::Lists => {
                BatchTargets::Lists { offsets: &self.lists, positives: &self.positives, episodes: &self.list_bounds }
            }
            LossKind::Pairs => BatchTargets::Pairs,
            LossKind::Values => BatchTargets::Values(&self.values),
        };
        EpisodeSet { inputs, rows: &self.rows, targets }
    }

    /// Row i as a dense vector.
    pub fn dense_row(&self, shape: &MlpShape, i: usize) -> Vec<f64> {
        match shape.kind {
            InputKind::Dense => self.dense[i * shape.input..][..shape.input].to_vec(),
            InputKind::Bag => {
                let mut row = vec![0.0; shape.input];
                for j in self.offsets[i]..self.offsets[i + 1] {
                    row[self.tokens[j] as usize] = self.weights[j];
                }
                row
            }
        }
    }
}

/// A shape from its sizes: input, then each layer's outputs.
pub fn shape(kind: InputKind, dims: &[usize]) -> MlpShape {
    MlpShape { input: dims[0], kind, widths: dims[1..].to_vec() }
}

/// The largest difference over the largest value (over 1e-6 where all values are smaller: rounding of an exact 0).
pub fn relative_error<T: Element>(found: &[T], wanted: &[T]) -> f64 {
    assert_eq!(found.len(), wanted.len());
    let largest = wanted.iter().map(|x| x.to_f64().abs()).fold(0.0, f64::max);
    let difference = found.iter().zip(wanted).map(|(a, b)| (a.to_f64() - b.to_f64()).abs()).fold(0.0, f64::max);
    assert!(found.iter().all(|x| x.is_finite()), "a value is not finite");
    if difference == 0.0 { 0.0 } else { difference / largest.max(1e-6) }
}
