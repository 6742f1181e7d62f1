//! The learning rate over the steps: linear warm-up, then half a cosine down to a floor (Loshchilov and Hutter, "SGDR",
//! 2017, eq. 5, one cycle).
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A learning rate for every step, known without history.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// The highest rate.
    pub lr: f64,
    /// Steps over which the rate rises from lr / warmup to lr.
    pub warmup: u64,
    /// Steps of the whole run; the rate stays at its floor after them.
    pub steps: u64,
    /// The last rate, as a share of `lr`; 1 keeps the rate constant.
    pub floor: f64,
}

impl Schedule {
    /// Checks every value's range.
    pub fn validate(&self) -> Result<()> {
        if !(self.lr.is_finite() && self.lr > 0.0 && (0.0..=1.0).contains(&self.floor)) {
            return Err(Error::config("schedule", format!("the rate is above 0 and the floor in [0, 1]: {self:?}")));
        }
        Ok(())
    }

    /// The rate of step `step`, from 0.
    pub fn rate(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.lr * (step + 1) as f64 / self.warmup as f64;
        }
        let (done, span) = (step - self.warmup, self.steps.saturating_sub(self.warmup).max(1));
        let phase = (done as f64 / span as f64).min(1.0);
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * phase).cos());
        self.lr * (self.floor + (1.0 - self.floor) * cosine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_to_the_rate_then_falls_to_the_floor() {
        let s = Schedule { lr: 2.0, warmup: 4, steps: 104, floor: 0.1 };
        assert_eq!([s.rate(0), s.rate(3), s.rate(4)], [0.5, 2.0, 2.0]);
        assert!((s.rate(54) - 2.0 * 0.55).abs() < 1e-12, "half way: the mean of rate and floor");
        assert!((s.rate(104) - 0.2).abs() < 1e-12 && s.rate(1_000_000) == s.rate(104));
        assert!((4..104).all(|t| s.rate(t + 1) <= s.rate(t)));
    }
}
