//! The build-id, from the notes that the program headers lead to.

use std::io;

use goblin::elf::program_header::{PT_NOTE, ProgramHeader};

use super::headers::Headers;
use super::words::Words;

const NT_GNU_BUILD_ID: u32 = 3;
/// Bytes of notes that are looked at in one file. A core dump has megabytes, and no build-id.
const NOTES_MAX: u64 = 65536;
/// Longer than any hash that linkers use.
const BUILD_ID_MAX: usize = 64;

/// The first `NT_GNU_BUILD_ID`.
///
/// # Errors
///
/// As `pread(2)` says.
pub(super) fn build_id(headers: &Headers<'_>) -> io::Result<Option<Vec<u8>>> {
    let mut budget = NOTES_MAX;
    for program in headers.of_type(PT_NOTE) {
        let len = program.p_filesz.min(budget);
        budget -= len;
        let bytes = headers.bytes(program.p_offset, len as usize)?;
        if let Some(id) = find(&bytes, alignment(program), headers.words) {
            return Ok(Some(id.to_vec()));
        }
    }
    Ok(None)
}

/// Notes are padded to 4 bytes, in a segment aligned to 8 bytes to 8 (gABI, "Note Section").
fn alignment(program: &ProgramHeader) -> usize {
    if program.p_align == 8 { 8 } else { 4 }
}

fn find(notes: &[u8], align: usize, words: Words) -> Option<&[u8]> {
    let mut rest = notes;
    while !rest.is_empty() {
        let name_len = words.u32(rest, 0)? as usize;
        let desc_len = words.u32(rest, 4)? as usize;
        let kind = words.u32(rest, 8)?;
        let desc_at = 12usize.checked_add(name_len)?.checked_next_multiple_of(align)?;
        let end = desc_at.checked_add(desc_len)?;
        let name = rest.get(12..12 + name_len)?;
        let desc = rest.get(desc_at..end)?;
        if kind == NT_GNU_BUILD_ID && name == b"GNU\0" && (1..=BUILD_ID_MAX).contains(&desc_len) {
            return Some(desc);
        }
        rest = rest.get(end.checked_next_multiple_of(align)?..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use goblin::elf::program_header::ProgramHeader;

    use super::{alignment, find};
    use crate::model::{ElfClass, Endian};
    use crate::scan::facts::words::Words;

    const BIG: Words = Words { class: ElfClass::Elf32, endian: Endian::Big };

    fn note(name: &[u8], desc: &[u8], kind: u32, align: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in [name.len() as u32, desc.len() as u32, kind] {
            bytes.extend(number.to_be_bytes());
        }
        bytes.extend(name);
        bytes.resize(bytes.len().next_multiple_of(align), 0);
        bytes.extend(desc);
        bytes.resize(bytes.len().next_multiple_of(align), 0);
        bytes
    }

    #[test]
    fn others_are_skipped() {
        for align in [4, 8] {
            let mut notes = note(b"GNU\0", &[9; 13], 1, align);
            notes.extend(note(b"Debian\0", &[8; 5], 3, align));
            notes.extend(note(b"GNU\0", &[7; 20], 3, align));
            assert_eq!(find(&notes, align, BIG), Some(&[7; 20][..]));
        }
    }

    #[test]
    fn the_segment_says_how_notes_are_padded() {
        for (p_align, expected) in [(0, 4), (1, 4), (4, 4), (8, 8), (16, 4)] {
            assert_eq!(alignment(&ProgramHeader { p_align, ..ProgramHeader::default() }), expected);
        }
    }

    #[test]
    fn a_note_that_overruns_its_segment_is_none() {
        let whole = note(b"GNU\0", &[7; 20], 3, 4);
        for len in 0..whole.len() {
            assert_eq!(find(&whole[..len], 4, BIG), None);
        }
        let mut wild = whole;
        wild[..8].fill(0xff);
        assert_eq!(find(&wild, 4, BIG), None);
    }
}
