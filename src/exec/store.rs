//! The store: one new inode for each content, which no container ever owned.
//!
//! An object that had been a container's inode could still be written through a
//! descriptor that the container kept.
#![expect(clippy::disallowed_methods, reason = "the store is the tool's own directory")]

use std::fs::{File, Permissions};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::content;
use super::error::ExecError;
use super::place::{Found, look};
use super::prefix;
use crate::model::{Bytes, ContentId, JournalObject, ObjectName};

/// The store's directory.
#[derive(Debug)]
pub(crate) struct Store {
    /// Where it lies, without links.
    pub(crate) path: PathBuf,
    /// The directory.
    pub(crate) dir: File,
}

/// What became of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Put {
    /// It is new, and takes so much.
    New(Bytes),
    /// It was there before.
    Kept,
    /// The source does not hold the content any more.
    Changed,
}

impl Store {
    /// Opens the store.
    pub(crate) fn open(path: &Path) -> Result<Self, ExecError> {
        let (path, dir) = prefix::open(path)?;
        Ok(Self { path, dir })
    }

    /// Opens the store; made where it is missing.
    pub(crate) fn make(path: &Path) -> Result<Self, ExecError> {
        let (path, dir) = prefix::make(path, 0o755)?;
        let mode = dir.metadata().map_err(ExecError::io("look at", &path))?.mode();
        // It is the mounted directory itself: to a user whom it is closed no program is left.
        if mode & 0o055 != 0o055 {
            return Err(ExecError::Closed(path));
        }
        Ok(Self { path, dir })
    }

    /// Puts an object there, copied from `source`. It is flushed, and was read again by its name.
    pub(crate) fn put(&self, object: &JournalObject, source: &File) -> Result<Put, ExecError> {
        if self.has(&object.name)? {
            self.check(object)?;
            return Ok(Put::Kept);
        }
        let path = self.path.join(object.name.as_str());
        let io = |doing| ExecError::io(doing, &path);
        let file = content::nameless(self.dir.as_fd()).map_err(io("make"))?;
        let copied = content::copy(source, &file, object.size).map_err(io("copy"))?;
        if copied != Some(object.content) {
            return Ok(Put::Changed);
        }
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::fchown(&file, Some(0), Some(0)).map_err(io("chown"))?;
        }
        file.set_permissions(Permissions::from_mode(0o555)).map_err(io("chmod"))?;
        file.sync_all().map_err(io("flush"))?;
        content::name(file.as_fd(), self.dir.as_fd(), object.name.as_str().as_bytes())
            .map_err(io("name"))?;
        self.flush()?;
        self.check(object)?;
        let blocks = file.metadata().map_err(io("look at"))?.blocks();
        Ok(Put::New(Bytes(blocks.saturating_mul(512))))
    }

    /// An object is there under this name.
    pub(crate) fn has(&self, name: &ObjectName) -> Result<bool, ExecError> {
        let found = look(self.dir.as_fd(), name.as_str().as_bytes());
        let found = found.map_err(ExecError::io("look at", self.path.join(name.as_str())))?;
        Ok(!matches!(found, Found::Absent))
    }

    /// Opens an object whose content was checked.
    pub(crate) fn get(&self, name: &ObjectName, wanted: ContentId) -> Result<File, ExecError> {
        let path = self.path.join(name.as_str());
        let damaged =
            |why: &str| ExecError::ObjectDamaged { path: path.clone(), why: why.to_owned() };
        let found = look(self.dir.as_fd(), name.as_str().as_bytes());
        let pinned = match found.map_err(ExecError::io("look at", &path))? {
            Found::Other(pinned) if pinned.is_file() => pinned,
            Found::Absent => return Err(damaged("it is missing")),
            _ => return Err(damaged("it is no regular file")),
        };
        let file = pinned.open().map_err(ExecError::io("open", &path))?;
        let found = content::hash(&file, Bytes(pinned.stat.stx_size));
        if found.map_err(ExecError::io("read", &path))? != Some(wanted) {
            return Err(damaged("its content is not what its name says"));
        }
        Ok(file)
    }

    fn check(&self, object: &JournalObject) -> Result<(), ExecError> {
        let path = self.path.join(object.name.as_str());
        let file = self.get(&object.name, object.content)?;
        let mode = file.metadata().map_err(ExecError::io("look at", &path))?.mode();
        if mode & 0o222 != 0 || mode & 0o7000 != 0 {
            let why = format!("its mode is {:04o}, not 0555", mode & 0o7777);
            return Err(ExecError::ObjectDamaged { path, why });
        }
        Ok(())
    }

    /// Takes an object away.
    pub(crate) fn remove(&self, name: &ObjectName) -> Result<(), ExecError> {
        let removed = rustix::fs::unlinkat(&self.dir, name.as_str(), rustix::fs::AtFlags::empty());
        match removed {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(ExecError::sys("remove", self.path.join(name.as_str()))(error)),
        }
    }

    /// Names that came or went survive a power cut.
    pub(crate) fn flush(&self) -> Result<(), ExecError> {
        self.dir.sync_all().map_err(ExecError::io("flush", &self.path))
    }
}
