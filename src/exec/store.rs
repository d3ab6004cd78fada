//! The store: one new inode for each content, which no container ever owned.
//!
//! An object that had been a container's inode could still be written through a
//! descriptor that the container kept.
#![expect(clippy::disallowed_methods, reason = "the store is the tool's own directory")]

use std::collections::HashSet;
use std::fs::{File, Permissions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::cause::explain;
use super::error::ExecError;
use super::place::{Found, Place, look};
use super::work::CHANGED;
use super::{content, prefix, tree};
use crate::model::{Bytes, ContentId, JournalObject, ObjectName};
use crate::scan::dir::open_dir_at;

/// The store's directory.
#[derive(Debug)]
pub(crate) struct Store {
    /// Where it lies, without links.
    pub(crate) path: PathBuf,
    /// The directory.
    pub(crate) dir: File,
}

/// What became of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Put {
    /// It is new, and takes so much.
    New(Bytes),
    /// It was there before.
    Kept,
    /// The source does not hold the content any more, or cannot be read: why.
    Lost(String),
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
            return Ok(Put::Lost(CHANGED.to_owned()));
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

    /// Puts a copy of a directory there: the modes are the same, the owner is root.
    pub(crate) fn put_tree(&self, object: &JournalObject, source: &File) -> Result<Put, ExecError> {
        if self.has(&object.name)? {
            self.get_tree(&object.name, Some(object.content))?;
            return Ok(Put::Kept);
        }
        let found = match tree::read_whole(source.as_fd()) {
            Err(why) => return Ok(Put::Lost(why)),
            Ok(found) if found.digest != object.content => {
                return Ok(Put::Lost(CHANGED.to_owned()));
            }
            Ok(found) => found,
        };
        let path = self.path.join(object.name.as_str());
        let (top, entries) = tree::ours(found);
        let place = self.place(&object.name).map_err(ExecError::io("open", &self.path))?;
        if let Err(error) = tree::make(&place, (&top, &entries), source.as_fd()) {
            let cleared = tree::clear(&place, &entries);
            return match error.raw_os_error() {
                Some(_) => Err(ExecError::io("copy", &path)(error)),
                None => cleared
                    .map(|_| Put::Lost(error.to_string()))
                    .map_err(ExecError::io("remove", &path)),
            };
        }
        self.flush()?;
        self.get_tree(&object.name, Some(object.content))?;
        Ok(Put::New(blocks(&path)))
    }

    /// The blocks that an object takes; none where it is missing.
    pub(crate) fn taken(&self, name: &ObjectName) -> u64 {
        blocks(&self.path.join(name.as_str())).0
    }

    fn place(&self, name: &ObjectName) -> std::io::Result<Place> {
        let dir = self.dir.try_clone()?;
        Ok(Place::of(dir.into(), name.as_str().as_bytes()))
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

    /// Opens a directory that is an object, and holds what its name says: twelve digits of the
    /// hash, or all that is `wanted`.
    pub(crate) fn get_tree(
        &self,
        name: &ObjectName,
        wanted: Option<ContentId>,
    ) -> Result<OwnedFd, ExecError> {
        let path = self.path.join(name.as_str());
        let damaged = |why: String| ExecError::ObjectDamaged { path: path.clone(), why };
        let dir = open_dir_at(self.dir.as_fd(), name.as_str().as_bytes());
        let dir = dir.map_err(|error| damaged(explain("open it", &error)))?;
        let found = tree::read_whole(dir.as_fd()).map_err(damaged)?;
        match name.fits(found.digest) && wanted.is_none_or(|wanted| wanted == found.digest) {
            true => Ok(dir),
            false => Err(damaged("its content is not what its name says".to_owned())),
        }
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
        if name.is_tree() {
            return remove_tree(&self.path.join(name.as_str()));
        }
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

/// A directory that is an object of a store holds what its name says.
///
/// # Errors
///
/// When it does not, or the store cannot be opened.
pub fn check_tree(
    store: &Path,
    name: &ObjectName,
    wanted: Option<ContentId>,
) -> Result<(), ExecError> {
    Store::open(store)?.get_tree(name, wanted).map(drop)
}

/// Takes a directory of the store away.
pub(crate) fn remove_tree(path: &Path) -> Result<(), ExecError> {
    std::fs::remove_dir_all(path).map_err(ExecError::io("remove", path))
}

/// What an object takes, or everything in it: each inode once.
pub(crate) fn blocks(path: &Path) -> Bytes {
    let mut seen = HashSet::new();
    let stats = walkdir::WalkDir::new(path).into_iter().flatten();
    let stats = stats.filter_map(|entry| entry.metadata().ok());
    let blocks = stats.filter(|stat| seen.insert(stat.ino())).map(|stat| stat.blocks());
    Bytes(blocks.fold(0, u64::saturating_add).saturating_mul(512))
}
