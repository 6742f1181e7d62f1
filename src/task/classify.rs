//! Few-shot classification in a language that was never trained on.
//!
//! A text's score for a class joins three views of it; x is a text's unit-norm bag, weighed by the new language's own
//! frequencies (the model gets it weighed as in training), e() subtracts the mean over the classes of the episode, P =
//! softmax over them:
//!
//! - similarity:  NC_c = cosine of x and the sum of the class's support bags;
//! - transfer:    tr_c = log softmax over the episode's classes of L_c - mean over the support of L_c / 2, not below -6;
//!   L are the model's logits after adaptation on the support set. The centring takes out what the new language as a
//!   whole looks like to the model;
//! - unlabelled texts of the same language (the other queries, at least): each votes for the classes with P of what is
//!   known so far, support texts with their label; C_c = sum of votes * x, votes centred over classes, then over texts;
//!   SC_c = <x, C_c> / |C_c|. Two rounds: u = tr + e(NC) / T, S = e(SC(P(u))), then S = e(SC(P(S / T + u / 2))).
//!
//! The answer is S / T + u / 2, or u where there are too few texts; T = 0.05 is about the spread of a cosine. Classes
//! the model has never seen are left to NC and SC alone.
#![forbid(unsafe_code)]

use crate::checkpoint::Checkpoint;
use crate::cpu::Cpu;
use crate::episode::{SetBuffer, TargetKind};
use crate::error::{Error, Result};
use crate::meta::{GramSpace, InnerLoop, Limits, MetaBatch, MetaGradient};
use crate::model::Params;
use crate::text::{Bag, Featurizer, Idf, TextConfig};

/// The spread of cosines a score is divided by.
const TEMPERATURE: f32 = 0.05;
/// Transferred log-probabilities below it say nothing more.
const FLOOR: f32 = -6.0;
/// Fewer unlabelled texts than classes times this make no centroid.
const TEXTS_PER_CLASS: usize = 2;

/// A model that classifies, on the threads of a [`Cpu`].
pub struct Classifier {
    cpu: Cpu,
    params: Params<f32>,
    featurizer: Featurizer,
    idf: Option<Idf>,
    label_names: Vec<String>,
    inner: InnerLoop<'static>,
}

/// A support example: the index of its class in the episode, and its text as a bag.
#[derive(Clone, Copy, Debug)]
pub struct Example<'a> {
    /// Index into the episode's classes.
    pub class: usize,
    /// The text.
    pub bag: &'a Bag,
}

impl Classifier {
    /// Takes a classification model into use. Fails where the checkpoint is for another task or lacks a part.
    pub fn new(cpu: &Cpu, checkpoint: &Checkpoint) -> Result<Self> {
        super::expect_task(checkpoint, super::CLASSIFY)?;
        let (featurizer, idf) = super::text_pipeline(checkpoint)?;
        Ok(Self {
            cpu: cpu.clone(),
            params: checkpoint.params.clone(),
            featurizer,
            idf,
            label_names: checkpoint.label_names.clone(),
            inner: super::inner_loop(checkpoint)?,
        })
    }

    /// The classes the model was trained on.
    pub fn label_names(&self) -> &[String] {
        &self.label_names
    }

    /// How the model reads text.
    pub fn text_config(&self) -> &TextConfig {
        self.featurizer.config()
    }

    /// Changes the inner loop that adapts the model: its steps, its rate; `None` keeps the training's.
    pub fn set_inner_loop(&mut self, steps: Option<usize>, lr: Option<f64>) {
        self.inner = self.inner.changed(steps, lr);
    }

    /// Texts as bags, on all threads of the current pool.
    pub fn bags(&self, texts: &[(&str, &str)]) -> Vec<Bag> {
        let counts = self.featurizer.counts_batch(texts);
        counts.iter().map(|c| self.featurizer.bag(c, self.idf.as_ref())).collect()
    }

    /// The scores of each query for each of `classes`, higher is better; the largest is the answer.
    ///
    /// `pool`: unlabelled texts of the same language beside the queries; may be empty. Fails where a class has no
    /// support example or an index is out of range.
    pub fn scores(
        &self,
        classes: &[String],
        support: &[Example],
        queries: &[&Bag],
        pool: &[&Bag],
    ) -> Result<Vec<Vec<f32>>> {
        let texts: Vec<&Bag> = queries.iter().chain(pool).copied().collect();
        let known: Vec<&Bag> = support.iter().map(|e| e.bag).chain(texts.iter().copied()).collect();
        let mut scores = self.scorer(classes, support, &texts, &known)?.scores();
        scores.truncate(queries.len());
        Ok(scores)
    }

    /// The scores of each query by itself, as if [`Classifier::scores`] were called with one query and no pool each time:
    /// the same bits, but the model adapts once.
    pub fn scores_alone(&self, classes: &[String], support: &[Example], queries: &[&Bag]) -> Result<Vec<Vec<f32>>> {
        let known: Vec<&Bag> = support.iter().map(|e| e.bag).collect();
        Ok(self.scorer(classes, support, queries, &known)?.known())
    }

    /// What similarity and, where the model knows all classes, transfer say of the texts. What is frequent in the
    /// language is learned from `known`.
    fn scorer(&self, classes: &[String], support: &[Example], texts: &[&Bag], known: &[&Bag]) -> Result<Scorer> {
        let n = classes.len();
        if (0..n).any(|c| !support.iter().any(|e| e.class == c)) || support.iter().any(|e| e.class >= n) {
            return Err(Error::config("support", format!("each of the {n} classes needs at least one example")));
        }
        let outputs: Option<Vec<usize>> =
            classes.iter().map(|name| self.label_names.iter().position(|l| l == name)).collect();
        let mut scorer = self.similarities(n, support, texts, known);
        if let Some(outputs) = outputs {
            let logits = self.logits(&outputs, support, texts)?;
            scorer.transfer(&logits, &outputs, support.len());
        }
        Ok(scorer)
    }

    /// The cosine of each query and each class's support centroid: what a classifier without any training says.
    pub fn centroid_similarity(&self, classes: usize, support: &[Example], queries: &[&Bag]) -> Vec<Vec<f32>> {
        let known: Vec<&Bag> = support.iter().map(|e| e.bag).chain(queries.iter().copied()).collect();
        self.similarities(classes, support, queries, &known).similarity
    }

    fn similarities(&self, n: usize, support: &[Example], texts: &[&Bag], known: &[&Bag]) -> Scorer {
        let local = self.idf.as_ref().map(|idf| LocalIdf::new(idf, known));
        let own = |bag: &Bag| local.as_ref().map_or_else(|| bag.clone(), |local| local.reweigh(bag));
        let support = support.iter().map(|e| (e.class, own(e.bag))).collect();
        Scorer::new(n, support, texts.iter().map(|bag| own(bag)).collect())
    }

    /// The adapted model's logits of the support texts, then of `texts`, all outputs.
    fn logits(&self, outputs: &[usize], support: &[Example], texts: &[&Bag]) -> Result<Vec<Vec<f32>>> {
        let (mut support_set, mut query_set) = (SetBuffer::default(), SetBuffer::default());
        for example in support {
            super::push(&mut support_set, example.bag);
            support_set.label(outputs[example.class] as u32);
        }
        for bag in support.iter().map(|e| e.bag).chain(texts.iter().copied()) {
            super::push(&mut query_set, bag);
            query_set.label(0);
        }
        support_set.end_episode();
        query_set.end_episode();
        let shape = &self.params.shape;
        let batch = MetaBatch {
            support: support_set.view(shape, TargetKind::Classes)?,
            query: query_set.view(shape, TargetKind::Classes)?,
        };
        let limits = Limits::of(&batch, &self.inner);
        let mut gram = GramSpace::new(&self.cpu, shape, limits)?;
        let mut loss = MetaGradient::without_storage();
        gram.run(&self.params, &batch, &self.inner, &mut loss)?;
        let out = gram.query_outputs();
        Ok((0..out.rows()).map(|i| out.row(i).to_vec()).collect())
    }
}

/// Inverse document frequencies of one language, learned from few texts.
///
/// What is rare in the languages of the training can be a new one's most frequent ending, so bags weighed by the training's
/// frequencies compare by grammar. The language's own frequencies are counted, the training's standing in for
/// [`LocalIdf::PRIOR`] texts: idf(t) = ln((1 + n) / (1 + df(t))) + 1 with n and df of both together.
struct LocalIdf<'a> {
    trained: &'a [f32],
    frequencies: Vec<f32>,
    texts: f32,
}

impl<'a> LocalIdf<'a> {
    /// How many texts the training's frequencies count for.
    const PRIOR: f32 = 20.0;

    fn new(trained: &'a Idf, texts: &[&Bag]) -> Self {
        let trained = trained.as_slice();
        let mut frequencies: Vec<f32> = trained.iter().map(|w| Self::PRIOR * (1.0 - w).exp()).collect();
        texts.iter().flat_map(|b| &b.tokens).for_each(|&t| frequencies[t as usize] += 1.0);
        Self { trained, frequencies, texts: Self::PRIOR + texts.len() as f32 }
    }

    /// The bag with these weights in place of the training's, of unit norm again.
    fn reweigh(&self, bag: &Bag) -> Bag {
        let idf = |t: usize| ((1.0 + self.texts) / (1.0 + self.frequencies[t])).ln() + 1.0;
        let weight = |(&t, w): (&u32, &f32)| w * idf(t as usize) / self.trained[t as usize];
        let mut weights: Vec<f32> = bag.tokens.iter().zip(&bag.weights).map(weight).collect();
        let norm = weights.iter().map(|w| w * w).sum::<f32>().sqrt();
        weights.iter_mut().for_each(|w| *w /= norm.max(f32::MIN_POSITIVE));
        Bag { tokens: bag.tokens.clone(), weights }
    }
}

/// One episode's views, a row a text (queries first), a column a class.
struct Scorer {
    n: usize,
    support: Vec<(usize, Bag)>,
    texts: Vec<Bag>,
    /// NC.
    similarity: Vec<Vec<f32>>,
    /// tr; empty where the model does not know the classes.
    transfer: Vec<Vec<f32>>,
    /// How much of a text's probability over all the model's classes lies on the episode's.
    mass: Vec<f32>,
}

impl Scorer {
    fn new(n: usize, support: Vec<(usize, Bag)>, texts: Vec<Bag>) -> Self {
        let vocabulary = vocabulary(support.iter().map(|e| &e.1).chain(&texts));
        let mut centroids = vec![vec![0.0; vocabulary]; n];
        support.iter().for_each(|(class, bag)| add(&mut centroids[*class], 1.0, bag));
        let similarity = cosines(&texts, &centroids);
        let mass = vec![1.0; texts.len()];
        Self { n, support, texts, similarity, transfer: Vec::new(), mass }
    }

    /// Adds the model's view from its logits: of the support texts first, then of the texts.
    fn transfer(&mut self, logits: &[Vec<f32>], outputs: &[usize], support: usize) {
        let mean = |o: usize| logits[..support].iter().map(|l| l[o]).sum::<f32>() / support as f32;
        let half: Vec<f32> = outputs.iter().map(|&o| 0.5 * mean(o)).collect();
        for (i, l) in logits[support..].iter().enumerate() {
            let centred: Vec<f32> = outputs.iter().zip(&half).map(|(&o, h)| l[o] - h).collect();
            self.transfer.push(log_softmax(&centred).into_iter().map(|x| x.max(FLOOR)).collect());
            let all = softmax(l);
            self.mass[i] = outputs.iter().map(|&o| all[o]).sum();
        }
    }

    /// u: what is known of each text by itself.
    fn known(&self) -> Vec<Vec<f32>> {
        let known = |i: usize| -> Vec<f32> {
            let near = centred(&self.similarity[i]);
            (0..self.n).map(|c| near[c] / TEMPERATURE + self.transfer.get(i).map_or(0.0, |t| t[c])).collect()
        };
        (0..self.texts.len()).map(known).collect()
    }

    fn scores(&self) -> Vec<Vec<f32>> {
        let u = self.known();
        if self.texts.len() < TEXTS_PER_CLASS * self.n {
            return u;
        }
        let join = |s: &[Vec<f32>]| -> Vec<Vec<f32>> {
            let row =
                |(s, u): (&Vec<f32>, &Vec<f32>)| s.iter().zip(u).map(|(s, u)| s / TEMPERATURE + 0.5 * u).collect();
            s.iter().zip(&u).map(row).collect()
        };
        let first = self.soft_centroids(&u);
        join(&self.soft_centroids(&join(&first)))
    }

    /// e(SC) with votes P(scores) * mass of each text.
    fn soft_centroids(&self, scores: &[Vec<f32>]) -> Vec<Vec<f32>> {
        let mut votes: Vec<Vec<f32>> = self.support.iter().map(|e| one_hot(e.0, self.n)).collect();
        votes.extend(scores.iter().zip(&self.mass).map(|(s, m)| softmax(s).iter().map(|p| p * m).collect()));
        votes.iter_mut().for_each(|v| *v = centred(v));
        let mean: Vec<f32> =
            (0..self.n).map(|c| votes.iter().map(|v| v[c]).sum::<f32>() / votes.len() as f32).collect();
        let bags = || self.support.iter().map(|e| &e.1).chain(&self.texts);
        let mut centroids = vec![vec![0.0; vocabulary(bags())]; self.n];
        for (bag, vote) in bags().zip(&votes) {
            (0..self.n).for_each(|c| add(&mut centroids[c], vote[c] - mean[c], bag));
        }
        cosines(&self.texts, &centroids).iter().map(|s| centred(s)).collect()
    }
}

/// One more than the largest token.
fn vocabulary<'a>(bags: impl Iterator<Item = &'a Bag>) -> usize {
    bags.filter_map(|b| b.tokens.last()).max().map_or(0, |&t| t as usize + 1)
}

fn add(centroid: &mut [f32], weight: f32, bag: &Bag) {
    bag.tokens.iter().zip(&bag.weights).for_each(|(&t, w)| centroid[t as usize] += weight * w);
}

/// The product of each unit-norm bag with each centroid over the centroid's norm.
fn cosines(bags: &[Bag], centroids: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let norm = |c: &Vec<f32>| c.iter().map(|x| x * x).sum::<f32>().sqrt();
    let inverse: Vec<f32> = centroids.iter().map(|c| if norm(c) > 0.0 { 1.0 / norm(c) } else { 0.0 }).collect();
    let dot = |bag: &Bag, c: &[f32]| bag.tokens.iter().zip(&bag.weights).map(|(&t, w)| c[t as usize] * w).sum::<f32>();
    bags.iter().map(|bag| centroids.iter().zip(&inverse).map(|(c, inv)| dot(bag, c) * inv).collect()).collect()
}

fn one_hot(class: usize, n: usize) -> Vec<f32> {
    (0..n).map(|c| if c == class { 1.0 } else { 0.0 }).collect()
}

fn centred(x: &[f32]) -> Vec<f32> {
    let mean = x.iter().sum::<f32>() / x.len() as f32;
    x.iter().map(|v| v - mean).collect()
}

fn log_softmax(x: &[f32]) -> Vec<f32> {
    let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let log_sum = max + x.iter().map(|v| (v - max).exp()).sum::<f32>().ln();
    x.iter().map(|v| v - log_sum).collect()
}

fn softmax(x: &[f32]) -> Vec<f32> {
    log_softmax(x).into_iter().map(f32::exp).collect()
}
