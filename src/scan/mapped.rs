//! The files that processes map: held while they are looked at, then asked for
//! their headers, their place in the page cache, and their content.
//!
//! A path is no way to a mapped file: it may have been deleted or replaced, it
//! may be another file in this mount namespace, and its owner may change it at any
//! time. `/proc/PID/map_files` leads to the very inode.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, StatxFlags, openat, openat2, statx,
};
use rustix::io::Errno;

use crate::model::{Bytes, ContentId, ElfFacts, FileKey, FileStamp, InodeId, Mapping, PageSet};
use crate::sys::cached_pages;

use super::fuse_devices::FuseDevices;
use super::patience::{Beat, Patience};
use super::proc::{ProcReader, Process, link};
use super::served;
use super::{Source, elf_facts, program};

/// What the kernel appends to the path of a file that lost its name.
const DELETED: &[u8] = b" (deleted)";
/// Bytes that are hashed between two signs of life.
const CHUNK: usize = 256 * 1024;

/// A mapped file, held by a descriptor that was opened without a word to its
/// file system (`O_PATH`).
#[derive(Debug)]
pub struct MappedFile {
    /// The file, as maps shows it.
    pub key: FileKey,
    /// Its path in its process's eyes, which may lead elsewhere by now.
    pub path: Vec<u8>,
    /// That path leads to it no more.
    pub unlinked: bool,
    /// A FUSE server may answer for it: it is not asked by this process.
    pub served: bool,
    /// Its process went away too soon: another one that maps it may be asked.
    pub lost: bool,
    fd: Option<OwnedFd>,
}

/// What a mapped file says of itself.
#[derive(Debug, Clone, Default)]
pub struct FileContents {
    /// What its ELF headers say; `None` for what is not ELF.
    pub elf: Option<ElfFacts>,
    /// Its pages in the page cache.
    pub cached: PageSet,
}

impl MappedFile {
    /// Holds the file of one mapping of a process. What has become another program
    /// may have another file at that address: it is not asked.
    pub fn hold(
        reader: &ProcReader,
        process: &Process,
        mapping: &Mapping,
        (patience, devices): (&mut Patience, &mut FuseDevices),
    ) -> Self {
        let FileKey { dev, .. } = mapping.key;
        let device = rustix::fs::makedev((dev >> 32) as u32, dev as u32);
        let served = devices.may_have(device, &process.dir);
        let held = Self { served, ..Self::hold_now(process, mapping, patience) };
        match reader.still_runs(process) {
            true => held,
            false => Self { path: Vec::new(), unlinked: false, lost: true, fd: None, ..held },
        }
    }

    fn hold_now(process: &Process, mapping: &Mapping, patience: &mut Patience) -> Self {
        let place = format!("map_files/{:x}-{:x}", mapping.address.start, mapping.address.end);
        let path = link(&process.dir, &place).unwrap_or_default();
        let (path, unlinked) = match path.strip_suffix(DELETED) {
            Some(path) => (path, true),
            None => (path.as_slice(), false),
        };
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let fd = match openat(&process.dir, place.as_str(), flags, Mode::empty()) {
            // Only CAP_SYS_ADMIN and CAP_CHECKPOINT_RESTORE may follow these links.
            Err(Errno::PERM | Errno::ACCESS) => by_path(process, mapping.key, path, patience),
            answer => answer.ok(),
        };
        let path = path.to_vec();
        Self { key: mapping.key, path, unlinked, served: false, lost: false, fd }
    }

    /// Its last path component.
    pub fn name(&self) -> String {
        let name = self.path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        String::from_utf8_lossy(name).into_owned()
    }

    /// It never had a path: memfd_create(2), shared memory.
    pub fn is_anonymous(&self) -> bool {
        [&b"/memfd:"[..], b"/SYSV", b"/dev/zero"].iter().any(|start| self.path.starts_with(start))
    }

    /// What the file is, as its file system last said: its server is not asked.
    /// `None` for what is not a regular file, or is not held.
    pub fn stamp(&self) -> Option<(FileStamp, u32)> {
        let (flags, mask) =
            (AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC, StatxFlags::BASIC_STATS);
        let stat = statx(self.fd.as_ref()?, "", flags, mask).ok()?;
        if FileType::from_raw_mode(stat.stx_mode.into()) != FileType::RegularFile {
            return None;
        }
        let inode = InodeId {
            dev: rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor),
            ino: stat.stx_ino,
        };
        let mtime =
            stat.stx_mtime.tv_sec.saturating_mul(1_000_000_000) + i64::from(stat.stx_mtime.tv_nsec);
        Some((FileStamp { inode, size: Bytes(stat.stx_size), mtime }, stat.stx_nlink))
    }

    /// The work of reading headers and cache, to be asked for with patience.
    ///
    /// # Errors
    ///
    /// When there is no descriptor left to be had, or the file is not held.
    pub fn inspect(
        &self,
        reader: &ProcReader,
        page_size: Bytes,
    ) -> io::Result<impl FnOnce(&Beat) -> io::Result<FileContents> + Send + 'static> {
        let opener = self.opener(reader)?;
        let size = self.stamp().map_or(0, |(stamp, _)| stamp.size.0);
        let served = self.served;
        Ok(move |beat: &Beat| {
            let file = opener.open(beat)?;
            let elf = elf_facts(&Source::file(file.as_fd(), size), page_size)?;
            beat.tick();
            let cached = match served {
                // Of a copy it would tell nothing.
                true => PageSet::default(),
                false => cache_of(&file, size, page_size)?,
            };
            Ok(FileContents { elf, cached })
        })
    }

    /// The work of hashing the whole file, to be asked for with patience. The
    /// answer is `None` for a file that changed meanwhile.
    ///
    /// # Errors
    ///
    /// As for [`Self::inspect`].
    pub fn hash(
        &self,
        reader: &ProcReader,
    ) -> io::Result<impl FnOnce(&Beat) -> io::Result<Option<ContentId>> + Send + 'static> {
        let opener = self.opener(reader)?;
        Ok(move |beat: &Beat| {
            let file = opener.open(beat)?;
            let before = file.metadata()?;
            let content = hash_file(&file, before.len(), beat)?;
            let after = file.metadata()?;
            let same = before.len() == after.len() && before.modified()? == after.modified()?;
            Ok(content.filter(|_| same))
        })
    }

    /// The work of finding out a multi-call program's version, to be asked for with patience.
    ///
    /// # Errors
    ///
    /// As for [`Self::inspect`].
    pub fn version(
        &self,
        reader: &ProcReader,
        elf: ElfFacts,
    ) -> io::Result<impl FnOnce(&Beat) -> io::Result<Option<String>> + Send + 'static> {
        let opener = self.opener(reader)?;
        let size = self.stamp().map_or(0, |(stamp, _)| stamp.size.0);
        Ok(move |beat: &Beat| {
            let file = opener.open(beat)?;
            let found = program(&Source::file(file.as_fd(), size), &elf)?;
            Ok(found.and_then(|program| program.version))
        })
    }

    fn opener(&self, reader: &ProcReader) -> io::Result<Opener> {
        let held = self.fd.as_ref().ok_or(Errno::BADF)?;
        let root = reader.root().try_clone_to_owned()?;
        Ok(Opener { root, held: held.try_clone()?, served: self.served })
    }
}

/// Opens a held file for reading. Only ever asked for regular files: to open
/// anything else may have effects.
struct Opener {
    root: OwnedFd,
    held: OwnedFd,
    served: bool,
}

impl Opener {
    fn open(&self, beat: &Beat) -> io::Result<File> {
        if self.served {
            return served::copy(&self.held, || beat.tick());
        }
        let place = format!("self/fd/{}", self.held.as_raw_fd());
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        // To look must not write an access time; only the owner may ask for that.
        let quiet = openat(&self.root, place.as_str(), flags | OFlags::NOATIME, Mode::empty());
        let file = match quiet {
            Err(Errno::PERM) => openat(&self.root, place.as_str(), flags, Mode::empty())?,
            answer => answer?,
        };
        Ok(File::from(file))
    }
}

/// The pages of the executable segments, clamped to whole pages.
pub fn text_pages(elf: &ElfFacts, page_size: Bytes) -> Vec<Range<u64>> {
    const PF_X: u32 = 1;
    let executable = elf.loads.iter().filter(|load| load.flags & PF_X != 0);
    let pages = executable.map(|load| {
        let end = load.offset.saturating_add(load.file_size);
        load.offset / page_size.0..end.div_ceil(page_size.0)
    });
    pages.collect()
}

fn cache_of(file: &File, size: u64, page_size: Bytes) -> io::Result<PageSet> {
    let mut cached = PageSet::default();
    cached_pages(file.as_fd(), size, page_size.0, |page| cached.insert(page..page + 1))?;
    Ok(cached)
}

/// BLAKE3 of `size` bytes; `None` when the file is shorter.
fn hash_file(mut file: &File, size: u64, beat: &Beat) -> io::Result<Option<ContentId>> {
    use io::Read as _;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; CHUNK];
    let mut left = size;
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        match file.read(&mut buffer[..want])? {
            0 => return Ok(None),
            count => {
                hasher.update(&buffer[..count]);
                left -= count as u64;
                beat.tick();
            }
        }
    }
    Ok(Some(ContentId(*hasher.finalize().as_bytes())))
}

/// The way without privilege: the program itself, or the path below the process's
/// own root, if that still leads to an inode with the number that maps shows.
fn by_path(
    process: &Process,
    key: FileKey,
    path: &[u8],
    patience: &mut Patience,
) -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let program = openat(&process.dir, "exe", flags, Mode::empty()).ok();
    if let Some(program) = program.filter(|fd| inode_number(fd) == Some(key.ino)) {
        return Some(program);
    }
    let dir = process.dir.try_clone().ok()?;
    let path = path.to_vec();
    let found = patience.ask(move |_| {
        let root = openat(&dir, "root", flags | OFlags::DIRECTORY, Mode::empty())?;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let path = Path::new(std::ffi::OsStr::from_bytes(&path));
        openat2(root, path, flags, Mode::empty(), resolve)
    });
    found?.ok().filter(|fd| inode_number(fd) == Some(key.ino))
}

fn inode_number(fd: &OwnedFd) -> Option<u64> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    statx(fd, "", flags, StatxFlags::INO).ok().map(|stat| stat.stx_ino)
}
