//! Reads files: what kind they are, and their content's hash.
//!
//! A file is read from its first byte to the size it was listed with, and counts only if
//! it was the same file, unchanged, before and after. Most files hold what another one holds:
//! what was hashed last is compared, which costs a fraction of a hash.

mod file;
mod scratch;
mod together;

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rayon::prelude::*;

use self::file::{Outcome, PAGE, Reader};
use self::scratch::{Scratch, hash};
use super::dir::RootDir;
use super::disk_threads::piece;
use super::side_by_side::together;
use super::source::Source;
use super::{facts, multicall};
use crate::model::{Bytes, ContentId, FileId, HostPath, Inventory, Notice, Progress};

/// Files up to this size are read in one piece. Of a larger one the first block
/// is compared before the rest is read.
pub const WHOLE: u64 = 128 * 1024;

/// Files that one thread reads in a row.
const CHUNK: usize = 64;

/// Bytes after which it takes no more of them: copies of a large program stand one after another.
const CHUNK_BYTES: u64 = 8 << 20;

/// Files of one root from which on it is worth the trouble to make ready for them.
const MANY: usize = 256;

/// A script that does nothing but call its interpreter by another name is this
/// short: `#!/bin/busybox`.
pub const SHORT_SCRIPT: usize = 128;

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
    /// Its content, however large it is.
    WholeContent,
    /// The same, of a large file that has this first block, as others have.
    Rest(ContentId),
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

/// Reads files. The answers are in the order of the jobs; files that may well be alike are best
/// asked for one after another.
pub fn read(library: Library<'_>, jobs: &[Job], progress: &dyn Progress) -> Vec<Answer> {
    library.make_ready(jobs.iter().map(|job| job.root));
    let read: Vec<_> = pieces(library, jobs)
        .into_par_iter()
        .map(|jobs| {
            let read = |scratch: &mut Scratch| match jobs[0].want {
                Want::Rest(_) => library.read_together(jobs, scratch),
                _ => jobs.iter().map(|job| library.read_one(job, scratch)).collect(),
            };
            let answers: Vec<Answer> = piece(|| SCRATCH.with_borrow_mut(read));
            progress.advance(jobs.len() as u64);
            answers
        })
        .collect();
    read.into_iter().flatten().collect()
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::new());
}

/// What one thread reads in a row; large files of one size that begin alike are read side by side.
fn pieces<'a>(library: Library<'a>, jobs: &'a [Job]) -> Vec<&'a [Job]> {
    let begins = |job: &Job| match job.want {
        Want::Rest(block) => Some((block, library.size(job))),
        _ => None,
    };
    let (mut pieces, together) = (Vec::new(), together(rayon::current_num_threads()));
    for alike in jobs.chunk_by(|a, b| begins(a) == begins(b)) {
        match begins(&alike[0]) {
            Some(_) => pieces.extend(alike.chunks(together)),
            None => pieces.extend(library.in_a_row(alike)),
        }
    }
    pieces
}

/// What a file was found to be, and why that is not all.
pub type Answer = (Seen, Option<Notice>);

impl Library<'_> {
    /// Makes ready the roots of which many files will be read, each named once for each of them: of
    /// use before the first of many calls of [`read`], which sees few of them at a time.
    pub fn make_ready(&self, of_files: impl Iterator<Item = u32>) {
        let mut files = vec![0; self.roots.len()];
        of_files.for_each(|root| files[root as usize] += 1);
        let many = self.roots.iter().zip(files).filter(|&(_, files)| files >= MANY);
        many.for_each(|(root, _)| root.seal());
    }

    /// Pieces of no more than so many files, and so many bytes but for one file.
    fn in_a_row<'a>(&self, jobs: &'a [Job]) -> impl Iterator<Item = &'a [Job]> {
        let mut rest = jobs;
        std::iter::from_fn(move || {
            let mut bytes = 0;
            let fits = |job: &&Job| {
                let fits = bytes < CHUNK_BYTES;
                bytes = self.size(job).0.saturating_add(bytes);
                fits
            };
            let count = rest.iter().take(CHUNK).take_while(fits).count();
            let piece;
            (piece, rest) = rest.split_at(count);
            (count > 0).then_some(piece)
        })
    }

    fn size(&self, job: &Job) -> Bytes {
        self.inventories[job.root as usize].file(job.file).size
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
        let path = self.inventories[root as usize].file_path(file);
        let (opened, meta) = self.roots[root as usize].open_regular(&path).ok()?;
        let bytes = Source::file(opened.as_fd(), meta.size.0);
        let bytes = bytes.bytes(0, multicall::FILE_MAX as usize).ok()?;
        if hash(&bytes) != content {
            return None;
        }
        let facts = facts::elf_facts(&Source::bytes_of(&bytes), PAGE).ok()?;
        Some(facts.is_some_and(|facts| multicall::program_in(&bytes, &facts).is_some()))
    }

    fn reader(&self, job: &Job) -> Reader<'_> {
        let root = &self.roots[job.root as usize];
        let inventory = &self.inventories[job.root as usize];
        let (path, listed) = (inventory.file_path(job.file), inventory.file(job.file));
        Reader { root, path, listed, want: job.want, largest: self.largest }
    }

    fn read_one(&self, job: &Job, scratch: &mut Scratch) -> Answer {
        match self.reader(job).read(scratch) {
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
