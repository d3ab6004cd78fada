//! Multi-call binaries, recognised from their bytes. Never executed: the binary
//! may be hostile, or of another architecture.
//!
//! `libbusybox.so` counts as one: it holds the code and the applet table, and the
//! small programs that load it hold neither.

mod busybox;
mod dropbear;
mod toybox;
mod uutils;

use std::io;
use std::ops::Range;
use std::sync::LazyLock;

use memchr::memmem;

use super::facts::merged;
use super::source::Source;
use crate::model::{ElfFacts, Linkage, LoadSegment, Program};

/// No multi-call binary comes near it; larger files are not looked into.
pub(super) const FILE_MAX: u64 = 64 << 20;

/// How much is searched at a time.
const CHUNK: usize = 64 << 10;

const PF_X: u32 = 1;
const PF_W: u32 = 2;

type Reader = fn(&[u8], &ElfFacts) -> Option<Program>;

/// What each family has in its read-only data, and who reads the rest.
static FAMILIES: [(&[u8], Reader); 4] = [
    (busybox::MARKER, busybox::read),
    (dropbear::MARKER, dropbear::read),
    (toybox::MARKER, toybox::read),
    (uutils::MARKER, uutils::read),
];

/// Which multi-call program a file is; `None` where it is none.
///
/// The segments for constants are searched in pieces for the families' markers; they are read as a
/// whole where one is found, and the rest of the file only where they do not tell enough.
///
/// # Errors
///
/// As `pread(2)` says.
pub fn program(source: &Source<'_>, facts: &ElfFacts) -> io::Result<Option<Program>> {
    if !possible(facts, source.len()) || !marked(source, &facts.loads, &mut vec![0; CHUNK])? {
        return Ok(None);
    }
    // Zeros that nobody looks at take no memory.
    let mut bytes = vec![0; source.len() as usize];
    for range in constants(&facts.loads) {
        source.read_at(range.start, part_mut(&mut bytes, &range))?;
    }
    // Toybox has its table in data. Where the first family is not told, another may be by the rest.
    let first = families(&bytes, facts).next().filter(|(marker, _)| *marker != toybox::MARKER);
    let found = first.and_then(|(_, read)| read(&bytes, facts));
    if found.as_ref().is_some_and(|found| found.version.is_some()) {
        return Ok(found);
    }
    let got = source.read_at(0, &mut bytes)?;
    bytes.truncate(got);
    Ok(program_in(&bytes, facts))
}

/// [`program`], of a whole file's bytes.
pub fn program_in(bytes: &[u8], facts: &ElfFacts) -> Option<Program> {
    if !possible(facts, bytes.len() as u64) {
        return None;
    }
    families(bytes, facts).find_map(|(_, read)| read(bytes, facts))
}

/// The families whose marker stands in the constants.
fn families(
    bytes: &[u8],
    facts: &ElfFacts,
) -> impl Iterator<Item = &'static (&'static [u8], Reader)> {
    let constants = constants(&facts.loads);
    FAMILIES.iter().filter(move |(marker, _)| {
        let finder = memmem::Finder::new(marker);
        constants.iter().any(|range| finder.find(part(bytes, range)).is_some())
    })
}

/// A program, or a library that may be `libbusybox.so`.
fn possible(facts: &ElfFacts, size: u64) -> bool {
    size <= FILE_MAX
        && match facts.linkage {
            Linkage::Static | Linkage::StaticPie | Linkage::Dynamic | Linkage::DynamicPie => true,
            Linkage::SharedObject => {
                facts.soname.as_ref().is_none_or(|soname| soname.starts_with(b"libbusybox"))
            }
            Linkage::Relocatable | Linkage::Core | Linkage::Other => false,
        }
}

/// Its constants hold the marker of a multi-call binary. The buffer is what they are read into.
pub(super) fn marked(
    source: &Source<'_>,
    loads: &[LoadSegment],
    buffer: &mut [u8],
) -> io::Result<bool> {
    let overlap = FAMILIES.iter().map(|(marker, _)| marker.len()).max().unwrap_or(0) as u64;
    for range in constants(loads) {
        let mut at = range.start;
        let end = range.end.min(source.len());
        while at < end {
            let piece = (buffer.len() as u64).min(end - at) as usize;
            let got = source.read_at(at, &mut buffer[..piece])?;
            if holds_marker(&buffer[..got]) {
                return Ok(true);
            }
            if got < piece || at + got as u64 >= end {
                break;
            }
            at += got as u64 - overlap;
        }
    }
    Ok(false)
}

/// A part of some markers. It is looked for, and then what is around it: each pass over the constants
/// of all programs takes its time.
struct Part {
    finder: memmem::Finder<'static>,
    /// The markers, and how far in each it stands.
    of: Vec<(usize, &'static [u8])>,
}

/// One of them stands in every marker.
static PARTS: LazyLock<[Part; 2]> = LazyLock::new(|| {
    [b"BusyBox".as_slice(), b"multi"].map(|part| {
        let finder = memmem::Finder::new(part);
        let in_marker = |&(marker, _): &(&'static [u8], _)| Some((finder.find(marker)?, marker));
        Part { of: FAMILIES.iter().filter_map(in_marker).collect(), finder }
    })
});

fn holds_marker(bytes: &[u8]) -> bool {
    let stands = |at: usize, &(before, marker): &(usize, &[u8])| {
        at.checked_sub(before).is_some_and(|start| bytes[start..].starts_with(marker))
    };
    PARTS.iter().any(|part| {
        let mut found = part.finder.find_iter(bytes);
        found.any(|at| part.of.iter().any(|marker| stands(at, marker)))
    })
}

/// The file ranges of the segments without `PF_W`, each byte once.
fn read_only(loads: &[LoadSegment]) -> Vec<Range<u64>> {
    let constant = loads.iter().filter(|load| load.flags & PF_W == 0);
    merged(constant.map(|load| load.offset..load.offset.saturating_add(load.file_size)))
}

/// The file ranges that strings lie in: read-only segments without code, where the linker made
/// some (most do, and code is the larger part of a program); all read-only ones otherwise.
fn constants(loads: &[LoadSegment]) -> Vec<Range<u64>> {
    let apart = loads.iter().filter(|load| load.flags & (PF_W | PF_X) == 0);
    let apart = merged(apart.map(|load| load.offset..load.offset.saturating_add(load.file_size)));
    if apart.is_empty() { read_only(loads) } else { apart }
}

/// A range of the file, as far as the file has it.
fn part<'a>(bytes: &'a [u8], range: &Range<u64>) -> &'a [u8] {
    &bytes[clamped(range, bytes.len())]
}

fn part_mut<'a>(bytes: &'a mut [u8], range: &Range<u64>) -> &'a mut [u8] {
    let range = clamped(range, bytes.len());
    &mut bytes[range]
}

fn clamped(range: &Range<u64>, len: usize) -> Range<usize> {
    let clamp = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(len);
    clamp(range.start)..clamp(range.end)
}

/// The bytes from the end of `prefix`, where it first stands in constants, or else in code, as far as
/// `wanted` goes.
fn after<'a>(
    bytes: &'a [u8],
    facts: &ElfFacts,
    prefix: &[u8],
    wanted: fn(u8) -> bool,
) -> Option<&'a [u8]> {
    let mut ranges = constants(&facts.loads).into_iter().chain(read_only(&facts.loads));
    ranges.find_map(|range| {
        let part = part(bytes, &range);
        let rest = &part[memmem::find(part, prefix)? + prefix.len()..];
        let len = rest.iter().position(|&byte| !wanted(byte)).unwrap_or(rest.len());
        Some(&rest[..len])
    })
}

/// Bytes of a version, as text; `None` where there are none, or too many to be one.
fn version(bytes: &[u8]) -> Option<String> {
    let plausible = (1..=64).contains(&bytes.len());
    let text = plausible.then(|| std::str::from_utf8(bytes).ok()).flatten()?;
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_marker_is_found_wherever_it_stands() {
        for (marker, _) in FAMILIES {
            for before in 0..70 {
                let before_it = vec![b'm'; before];
                let bytes = [&before_it, &b"BusyBox multi "[..], marker, b"multi"].concat();
                assert!(holds_marker(&bytes), "{marker:?} after {before}");
                assert!(!holds_marker(&bytes[..bytes.len() - 6]), "{marker:?} cut");
                assert!(holds_marker(&bytes[before + 14..]), "{marker:?} at the start");
                assert!(!holds_marker(&bytes[before + 15..]), "{marker:?} cut at its start");
            }
        }
    }
}
