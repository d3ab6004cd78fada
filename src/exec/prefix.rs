//! Directories of the operator's: the store, and the journal.
//!
//! Nobody but root may be able to put something else in their place: each component of
//! the way must be owned by root (or by whoever runs this) and not writable by others,
//! unless it is sticky, as `/tmp` is, and the component below it is theirs.

use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::error::ExecError;

const STICKY: u32 = 0o1000;

/// Opens a directory that must be trusted.
pub(crate) fn open(path: &Path) -> Result<(PathBuf, File), ExecError> {
    let real = fs::canonicalize(path).map_err(ExecError::io("open", path))?;
    trust(path)?;
    trust(&real)?;
    let dir = File::open(&real).map_err(ExecError::io("open", &real))?;
    Ok((real, dir))
}

/// The same; what is missing of the way is made, and flushed.
pub(crate) fn make(path: &Path, mode: u32) -> Result<(PathBuf, File), ExecError> {
    let missing: Vec<&Path> =
        path.ancestors().take_while(|dir| fs::symlink_metadata(dir).is_err()).collect();
    if let Some(above) = missing.last().and_then(|dir| dir.parent()) {
        open(above_or_here(above))?;
    }
    for dir in missing.into_iter().rev() {
        make_one(dir, mode)?;
    }
    open(path)
}

#[expect(clippy::disallowed_methods, reason = "a directory of the operator's, below trusted ones")]
fn make_one(dir: &Path, mode: u32) -> Result<(), ExecError> {
    fs::DirBuilder::new().mode(mode).create(dir).map_err(ExecError::io("make", dir))?;
    // The caller's umask must not close the store to the users of containers.
    let permissions = fs::Permissions::from_mode(mode);
    fs::set_permissions(dir, permissions).map_err(ExecError::io("chmod", dir))?;
    let parent = above_or_here(dir.parent().unwrap_or(Path::new("/")));
    let flushed = File::open(parent).and_then(|parent| parent.sync_all());
    flushed.map_err(ExecError::io("flush", parent))
}

fn above_or_here(dir: &Path) -> &Path {
    if dir == Path::new("") { Path::new(".") } else { dir }
}

fn trust(path: &Path) -> Result<(), ExecError> {
    let euid = rustix::process::geteuid().as_raw();
    for dir in path.ancestors().filter(|dir| *dir != Path::new("")) {
        let found = fs::metadata(dir).map_err(ExecError::io("look at", dir))?;
        let refuse = |why| Err(ExecError::Untrusted { path: dir.to_owned(), why });
        if !found.is_dir() {
            return refuse("it is no directory");
        }
        if found.uid() != 0 && found.uid() != euid {
            return refuse("it belongs to another user; use a directory of root's");
        }
        let sticky_above = dir != path && found.mode() & STICKY != 0;
        if found.mode() & 0o022 != 0 && !sticky_above {
            return refuse("others may write to it; chmod go-w, or use another directory");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn what_is_missing_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let (path, _dir) = make(&dir.path().join("a/b"), 0o700).unwrap();
        assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_directory_that_others_may_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(open(dir.path()), Err(ExecError::Untrusted { .. })));
        let below = make(&dir.path().join("store"), 0o755);
        assert!(matches!(below, Err(ExecError::Untrusted { .. })));
    }
}
