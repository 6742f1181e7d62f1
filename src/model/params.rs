//! The shape of an MLP and its weights: the first layer by itself, all later layers (the head) as one flat vector.
//!
//! The first layer stands apart because the inner loop never copies it: in Gram space only the head is carried along.
#![forbid(unsafe_code)]

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::backend::prefer_huge_pages;
use crate::dtype::{Element, Stored};
use crate::error::{Error, Result};
use crate::rng::{Purpose, Rng};

/// How inputs come, and so how the first layer's weights lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InputKind {
    /// Dense rows; the first weight matrix is hidden x input, row-major.
    Dense,
    /// Token bags; the first weight matrix is an embedding table, vocabulary x hidden.
    Bag,
}

/// The sizes of an MLP: `input -> widths[0] -> ... -> widths[last]`, ReLU between layers, none after the last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MlpShape {
    /// Features of a dense row, or the vocabulary of the token bags.
    pub input: usize,
    /// Dense rows or token bags.
    pub kind: InputKind,
    /// Outputs of each layer; the last is the number of logits, scores or embedding dimensions.
    pub widths: Vec<usize>,
}

/// One layer of the head inside the flat vector.
#[derive(Clone, Debug)]
pub(crate) struct HeadLayer {
    /// Its number: the first layer is 1, so the head starts at 2.
    pub l: usize,
    pub inputs: usize,
    pub outputs: usize,
    /// `outputs` x `inputs`, row-major.
    pub weight: Range<usize>,
    pub bias: Range<usize>,
}

/// The most layers a model may have; the checkpoint reader refuses more.
const MAX_LAYERS: usize = 64;

impl MlpShape {
    /// Checks that there is a layer, that no size is 0 and that the sizes do not overflow.
    pub fn validate(&self) -> Result<()> {
        if self.widths.is_empty() || self.widths.len() > MAX_LAYERS {
            return Err(Error::config("layers", format!("1 to {MAX_LAYERS} are possible, not {}", self.widths.len())));
        }
        if self.input == 0 || self.widths.contains(&0) {
            return Err(Error::config("layers", "a layer of width 0"));
        }
        let mut total = self.input.checked_mul(self.widths[0]);
        for w in self.widths.windows(2) {
            total = total.and_then(|t| t.checked_add(w[0].checked_mul(w[1])?.checked_add(w[1])?));
        }
        match total.and_then(|t| t.checked_mul(size_of::<f64>())) {
            Some(bytes) if isize::try_from(bytes).is_ok() => Ok(()),
            _ => Err(Error::config("layers", "the weights do not fit the address space")),
        }
    }

    /// Number of layers.
    pub fn layers(&self) -> usize {
        self.widths.len()
    }

    /// Outputs of the first layer.
    pub fn hidden(&self) -> usize {
        self.widths[0]
    }

    /// Outputs of the last layer.
    pub fn outputs(&self) -> usize {
        *self.widths.last().expect("validated: there is a layer")
    }

    /// Weights of the first layer, without its bias.
    pub fn first_len(&self) -> usize {
        self.input * self.hidden()
    }

    /// All weights and biases of the layers after the first.
    pub fn head_len(&self) -> usize {
        self.widths.windows(2).map(|w| (w[0] + 1) * w[1]).sum()
    }

    /// All weights and biases.
    pub fn len(&self) -> usize {
        self.first_len() + self.hidden() + self.head_len()
    }

    /// Never: every layer has weights.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Outputs of all layers but the last, added up: the activations of one example.
    pub(crate) fn hidden_sum(&self) -> usize {
        self.widths[..self.layers() - 1].iter().sum()
    }

    /// Layers 2 to L, in order.
    pub(crate) fn head_layers(&self) -> impl DoubleEndedIterator<Item = HeadLayer> + Clone + '_ {
        (1..self.layers()).map(|l| {
            let start: usize = self.widths[..l].windows(2).map(|w| (w[0] + 1) * w[1]).sum();
            let (inputs, outputs) = (self.widths[l - 1], self.widths[l]);
            let middle = start + inputs * outputs;
            HeadLayer { l: l + 1, inputs, outputs, weight: start..middle, bias: middle..middle + outputs }
        })
    }
}

/// The weights of an MLP. The first layer may be stored in another type `S` than all else, to halve its memory:
/// [`f16`](crate::f16) or [`bf16`](crate::bf16) beside f32.
#[derive(Clone, Debug, PartialEq)]
pub struct Params<T, S = T> {
    /// The sizes.
    pub shape: MlpShape,
    /// First layer: hidden x input for dense rows, vocabulary x hidden for token bags.
    pub first: Vec<S>,
    /// First layer's bias.
    pub bias: Vec<T>,
    /// Layers 2 to L: weight (outputs x inputs), then bias, one after the other.
    pub head: Vec<T>,
}

impl<T: Element> Params<T> {
    /// All zeros: a place for gradients and moments.
    pub fn zeros(shape: &MlpShape) -> Result<Self> {
        Self::stored_zeros(shape)
    }

    /// Random weights: normal with variance 2 / inputs (He et al., "Delving deep into rectifiers", 2015, eq. 10), 1 /
    /// inputs in the last layer, biases 0. An embedding table has no such number of inputs: its weights get the standard
    /// deviation `embedding_std`. Small (0.02), tokens never seen in training, of which a new language has many, say
    /// little; large (near 1), the table begins as a random projection that keeps the texts' similarities.
    pub fn random(shape: &MlpShape, embedding_std: f64, seed: u64) -> Result<Self> {
        Self::stored_random(shape, embedding_std, seed)
    }
}

impl<T: Element, S: Stored<T>> Params<T, S> {
    /// [`Params::zeros`] with the first layer stored in `S`.
    pub fn stored_zeros(shape: &MlpShape) -> Result<Self> {
        shape.validate()?;
        let vector = |n| vec![T::ZERO; n];
        let (bias, head) = (vector(shape.hidden()), vector(shape.head_len()));
        // In any type memory that was not written yet: see `prefer_huge_pages`, and moments that are never touched.
        Ok(Self { shape: shape.clone(), first: bytemuck::zeroed_vec(shape.first_len()), bias, head })
    }

    /// [`Params::random`] with the first layer stored in `S`: the same numbers, rounded.
    pub fn stored_random(shape: &MlpShape, embedding_std: f64, seed: u64) -> Result<Self> {
        let mut params = Self::stored_zeros(shape)?;
        prefer_huge_pages(&params.first);
        let mut rng = Rng::new(seed, 0, 0, Purpose::Init);
        let gain = |last: bool| if last { 1.0f64 } else { 2.0 };
        let std = match shape.kind {
            InputKind::Dense => (gain(shape.layers() == 1) / shape.input as f64).sqrt(),
            InputKind::Bag => embedding_std,
        };
        fill_normal::<T, S>(&mut rng, std, &mut params.first);
        let layers: Vec<_> = shape.head_layers().collect();
        for (i, layer) in layers.iter().enumerate() {
            let scale = (gain(i + 1 == layers.len()) / layer.inputs as f64).sqrt();
            fill_normal::<T, T>(&mut rng, scale, &mut params.head[layer.weight.clone()]);
        }
        Ok(params)
    }

    /// The same weights with the first layer stored in another type, each number rounded to the nearest there.
    pub fn restored<R: Stored<T>>(&self) -> Params<T, R> {
        let first = self.first.iter().map(|x| R::narrow(x.widen())).collect();
        Params { shape: self.shape.clone(), first, bias: self.bias.clone(), head: self.head.clone() }
    }
}

fn fill_normal<T: Element, S: Stored<T>>(rng: &mut Rng, scale: f64, dst: &mut [S]) {
    dst.iter_mut().for_each(|x| *x = S::narrow(T::from_f64(scale * rng.normal())));
}
