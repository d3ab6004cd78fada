//! `cbin-audit verify`: whether what runs changed still stands.

use std::io::{self, Write};
use std::path::PathBuf;

use cbin_audit::model::{ContainerPath, Verified};
use cbin_audit::ops::{VerifyOptions, verify};
use cbin_audit::render::json::VerifyDocument;
use cbin_audit::render::{self, json};
use cbin_audit::scan;

use super::exit::Exit;
use super::progress::Display;
use super::shared::Shared;
use super::{interrupt, message, terminal};

/// Whether the store, links, mounts and shared pages are as runs left them. Nothing is changed
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    /// A container's `/`, or a directory that holds several; every root that a run changed when none is named
    #[arg(value_name = "ROOT")]
    roots: Vec<PathBuf>,
    /// The store on the host, beside those that runs name
    #[arg(long, value_name = "DIR", default_value = "/home/cbin")]
    store: PathBuf,
    /// The store's path inside the containers
    #[arg(long, value_name = "DIR", default_value = "/cbin")]
    mount_point: PathBuf,
    /// The journal's directory
    #[arg(long, value_name = "DIR", default_value = "/var/lib/cbin-audit")]
    journal: PathBuf,
    /// Do not compare pages in memory
    #[arg(long)]
    no_memory: bool,
    /// Look at N names below one root at most
    #[arg(long, value_name = "N", default_value = "10000000")]
    max_entries: u64,
    /// Rows of each list (0: all)
    #[arg(long, value_name = "N", default_value_t = 20)]
    top: usize,
}

pub(crate) fn run(shared: &Shared, arguments: &Arguments) -> anyhow::Result<Exit> {
    let progress = Display::new(shared.progress);
    let shown = progress.clone();
    interrupt::on_signal(move || shown.clear())?;
    let found = verify(&options(arguments)?, &progress);
    progress.clear();
    let found = found?;
    message::notices(&found.notices, shared);
    let mut out = io::stdout().lock();
    if shared.json {
        json::write(&mut out, &VerifyDocument::new(&found, &scan::host()))?;
    } else {
        let page = terminal::page(shared, arguments.top);
        render::verify::write(&mut out, &page, &found)?;
    }
    out.flush()?;
    Ok(exit(&found))
}

fn options(arguments: &Arguments) -> io::Result<VerifyOptions> {
    Ok(VerifyOptions {
        roots: arguments.roots.clone(),
        store: std::path::absolute(&arguments.store)?,
        mount_point: ContainerPath(arguments.mount_point.clone()),
        journal: arguments.journal.clone(),
        memory: !arguments.no_memory,
        max_entries: arguments.max_entries,
    })
}

/// Damage counts most, then what was found, then what could not be looked at.
fn exit(found: &Verified) -> Exit {
    if found.damaged() {
        Exit::Damaged
    } else if !found.ok() {
        Exit::Found
    } else if !found.notices.complete() {
        Exit::Partial
    } else {
        Exit::Done
    }
}
