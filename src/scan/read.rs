//! Reads files: what kind they are, and their content's hash.
//!
//! Files of one directory are opened through one descriptor of it. A file is
//! read from its first byte to the size it was listed with, and counts only if
//! it was the same file, unchanged, before and after.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rayon::prelude::*;
use rustix::fs::FileType;

use super::dir::{FilesDir, RootDir, file_meta, file_type, open_regular, stat_fd};
use super::facts::Headers;
use super::source::Source;
use super::{facts, multicall};
use crate::model::{Bytes, ContentId, FileId, FileMeta, HostPath, Inventory, Notice, Progress};

/// Files up to this size are read in one piece. Of a larger one the first block
/// is compared before the rest is read.
pub const WHOLE: u64 = 128 * 1024;

/// The first block of a large file.
const BLOCK: usize = 16 * 1024;

/// What is read first of a file of which mostly the rest does not matter.
const HEAD: u64 = 4096;

/// Files of one directory that one thread reads in a row.
const CHUNK: usize = 64;

/// Files of one root from which on it is worth the trouble to make ready for them.
const MANY: usize = 256;

/// How often a file that changes while it is read is tried again.
const TRIES: usize = 3;

/// A script that does nothing but call its interpreter by another name is this
/// short: `#!/bin/busybox`.
pub const SHORT_SCRIPT: usize = 128;

const ELF_MAGIC: &[u8] = b"\x7fELF";

/// What is wanted of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Whether it is ELF, or a script for an interpreter.
    Kind,
    /// Also its content, if it is ELF.
    ElfContent,
    /// Also its content, if by its headers it could be a multi-call binary.
    ProgramContent,
    /// Also its content.
    Content,
    /// Its content, though it is large and its first block was compared already.
    WholeContent,
}

/// One file to be read.
#[derive(Debug, Clone, Copy)]
pub struct Job {
    /// The root's place in the list.
    pub root: u32,
    /// The file in it.
    pub file: FileId,
    /// What is wanted.
    pub want: Want,
}

/// What a file was found to be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// It begins as ELF does.
    pub elf: bool,
    /// Its content, where it was wanted and read whole.
    pub content: Option<ContentId>,
    /// The hash of a large file's first block, where the rest was not read.
    pub block: Option<ContentId>,
    /// The text of an executable `#!` file that is no longer than [`SHORT_SCRIPT`].
    pub script: Option<Box<[u8]>>,
}

/// Where the files lie.
#[derive(Clone, Copy)]
pub struct Library<'a> {
    /// The roots.
    pub roots: &'a [RootDir],
    /// What they hold, in the same order.
    pub inventories: &'a [Inventory],
    /// A file larger than this is not read whole.
    pub largest: Bytes,
}

/// Reads files. The answers are in the order of the jobs, which goes by root and directory.
pub fn read(library: Library<'_>, jobs: &[Job], progress: &dyn Progress) -> Vec<Answer> {
    for jobs in jobs.chunk_by(|a, b| a.root == b.root).filter(|jobs| jobs.len() >= MANY) {
        library.roots[jobs[0].root as usize].seal();
    }
    let same_dir = |a: &Job, b: &Job| a.root == b.root && library.dir_of(a) == library.dir_of(b);
    let chunks: Vec<&[Job]> = jobs.chunk_by(same_dir).flat_map(|jobs| jobs.chunks(CHUNK)).collect();
    let read: Vec<_> = chunks
        .into_par_iter()
        .map_init(
            || vec![0; WHOLE as usize],
            |buffer, jobs| {
                let answers = library.read_chunk(jobs, buffer);
                progress.advance(jobs.len() as u64);
                answers
            },
        )
        .collect();
    read.into_iter().flatten().collect()
}

/// What a file was found to be, and why that is not all.
pub type Answer = (Seen, Option<Notice>);

impl Library<'_> {
    fn dir_of(&self, job: &Job) -> crate::model::DirId {
        self.inventories[job.root as usize].file_dir(job.file)
    }

    /// Opens the directory that a job's file lies in.
    pub fn open_dir(&self, root: u32, file: FileId) -> io::Result<OwnedFd> {
        let inventory = &self.inventories[root as usize];
        self.roots[root as usize].open_dir(&inventory.dir_path(inventory.file_dir(file)))
    }

    /// Where a file lies on the host.
    pub fn path(&self, root: u32, file: FileId) -> HostPath {
        self.inventories[root as usize].file_path(file).on_host(self.roots[root as usize].path())
    }

    /// Whether a content is a multi-call binary, as this file has it; `None` where the file
    /// cannot be read, or holds something else by now.
    pub fn is_program(&self, root: u32, file: FileId, content: ContentId) -> Option<bool> {
        let inventory = &self.inventories[root as usize];
        let dir = self.open_dir(root, file).ok()?;
        let (opened, meta) = open_regular(dir.as_fd(), inventory.file_name(file)).ok()?;
        let bytes = Source::file(opened.as_fd(), meta.size.0);
        let bytes = bytes.bytes(0, multicall::FILE_MAX as usize).ok()?;
        if hash(&bytes) != content {
            return None;
        }
        let facts = facts::elf_facts(&Source::bytes_of(&bytes), PAGE).ok()?;
        Some(facts.is_some_and(|facts| multicall::program_in(&bytes, &facts).is_some()))
    }

    fn read_chunk(&self, jobs: &[Job], buffer: &mut [u8]) -> Vec<Answer> {
        let (root, file) = (jobs[0].root as usize, jobs[0].file);
        let path = self.inventories[root].dir_path(self.inventories[root].file_dir(file));
        let dir = match self.roots[root].open_files(&path) {
            Ok(dir) => dir,
            Err(error) => return jobs.iter().map(|job| self.failed(job, &error)).collect(),
        };
        jobs.iter().map(|job| self.read_one(&dir, job, buffer)).collect()
    }

    fn read_one(&self, dir: &FilesDir, job: &Job, buffer: &mut [u8]) -> Answer {
        let inventory = &self.inventories[job.root as usize];
        let (name, listed) = (inventory.file_name(job.file), inventory.file(job.file));
        let reader = Reader { name, listed, want: job.want, largest: self.largest };
        match reader.read(dir, buffer) {
            Ok(Outcome::Seen(seen)) => (seen, None),
            Ok(Outcome::TooLarge(seen)) => {
                let cause = format!(
                    "not compared: larger than {} bytes; --max-file-size raises the limit",
                    self.largest.0
                );
                (seen, Some(Notice::partial(self.path(job.root, job.file), "read", cause)))
            }
            Ok(Outcome::Changed) => {
                let path = self.path(job.root, job.file);
                (
                    Seen::default(),
                    Some(Notice::partial(path, "read", "it changed while it was read")),
                )
            }
            Err(error) => self.failed(job, &error),
        }
    }

    fn failed(&self, job: &Job, error: &io::Error) -> Answer {
        let path = self.path(job.root, job.file);
        (Seen::default(), Some(Notice::partial(path, "read", super::cause(error))))
    }
}

enum Outcome {
    Seen(Seen),
    TooLarge(Seen),
    Changed,
}

/// One file that is being read.
struct Reader<'a> {
    name: &'a [u8],
    listed: FileMeta,
    want: Want,
    largest: Bytes,
}

impl Reader<'_> {
    /// The buffer holds [`WHOLE`] bytes.
    fn read(&self, dir: &FilesDir, buffer: &mut [u8]) -> io::Result<Outcome> {
        if let Some(Ok(file)) = dir.open_at_once(self.name)
            && let Ok(Some(outcome)) = self.look(&file, buffer)
            && self.is_as_listed(&file)?
        {
            return Ok(outcome);
        }
        self.read_pinned(dir, buffer)
    }

    /// It is the file that was listed, and nobody has changed it since.
    fn is_as_listed(&self, file: &File) -> io::Result<bool> {
        let stat = stat_fd(file.as_fd())?;
        Ok(file_type(&stat) == FileType::RegularFile && file_meta(&stat) == self.listed)
    }

    /// Looks before it opens, and reads again what is changed meanwhile.
    fn read_pinned(&self, dir: &FilesDir, buffer: &mut [u8]) -> io::Result<Outcome> {
        for _ in 0..TRIES {
            let (file, before) = dir.open_regular(self.name)?;
            if before.inode != self.listed.inode || before.size != self.listed.size {
                break;
            }
            let outcome = self.look(&file, buffer)?;
            let Some(outcome) = outcome else { continue };
            if self.want == Want::Kind || file_meta(&stat_fd(file.as_fd())?) == before {
                return Ok(outcome);
            }
        }
        Ok(Outcome::Changed)
    }

    /// `None` where the file ended before its size.
    fn look(&self, file: &File, buffer: &mut [u8]) -> io::Result<Option<Outcome>> {
        let size = self.listed.size.0;
        let piece = self.first_piece().min(size) as usize;
        let head = &mut buffer[..piece];
        if read_at_most(file, head, 0)? < piece {
            return Ok(None);
        }
        let mut seen =
            Seen { elf: head.starts_with(ELF_MAGIC), script: self.script(head), ..Seen::default() };
        if !self.wants_content(seen.elf) {
            return Ok(Some(Outcome::Seen(seen)));
        }
        if self.compares_block() {
            seen.block = Some(hash(head));
            return Ok(Some(Outcome::Seen(seen)));
        }
        let too_large = size > self.largest.0;
        if self.want == Want::ProgramContent && !may_be_program(file, size, too_large, buffer)? {
            return Ok(Some(Outcome::Seen(seen)));
        }
        if too_large {
            return Ok(Some(Outcome::TooLarge(seen)));
        }
        seen.content = hash_rest(file, size, buffer, piece)?;
        Ok(seen.content.is_some().then_some(Outcome::Seen(seen)))
    }

    /// Enough to see what it is; of a small file that may be hashed, all.
    fn first_piece(&self) -> u64 {
        match self.want {
            Want::Kind => SHORT_SCRIPT as u64,
            _ if self.compares_block() => BLOCK as u64,
            Want::ElfContent | Want::ProgramContent => HEAD,
            Want::Content | Want::WholeContent => WHOLE,
        }
    }

    /// It is large: the rest is read only where another file has the same first block.
    fn compares_block(&self) -> bool {
        matches!(self.want, Want::ElfContent | Want::Content) && self.listed.size.0 > WHOLE
    }

    fn wants_content(&self, elf: bool) -> bool {
        match self.want {
            Want::Kind => false,
            Want::ElfContent | Want::ProgramContent => elf,
            Want::Content | Want::WholeContent => true,
        }
    }

    fn script(&self, head: &[u8]) -> Option<Box<[u8]>> {
        let short = self.listed.size.0 <= SHORT_SCRIPT as u64;
        (short && self.listed.mode & 0o111 != 0 && head.starts_with(b"#!")).then(|| head.into())
    }
}

/// By its marks it could be a multi-call binary; where nobody will look at its content
/// afterwards, it is one. The buffer begins with the file's head.
fn may_be_program(file: &File, size: u64, surely: bool, buffer: &mut [u8]) -> io::Result<bool> {
    let source = Source::file(file.as_fd(), size);
    if surely {
        let Some(facts) = facts::elf_facts(&source, PAGE)? else { return Ok(false) };
        return Ok(multicall::program(&source, &facts)?.is_some());
    }
    let (head, room) = buffer.split_at_mut(HEAD as usize);
    let Some(headers) = Headers::read_on(&source, Cow::Borrowed(head))? else { return Ok(false) };
    multicall::marked(&source, &headers.loads(), room)
}

/// How long a page is says nothing about what a program is.
const PAGE: Bytes = Bytes(4096);

/// The hash of a file of which the first `had` bytes are in the buffer.
fn hash_rest(
    file: &File,
    size: u64,
    buffer: &mut [u8],
    had: usize,
) -> io::Result<Option<ContentId>> {
    let first = size.min(buffer.len() as u64) as usize;
    if read_at_most(file, &mut buffer[had..first], had as u64)? < first - had {
        return Ok(None);
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(&buffer[..first]);
    let mut offset = first as u64;
    while offset < size {
        let piece = (size - offset).min(buffer.len() as u64) as usize;
        let got = read_at_most(file, &mut buffer[..piece], offset)?;
        if got == 0 {
            return Ok(None);
        }
        hasher.update(&buffer[..got]);
        offset += got as u64;
    }
    Ok(Some(ContentId(hasher.finalize().into())))
}

fn hash(bytes: &[u8]) -> ContentId {
    ContentId(blake3::hash(bytes).into())
}

/// Fills the buffer; less only at the file's end.
fn read_at_most(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match file.read_at(&mut buffer[got..], offset + got as u64) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}
