//! The mount namespaces in which processes run from a root.
//!
//! A container's control group or name is not asked: whoever has the root's directory as
//! its `/` would see what is mounted there, in its own mount namespace.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use super::dir;
use crate::model::InodeId;

/// `PROC_USER_INIT_INO`: the number of the initial user namespace, the same on every kernel.
const INITIAL_USER_NAMESPACE: u64 = 0xEFFF_FFFD;

/// A mount namespace in which a process has the root as its `/`.
#[derive(Debug)]
pub struct MountNamespace {
    /// The first process found in it.
    pub pid: u32,
    /// The namespace's number, as `/proc/PID/ns/mnt` shows it.
    pub id: u64,
    /// It is the one that this process is in.
    pub own: bool,
    /// A process in it has a user namespace of its own that maps the host's user 0: what
    /// belongs to root on the host belongs to that container's root, too.
    pub maps_root: bool,
    fd: OwnedFd,
    root: OwnedFd,
}

impl MountNamespace {
    /// The namespace, for setns(2).
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The process's `/`, as it sees it.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

/// The mount namespaces in which a process has the directory `root` as its `/`, by the
/// numbers of their first processes. `proc` is `/proc`.
///
/// Processes that end meanwhile are left out.
///
/// # Errors
///
/// `proc` cannot be read, or a process cannot be asked that may have that root.
pub fn mount_namespaces(proc: &Path, root: InodeId) -> io::Result<Vec<MountNamespace>> {
    for _ in 1..TRIES {
        match look_once(proc, root) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                std::thread::sleep(BETWEEN_TRIES);
            }
            looked => return looked,
        }
    }
    look_once(proc, root)
}

/// A child of a process that is closed even to root is so until it executes a program.
const TRIES: usize = 10;
const BETWEEN_TRIES: std::time::Duration = std::time::Duration::from_millis(20);

fn look_once(proc: &Path, root: InodeId) -> io::Result<Vec<MountNamespace>> {
    let own = namespace(&proc.join("self/ns/mnt"))?.1;
    let mut found: Vec<MountNamespace> = Vec::new();
    for pid in pids(proc)? {
        let dir = proc.join(pid.to_string());
        let (process_root, is_root) = match root_of(&dir) {
            Ok(at) => (at.0, at.1 == root),
            // Init's root is the host's, and may be closed even to root.
            Err(error) if pid == 1 || has_ended(&error) => continue,
            Err(error) => return Err(error),
        };
        if !is_root {
            continue;
        }
        match look(&dir, pid, process_root, own) {
            Ok(one) => merge(&mut found, one),
            Err(error) if has_ended(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn merge(found: &mut Vec<MountNamespace>, one: MountNamespace) {
    match found.iter_mut().find(|known| known.id == one.id) {
        Some(known) => known.maps_root |= one.maps_root,
        None => found.push(one),
    }
}

fn look(dir: &Path, pid: u32, root: OwnedFd, own: u64) -> io::Result<MountNamespace> {
    let (fd, id) = namespace(&dir.join("ns/mnt"))?;
    let (_, user) = namespace(&dir.join("ns/user"))?;
    let maps_root = user != INITIAL_USER_NAMESPACE && maps_root(&small(&dir.join("uid_map"))?);
    Ok(MountNamespace { pid, id, own: id == own, maps_root, fd, root })
}

/// A line of user_namespaces(7) maps the outside user 0: `INSIDE OUTSIDE COUNT`.
fn maps_root(map: &str) -> bool {
    map.lines().any(|line| line.split_whitespace().nth(1) == Some("0"))
}

fn namespace(link: &Path) -> io::Result<(OwnedFd, u64)> {
    let fd = rustix::fs::openat(CWD, link, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let id = rustix::fs::fstat(&fd)?.st_ino;
    Ok((fd, id))
}

/// The process's root directory, asked without waiting for a file server: an `O_PATH`
/// descriptor, and DONT_SYNC.
fn root_of(dir: &Path) -> io::Result<(OwnedFd, InodeId)> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(CWD, dir.join("root"), flags, Mode::empty())?;
    let inode = dir::inode_id(&dir::stat_fd(fd.as_fd())?);
    Ok((fd, inode))
}

fn small(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(64 * 1024).read_to_string(&mut text)?;
    Ok(text)
}

fn pids(proc: &Path) -> io::Result<Vec<u32>> {
    let names: Vec<PathBuf> =
        std::fs::read_dir(proc)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    let numbers = names.iter().filter_map(|path| path.file_name()?.to_str()?.parse().ok());
    let mut pids: Vec<u32> = numbers.collect();
    pids.sort_unstable();
    Ok(pids)
}

fn has_ended(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::SRCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_that_has_the_hosts_root_is_told() {
        let table = [
            ("         0     100000      65536\n", false),
            ("         0          0 4294967295\n", true),
            ("         0       1000          1\n         1          0          1\n", true),
            ("", false),
        ];
        for (map, expected) in table {
            assert_eq!(maps_root(map), expected, "{map}");
        }
    }
}
