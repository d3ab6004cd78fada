//! The files that processes map: held while they are looked at, then asked for
//! their headers, their place in the page cache, and their content.
//!
//! A path is no way to a mapped file: it may have been deleted or replaced, it
//! may be another file in this mount namespace, and its owner may change it at any
//! time. `/proc/PID/map_files` leads to the very inode.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

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
use super::side_by_side::hash_and_compare;
use super::{Source, elf_facts, program};

/// What the kernel appends to the path of a file that lost its name.
const DELETED: &[u8] = b" (deleted)";
/// Bytes that are read between two signs of life.
const CHUNK: usize = 128 * 1024;
/// Pages that are cheaper asked for again than left out of what is asked for.
const GAP: u64 = 16;

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
    fd: Option<Arc<OwnedFd>>,
}

/// What a mapped file says of itself.
#[derive(Debug, Clone, Default)]
pub struct FileContents {
    /// What its ELF headers say; `None` for what is not ELF.
    pub elf: Option<ElfFacts>,
    /// Its pages in the page cache, beside those that are known to be.
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
        let fd = fd.map(Arc::new);
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

    /// The work of reading headers and cache, to be asked for with patience. Of `resident` it is known
    /// that they are cached: the cache is not asked for those, which takes longest, nor for a file that
    /// is larger than any program.
    ///
    /// # Errors
    ///
    /// When there is no descriptor left to be had, or the file is not held.
    pub fn inspect(
        &self,
        reader: &ProcReader,
        page_size: Bytes,
        resident: &PageSet,
        largest: Bytes,
    ) -> io::Result<impl FnOnce(&Beat) -> io::Result<FileContents> + Send + 'static> {
        let opener = self.opener(reader)?;
        let size = self.stamp().map_or(0, |(stamp, _)| stamp.size.0);
        // Of a copy the cache would tell nothing.
        let is_asked = !self.served && size <= largest.0;
        let end = if is_asked { size.div_ceil(page_size.0) } else { 0 };
        let unknown = resident.gaps(end, GAP);
        Ok(move |beat: &Beat| {
            let file = opener.open(beat)?;
            let elf = elf_facts(&Source::file(file.as_fd(), size), page_size)?;
            let cached = cached_of(&file, unknown, page_size, beat)?;
            Ok(FileContents { elf, cached })
        })
    }

    /// The work of hashing the first of some files of one size, and of comparing the others with it, to
    /// be asked for with patience. The answer is its content, for each of them that holds it; `None` for
    /// what differs, or has another size by now, or changes meanwhile, or cannot be read.
    ///
    /// # Errors
    ///
    /// As for [`Self::inspect`].
    pub fn hash(
        files: &[&Self],
        size: Bytes,
        reader: &ProcReader,
    ) -> io::Result<impl FnOnce(&Beat) -> io::Result<Vec<Option<ContentId>>> + Send + 'static> {
        let openers: io::Result<Vec<_>> = files.iter().map(|file| file.opener(reader)).collect();
        let openers = openers?;
        Ok(move |beat: &Beat| hash_alike(&openers, size.0, beat, &mut |_| beat.tick()))
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
        let held = Arc::clone(self.fd.as_ref().ok_or(Errno::BADF)?);
        Ok(Opener { root: Arc::clone(reader.root()), held, served: self.served })
    }
}

/// Opens a held file for reading. Only ever asked for regular files: to open
/// anything else may have effects.
struct Opener {
    root: Arc<OwnedFd>,
    held: Arc<OwnedFd>,
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

fn cached_of(
    file: &File,
    pages: Vec<Range<u64>>,
    page_size: Bytes,
    beat: &Beat,
) -> io::Result<PageSet> {
    let mut cached = PageSet::default();
    for range in pages {
        beat.tick();
        cached_pages(file.as_fd(), page_size.0, range, |page| cached.insert(page..page + 1))?;
    }
    Ok(cached)
}

thread_local! {
    /// What one thread reads into, again and again: memory of that size comes from the kernel, which
    /// has the other threads wait meanwhile.
    static BUFFERS: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// BLAKE3 of the first file, for each that holds the same and was not changed meanwhile.
fn hash_alike(
    openers: &[Opener],
    size: u64,
    beat: &Beat,
    read: &mut dyn FnMut(&[u8]),
) -> io::Result<Vec<Option<ContentId>>> {
    let Some((first, others)) = openers.split_first() else { return Ok(Vec::new()) };
    let first = first.open(beat)?;
    let mut others: Vec<Option<File>> = others.iter().map(|other| other.open(beat).ok()).collect();
    // Of another size it has no state.
    let state = |file: &File| {
        let now = file.metadata().ok().filter(|now| now.len() == size)?;
        now.modified().ok()
    };
    let states = |others: &[Option<File>]| -> Vec<_> {
        let others = others.iter().map(|other| other.as_ref().and_then(state));
        std::iter::once(state(&first)).chain(others).collect()
    };
    let before = states(&others);
    if before[0].is_none() {
        return Ok(vec![None; before.len()]);
    }
    let content = BUFFERS.with_borrow_mut(|buffers| {
        buffers.resize(2 * CHUNK, 0);
        hash_and_compare(&first, &mut others, size, buffers.split_at_mut(CHUNK), read)
    });
    let content = match content {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
        content => Some(content?),
    };
    let unchanged = states(&others).into_iter().zip(before);
    Ok(unchanged.map(|(now, then)| content.filter(|_| now.is_some() && now == then)).collect())
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    #![expect(clippy::disallowed_methods, reason = "tests build their own files")]

    use std::fs;
    use std::os::unix::fs::FileExt;

    use super::*;

    fn openers(files: &[&[u8]]) -> (tempfile::TempDir, Vec<Opener>) {
        let dir = tempfile::tempdir().unwrap();
        let opener = |(at, bytes): (usize, &&[u8])| {
            let path = dir.path().join(at.to_string());
            fs::write(&path, bytes).unwrap();
            let open = |path: &Path| rustix::fs::open(path, OFlags::PATH, Mode::empty()).unwrap();
            let (root, held) = (open(Path::new("/proc")).into(), open(&path).into());
            Opener { root, held, served: false }
        };
        let openers = files.iter().enumerate().map(opener).collect();
        (dir, openers)
    }

    fn told(openers: &[Opener], size: usize) -> Vec<Option<ContentId>> {
        hash_alike(openers, size as u64, &Beat::default(), &mut |_| {}).unwrap()
    }

    #[test]
    fn only_what_is_the_same_to_the_last_byte_is_told() {
        let first = vec![7; 2 * CHUNK + 5];
        let mut differs = first.clone();
        *differs.last_mut().unwrap() ^= 1;
        let longer = [&first[..], b"x"].concat();
        let files = [&first[..], &differs, &longer, &first[1..], &first, b""];
        let content = Some(ContentId(blake3::hash(&first).into()));
        let (_dir, openers) = openers(&files);
        let size = first.len();
        assert_eq!(told(&openers, size), [content, None, None, None, content, None]);
        assert_eq!(told(&openers[5..], 0), [Some(ContentId(blake3::hash(b"").into()))]);
        assert_eq!(told(&openers[..2], size - 1), [None; 2], "they have grown");
        assert_eq!(told(&openers[..2], size + 1), [None; 2], "they have shrunk");
        assert_eq!(told(&[], 0), []);
    }

    /// To ask for each page of a sparse file takes as long as its owner likes.
    #[test]
    fn the_cache_is_asked_for_what_is_unknown_of_a_file_that_is_no_larger_than_allowed() {
        let page = rustix::param::page_size() as u64;
        let size = 5 * page;
        let (_dir, openers) = openers(&[&vec![7; size as usize]]);
        let file = MappedFile {
            key: FileKey { dev: 0, ino: 0 },
            path: Vec::new(),
            unlinked: false,
            served: false,
            lost: false,
            fd: Some(Arc::clone(&openers[0].held)),
        };
        let source = super::super::VmaSource::Auto;
        let reader = ProcReader::open(Path::new("/proc"), page, source, false).unwrap();
        let cached = |resident: &PageSet, largest: u64| {
            let work = file.inspect(&reader, Bytes(page), resident, Bytes(largest)).unwrap();
            work(&Beat::default()).unwrap().cached
        };
        let (none, all) = (PageSet::default(), [0..5].into_iter().collect::<PageSet>());
        assert_eq!(cached(&none, size), all);
        assert_eq!(cached(&[0..4].into_iter().collect(), size), [4..5].into_iter().collect());
        assert_eq!(cached(&none, size - 1), none);
    }

    #[test]
    fn what_is_written_meanwhile_is_not_told() {
        let content = Some(ContentId(blake3::hash(b"77").into()));
        for (written, expected) in [(0, [None, content]), (1, [content, None])] {
            let (dir, openers) = openers(&[b"77", b"77"]);
            let file = fs::File::options().write(true).open(dir.path().join(written.to_string()));
            let mut write = |_: &[u8]| {
                // Some kernels tell times in steps.
                std::thread::sleep(std::time::Duration::from_millis(20));
                file.as_ref().unwrap().write_at(b"7", 0).unwrap();
            };
            let told = hash_alike(&openers, 2, &Beat::default(), &mut write).unwrap();
            assert_eq!(told, expected, "{written}");
        }
    }
}
