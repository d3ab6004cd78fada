//! What the store holds already.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{StatVfsMountFlags, statvfs};
use rustix::io::Errno;

use super::candidate::{Label, label};
use crate::model::{HostPath, ObjectName};

/// The store on the host, or the place where it will be made.
#[derive(Debug, Clone, Default)]
pub struct Store {
    /// Its objects, by name. What they hold is checked before a link is made to one.
    pub objects: BTreeSet<ObjectName>,
    /// Programs on its file system cannot be executed.
    pub noexec: bool,
    /// The security label that objects take over.
    pub label: Option<Label>,
    /// Set-id bits have no effect on its file system.
    pub nosuid: bool,
}

/// Lists the store. One that does not exist yet is empty.
///
/// # Errors
///
/// Those of the system, when it is there and cannot be listed.
pub fn store(path: &HostPath) -> io::Result<Store> {
    let existing = existing(&path.0);
    let flags = statvfs(&existing)?.f_flag;
    Ok(Store {
        label: File::open(&existing).ok().and_then(label),
        objects: objects(&path.0)?,
        noexec: flags.contains(StatVfsMountFlags::NOEXEC),
        nosuid: flags.contains(StatVfsMountFlags::NOSUID),
    })
}

fn objects(path: &Path) -> io::Result<BTreeSet<ObjectName>> {
    let listing = match std::fs::read_dir(path) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::NOENT) => {
            return Ok(BTreeSet::new());
        }
        listing => listing?,
    };
    let mut objects = BTreeSet::new();
    for entry in listing {
        let entry = entry?;
        let (kind, name) = (entry.file_type()?, entry.file_name());
        let name = name.to_str().and_then(ObjectName::parse);
        let is_object = |name: &ObjectName| match name.is_tree() {
            true => kind.is_dir(),
            false => kind.is_file(),
        };
        objects.extend(name.filter(is_object));
    }
    Ok(objects)
}

/// The nearest directory above that exists: the store will be made on its file system.
fn existing(path: &Path) -> PathBuf {
    let exists = |path: &&Path| std::fs::symlink_metadata(path).is_ok();
    path.ancestors().find(exists).unwrap_or_else(|| Path::new("/")).to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn only_objects_count() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("busybox-x86_64-0123456789ab"), "x").unwrap();
        std::fs::write(dir.path().join("lock"), "x").unwrap();
        std::fs::create_dir(dir.path().join("dir-x86_64-0123456789ab")).unwrap();
        std::fs::create_dir(dir.path().join("tree-0123456789ab")).unwrap();
        let found = store(&dir.path().into()).unwrap();
        let names: Vec<_> = found.objects.iter().map(ObjectName::as_str).collect();
        assert_eq!(names, ["busybox-x86_64-0123456789ab", "tree-0123456789ab"]);
        assert!(store(&dir.path().join("a/b").into()).unwrap().objects.is_empty());
    }
}
