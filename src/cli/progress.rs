//! How far the work is, on standard error.

use std::io::{IsTerminal, Write, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use cbin_audit::model::{Phase, Progress};

use super::shared::When;

/// Shows how far the work is.
#[derive(Debug, Clone)]
pub(crate) enum Display {
    /// Nothing.
    Hidden,
    /// One line that changes, on a terminal.
    Bar(ProgressBar),
    /// A line per phase, where lines cannot change.
    Lines,
}

impl Display {
    /// On a terminal, unless the user says otherwise.
    pub(crate) fn new(when: When) -> Self {
        match (when, stderr().is_terminal()) {
            (When::Never, _) | (When::Auto, false) => Self::Hidden,
            (When::Always, false) => Self::Lines,
            (_, true) => Self::Bar(bar()),
        }
    }

    /// Takes the line away, before anything else is written.
    pub(crate) fn clear(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10))
        .with_style(style("", None));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// The words of a phase, and of what it counts.
fn words(phase: Phase) -> (&'static str, &'static str) {
    match phase {
        Phase::Roots => ("finding roots", "roots"),
        Phase::Walk => ("listing names", "names"),
        Phase::Read => ("reading files", "files"),
        Phase::Memory => ("asking processes", "processes"),
        Phase::Change => ("changing entries", "entries"),
    }
}

impl Progress for Display {
    fn start(&self, phase: Phase, total: Option<u64>) {
        let (doing, counted) = words(phase);
        match self {
            Self::Hidden => {}
            Self::Bar(bar) => {
                bar.set_position(0);
                match total {
                    Some(total) => bar.set_length(total),
                    None => bar.unset_length(),
                }
                bar.set_message(doing);
                bar.set_style(style(counted, total));
            }
            Self::Lines => {
                let total = total.map_or_else(String::new, |total| format!(": {total} {counted}"));
                // Progress that cannot be shown is no reason to stop.
                let _unseen = writeln!(stderr(), "cbin-audit: {doing}{total}");
            }
        }
    }

    fn advance(&self, by: u64) {
        if let Self::Bar(bar) = self {
            bar.inc(by);
        }
    }
}

fn style(counted: &str, total: Option<u64>) -> ProgressStyle {
    let template = match total {
        Some(_) => {
            format!("{{spinner}} {{msg}} {{bar:30}} {{human_pos}}/{{human_len}} {counted} {{eta}}")
        }
        None => format!("{{spinner}} {{msg}} {{human_pos}} {counted} {{elapsed}}"),
    };
    ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}
