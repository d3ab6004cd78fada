//! Which file system lies on which mount, by the table of mounts of a process.

use std::collections::HashMap;
use std::fs::File;
use std::io;
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
/// right before. What is in no table is as if a FUSE server answered for it: it was detached, is hidden,
/// or is about to be attached.
#[derive(Debug)]
pub struct Table {
    of: Of,
    told: Mutex<Told>,
}

/// Whose it is.
#[derive(Debug, Clone, Copy)]
enum Of {
    This,
    Process(u32),
}

#[derive(Debug, Default)]
struct Told {
    /// By number, what the table said.
    table: HashMap<u64, Line>,
    /// By unique number, what is known for good.
    mounts: HashMap<u64, Option<Served>>,
    as_of: AsOf,
}

#[derive(Debug)]
struct Line {
    /// Where the file system has one number for all.
    dev: Option<u64>,
    served: Option<Served>,
}

/// When a table was read.
#[derive(Debug, Clone, Copy, Default)]
enum AsOf {
    #[default]
    Never,
    /// After the mount with this unique number was made, and before the next.
    Mount(u64),
    /// That cannot be told: no mount can be made for it.
    Sometime,
}

/// That of this process.
static THIS: LazyLock<Table> = LazyLock::new(|| Table::new(Of::This));

impl Table {
    fn new(of: Of) -> Self {
        Self { of, told: Mutex::default() }
    }

    /// That of this process.
    pub fn own() -> &'static Self {
        &THIS
    }

    /// That of another process.
    pub fn of(pid: u32) -> Self {
        Self::new(Of::Process(pid))
    }

    /// Who answers for what is held open here, by what `statx` said of it. As long as it is held, its
    /// mount keeps its numbers.
    pub fn served(&self, held: BorrowedFd<'_>, stat: &Statx) -> Option<Served> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let mount = unique(held);
        if let Some(served) = told.known(mount, stat) {
            return served;
        }
        if matches!((self.of, told.as_of), (Of::Process(_), AsOf::Mount(_))) {
            // Mounted since, or hidden. A container that mounts without end has its long table read once.
            return Some(Served::Fuse);
        }
        let read = told.read(self.of);
        if let Some(served) = told.table.get(&stat.stx_mnt_id).map(|line| line.served) {
            // A mount keeps its file system.
            told.mounts.extend(mount.map(|mount| (mount, served)));
            return served;
        }
        // The root of who called chroot(2) is in no table; and without /proc there is none.
        let is_own = matches!(self.of, Of::This) && (is_own_root(stat) || is_missing(&read));
        (!is_own).then_some(Served::Fuse)
    }
}

impl Told {
    /// What can be told without another look.
    fn known(&self, mount: Option<u64>, stat: &Statx) -> Option<Option<Served>> {
        let Some(mount) = mount else {
            // Before Linux 6.8. What is refused may have been mounted since.
            let line = self.table.get(&stat.stx_mnt_id)?;
            let same = line.dev.is_none_or(|dev| dev == dir::inode_id(stat).dev);
            return Some(line.served).filter(|served| same && *served != Some(Served::Fuse));
        };
        let told = || match self.as_of {
            AsOf::Mount(newest) if mount <= newest => {
                self.table.get(&stat.stx_mnt_id).map(|line| line.served)
            }
            _ => None,
        };
        self.mounts.get(&mount).copied().or_else(told)
    }

    fn read(&mut self, of: Of) -> io::Result<()> {
        (self.as_of, self.table) = (AsOf::Never, HashMap::new());
        let as_of = newest().map_or(AsOf::Sometime, AsOf::Mount);
        let table = match of {
            Of::This => File::open(super::OWN),
            Of::Process(pid) => File::open(format!("/proc/{pid}/mountinfo")),
        };
        let cut_off = mounts::each(table?, |mount| {
            let served = Served::by(&mount.fs_type);
            // A subvolume has another number than the file system that it is of, and what an overlay
            // shows may have that of a layer.
            let many = [&b"btrfs"[..], b"bcachefs", b"overlay"];
            let dev = (!many.contains(&mount.fs_type.as_slice())).then_some(mount.dev);
            self.table.insert(mount.id, Line { dev, served });
        });
        cut_off?;
        self.as_of = as_of;
        Ok(())
    }
}

fn is_missing(read: &io::Result<()>) -> bool {
    read.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// It is of the mount that this process has its root on.
fn is_own_root(stat: &Statx) -> bool {
    let root = statx(CWD, c"/", AtFlags::STATX_DONT_SYNC, StatxFlags::MNT_ID);
    root.is_ok_and(|root| root.stx_mnt_id == stat.stx_mnt_id)
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use rustix::fs::{Mode, OFlags, open};

    use super::*;

    fn told(table: &Table, path: &str) -> Option<Served> {
        let held = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let stat = dir::stat_fd(held.as_fd()).unwrap();
        table.served(held.as_fd(), &stat)
    }

    #[test]
    fn what_no_table_tells_of_is_refused() {
        assert_eq!(told(&Table::new(Of::This), "/proc"), None);
        assert_eq!(told(&Table::of(std::process::id()), "/proc"), None);
        // It has ended, or never was.
        assert_eq!(told(&Table::of(u32::MAX), "/proc"), Some(Served::Fuse));
    }

    #[test]
    fn a_table_that_could_not_be_read_is_read_again() {
        let mut told = Told::default();
        assert!(told.read(Of::Process(u32::MAX)).is_err());
        assert!(matches!(told.as_of, AsOf::Never));
        told.read(Of::This).unwrap();
        assert!(!matches!(told.as_of, AsOf::Never) && !told.table.is_empty());
        assert!(told.read(Of::Process(u32::MAX)).is_err());
        assert!(matches!(told.as_of, AsOf::Never) && told.table.is_empty());
    }
}
