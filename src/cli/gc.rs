//! `cbin-audit gc`.

use std::path::PathBuf;

use cbin_audit::model::{Bytes, Collected};
use cbin_audit::ops;
use cbin_audit::render::escape::escape;
use cbin_audit::render::human;
use cbin_audit::render::json::CollectedDocument;
use cbin_audit::scan;

use super::change::{self, JournalAt};
use super::exit::Exit;
use super::shared::Shared;

/// Remove objects from the store that no run needs: runs that were undone need none
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The store, beside those that the journal names
    #[arg(long, value_name = "DIR", default_value = "/home/cbin")]
    store: PathBuf,
    #[command(flatten)]
    journal: JournalAt,
}

pub(crate) fn run(shared: &Shared, arguments: &Arguments) -> anyhow::Result<Exit> {
    let collected = ops::gc(&arguments.journal.dir, &arguments.store).map_err(change::hinted)?;
    let host = scan::host();
    let document = CollectedDocument::new(&collected, &host);
    change::print(shared.json, &document, || text(&collected))?;
    Ok(Exit::Done)
}

fn text(collected: &Collected) -> String {
    let mut text = String::new();
    for (path, bytes) in &collected.removed {
        text.push_str(&format!("removed {} ({})\n", escape(path.as_bytes()), human::size(*bytes)));
    }
    let total: Bytes = collected.removed.iter().map(|(_, bytes)| *bytes).sum();
    let (gone, kept) = (collected.removed.len(), collected.kept);
    text.push_str(&format!("{gone} objects removed ({}), {kept} are needed\n", human::size(total)));
    text
}
