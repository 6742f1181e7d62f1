//! What a meta-step is timed on: a case of a file, or random data of given sizes.
#![forbid(unsafe_code)]

use crate::backend::collect_on_huge_pages;
use crate::case::{Case, Examples};
use crate::cpu::KernelElement;
use crate::error::Result;
use crate::meta::{BatchTargets, EpisodeSet, Inputs, MetaBatch};
use crate::model::{InputKind, MlpShape, Params};
use crate::rng::{Purpose, Rng};
use crate::view::{Bags, MatRef};

/// Weights and examples.
pub struct Problem<T> {
    pub params: Params<T>,
    support: Side<T>,
    query: Side<T>,
}

/// The support or the query examples of all tasks: dense rows, or bags of tokens.
struct Side<T> {
    ends: Vec<usize>,
    labels: Vec<u32>,
    /// The rows' values, or the tokens' weights.
    values: Vec<T>,
    tokens: Vec<u32>,
    offsets: Vec<usize>,
    shape: MlpShape,
}

/// Sizes of a random problem.
pub struct Sizes {
    pub shape: MlpShape,
    pub tasks: usize,
    pub support: usize,
    pub query: usize,
    /// Tokens of a bag; at most the vocabulary.
    pub tokens: usize,
}

impl<T: KernelElement> Problem<T> {
    /// Draws one; seed 1.
    pub fn random(sizes: &Sizes) -> Result<Self> {
        let params = Params::<T>::random(&sizes.shape, 0.0, 1)?;
        Ok(Self { params, support: Side::random(sizes, sizes.support, 0), query: Side::random(sizes, sizes.query, 1) })
    }

    /// That of a case.
    pub fn of_case(case: &Case) -> Self {
        let shape = case.shape();
        let convert = |x: &[f64]| collect_on_huge_pages(x.len(), x.iter().map(|x| T::from_f64(*x)));
        let (first, bias, head) = (convert(&case.theta.first), convert(&case.theta.bias), convert(&case.theta.head));
        let side = |examples: &Examples| {
            let rows = examples.y.len() / case.tasks;
            Side {
                ends: (0..=case.tasks).map(|t| t * rows).collect(),
                labels: examples.y.clone(),
                values: convert(&examples.x),
                tokens: Vec::new(),
                offsets: Vec::new(),
                shape: shape.clone(),
            }
        };
        let (support, query) = (side(&case.support), side(&case.query));
        Self { params: Params { shape: shape.clone(), first, bias, head }, support, query }
    }

    /// The examples as a meta-step takes them.
    pub fn batch(&self) -> Result<MetaBatch<'_, T>> {
        Ok(MetaBatch { support: self.support.set()?, query: self.query.set()? })
    }

    /// Bytes of weights and examples.
    pub fn bytes(&self) -> usize {
        let side = |s: &Side<T>| size_of_val(&s.values[..]) + size_of_val(&s.tokens[..]) + size_of_val(&s.offsets[..]);
        self.params.shape.len() * size_of::<T>() + side(&self.support) + side(&self.query)
    }
}

impl<T: KernelElement> Side<T> {
    fn random(sizes: &Sizes, rows: usize, stream: u64) -> Self {
        let (shape, n) = (&sizes.shape, sizes.tasks * rows);
        let mut rng = Rng::new(1, stream, 0, Purpose::Data);
        let ends = (0..=sizes.tasks).map(|t| t * rows).collect();
        let labels = (0..n).map(|_| rng.below(shape.outputs()) as u32).collect();
        let side = Self { ends, labels, values: vec![], tokens: vec![], offsets: vec![], shape: shape.clone() };
        match shape.kind {
            InputKind::Dense => {
                let len = n * shape.input;
                let values = collect_on_huge_pages(len, (0..len).map(|_| T::from_f64(rng.normal())));
                Self { values, ..side }
            }
            InputKind::Bag => {
                let tokens: Vec<u32> = (0..n).flat_map(|_| bag(&mut rng, sizes.tokens, shape.input)).collect();
                let values = vec![T::from_f64(1.0 / (sizes.tokens as f64).sqrt()); tokens.len()];
                Self { values, tokens, offsets: (0..=n).map(|i| i * sizes.tokens).collect(), ..side }
            }
        }
    }

    fn set(&self) -> Result<EpisodeSet<'_, T>> {
        let inputs = match self.shape.kind {
            InputKind::Dense => Inputs::Dense(MatRef::new(&self.values, self.labels.len(), self.shape.input)?),
            InputKind::Bag => Inputs::Bags(Bags::new(&self.tokens, &self.values, &self.offsets, self.shape.input)?),
        };
        Ok(EpisodeSet { inputs, rows: &self.ends, targets: BatchTargets::Classes(&self.labels) })
    }
}

/// Different tokens, rising; small ones come more often, as in text.
fn bag(rng: &mut Rng, tokens: usize, vocabulary: usize) -> std::collections::BTreeSet<u32> {
    let mut bag = std::collections::BTreeSet::new();
    while bag.len() < tokens {
        let bound = 1 + rng.below(vocabulary);
        bag.insert(rng.below(bound) as u32);
    }
    bag
}
