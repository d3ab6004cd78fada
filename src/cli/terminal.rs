//! What the terminal shows, and how wide it is.

use std::io::{IsTerminal, stdout};

use cbin_audit::render::Page;

use super::shared::{Shared, When};

/// Columns where there is no terminal to be asked.
const COLUMNS: u16 = 100;

/// What standard output holds of an answer; `top` rows of each table, 0 for all.
pub(crate) fn page(shared: &Shared, top: usize) -> Page {
    Page {
        width: width(),
        color: color(shared.color, false),
        verbose: shared.verbose,
        top: if top == 0 { usize::MAX } else { top },
    }
}

/// The width of standard output's terminal; `COLUMNS` says it for a pipe.
pub(crate) fn width() -> u16 {
    let said = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    said.or_else(|| rustix::termios::tcgetwinsize(stdout()).ok().map(|size| size.ws_col))
        .filter(|&columns| columns > 0)
        .unwrap_or(COLUMNS)
}

/// Colour as the user says; otherwise on a terminal that has it, unless
/// `NO_COLOR` is set to anything, or the answer goes `to_file`.
pub(crate) fn color(when: When, to_file: bool) -> bool {
    match when {
        When::Always => true,
        When::Never => false,
        When::Auto => {
            let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
            !to_file && stdout().is_terminal() && !refused && !dumb
        }
    }
}
