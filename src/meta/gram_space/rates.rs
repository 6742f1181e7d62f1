//! The inner rates as one episode's loop uses them: the diagonal matrix A_k, over the first layer's coefficients (N x H,
//! a column a unit) and over the head, and the gradient with respect to it.
#![forbid(unsafe_code)]

use std::ops::Range;

use crate::backend::Lane;
use crate::cpu::KernelElement;
use crate::error::{Error, Result};
use crate::meta::{InnerLoop, Rates};
use crate::model::MlpShape;

/// Rates of a shape whose first layer is layer `below` of the whole model: with a frozen body the shape is its end alone.
#[derive(Clone, Copy)]
pub(super) struct StepRates<'a> {
    rates: Rates<'a>,
    /// Layers of the whole model, layers below this shape, and their units.
    layers: usize,
    below: usize,
    units_below: usize,
}

impl<'a> StepRates<'a> {
    pub fn new(inner: &InnerLoop<'a>, whole: &MlpShape, shape: &MlpShape) -> Self {
        let below = whole.layers() - shape.layers();
        let units_below = whole.widths[..below].iter().sum();
        Self { rates: inner.rates, layers: whole.layers(), below, units_below }
    }

    /// The one rate of everything, if there is one.
    pub fn single<T: KernelElement>(&self) -> Option<T> {
        match self.rates {
            Rates::Same(lr) => Some(T::from_f64(lr)),
            _ => None,
        }
    }

    /// Rate of layer `l` (from 1, of this shape) in step `k`, where its units share one; and its place in the gradient.
    fn of_layer(&self, k: usize, l: usize) -> Option<(f64, usize)> {
        match self.rates {
            Rates::Same(lr) => Some((lr, 0)),
            Rates::Layers(rates) => {
                let i = k * self.layers + self.below + l - 1;
                Some((rates[i], i))
            }
            _ => None,
        }
    }

    /// Rates of the `width` units of a layer that starts at `unit` of this shape, and their place in the gradient.
    fn of_units(&self, unit: usize, width: usize) -> Result<(&'a [f64], Range<usize>)> {
        let range = self.units_below + unit..self.units_below + unit + width;
        match self.rates {
            Rates::Units(rates) => Ok((&rates[range.clone()], range)),
            _ => Err(Error::config("rates", "a rate per weight does not fit Gram space")),
        }
    }

    /// `c = keep c + e A_k`, both N x H of the first layer.
    pub fn scale_first<T: KernelElement>(
        &self,
        lane: &mut Lane<T>,
        k: usize,
        (keep, h): (T, usize),
        e: &[T],
        c: &mut [T],
    ) -> Result<()> {
        scale(keep, c);
        if let Some((rate, _)) = self.of_layer(k, 1) {
            return lane.axpy(T::from_f64(rate), e, c);
        }
        let (rates, _) = self.of_units(0, h)?;
        for (c, e) in c.chunks_exact_mut(h).zip(e.chunks_exact(h)) {
            c.iter_mut().zip(e).zip(rates).for_each(|((c, &e), &rate)| *c += T::from_f64(rate) * e);
        }
        Ok(())
    }

    /// `phi = keep phi - A_k m` over the head.
    pub fn subtract_head<T: KernelElement>(
        &self,
        lane: &mut Lane<T>,
        shape: &MlpShape,
        k: usize,
        keep: T,
        m: &[T],
        phi: &mut [T],
    ) -> Result<()> {
        scale(keep, phi);
        self.each_part(shape, k, |rate, range, _| lane.axpy(-T::from_f64(rate), &m[range.clone()], &mut phi[range]))
    }

    /// Adds the rates' gradient of step k: column sums of c_bar * e for the first layer, -(v . m) for the head.
    pub fn add_gradient<T: KernelElement>(
        &self,
        shape: &MlpShape,
        k: usize,
        [c_bar, e]: [&[T]; 2],
        [v, m]: [&[T]; 2],
        gradient: &mut [T],
    ) -> Result<()> {
        self.each_part(shape, k, |_, range, place| {
            gradient[place] += T::from_f64(-dot(&v[range.clone()], &m[range]));
            Ok(())
        })?;
        if let Some((_, place)) = self.of_layer(k, 1) {
            gradient[place] += T::from_f64(dot(c_bar, e));
            return Ok(());
        }
        let h = shape.hidden();
        let (_, places) = self.of_units(0, h)?;
        for (c_bar, e) in c_bar.chunks_exact(h).zip(e.chunks_exact(h)) {
            let units = gradient[places.clone()].iter_mut().zip(c_bar.iter().zip(e));
            units.for_each(|(g, (&c, &e))| *g += c * e);
        }
        Ok(())
    }

    /// Calls `f(rate, range of the head, place in the gradient)` for all parts of the head with one rate.
    fn each_part(
        &self,
        shape: &MlpShape,
        k: usize,
        mut f: impl FnMut(f64, Range<usize>, usize) -> Result<()>,
    ) -> Result<()> {
        if let Rates::Same(lr) = self.rates {
            return f(lr, 0..shape.head_len(), 0);
        }
        let mut unit = shape.hidden();
        for layer in shape.head_layers() {
            if let Some((rate, place)) = self.of_layer(k, layer.l) {
                f(rate, layer.weight.start..layer.bias.end, place)?;
            } else {
                let (rates, places) = self.of_units(unit, layer.outputs)?;
                for (i, (&rate, place)) in rates.iter().zip(places).enumerate() {
                    let start = layer.weight.start + i * layer.inputs;
                    f(rate, start..start + layer.inputs, place)?;
                    f(rate, layer.bias.start + i..layer.bias.start + i + 1, place)?;
                }
            }
            unit += layer.outputs;
        }
        Ok(())
    }
}

/// `x *= factor`, doing nothing for 1; 0 clears whatever was there.
pub(super) fn scale<T: KernelElement>(factor: T, x: &mut [T]) {
    if factor == T::ZERO {
        x.fill(T::ZERO);
    } else if factor != T::ONE {
        x.iter_mut().for_each(|x| *x *= factor);
    }
}

/// The dot product, summed in f64.
pub(in crate::meta) fn dot<T: KernelElement>(a: &[T], b: &[T]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a.to_f64() * b.to_f64()).sum()
}
