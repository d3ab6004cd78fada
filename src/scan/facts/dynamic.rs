//! The dynamic section, found through `PT_DYNAMIC` as the dynamic linker finds it.

use std::io;

use goblin::elf::dynamic::{
    DF_1_PIE, DF_TEXTREL, DT_FLAGS, DT_FLAGS_1, DT_NEEDED, DT_NULL, DT_RPATH, DT_RUNPATH,
    DT_SONAME, DT_STRSZ, DT_STRTAB, DT_TEXTREL,
};
use goblin::elf::program_header::PT_DYNAMIC;

use super::headers::Headers;
use crate::model::LoadSegment;

/// Entries beyond are not looked at: thousands of libraries would not load either.
const ENTRIES_MAX: usize = 4096;
/// A longer name is no path: `PATH_MAX`.
const STRING_MAX: usize = 4096;
/// All strings of one file together.
const STRINGS_MAX: usize = 65536;

/// What the dynamic section says.
#[derive(Debug, Default)]
pub(super) struct Dynamic {
    pub(super) needed: Vec<Vec<u8>>,
    pub(super) soname: Option<Vec<u8>>,
    pub(super) runpath: Vec<Vec<u8>>,
    pub(super) textrel: bool,
    pub(super) pie: bool,
}

impl Dynamic {
    /// Reads it. A file without one, or with one that leads nowhere, says nothing.
    ///
    /// # Errors
    ///
    /// As `pread(2)` says.
    pub(super) fn read(headers: &Headers<'_>, loads: &[LoadSegment]) -> io::Result<Self> {
        let entries = entries(headers)?;
        let mut strings = Strings::of(headers, loads, &entries);
        let mut dynamic = Self::default();
        for &(tag, value) in &entries {
            match tag {
                DT_NEEDED => dynamic.needed.extend(strings.get(value)?),
                DT_SONAME => dynamic.soname = strings.get(value)?,
                DT_RPATH | DT_RUNPATH => dynamic.runpath.extend(strings.get(value)?),
                DT_TEXTREL => dynamic.textrel = true,
                DT_FLAGS => dynamic.textrel |= value & DF_TEXTREL != 0,
                DT_FLAGS_1 => dynamic.pie = value & DF_1_PIE != 0,
                _ => {}
            }
        }
        Ok(dynamic)
    }
}

/// The dynamic section's tags and values up to `DT_NULL`.
///
/// # Errors
///
/// As `pread(2)` says.
pub(in crate::scan) fn entries(headers: &Headers<'_>) -> io::Result<Vec<(u64, u64)>> {
    let Some(program) = headers.of_type(PT_DYNAMIC).next() else { return Ok(Vec::new()) };
    let words = headers.words;
    let size = 2 * words.size();
    let len = usize::try_from(program.p_filesz).unwrap_or(usize::MAX).min(ENTRIES_MAX * size);
    let bytes = headers.bytes(program.p_offset, len)?;
    let pairs = bytes
        .chunks_exact(size)
        .map_while(|entry| Some((words.word(entry, 0)?, words.word(entry, words.size())?)));
    Ok(pairs.take_while(|&(tag, _)| tag != DT_NULL).collect())
}

/// The file offset that an address is loaded from, and the bytes from there to its segment's end.
pub(in crate::scan) fn file_offset(loads: &[LoadSegment], address: u64) -> Option<(u64, u64)> {
    loads.iter().find_map(|load| {
        let into = address.checked_sub(load.vaddr).filter(|&into| into < load.file_size)?;
        Some((load.offset.checked_add(into)?, load.file_size - into))
    })
}

/// The dynamic string table.
struct Strings<'a> {
    headers: &'a Headers<'a>,
    offset: u64,
    size: u64,
    budget: usize,
}

impl<'a> Strings<'a> {
    fn of(headers: &'a Headers<'a>, loads: &[LoadSegment], entries: &[(u64, u64)]) -> Self {
        let value = |wanted| entries.iter().rev().find(|(tag, _)| *tag == wanted).map(|e| e.1);
        let found = value(DT_STRTAB).and_then(|address| file_offset(loads, address));
        let (offset, size) = match (found, value(DT_STRSZ)) {
            (Some((offset, room)), Some(size)) => (offset, size.min(room)),
            _ => (0, 0),
        };
        Self { headers, offset, size, budget: STRINGS_MAX }
    }

    /// The string at `at`; `None` where there is none, it does not end, or the file has too many.
    fn get(&mut self, at: u64) -> io::Result<Option<Vec<u8>>> {
        let room = usize::try_from(self.size.saturating_sub(at)).unwrap_or(usize::MAX);
        // Nearly every name is short: a small read first.
        for len in [256, STRING_MAX] {
            let bytes = self.headers.bytes(self.offset.saturating_add(at), len.min(room))?;
            if let Some(end) = memchr::memchr(0, &bytes) {
                return Ok(self.afford(&bytes[..end]));
            }
        }
        Ok(None)
    }

    fn afford(&mut self, string: &[u8]) -> Option<Vec<u8>> {
        self.budget = self.budget.checked_sub(string.len() + 1)?;
        Some(string.to_vec())
    }
}
