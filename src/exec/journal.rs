//! The journal's directory: a file for each run, below `runs/`.

mod line;
mod read;
mod short;
mod write;

use std::fs;
use std::path::{Path, PathBuf};

use super::error::ExecError;
use crate::model::RunId;

pub use read::{Attach, Config, Entry, Reading, Run, begin, is_finished, is_gone, read};
pub use short::{Placed, PlacedEntry, Short, in_short, placed};
pub(crate) use write::Journal;

/// Where a run's records are.
pub(crate) fn file(journal: &Path, run: RunId) -> PathBuf {
    journal.join("runs").join(format!("{:06}.journal", run.0))
}

/// The runs of a journal, oldest first; other names are left alone.
///
/// # Errors
///
/// When the directory cannot be listed; that it does not exist is no error.
pub fn runs(journal: &Path) -> Result<Vec<RunId>, ExecError> {
    let dir = journal.join("runs");
    let entries = match fs::read_dir(&dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(ExecError::io("list", &dir))?,
    };
    let mut runs = Vec::new();
    for entry in entries {
        let name = entry.map_err(ExecError::io("list", &dir))?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".journal"));
        runs.extend(number.and_then(|number| number.parse().ok()).map(RunId));
    }
    runs.sort();
    Ok(runs)
}
