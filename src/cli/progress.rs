//! Progress on standard error: a bar on a terminal, a plain line now and then in a log.
#![forbid(unsafe_code)]

use std::io::{IsTerminal, stderr};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

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
