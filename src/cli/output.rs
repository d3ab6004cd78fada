//! Where an answer goes: standard output, or a file that is written whole or not at all.

#![allow(
    clippy::disallowed_methods,
    reason = "the output file is the user's own, named on the command line"
)]

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, bail};

use super::message::quoted;

/// Where an answer goes.
#[derive(Debug)]
pub(crate) enum Output {
    /// Standard output.
    Standard,
    /// A device, a FIFO: it cannot be replaced, so it is written as it is.
    Special(File, PathBuf),
    /// A regular file: a new one takes its place when it is whole.
    Regular(Replacement),
}

impl Output {
    /// Opens it, so that a run which could not write its answer ends before it begins.
    pub(crate) fn open(path: Option<&Path>) -> anyhow::Result<Self> {
        path.map_or(Ok(Self::Standard), |path| Self::open_file(path, 0o666))
    }

    /// Opens a file that others have no business with, unless its predecessor says otherwise.
    pub(crate) fn open_private(path: &Path) -> anyhow::Result<Self> {
        Self::open_file(path, 0o600)
    }

    fn open_file(path: &Path, mode: u32) -> anyhow::Result<Self> {
        let opened = match fs::canonicalize(path) {
            Ok(target) => Self::existing(target, mode),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Self::replacement(path.to_owned(), mode)
            }
            Err(error) => Err(error.into()),
        };
        opened.with_context(|| format!("cannot write {}", quoted(path)))
    }

    fn existing(target: PathBuf, mode: u32) -> anyhow::Result<Self> {
        let kind = fs::metadata(&target)?.file_type();
        if kind.is_dir() {
            bail!("it is a directory");
        }
        if kind.is_file() {
            return Self::replacement(target, mode);
        }
        Ok(Self::Special(OpenOptions::new().write(true).open(&target)?, target))
    }

    fn replacement(target: PathBuf, mode: u32) -> anyhow::Result<Self> {
        Ok(Self::Regular(Replacement::begin(target, mode)?))
    }

    /// What a signal has to remove.
    pub(crate) fn leftover(&self) -> Leftover {
        match self {
            Self::Regular(replacement) => replacement.leftover.clone(),
            Self::Standard | Self::Special(..) => Leftover::default(),
        }
    }

    /// Writes the answer, and puts the file in its place.
    pub(crate) fn write(
        self,
        render: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> anyhow::Result<()> {
        match self {
            Self::Standard => {
                render_to(io::stdout().lock(), render).context("cannot write standard output")
            }
            Self::Special(file, path) => {
                render_to(file, render).with_context(|| format!("cannot write {}", quoted(&path)))
            }
            Self::Regular(replacement) => {
                let target = quoted(&replacement.target);
                replacement.finish(render).with_context(|| format!("cannot write {target}"))
            }
        }
    }
}

fn render_to(
    out: impl Write,
    render: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let mut out = BufWriter::new(out);
    render(&mut out)?;
    out.flush()
}

/// A new file beside the one that it will replace.
#[derive(Debug)]
pub(crate) struct Replacement {
    file: File,
    target: PathBuf,
    leftover: Leftover,
}

impl Replacement {
    fn begin(target: PathBuf, mode: u32) -> io::Result<Self> {
        let temporary = beside(&target)?;
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        Ok(Self { file, target, leftover: Leftover::of(temporary) })
    }

    fn finish(self, render: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        render_to(&self.file, render)?;
        if let Ok(replaced) = fs::metadata(&self.target) {
            self.file.set_permissions(replaced.permissions())?;
        }
        self.file.sync_all()?;
        self.leftover.rename(&self.target)?;
        File::open(parent(&self.target))?.sync_all()
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        self.leftover.remove();
    }
}

/// A temporary file that must not outlive the process; nothing once it is in its place.
#[derive(Debug, Clone, Default)]
pub(crate) struct Leftover(Arc<Mutex<Option<PathBuf>>>);

impl Leftover {
    fn of(path: PathBuf) -> Self {
        Self(Arc::new(Mutex::new(Some(path))))
    }

    /// Removes the file if it is still there.
    pub(crate) fn remove(&self) {
        let mut path = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = path.take() {
            // There is nobody to be told, and the answer does not depend on it.
            let _gone = fs::remove_file(path);
        }
    }

    /// Under the lock: a signal finds the file either here or in its place.
    fn rename(&self, target: &Path) -> io::Result<()> {
        let mut path = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(temporary) = path.as_deref() {
            fs::rename(temporary, target)?;
        }
        *path = None;
        Ok(())
    }
}

/// The same directory: a rename to another file system would not be atomic.
fn beside(target: &Path) -> io::Result<PathBuf> {
    let name = target.file_name().ok_or(ErrorKind::InvalidFilename)?;
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}.tmp", std::process::id()));
    Ok(parent(target).join(temporary))
}

fn parent(target: &Path) -> &Path {
    match target.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}
