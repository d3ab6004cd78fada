//! Which devices FUSE servers answer for: of what a process maps, the device is all that is known
//! without a question.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, memfd_create};

use super::mounts;
use super::proc::open_in;
use super::served::{OWN, Served};

/// The devices of FUSE, as far as they are mounted in the namespaces that were asked.
#[derive(Debug)]
pub struct FuseDevices {
    known: HashMap<u64, bool>,
    /// Every namespace was asked.
    asked_all: bool,
}

impl FuseDevices {
    /// Those that this process sees; and the one of shared memory, which is mounted nowhere.
    pub fn new() -> Self {
        let mut found = Self { known: HashMap::new(), asked_all: false };
        found.take(File::open(OWN));
        let memory = memfd_create(c"cbin-audit", MemfdFlags::CLOEXEC);
        if let Ok(stat) = memory.and_then(rustix::fs::fstat) {
            found.known.insert(stat.st_dev, false);
        }
        found
    }

    fn take(&mut self, table: io::Result<impl Into<File>>) {
        let Ok(table) = table else { return };
        let _cut_off = mounts::each(table, |mount| {
            let fuse = Served::by(&mount.fs_type) == Some(Served::Fuse);
            self.known.insert(mount.dev, fuse);
        });
    }

    /// Asks one process of each mount namespace.
    fn take_all(&mut self) {
        let mut asked = HashSet::new();
        for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let namespace = std::fs::read_link(process.path().join("ns/mnt"));
            if namespace.is_ok_and(|namespace| asked.insert(namespace)) {
                self.take(File::open(process.path().join("mountinfo")));
            }
        }
    }

    /// A file of this device that a process maps may lie on one: also where nothing shows it
    /// mounted any more.
    pub(super) fn may_have(&mut self, dev: u64, process: &OwnedFd) -> bool {
        // A disk's own number.
        if rustix::fs::major(dev) != 0 {
            return false;
        }
        if !self.known.contains_key(&dev) {
            self.take(open_in(process, "mountinfo").map_err(io::Error::from));
        }
        // What enters a container may still run what it was outside.
        if !self.known.contains_key(&dev) && !std::mem::replace(&mut self.asked_all, true) {
            self.take_all();
        }
        *self.known.entry(dev).or_insert(true)
    }
}

impl Default for FuseDevices {
    fn default() -> Self {
        Self::new()
    }
}
