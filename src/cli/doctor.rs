//! `cbin-audit doctor`: what this host and its containers allow.

use std::io::{self, Write};
use std::path::PathBuf;

use cbin_audit::model::ContainerPath;
use cbin_audit::ops::{DoctorOptions, doctor};
use cbin_audit::render::json::DoctorDocument;
use cbin_audit::render::{self, json};
use cbin_audit::scan;

use super::exit::Exit;
use super::shared::Shared;
use super::{message, terminal};

/// What this host and each container allow, why not, and what would change it. Nothing is changed
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    /// A container's `/`, or a directory that holds several; discovered when none is named
    #[arg(value_name = "ROOT")]
    roots: Vec<PathBuf>,
    /// The store on the host
    #[arg(long, value_name = "DIR", default_value = "/home/cbin")]
    store: PathBuf,
    /// The store's path inside the containers
    #[arg(long, value_name = "DIR", default_value = "/cbin")]
    mount_point: PathBuf,
    /// Rows of each table (0: all)
    #[arg(long, value_name = "N", default_value_t = 20)]
    top: usize,
}

pub(crate) fn run(shared: &Shared, arguments: &Arguments) -> anyhow::Result<Exit> {
    let found = doctor(&DoctorOptions {
        roots: arguments.roots.clone(),
        store: arguments.store.clone(),
        mount_point: ContainerPath(arguments.mount_point.clone()),
    })?;
    message::notices(&found.notices, shared);
    let mut out = io::stdout().lock();
    if shared.json {
        json::write(&mut out, &DoctorDocument::new(&found, &scan::host()))?;
    } else {
        let page = terminal::page(shared, arguments.top);
        render::doctor::write(&mut out, &page, &found)?;
    }
    out.flush()?;
    Ok(if found.notices.complete() { Exit::Done } else { Exit::Partial })
}
