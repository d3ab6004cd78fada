//! One file: what it is, and what it holds.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use rustix::fs::FileType;

use super::scratch::Scratch;
use super::{SHORT_SCRIPT, Seen, WHOLE, Want};
use crate::model::{Bytes, ContentId, FileMeta, RootPath};
use crate::scan::dir::{RootDir, file_meta, file_type, stat_fd};
use crate::scan::facts::{self, Headers};
use crate::scan::multicall;
use crate::scan::source::Source;

/// The first block of a large file.
const BLOCK: usize = 16 * 1024;

/// What is read first of a file of which mostly the rest does not matter.
const HEAD: u64 = 4096;

/// How often a file that changes while it is read is tried again.
const TRIES: usize = 3;

/// How long a page is says nothing about what a program is.
pub(super) const PAGE: Bytes = Bytes(4096);

pub(super) enum Outcome {
    Seen(Seen),
    TooLarge(Seen),
    Changed,
}

/// One file that is being read.
pub(super) struct Reader<'a> {
    pub(super) root: &'a RootDir,
    pub(super) path: RootPath,
    pub(super) listed: FileMeta,
    pub(super) want: Want,
    pub(super) largest: Bytes,
}

impl Reader<'_> {
    pub(super) fn read(&self, scratch: &mut Scratch) -> io::Result<Outcome> {
        if let Some(Ok(file)) = self.root.open_at_once(&self.path)
            && let Ok(Some(outcome)) = self.look(&file, scratch)
            && self.is_as_listed(&file)?
        {
            return Ok(outcome);
        }
        self.read_pinned(scratch)
    }

    /// Opens it. What it is will only be known by [`Self::is_as_listed`].
    pub(super) fn open(&self) -> Option<File> {
        let pinned = || Ok(self.root.open_regular(&self.path)?.0);
        self.root.open_at_once(&self.path).unwrap_or_else(pinned).ok()
    }

    /// It is the file that was listed, and nobody has changed it since.
    pub(super) fn is_as_listed(&self, file: &File) -> io::Result<bool> {
        let stat = stat_fd(file.as_fd())?;
        Ok(file_type(&stat) == FileType::RegularFile && file_meta(&stat) == self.listed)
    }

    /// Looks before it opens, and reads again what is changed meanwhile.
    fn read_pinned(&self, scratch: &mut Scratch) -> io::Result<Outcome> {
        for _ in 0..TRIES {
            let (file, before) = self.root.open_regular(&self.path)?;
            if before.inode != self.listed.inode || before.size != self.listed.size {
                break;
            }
            let outcome = self.look(&file, scratch)?;
            let Some(outcome) = outcome else { continue };
            if self.want == Want::Kind || file_meta(&stat_fd(file.as_fd())?) == before {
                return Ok(outcome);
            }
        }
        Ok(Outcome::Changed)
    }

    /// `None` where the file ended before its size.
    fn look(&self, file: &File, scratch: &mut Scratch) -> io::Result<Option<Outcome>> {
        let size = self.listed.size.0;
        let piece = self.first_piece().min(size) as usize;
        let head = &mut scratch.buffer[..piece];
        let source = Source::file(file.as_fd(), size);
        if source.read_at(0, head)? < piece {
            return Ok(None);
        }
        let mut seen = Seen { elf: is_elf(head), script: self.script(head), ..Seen::default() };
        if !self.wants_content(seen.elf) {
            return Ok(Some(Outcome::Seen(seen)));
        }
        if self.compares_block() {
            seen.block = Some(scratch.hash(piece));
            return Ok(Some(Outcome::Seen(seen)));
        }
        let too_large = size > self.largest.0;
        if self.want == Want::ProgramContent
            && !may_be_program(&source, too_large, &mut scratch.buffer)?
        {
            return Ok(Some(Outcome::Seen(seen)));
        }
        if too_large {
            return Ok(Some(Outcome::TooLarge(seen)));
        }
        seen.content = hash_rest(&source, scratch, piece)?;
        Ok(seen.content.is_some().then_some(Outcome::Seen(seen)))
    }

    /// Enough to see what it is; of a small file that may be hashed, all.
    fn first_piece(&self) -> u64 {
        match self.want {
            Want::Kind => SHORT_SCRIPT as u64,
            _ if self.compares_block() => BLOCK as u64,
            Want::ElfContent | Want::ProgramContent => HEAD,
            Want::Content | Want::WholeContent | Want::Rest(_) => WHOLE,
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
            Want::Content | Want::WholeContent | Want::Rest(_) => true,
        }
    }

    fn script(&self, head: &[u8]) -> Option<Box<[u8]>> {
        let short = self.listed.size.0 <= SHORT_SCRIPT as u64;
        (short && self.listed.mode & 0o111 != 0 && head.starts_with(b"#!")).then(|| head.into())
    }
}

/// By its marks it could be a multi-call binary; where nobody will look at its content
/// afterwards, it is one. The buffer begins with the file's head.
fn may_be_program(source: &Source<'_>, surely: bool, buffer: &mut [u8]) -> io::Result<bool> {
    if surely {
        let Some(facts) = facts::elf_facts(source, PAGE)? else { return Ok(false) };
        return Ok(multicall::program(source, &facts)?.is_some());
    }
    let (head, room) = buffer.split_at_mut(HEAD as usize);
    let Some(headers) = Headers::read_on(source, Cow::Borrowed(head))? else { return Ok(false) };
    multicall::marked(source, &headers.loads(), room)
}

/// The hash of a file of which the first `had` bytes are in the buffer.
fn hash_rest(
    source: &Source<'_>,
    scratch: &mut Scratch,
    had: usize,
) -> io::Result<Option<ContentId>> {
    let (size, buffer) = (source.len(), &mut scratch.buffer);
    let first = size.min(buffer.len() as u64) as usize;
    if source.read_at(had as u64, &mut buffer[had..first])? < first - had {
        return Ok(None);
    }
    if first as u64 == size {
        return Ok(Some(scratch.hash(first)));
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(&buffer[..first]);
    let mut offset = first as u64;
    while offset < size {
        let piece = (size - offset).min(buffer.len() as u64) as usize;
        let got = source.read_at(offset, &mut buffer[..piece])?;
        if got == 0 {
            return Ok(None);
        }
        hasher.update(&buffer[..got]);
        offset += got as u64;
    }
    Ok(Some(ContentId(hasher.finalize().into())))
}

/// It begins as ELF does.
pub(super) fn is_elf(head: &[u8]) -> bool {
    head.starts_with(b"\x7fELF")
}
