//! Records are written: each is one line, flushed before anything else is done.
#![expect(clippy::disallowed_methods, reason = "the journal is the tool's own file")]

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::line;
use crate::exec::directories::nanoseconds;
use crate::exec::error::ExecError;
use crate::exec::place::stat_now;
use crate::exec::prefix;
use crate::model::{Record, RunId};

/// The journal of one run, open for appending.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    path: PathBuf,
    /// The run.
    pub(crate) run: RunId,
    /// What a write left behind is not known once one has failed: there is no second try.
    poisoned: bool,
}

impl Journal {
    /// Begins a new run's file.
    pub(crate) fn create(journal: &Path, run: RunId) -> Result<Self, ExecError> {
        let (runs, dir) = prefix::make(&journal.join("runs"), 0o700)?;
        let path = super::file(journal, run);
        let mut options = OpenOptions::new();
        options.append(true).create_new(true).mode(0o600);
        let file = options.open(&path).map_err(ExecError::io("make", &path))?;
        dir.sync_all().map_err(ExecError::io("flush", runs))?;
        Ok(Self { file, path, run, poisoned: false })
    }

    /// Goes on with a run's file: what lies behind its first `length` bytes was never
    /// flushed whole, and is cut away.
    pub(crate) fn reopen(journal: &Path, run: RunId, length: u64) -> Result<Self, ExecError> {
        let path = super::file(journal, run);
        let file = OpenOptions::new().append(true).open(&path);
        let file = file.map_err(ExecError::io("open", &path))?;
        let found = file.metadata().map_err(ExecError::io("look at", &path))?;
        if found.len() != length {
            file.set_len(length).map_err(ExecError::io("cut", &path))?;
        }
        Ok(Self { file, path, run, poisoned: false })
    }

    /// When it was last written, in nanoseconds since the epoch, by the clock of file systems.
    pub(crate) fn time(&self) -> Result<i64, ExecError> {
        let stat = stat_now(self.file.as_fd()).map_err(ExecError::io("look at", &self.path))?;
        Ok(nanoseconds(stat.stx_mtime))
    }

    /// Writes a record and flushes it.
    pub(crate) fn append(&mut self, record: &Record) -> Result<(), ExecError> {
        self.append_all(std::slice::from_ref(record))
    }

    /// Writes records, and flushes them together.
    pub(crate) fn append_all(&mut self, records: &[Record]) -> Result<(), ExecError> {
        if records.is_empty() {
            return Ok(());
        }
        if self.poisoned {
            return Err(ExecError::JournalPoisoned { path: self.path.clone() });
        }
        let mut lines = Vec::new();
        for record in records {
            lines.extend(line::encode(record).map_err(|error| ExecError::Io {
                doing: "encode a record for",
                path: self.path.clone(),
                source: error.into(),
            })?);
        }
        let written = self.file.write_all(&lines).and_then(|()| self.file.sync_data());
        self.poisoned = written.is_err();
        written.map_err(ExecError::io("write", &self.path))
    }
}
