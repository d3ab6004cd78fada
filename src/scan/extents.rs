//! Which files share their blocks with others (reflinks, snapshots).

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs;

use super::dir::{RootDir, open_regular};
use super::mounts;
use crate::model::{Extents, FileMeta};
use crate::sys::fiemap;

/// A file in more pieces than this is taken to share nothing.
const MOST_EXTENTS: usize = 4096;

/// `f_type` of the file systems on which files can share blocks (statfs(2), linux/magic.h).
const REFLINK: [u32; 4] = [
    0x9123_683e, // btrfs
    0x5846_5342, // xfs
    0xca45_1a4e, // bcachefs
    0x7461_636f, // ocfs2
];

/// For each root that lies on a file system with shared blocks, which one it is.
pub fn sharing_file_systems(roots: &[RootDir], proc: &Path) -> Vec<Option<u64>> {
    let mounts = mounts::read(&proc.join("self/mountinfo"));
    let device = |root: &RootDir| {
        mounts.iter().find(|mount| mount.id == root.mount()).map(|mount| mount.dev)
    };
    roots.iter().map(|root| if can_share(root) { device(root) } else { None }).collect()
}

fn can_share(root: &RootDir) -> bool {
    let Ok(dir) = root.open_dir(&crate::model::RootPath::default()) else { return false };
    fs::fstatfs(&dir).is_ok_and(|stat| REFLINK.contains(&(stat.f_type as u32)))
}

/// The extents of a file that shares some. `None` also where it is not any
/// more the file that was listed: then its bytes have to be read.
pub fn shared_extents(
    dir: std::os::fd::BorrowedFd<'_>,
    name: &[u8],
    listed: &FileMeta,
    fs: u64,
) -> Option<Extents> {
    let (file, meta) = open_regular(dir, name).ok()?;
    let (found, all) = fiemap::extents(file.as_fd(), MOST_EXTENTS).ok()?;
    (all && meta == *listed).then(|| Extents::new(fs, meta.size.0, &found))?
}
