//! `cbin-audit memory`.

use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use anyhow::Context;
use cbin_audit::model::{InodeId, MemoryReport, Notice, Silent};
use cbin_audit::ops::{MemoryOptions, memory};
use cbin_audit::render::{Page, escape, json};
use cbin_audit::{render, scan};

use super::args::{Shared, When};
use super::exit::Exit;

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
    raise_descriptor_limit();
    let host = scan::host();
    let mut options = MemoryOptions::new(host.page_size);
    options.processes = shared.json || arguments.processes;
    options.threads = shared.threads.map_or(options.threads, usize::from);
    for root in &arguments.roots {
        let found = std::fs::metadata(root)
            .with_context(|| escape::escape(root.as_os_str().as_encoded_bytes()))?;
        options.roots.push((InodeId { dev: found.dev(), ino: found.ino() }, root.clone().into()));
    }
    options.only_roots = !arguments.roots.is_empty();
    let found = memory(&options, &Silent)?;
    let mut out = io::stdout().lock();
    if shared.json {
        json::write(&mut out, &json::MemoryDocument::new(&found, &host))?;
    } else {
        let page = page(arguments, shared);
        render::memory::write(&mut out, &page, &found, &host, arguments.processes)?;
    }
    out.flush()?;
    tell(&found, shared);
    Ok(if found.notices.complete() { Exit::Done } else { Exit::Partial })
}

fn page(arguments: &Arguments, shared: &Shared) -> Page {
    let terminal = io::stdout().is_terminal();
    let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let color = match shared.color {
        When::Auto => terminal && wanted,
        When::Always => true,
        When::Never => false,
    };
    let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let top = if arguments.top == 0 { usize::MAX } else { arguments.top };
    Page { width: columns.unwrap_or(100), color, verbose: shared.verbose, top }
}

/// Notices on standard error; in a JSON document they stand themselves.
fn tell(found: &MemoryReport, shared: &Shared) {
    if shared.quiet || shared.json {
        return;
    }
    for Notice { path, doing, cause, .. } in found.notices.iter() {
        let path = escape::escape(path.as_bytes());
        let cause = escape::escape(cause.as_bytes());
        // Nothing is left to be told to anybody when standard error is gone.
        let _gone = writeln!(io::stderr(), "cbin-audit: cannot {doing} {path}: {cause}");
    }
}

/// Every mapped file is held while it is looked at.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // With the lower limit files are read less, and that is told.
    let _lower = setrlimit(Resource::Nofile, raised);
}
