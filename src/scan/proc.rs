//! Processes, each read whole or not at all.
//!
//! A process is held by a descriptor of its directory, so that its number,
//! used again, cannot bring in another one (`ESRCH` then). The descriptors of
//! maps and pagemap pin the memory they were opened on: both are open before
//! either is read, so that after execve(2) at least one of them reads as gone. The
//! pages are read last: where they can be read, what was read before is of the same program.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use procfs::FromRead;
use procfs::process::Status;
use rustix::fs::{AtFlags, Mode, OFlags, RawDir, StatxFlags, openat, readlinkat, statx};
use rustix::io::Errno;

use crate::model::{ContainerKey, FileKey, InodeId, ProcessPages};

use super::pagemap;
use super::vma::{self, Vma, VmaSource};

/// Reads processes below a `/proc`.
#[derive(Debug)]
pub struct ProcReader {
    path: PathBuf,
    root: Arc<OwnedFd>,
    page_size: u64,
    source: VmaSource,
    with_comm: bool,
}

/// Buffers that one thread uses again for each process.
#[derive(Debug, Default)]
pub struct Scratch {
    vmas: Vec<Vma>,
    keys: Vec<FileKey>,
    text: Vec<u8>,
    entries: Vec<u8>,
    pages: ProcessPages,
}

/// A process that was read whole.
#[derive(Debug)]
pub struct Process {
    /// Its directory below `/proc`; leads to no other process, ever.
    pub dir: OwnedFd,
    /// Its container.
    pub container: ContainerKey,
    /// `comm`, where asked for.
    pub comm: Vec<u8>,
    /// Its pages of programs.
    pub pages: ProcessPages,
    /// Its pagemap: reads as gone once its memory is.
    memory: Option<OwnedFd>,
}

/// What became of the attempt to read a process.
#[derive(Debug)]
pub enum Seen {
    /// It was read.
    Whole(Box<Process>),
    /// A kernel thread or a zombie: it has no memory.
    NoMemory,
    /// It ended, or became another program, each time it was looked at.
    Ended,
    /// It may not be looked at, or cannot be.
    Refused {
        /// `comm`, which everybody may read.
        comm: Vec<u8>,
        /// Why.
        cause: Errno,
    },
}

impl ProcReader {
    /// Opens the `/proc` that is mounted at `path`. Processes are read with
    /// their names when `with_comm` asks for them.
    ///
    /// # Errors
    ///
    /// Those of open(2).
    pub fn open(
        path: &Path,
        page_size: u64,
        source: VmaSource,
        with_comm: bool,
    ) -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Self { path: path.to_owned(), root: root.into(), page_size, source, with_comm })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory itself.
    pub(super) fn root(&self) -> &Arc<OwnedFd> {
        &self.root
    }

    /// The ids of all processes that this reader is shown, ascending.
    ///
    /// # Errors
    ///
    /// Those of getdents64(2).
    pub fn pids(&self) -> Result<Vec<u32>, Errno> {
        let listing = openat(&self.root, ".", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let mut buffer = Vec::with_capacity(32 * 1024);
        let mut entries = RawDir::new(listing, buffer.spare_capacity_mut());
        let mut pids = Vec::new();
        while let Some(entry) = entries.next() {
            pids.extend(entry?.file_name().to_str().ok().and_then(|name| name.parse::<u32>().ok()));
        }
        pids.sort_unstable();
        Ok(pids)
    }

    /// Reads one process.
    pub fn read(&self, pid: u32, scratch: &mut Scratch) -> Seen {
        let mut last = Errno::SRCH;
        // Once more for a process that was caught in execve(2).
        for _ in 0..2 {
            match self.attempt(pid, scratch) {
                Ok(process) => return Seen::Whole(Box::new(process)),
                Err(Errno::SRCH | Errno::NOENT) => {}
                Err(error) => {
                    last = error;
                    break;
                }
            }
        }
        self.explain(pid, last)
    }

    /// Looks at a process without its memory: of `pages` it has the id alone.
    ///
    /// # Errors
    ///
    /// Those of its files in `/proc`: `ESRCH`, `ENOENT` when it has ended.
    pub fn identify(&self, pid: u32) -> Result<Process, Errno> {
        let dir = self.process_dir(pid)?;
        let container = container_key(&dir)?;
        let pages = ProcessPages { pid, ..ProcessPages::default() };
        Ok(Process { dir, container, comm: Vec::new(), pages, memory: None })
    }

    /// The process neither ended nor became another program since it was read: what its
    /// directory said up to now, it said of what was read.
    pub(super) fn still_runs(&self, process: &Process) -> bool {
        let (Some(memory), Some(first)) = (&process.memory, process.pages.mappings.first()) else {
            return false;
        };
        let place = first.address.start / self.page_size * 8;
        rustix::io::pread(memory, &mut [0_u8; 8], place) == Ok(8)
    }

    fn attempt(&self, pid: u32, scratch: &mut Scratch) -> Result<Process, Errno> {
        let dir = self.process_dir(pid)?;
        let maps = open_in(&dir, "maps")?;
        let pagemap = open_in(&dir, "pagemap")?;
        let Scratch { vmas, keys, text, entries, pages } = scratch;
        vma::read(maps.as_fd(), self.source, vmas, text)?;
        vma::keep_programs(vmas, keys);
        let container = container_key(&dir)?;
        let comm = if self.with_comm { read_comm(&dir)? } else { Vec::new() };
        pages.clear(pid);
        pagemap::read(pagemap.as_fd(), self.page_size, vmas, entries, pages)?;
        // A copy has the size that it needs, where what grows has up to twice of it.
        let pages = pages.clone();
        Ok(Process { dir, container, comm, pages, memory: Some(pagemap) })
    }

    /// The directory of a process, or another below the root.
    pub(super) fn dir(&self, name: &str) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(&self.root, name, flags, Mode::empty())
    }

    fn process_dir(&self, pid: u32) -> Result<OwnedFd, Errno> {
        let mut name = [0_u8; 11];
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(&self.root, decimal(pid, &mut name), flags, Mode::empty())
    }

    /// Tells what has no memory from what went away and from what is refused.
    fn explain(&self, pid: u32, cause: Errno) -> Seen {
        let comm = match self.process_dir(pid).and_then(|dir| read_comm(&dir)) {
            Ok(comm) => comm,
            Err(_) => return Seen::Ended,
        };
        match cause {
            Errno::SRCH => Seen::NoMemory,
            cause => Seen::Refused { comm, cause },
        }
    }
}

/// `pid` in decimal, without an allocation.
fn decimal(mut pid: u32, buffer: &mut [u8; 11]) -> &[u8] {
    let mut at = buffer.len();
    loop {
        at -= 1;
        buffer[at] = b'0' + (pid % 10) as u8;
        pid /= 10;
        if pid == 0 {
            return &buffer[at..];
        }
    }
}

/// Opens a file of a process.
pub(super) fn open_in(dir: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    openat(dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// Reads a small file of a process: at most `limit` bytes.
pub(super) fn read_small(dir: &OwnedFd, name: &str, limit: usize) -> Result<Vec<u8>, Errno> {
    let file = open_in(dir, name)?;
    // The limit is for the worst: to lay out as much each time would cost more than to read.
    const STEP: usize = 16 * 1024;
    let mut bytes = Vec::new();
    while bytes.len() < limit {
        let have = bytes.len();
        bytes.resize(limit.min(have + STEP), 0);
        let count = rustix::io::read(&file, &mut bytes[have..])?;
        bytes.truncate(have + count);
        if count == 0 {
            break;
        }
    }
    Ok(bytes)
}

/// What a process is and may do; `None` when it has ended meanwhile.
pub(super) fn read_status(dir: &OwnedFd) -> Option<Status> {
    // Its groups are listed, up to 65,536 of them.
    parse_status(&read_small(dir, "status", 1 << 20).ok()?)
}

/// The text of proc_pid_status(5). The name in it is whatever the process says, by prctl(2):
/// one that is not UTF-8 must not hide what the process may do.
pub(super) fn parse_status(text: &[u8]) -> Option<Status> {
    Status::from_read(String::from_utf8_lossy(text).as_bytes()).ok()
}

fn read_comm(dir: &OwnedFd) -> Result<Vec<u8>, Errno> {
    let file = open_in(dir, "comm")?;
    let mut buffer = [0_u8; 64];
    let count = rustix::io::read(&file, &mut buffer)?;
    Ok(buffer[..count].strip_suffix(b"\n").unwrap_or(&buffer[..count]).to_vec())
}

/// The container of the process whose directory is `dir`. The root is asked for
/// without a word to its file system, whose server may not answer.
pub(super) fn container_key(dir: &OwnedFd) -> Result<ContainerKey, Errno> {
    let flags = AtFlags::STATX_DONT_SYNC;
    let root = statx(dir, "root", flags, StatxFlags::INO)?;
    Ok(ContainerKey {
        mount_namespace: namespace(dir, "ns/mnt")?,
        root: InodeId {
            dev: rustix::fs::makedev(root.stx_dev_major, root.stx_dev_minor),
            ino: root.stx_ino,
        },
    })
}

/// The inode number in a link such as `mnt:[4026531841]`.
pub(super) fn namespace(dir: &OwnedFd, name: &str) -> Result<u64, Errno> {
    let mut buffer = [0_u8; 64];
    let count = rustix::fs::readlinkat_raw(dir, name, &mut buffer)?;
    let digits = buffer[..count].iter().filter(|byte| byte.is_ascii_digit());
    Ok(digits.fold(0, |value: u64, byte| value.wrapping_mul(10) + u64::from(byte - b'0')))
}

/// The path that a link of the process leads to, as the kernel tells it.
pub(super) fn link(dir: &OwnedFd, name: &str) -> Result<Vec<u8>, Errno> {
    readlinkat(dir, name, Vec::with_capacity(256)).map(std::ffi::CString::into_bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;

    fn reader(source: VmaSource) -> ProcReader {
        let page_size = rustix::param::page_size() as u64;
        ProcReader::open(Path::new("/proc"), page_size, source, true).unwrap()
    }

    fn own(source: VmaSource) -> Process {
        match reader(source).read(std::process::id(), &mut Scratch::default()) {
            Seen::Whole(process) => *process,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn reads_itself() {
        assert!(reader(VmaSource::Auto).pids().unwrap().contains(&std::process::id()));
        let process = own(VmaSource::Auto);
        assert!(process.pages.mappings.iter().any(|mapping| mapping.executable));
        assert!(!process.pages.runs.is_empty());
        assert!(!process.comm.is_empty());
    }

    #[test]
    fn sources_name_the_same_mappings() {
        let (auto, text) = (own(VmaSource::Auto), own(VmaSource::Text));
        let names = |process: &Process| -> Vec<_> {
            process.pages.mappings.iter().map(|m| (m.key, m.address.clone())).collect()
        };
        assert_eq!(names(&auto), names(&text));
        assert_eq!(auto.container, text.container);
    }

    #[test]
    fn what_is_not_there_has_ended() {
        let seen = reader(VmaSource::Auto).read(u32::MAX, &mut Scratch::default());
        assert!(matches!(seen, Seen::Ended), "{seen:?}");
    }

    /// Its root would have it that its programs may do nothing.
    #[test]
    fn a_name_hides_no_capability() {
        let named = |name: &'static std::ffi::CStr| {
            let look = move || {
                rustix::thread::set_name(name).unwrap();
                let dir = reader(VmaSource::Auto).dir("thread-self").unwrap();
                read_status(&dir).map(|status| (status.capbnd, status.seccomp))
            };
            std::thread::spawn(look).join().unwrap()
        };
        let plain = named(c"sh");
        assert!(plain.is_some());
        for name in [c"\xff\xfe", c"a\nCapBnd:\t0", c":\t:", c"\r\n\r", c""] {
            assert_eq!(named(name), plain, "{name:?}");
        }
    }

    #[test]
    fn a_zombie_has_no_memory() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        while std::fs::read_to_string(format!("/proc/{}/stat", child.id()))
            .is_ok_and(|stat| !stat.contains(") Z "))
        {
            std::thread::yield_now();
        }
        let seen = reader(VmaSource::Auto).read(child.id(), &mut Scratch::default());
        assert!(matches!(seen, Seen::NoMemory), "{seen:?}");
        child.wait().unwrap();
    }

    #[test]
    fn writes_numbers() {
        for number in [0, 7, 10, 4_294_967_295] {
            assert_eq!(decimal(number, &mut [0; 11]), number.to_string().as_bytes());
        }
    }
}
