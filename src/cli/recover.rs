//! `cbin-audit recover`.

use cbin_audit::model::RunState;
use cbin_audit::ops;
use cbin_audit::render::json::RecoveredDocument;
use cbin_audit::scan;

use super::change::{self, JournalAt};
use super::exit::Exit;
use super::shared::Shared;

/// Bring a run to an end that was cut off; every command that changes something does this first
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    journal: JournalAt,
}

pub(crate) fn run(shared: &Shared, arguments: &Arguments) -> anyhow::Result<Exit> {
    let runs = ops::recover(&arguments.journal.dir).map_err(change::hinted)?;
    let host = scan::host();
    let document = RecoveredDocument::new(&runs, &host);
    change::print(shared.json, &document, || match runs.as_slice() {
        [] => "every run came to its end: nothing to recover\n".to_owned(),
        runs => change::recovered(runs),
    })?;
    let open = runs.iter().any(|run| run.state == RunState::Unfinished);
    Ok(if open { Exit::Stopped } else { Exit::Done })
}
