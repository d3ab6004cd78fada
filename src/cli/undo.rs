//! `cbin-audit undo`.

use std::path::PathBuf;

use cbin_audit::model::{RunId, Undone};
use cbin_audit::ops::{self, UndoOptions};
use cbin_audit::render::escape::{escape, escape_controls};
use cbin_audit::render::human;
use cbin_audit::render::json::UndoneDocument;
use cbin_audit::scan;

use super::change::{self, JournalAt};
use super::exit::Exit;
use super::interrupt;
use super::progress::Display;
use super::shared::Shared;

/// Put back what a run of dedupe changed
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The run, as history numbers it (default: the newest that stands)
    #[arg(value_name = "RUN")]
    run: Option<u64>,
    /// Only this root of it: before it is exported, say
    #[arg(long, value_name = "ROOT")]
    root: Option<PathBuf>,
    #[command(flatten)]
    journal: JournalAt,
}

pub(crate) fn run(shared: &Shared, arguments: &Arguments) -> anyhow::Result<Exit> {
    let stop = interrupt::stop_flag()?;
    let progress = Display::new(shared.progress);
    let options = UndoOptions {
        journal: &arguments.journal.dir,
        run: arguments.run.map(RunId),
        root: arguments.root.as_deref(),
        stop: &stop,
    };
    let undone = ops::undo(options, &progress);
    progress.clear();
    let undone = undone.map_err(change::hinted)?;
    let host = scan::host();
    let document = UndoneDocument::new(&undone, &host);
    change::print(shared.json, &document, || text(&undone))?;
    let complete = undone.kept.is_empty() && undone.surroundings.is_empty();
    Ok(if complete { Exit::Done } else { Exit::Partial })
}

fn text(undone: &Undone) -> String {
    let mut text = change::recovered(&undone.recovered);
    text.push_str(&format!(
        "run {} is {}: {}\n",
        undone.run,
        change::words(undone.state),
        human::plural(undone.restored, "entry is as it was", "entries are as they were")
    ));
    if !undone.kept.is_empty() {
        text.push_str(&format!("{} are kept as they are:\n", undone.kept.len()));
        text.push_str(&change::left(&undone.kept));
    }
    for (path, cause) in &undone.surroundings {
        let (path, cause) = (escape(path.as_bytes()), escape_controls(cause));
        text.push_str(&format!("  {path}: {cause}\n"));
    }
    text
}
