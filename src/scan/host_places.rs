//! Directories of the host that a container must not write, wherever they are mounted: the
//! stores, and what the host itself is run from.
//!
//! A directory is known by its file system and its place there, as mountinfo has both for
//! every mount of every namespace: paths tell nothing across namespaces.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, StatxFlags, major, makedev, minor, statx};

use super::mounts::{self, Mount};
use super::patience::Patience;
use super::served;

/// Who writes one of these is the host's root with the next program that this runs.
const SYSTEM: [&str; 3] = ["/etc", "/usr", "/boot"];
/// How long the file system of a path may keep silent.
const PATIENCE: Duration = Duration::from_secs(2);

/// The directories, and the disks that they lie on.
#[derive(Debug, Clone, Default)]
pub struct HostPlaces {
    mounts: Vec<Mount>,
    places: Vec<Place>,
    disks: BTreeSet<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    dev: u64,
    path: PathBuf,
    /// Each file in it counts, too.
    whole: bool,
}

impl HostPlaces {
    /// Finds the stores, which need not be there yet, and the host's own directories.
    pub fn find<'a>(stores: impl IntoIterator<Item = &'a Path>) -> Self {
        let mounts = mounts::read(Path::new("/proc/self/mountinfo"));
        let mut found = Self { mounts, ..Self::default() };
        let stores = stores.into_iter().map(|store| (store, true));
        for (path, whole) in stores.chain(SYSTEM.map(|path| (Path::new(path), false))) {
            let Some((mount, path)) = found.locate(path) else { continue };
            let (dev, disk) = (mount.dev, disk_of(mount));
            found.places.push(Place { dev, path, whole });
            disk.into_iter().for_each(|disk| add_with_those_below(disk, &mut found.disks));
        }
        found
    }

    /// The mounts of the host, where they were looked for.
    pub(super) fn mounts(&self) -> &[Mount] {
        &self.mounts
    }

    /// A mount shows one of them for writing; `mapped`: to the users of the namespace alone,
    /// who own nothing of the host's on other mounts.
    pub(super) fn are_shown_by(&self, mount: &Mount, mapped: bool) -> bool {
        let writable = !mount.is_read_only() && (!mapped || mount.flags.idmapped);
        writable && (self.has(mount.dev, &mount.root) || self.has_upper_of(mount))
    }

    /// What is written to an overlay is written to its upper directory. The path is the mounter's,
    /// who may be the container: it is gone along without a question to a server.
    fn has_upper_of(&self, mount: &Mount) -> bool {
        let Some(upper) = mount.upper() else { return false };
        let Ok(opened) = served::open_path(&upper) else { return false };
        let by = format!("/proc/self/fd/{}", opened.fd.as_raw_fd());
        let Ok(real) = std::fs::read_link(by) else { return false };
        let on = self.mounts.iter().find(|it| it.id == opened.stat.stx_mnt_id);
        let within = on.and_then(|on| Some((on, real.strip_prefix(&on.point).ok()?)));
        within.is_some_and(|(on, within)| self.has(on.dev, &on.root.join(within)))
    }

    /// A container that is given this path of the host for writing can write one of them: it
    /// is on the way to it, or in it, or the disk below it.
    pub fn are_written_through(&self, path: &Path) -> bool {
        let asked = path.to_owned();
        let device = Patience::new(PATIENCE).ask(move |_| block_device(&asked)).flatten();
        device.is_some_and(|device| self.disks.contains(&device))
            || self.locate(path).is_some_and(|(mount, place)| self.has(mount.dev, &place))
    }

    /// A disk of these numbers has one of them on it; `None` stands for every number.
    pub fn are_on_disk(&self, numbers: (Option<u32>, Option<u32>)) -> bool {
        let fits = |wanted: Option<u32>, number| wanted.is_none_or(|wanted| wanted == number);
        let mut disks = self.disks.iter();
        disks.any(|&disk| fits(numbers.0, major(disk)) && fits(numbers.1, minor(disk)))
    }

    fn has(&self, dev: u64, path: &Path) -> bool {
        let within = |place: &Place| {
            place.path.starts_with(path) || place.whole && path.starts_with(&place.path)
        };
        self.places.iter().any(|place| place.dev == dev && within(place))
    }

    /// The mount that a path lies on, with links followed, and its place on the file system.
    fn locate(&self, path: &Path) -> Option<(&Mount, PathBuf)> {
        let absolute = std::path::absolute(path).ok()?;
        let (real, rest, id) = Patience::new(PATIENCE).ask(move |_| nearest(&absolute))??;
        let mount = self.mounts.iter().find(|mount| mount.id == id)?;
        let within = real.strip_prefix(&mount.point).ok()?;
        Some((mount, mount.root.join(within).join(rest)))
    }
}

/// The nearest that is there on the way, what is missing behind it, and its mount.
fn nearest(path: &Path) -> Option<(PathBuf, PathBuf, u64)> {
    let (near, real) = path.ancestors().find_map(|near| Some((near, near.canonicalize().ok()?)))?;
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC;
    let stat = statx(CWD, &real, flags, StatxFlags::MNT_ID).ok()?;
    Some((real, path.strip_prefix(near).ok()?.to_owned(), stat.stx_mnt_id))
}

/// The disk that a mount's file system lies on. btrfs has a number that is no disk's.
fn disk_of(mount: &Mount) -> Option<u64> {
    let source = Path::new(OsStr::from_bytes(&mount.source));
    match major(mount.dev) {
        0 if source.starts_with("/dev") => block_device(source),
        0 => None,
        _ => Some(mount.dev),
    }
}

fn block_device(path: &Path) -> Option<u64> {
    let stat = path.metadata().ok()?;
    stat.file_type().is_block_device().then(|| stat.rdev())
}

/// A disk, the one that it is a partition of, and those that it is put together from: sysfs(5).
fn add_with_those_below(disk: u64, disks: &mut BTreeSet<u64>) {
    if !disks.insert(disk) {
        return;
    }
    let dir = format!("/sys/dev/block/{}:{}", major(disk), minor(disk));
    let Ok(dir) = Path::new(&dir).canonicalize() else { return };
    let slaves = std::fs::read_dir(dir.join("slaves")).into_iter().flatten().flatten();
    let whole = dir
        .join("partition")
        .symlink_metadata()
        .is_ok()
        .then(|| dir.parent().map(Path::to_owned))
        .flatten();
    for below in slaves.map(|slave| slave.path()).chain(whole) {
        let number = std::fs::read_to_string(below.join("dev")).unwrap_or_default();
        if let Some((major, minor)) = number.trim().split_once(':')
            && let (Ok(major), Ok(minor)) = (major.parse(), minor.parse())
        {
            add_with_those_below(makedev(major, minor), disks);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> HostPlaces {
        let place = |path: &str, whole| Place { dev: makedev(8, 1), path: path.into(), whole };
        HostPlaces {
            places: vec![place("/home/cbin", true), place("/etc", false)],
            disks: [makedev(8, 1), makedev(8, 0)].into(),
            ..HostPlaces::default()
        }
    }

    fn shown(line: &str, mapped: bool) -> bool {
        let mounts = mounts::parse(format!("1 0 {line}\n").as_bytes());
        assert_eq!(mounts.len(), 1, "{line}");
        places().are_shown_by(&mounts[0], mapped)
    }

    #[test]
    fn what_is_on_the_way_to_a_store_or_in_it_counts() {
        let table = [
            ("8:1 / /host rw - ext4 d rw", true),
            ("8:1 /home /srv rw - ext4 d rw", true),
            ("8:1 /home/cbin /cbin rw - ext4 d rw", true),
            ("8:1 /home/cbin/busybox /x rw - ext4 d rw", true),
            ("8:1 /home/cbin /cbin ro - ext4 d rw", false),
            ("8:1 /home/cbin /cbin rw - ext4 d ro", false),
            ("8:1 /home/cbin2 /cbin rw - ext4 d rw", false),
            ("8:1 /home/web / rw - ext4 d rw", false),
            ("8:2 / /host rw - ext4 d rw", false),
            ("8:1 /etc /x rw - ext4 d rw", true),
            ("8:1 /etc/resolv.conf /etc/resolv.conf rw - ext4 d rw", false),
        ];
        for (line, expected) in table {
            assert_eq!(shown(line, false), expected, "{line}");
        }
        assert!(!shown("8:1 / /host rw - ext4 d rw", true), "it owns nothing there");
        assert!(shown("8:1 / /host rw,idmapped - ext4 d rw", true));
    }

    #[test]
    fn a_disk_is_known_by_its_numbers() {
        let on = |major, minor| places().are_on_disk((major, minor));
        assert!(on(None, None) && on(Some(8), None) && on(Some(8), Some(0)));
        assert!(!on(Some(8), Some(2)) && !on(Some(7), None));
    }

    #[test]
    fn what_is_not_there_yet_lies_where_it_will() {
        let dir = tempfile::tempdir().expect("a directory");
        let places = HostPlaces::find([dir.path().join("a/store").as_path()]);
        for (path, expected) in [("", true), ("a", true), ("a/store/object", true), ("b", false)] {
            assert_eq!(places.are_written_through(&dir.path().join(path)), expected, "{path}");
        }
        assert!(places.are_written_through(Path::new("/")), "with the host's /etc");
        assert!(!places.are_written_through(Path::new("/proc")));
    }
}
