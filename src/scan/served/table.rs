//! Which file system lies on which mount, by the table of mounts of a process.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{LazyLock, Mutex, PoisonError};

use rustix::fs::{AtFlags, CWD, Statx, StatxFlags, statx};
use rustix::mount::{OpenTreeFlags, open_tree};

use super::Served;
use crate::scan::{dir, mounts};

/// Asks for a number that is given out once (`STATX_MNT_ID_UNIQUE`, Linux 6.8).
const MNT_ID_UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);

/// The mounts that a process sees, as its table told them last. It may mount what it likes
/// meanwhile, and the numbers of a mount that is gone are given out again, so that a table tells of
/// mounts alone that were there when it was read: of those that are no newer than one that was made
/// right before.
#[derive(Debug)]
pub struct Table {
    path: String,
    /// What is in no table: the root of a process that called chroot(2), in its own. In that of another
    /// one it was mounted since, or is hidden.
    absent: Option<Served>,
    told: Mutex<Told>,
}

#[derive(Debug)]
struct Told {
    /// By number and device.
    known: HashMap<(u64, u64), Option<Served>>,
    as_of: AsOf,
}

/// When a table was read.
#[derive(Debug, Clone, Copy)]
enum AsOf {
    Never,
    /// After the mount with this unique number was made, and before the next.
    Mount(u64),
    /// That cannot be told: without CAP_SYS_ADMIN, and before Linux 6.8.
    Sometime,
}

/// That of this process.
static OWN: LazyLock<Table> = LazyLock::new(|| Table::at(super::OWN.into(), None));

impl Table {
    fn at(path: String, absent: Option<Served>) -> Self {
        let told = Told { known: HashMap::new(), as_of: AsOf::Never };
        Self { path, absent, told: Mutex::new(told) }
    }

    /// That of this process.
    pub fn own() -> &'static Self {
        &OWN
    }

    /// That of another process.
    pub fn of(pid: u32) -> Self {
        Self::at(format!("/proc/{pid}/mountinfo").into(), Some(Served::Fuse))
    }

    /// Who answers for what is held open here, by what `statx` said of it. As long as it is held, its
    /// mount keeps its numbers.
    pub fn served(&self, held: BorrowedFd<'_>, stat: &Statx) -> Option<Served> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let found = told.look_up(stat);
        let current = match told.as_of {
            AsOf::Never => false,
            AsOf::Mount(newest) => unique(held).is_some_and(|mount| mount <= newest),
            // What is refused, or is not there, may have been mounted since.
            AsOf::Sometime => found.is_some_and(|served| served != Some(Served::Fuse)),
        };
        if current {
            return found.unwrap_or(self.absent);
        }
        self.read(&mut told);
        let found = told.look_up(stat).unwrap_or(self.absent);
        told.known.insert(key(stat), found);
        found
    }

    fn read(&self, told: &mut Told) {
        told.as_of = newest().map_or(AsOf::Sometime, AsOf::Mount);
        told.known.clear();
        let Ok(table) = File::open(&self.path) else { return };
        let _cut_off = mounts::each(table, |mount| {
            let served = Served::by(&mount.fs_type);
            told.known.insert((mount.id, mount.dev), served);
            // A subvolume has another number than the file system that it is of.
            if [&b"btrfs"[..], b"bcachefs"].contains(&mount.fs_type.as_slice()) {
                told.known.insert((mount.id, 0), served);
            }
        });
    }
}

impl Told {
    fn look_up(&self, stat: &Statx) -> Option<Option<Served>> {
        let by_device = self.known.get(&key(stat));
        by_device.or_else(|| self.known.get(&(stat.stx_mnt_id, 0))).copied()
    }
}

fn key(stat: &Statx) -> (u64, u64) {
    (stat.stx_mnt_id, dir::inode_id(stat).dev)
}

/// The number of the newest mount that there is: one made for this, which nobody sees.
fn newest() -> Option<u64> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    unique(open_tree(CWD, c"/", flags).ok()?.as_fd())
}

/// The number of the mount that a descriptor is of, which no other mount will ever have.
fn unique(held: BorrowedFd<'_>) -> Option<u64> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let stat = statx(held, c"", flags, MNT_ID_UNIQUE).ok()?;
    (stat.stx_mask & MNT_ID_UNIQUE.bits() != 0).then_some(stat.stx_mnt_id)
}
