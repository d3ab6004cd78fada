//! File systems in images on loop devices, made once and mounted many times.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::logged::Disk;
use super::supervise::succeed;

/// A file system that these tests are held on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileSystem {
    pub kind: &'static str,
    mebibytes: u64,
    options: &'static [&'static str],
}

pub const EXT4: FileSystem = FileSystem {
    kind: "ext4",
    mebibytes: 32,
    options: &["-q", "-b", "4096", "-J", "size=4", "-E", "lazy_itable_init=0,lazy_journal_init=0"],
};
pub const XFS: FileSystem =
    FileSystem { kind: "xfs", mebibytes: 300, options: &["-q", "-l", "size=64m"] };
pub const BTRFS: FileSystem =
    FileSystem { kind: "btrfs", mebibytes: 128, options: &["-q", "-m", "single"] };

impl FileSystem {
    pub fn size(self) -> u64 {
        self.mebibytes << 20
    }

    /// A fresh one, with what `fill` puts into it.
    pub fn make(self, fill: impl FnOnce(&Path)) -> Disk {
        let dir = scratch();
        let image = dir.path().join("image");
        Disk::default().lay(&image, self.size());
        succeed(Command::new(format!("mkfs.{}", self.kind)).args(self.options).arg(&image));
        let mounted = Mounted::new(&image, &dir.path().join("mount"));
        fill(mounted.path());
        drop(mounted);
        Disk::read(&image)
    }
}

/// A directory in memory, where there is one: hundreds of images are written to it.
pub fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let make = |place: &Path| tempfile::Builder::new().prefix("cbin-audit-").tempdir_in(place);
    make(memory).unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

/// An image that is mounted for as long as the value lives.
pub struct Mounted {
    point: PathBuf,
    /// The loop device's directory in sysfs.
    device: PathBuf,
    image: PathBuf,
}

impl Mounted {
    /// Makes the directory `point` where it is not there.
    pub fn new(image: &Path, point: &Path) -> Self {
        Self::with(image, point, "loop")
    }

    pub fn with(image: &Path, point: &Path, options: &str) -> Self {
        std::fs::create_dir_all(point).unwrap();
        succeed(Command::new("mount").args(["-o", options]).args([image, point]));
        let device = Path::new("/sys/block").join(device_at(point).file_name().unwrap());
        Self { point: point.to_owned(), device, image: image.to_owned() }
    }

    pub fn path(&self) -> &Path {
        &self.point
    }

    /// The device holds the image until nobody has the file system mounted: a test beside this
    /// one may have copied the mount into a namespace, or hold a descriptor between fork and exec.
    fn is_attached(&self) -> bool {
        let image = std::fs::read_to_string(self.device.join("loop/backing_file"));
        image.is_ok_and(|image| Path::new(image.trim_end()) == self.image)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Not umount(8): it asks stat(2), and a file system without power answers EIO.
        let unmount = || rustix::mount::unmount(&self.point, rustix::mount::UnmountFlags::empty());
        let gone = patiently(|| unmount().is_ok()) && patiently(|| !self.is_attached());
        assert!(gone || std::thread::panicking(), "{} is in use", self.point.display());
    }
}

/// What is mounted below a directory goes with the value.
pub struct Below(pub PathBuf);

impl Drop for Below {
    fn drop(&mut self) {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let points = mounts.lines().rev().filter_map(|line| line.split(' ').nth(4));
        for point in points.filter(|point| Path::new(point).starts_with(&self.0)) {
            let _gone = rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

/// Whether it comes true within two minutes.
fn patiently(done: impl Fn() -> bool) -> bool {
    let attempt = |_| {
        let done = done();
        if !done {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        done
    };
    (0..60_000).any(attempt)
}

/// What is mounted at a directory.
fn device_at(point: &Path) -> PathBuf {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let here = mounts
        .lines()
        .rev()
        .find(|line| line.split(' ').nth(4).is_some_and(|at| Path::new(at) == point));
    let (_, source) = here.expect("mounted").split_once(" - ").unwrap();
    PathBuf::from(source.split(' ').nth(1).unwrap())
}
