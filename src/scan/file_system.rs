//! The file system that a directory lies on.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::model::{Bytes, FileSystem, HostPath, MountFlags, RootPath};

use super::dir::RootDir;
use super::mounts::{self, Mount};

/// What is mounted, as this process sees it.
#[derive(Debug)]
pub struct MountTable {
    mounts: Vec<Mount>,
    sys: PathBuf,
}

impl MountTable {
    /// Reads the table. `host` is `/`, or what stands in for it.
    pub fn read(host: &Path) -> Self {
        Self { mounts: mounts::read(&host.join("proc/self/mountinfo")), sys: host.join("sys") }
    }

    /// The file system of an open directory; `None` where the table does not show its mount.
    pub fn of(&self, dir: &RootDir) -> Option<FileSystem> {
        let mount = self.mounts.iter().find(|mount| mount.id == dir.mount())?;
        let flags = MountFlags { read_only: mount.is_read_only(), ..mount.flags };
        Some(FileSystem {
            kind: String::from_utf8_lossy(&mount.fs_type).into_owned(),
            flags,
            quota: self.quota(mount),
        })
    }

    /// The quotas in force: mount options of ext4 and xfs; on btrfs the kernel's own word.
    fn quota(&self, mount: &Mount) -> Option<String> {
        let options = String::from_utf8_lossy(&mount.options);
        let mut words = options.split(',').filter(|word| {
            word.ends_with("quota") && *word != "noquota" || word.starts_with("usrjquota=")
        });
        if let Some(word) = words.next() {
            return Some(word.to_owned());
        }
        (mount.fs_type == b"btrfs" && self.has_qgroups(&mount.source)).then(|| "qgroups".to_owned())
    }

    fn has_qgroups(&self, source: &[u8]) -> bool {
        let Some(device) = Path::new(std::ffi::OsStr::from_bytes(source)).file_name() else {
            return false;
        };
        let all = std::fs::read_dir(self.sys.join("fs/btrfs")).into_iter().flatten().flatten();
        all.map(|entry| entry.path()).any(|fs| {
            fs.join("devices").join(device).symlink_metadata().is_ok()
                && fs.join("qgroups").symlink_metadata().is_ok()
        })
    }
}

/// The nearest directory on the way to `path` that is there, with every link on the way
/// followed: an operator's own path.
pub fn nearest(path: &Path) -> io::Result<PathBuf> {
    let absolute = std::path::absolute(path)?;
    let there = absolute.ancestors().find(|place| place.metadata().is_ok_and(|it| it.is_dir()));
    there.unwrap_or(Path::new("/")).canonicalize()
}

/// The first directory on the way to `path`, which has no links, that others than root may
/// change: who can rename a directory above the store can put another one in its place.
pub fn changeable(path: &Path) -> Option<HostPath> {
    let open = |place: &&Path| {
        place
            .metadata()
            .map_or(true, |it| it.uid() != 0 || (it.mode() & 0o022 != 0 && it.mode() & 0o1000 == 0))
    };
    path.ancestors().filter(open).last().map(HostPath::from)
}

/// What root may still write on a directory's file system.
///
/// # Errors
///
/// Those of fstatvfs(3).
pub fn free(dir: &RootDir) -> io::Result<Bytes> {
    let stat = rustix::fs::fstatvfs(dir.open_dir(&RootPath::default())?)?;
    Ok(Bytes(stat.f_bfree.saturating_mul(stat.f_frsize)))
}
