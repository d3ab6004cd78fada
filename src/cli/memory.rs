//! `cbin-audit memory`.

use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use anyhow::Context;
use cbin_audit::model::InodeId;
use cbin_audit::ops::{MemoryOptions, memory};
use cbin_audit::render::json;
use cbin_audit::{render, scan};

use super::exit::Exit;
use super::progress::Display;
use super::shared::Shared;
use super::{interrupt, message, terminal};

/// Text pages in memory, per program, per container, per process: shared, private, held twice
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Show only containers whose root is one of these directories
    #[arg(value_name = "ROOT")]
    roots: Vec<PathBuf>,
    /// List every process
    #[arg(long)]
    processes: bool,
    /// Rows of each table (0: all)
    #[arg(long, value_name = "N", default_value_t = 20)]
    top: usize,
}

pub(crate) fn run(arguments: &Arguments, shared: &Shared) -> anyhow::Result<Exit> {
    let host = scan::host();
    let mut options = MemoryOptions::new(host.page_size);
    options.processes = shared.json || arguments.processes;
    options.threads = shared.threads.map_or(options.threads, usize::from);
    for root in &arguments.roots {
        let found = std::fs::metadata(root).with_context(|| message::quoted(root))?;
        options.roots.push((InodeId { dev: found.dev(), ino: found.ino() }, root.clone().into()));
    }
    options.only_roots = !arguments.roots.is_empty();
    let progress = Display::new(shared.progress);
    let shown = progress.clone();
    interrupt::on_signal(move || shown.clear())?;
    let found = memory(&options, &progress);
    progress.clear();
    let found = found?;
    message::notices(&found.notices, shared);
    let mut out = io::stdout().lock();
    if shared.json {
        json::write(&mut out, &json::MemoryDocument::new(&found, &host))?;
    } else {
        let page = terminal::page(shared, arguments.top);
        render::memory::write(&mut out, &page, &found, &host, arguments.processes)?;
    }
    out.flush()?;
    Ok(if found.notices.complete() { Exit::Done } else { Exit::Partial })
}
