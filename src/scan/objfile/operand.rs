//! One operand of `size`: found, opened, and taken apart if it is an archive.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, Stat};

use super::archive::{Archive, Member, Stop};
use super::{Extras, Rejected, read_object};
use crate::model::{
    Bytes, ElfFacts, ObjectSizes, Section, SectionTraits, SizeEvent, SizeFault, SizedObject,
};
use crate::scan::{Source, elf_facts};

/// Thin archives that refer to thin archives.
const MOST_NESTED: u32 = 16;

/// What an operand is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Target {
    /// What its bytes say.
    #[default]
    Any,
    /// One section of data, whatever it holds.
    Binary,
    /// A name that means nothing.
    Unknown,
}

/// What is wanted of each object.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    /// The sections' names.
    pub names: bool,
    /// Common symbols.
    pub common: bool,
    /// Segments, in pages of this size.
    pub segments: Option<Bytes>,
    /// What the operands are taken for.
    pub target: Target,
}

/// Measures one operand, and tells what it finds, in order.
pub fn measure(name: &[u8], wanted: Wanted, tell: &mut dyn FnMut(SizeEvent)) {
    let opened = match open_operand(name, wanted.target) {
        Ok(opened) => opened,
        Err(fault) => return tell(SizeEvent::Failed(name.to_vec(), fault)),
    };
    let source = Source::file(opened.file.as_fd(), opened.len);
    let mut run = Run { wanted, tell, outside: false };
    if wanted.target == Target::Binary {
        run.binary(name, opened.len);
    } else if let Some(archive) = Archive::open(source) {
        run.members(name, archive);
    } else {
        run.object(name, None, source, opened.len);
    }
}

struct Opened {
    file: File,
    len: u64,
}

/// A device or a FIFO is never opened: it is looked at first.
fn open_operand(name: &[u8], target: Target) -> Result<Opened, SizeFault> {
    let path = Path::new(OsStr::from_bytes(name));
    let stat = rustix::fs::stat(path).map_err(|error| match error {
        rustix::io::Errno::NOENT => SizeFault::Missing,
        error => SizeFault::Unlocatable(words(&error.into())),
    })?;
    let len = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => length(&stat),
        FileType::Directory => return Err(SizeFault::Directory),
        _ => return Err(SizeFault::NotOrdinary),
    };
    if len == 0 {
        return Err(SizeFault::Empty);
    }
    if target == Target::Unknown {
        return Err(SizeFault::InvalidTarget);
    }
    let file = open_regular(path).map_err(|error| SizeFault::Unreadable(words(&error)))?;
    Ok(Opened { file, len })
}

fn open_regular(path: &Path) -> io::Result<File> {
    // Not blocking: what was a file a moment ago may be a FIFO by now.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

fn length(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

fn words(error: &io::Error) -> String {
    crate::scan::cause(error)
}

struct Run<'r> {
    wanted: Wanted,
    tell: &'r mut dyn FnMut(SizeEvent),
    /// The member at hand lies outside its archive.
    outside: bool,
}

impl Run<'_> {
    fn fail(&mut self, name: &[u8], fault: SizeFault) {
        (self.tell)(SizeEvent::Failed(name.to_vec(), fault));
    }

    fn object(&mut self, name: &[u8], archive: Option<&[u8]>, source: Source<'_>, nominal: u64) {
        let extras = Extras { names: self.wanted.names, common: self.wanted.common };
        let facts = self.segments(source);
        match read_object(source, nominal, extras) {
            Ok(sizes) => {
                let archive = archive.map(<[u8]>::to_vec);
                let outside = self.outside;
                let object = SizedObject { name: name.to_vec(), archive, outside, sizes, facts };
                (self.tell)(SizeEvent::Object(Box::new(object)));
            }
            Err(Rejected::NotRecognized) => self.fail(name, SizeFault::NotRecognized),
            Err(Rejected::TruncatedSymbols) => self.fail(name, SizeFault::TruncatedSymbols),
        }
    }

    fn segments(&self, source: Source<'_>) -> Option<ElfFacts> {
        elf_facts(&source, self.wanted.segments?).ok().flatten()
    }

    /// The whole file as one section of data.
    fn binary(&mut self, name: &[u8], len: u64) {
        let traits = SectionTraits { alloc: true, contents: true, ..SectionTraits::default() };
        let section = Section { name_at: 0, size: len, address: 0, traits };
        let sizes = ObjectSizes {
            sections: vec![section],
            names: b".data\0".to_vec(),
            ..ObjectSizes::default()
        };
        let name = name.to_vec();
        let object = SizedObject { name, archive: None, outside: false, sizes, facts: None };
        (self.tell)(SizeEvent::Object(Box::new(object)));
    }

    fn members(&mut self, name: &[u8], mut archive: Archive<'_>) {
        loop {
            match archive.next() {
                Ok(member) => {
                    if let Err(fault) = self.member(name, &archive, &member, 0) {
                        return self.fail(name, fault);
                    }
                }
                Err(Stop::End) => return,
                Err(Stop::Malformed) => return self.fail(name, SizeFault::MalformedArchive),
            }
        }
    }

    /// One member. An error ends the archive.
    fn member(
        &mut self,
        archive_name: &[u8],
        archive: &Archive<'_>,
        member: &Member,
        depth: u32,
    ) -> Result<(), SizeFault> {
        self.outside = archive.thin;
        if !archive.thin {
            let (source, nominal) = archive.contents(member);
            self.unless_archive(&member.name, archive_name, source, nominal);
            return Ok(());
        }
        let name = beside(archive_name, &member.name);
        if name == archive_name || depth > MOST_NESTED {
            return Err(SizeFault::MalformedArchive);
        }
        let opened = open_member(&name)?;
        let source = Source::file(opened.file.as_fd(), opened.len);
        if member.nested_at == 0 {
            self.unless_archive(&name, archive_name, source, opened.len);
            return Ok(());
        }
        let nested = Archive::open(source).ok_or(SizeFault::NotRecognized)?;
        let inner = nested.member_at(member.nested_at).map_err(|_| SizeFault::MalformedArchive)?;
        self.member(&name, &nested, &inner, depth + 1)
    }

    /// An archive within an archive is passed over.
    fn unless_archive(&mut self, name: &[u8], archive: &[u8], source: Source<'_>, nominal: u64) {
        if Archive::open(source).is_none() {
            self.object(name, Some(archive), source, nominal);
        }
    }
}

/// A thin archive names its members from its own directory.
fn beside(archive: &[u8], member: &[u8]) -> Vec<u8> {
    if member.starts_with(b"/") {
        return member.to_vec();
    }
    let directory = archive.iter().rposition(|&byte| byte == b'/').map_or(0, |at| at + 1);
    [&archive[..directory], member].concat()
}

fn open_member(name: &[u8]) -> Result<Opened, SizeFault> {
    let path = Path::new(OsStr::from_bytes(name));
    let missing = |error: rustix::io::Errno| SizeFault::MissingMember(words(&error.into()));
    let stat = rustix::fs::stat(path).map_err(missing)?;
    if !FileType::from_raw_mode(stat.st_mode).is_file() {
        return Err(SizeFault::NotRecognized);
    }
    let file = open_regular(path).map_err(|error| SizeFault::MissingMember(words(&error)))?;
    Ok(Opened { file, len: length(&stat) })
}
