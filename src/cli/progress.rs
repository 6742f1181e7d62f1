//! Progress on standard error: a bar on a terminal, a plain line now and then in a log.
#![forbid(unsafe_code)]

use std::io::{IsTerminal, stderr};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::train::Report;

/// In a log, a line for each so many.
const STEP: u64 = 1_000_000;

/// Counts things of which nobody knows how many will come.
pub(super) struct Progress {
    what: &'static str,
    bar: Option<ProgressBar>,
    count: u64,
}

impl Progress {
    /// `what` is counted, in the plural.
    pub(super) fn new(what: &'static str) -> Self {
        let bar = stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{spinner} {human_pos} {msg}, {per_sec}, {elapsed}");
            bar.with_style(style.expect("the template is a constant")).with_message(what)
        });
        Progress { what, bar, count: 0 }
    }

    pub(super) fn add(&mut self, more: u64) {
        let before = self.count / STEP;
        self.count += more;
        match &self.bar {
            Some(bar) => bar.inc(more),
            None if self.count / STEP > before => eprintln!("metaglot: {} {}", self.count, self.what),
            None => {}
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A training run's steps: a bar on a terminal, a plain line for each report in a log.
pub(super) struct StepProgress {
    task: &'static str,
    bar: Option<ProgressBar>,
    steps: u64,
}

impl StepProgress {
    /// A run of `task` that has done `done` of `steps` steps.
    pub(super) fn new(task: &'static str, done: u64, steps: u64) -> Self {
        let bar = stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{prefix} [{bar:30}] {pos}/{len} {elapsed} eta {eta}  {msg}");
            bar.set_style(style.expect("the template is a constant"));
            bar.with_prefix(task).with_position(done)
        });
        StepProgress { task, bar, steps }
    }

    pub(super) fn step(&mut self, step: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(step);
        }
    }

    pub(super) fn report(&mut self, r: &Report) {
        let valid = match (r.valid_loss, r.valid_accuracy) {
            (Some(loss), Some(accuracy)) => format!(", unseen languages: loss {loss:.4}, right {accuracy:.4}"),
            _ => String::new(),
        };
        let (loss, right, best) = (r.train_loss, r.train_accuracy, if r.best { " *" } else { "" });
        let lost = match r.valid_diverged {
            0 => String::new(),
            n => format!(", {n} episodes diverged"),
        };
        let line = format!("loss {loss:.4}, right {right:.4}{valid}{lost}{best}");
        match &self.bar {
            Some(bar) => bar.set_message(line),
            None => eprintln!("metaglot: {} step {}/{}: {line}", self.task, r.step, self.steps),
        }
    }

    pub(super) fn finish(self) {
        if let Some(bar) = self.bar {
            bar.abandon();
        }
    }
}
