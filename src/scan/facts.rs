//! What an ELF file's headers say of the program, from the program headers: a file
//! without section headers says as much, but for the section sums.
//!
//! Every read is small and capped, whatever the headers claim: the head of the
//! file, at most 64 KiB each of program headers, dynamic section and notes, and
//! the strings these name.

mod dynamic;
mod headers;
mod notes;
mod pages;
mod ranges;
mod words;

use std::io;

use goblin::elf::program_header::{PT_GNU_RELRO, PT_INTERP};

pub(super) use self::dynamic::{entries as dynamic_entries, file_offset};
pub(super) use self::headers::Headers;
pub(super) use self::ranges::merged;

use self::dynamic::Dynamic;
use crate::model::{Bytes, ElfFacts, ElfType, Linkage};
use crate::scan::objfile::section_sums;
use crate::scan::source::Source;

/// The longest interpreter path that Linux takes: `PATH_MAX`.
const INTERPRETER_MAX: u64 = 4096;

/// What the headers of an ELF file say; `None` where the file is not ELF.
///
/// Pages are counted at `page_size`. Only `sections` comes from the section table.
///
/// # Errors
///
/// As `pread(2)` says. A file that ends too early, or whose headers lead
/// nowhere, is no error: it has fewer facts.
pub fn elf_facts(source: &Source<'_>, page_size: Bytes) -> io::Result<Option<ElfFacts>> {
    let Some(headers) = Headers::read(source)? else { return Ok(None) };
    let loads = headers.loads();
    let dynamic = Dynamic::read(&headers, &loads)?;
    Ok(Some(ElfFacts {
        class: headers.words.class,
        endian: headers.words.endian,
        machine: headers.machine,
        kind: headers.kind,
        linkage: linkage(&headers, &dynamic),
        interpreter: interpreter(&headers)?,
        build_id: notes::build_id(&headers)?,
        relro: headers.of_type(PT_GNU_RELRO).map(|program| Bytes(program.p_memsz)).sum(),
        textrel: dynamic.textrel,
        segments: pages::segment_pages(&loads, source.len(), page_size),
        sections: section_sums(source),
        needed: dynamic.needed,
        soname: dynamic.soname,
        runpath: dynamic.runpath,
        loads,
    }))
}

fn linkage(headers: &Headers<'_>, dynamic: &Dynamic) -> Linkage {
    let interpreted = headers.of_type(PT_INTERP).next().is_some();
    match (headers.kind, interpreted) {
        (ElfType::Relocatable, _) => Linkage::Relocatable,
        (ElfType::Core, _) => Linkage::Core,
        (ElfType::Executable, true) => Linkage::Dynamic,
        (ElfType::Executable, false) => Linkage::Static,
        (ElfType::Dynamic, false) if dynamic.pie => Linkage::StaticPie,
        (ElfType::Dynamic, false) => Linkage::SharedObject,
        // libc.so.6 has an interpreter too, to be run for its version: its name as
        // a library tells it from the programs that linkers before DF_1_PIE made.
        (ElfType::Dynamic, true) if !dynamic.pie && dynamic.soname.is_some() => {
            Linkage::SharedObject
        }
        (ElfType::Dynamic, true) => Linkage::DynamicPie,
        (ElfType::Other(_), _) => Linkage::Other,
    }
}

/// `PT_INTERP` up to its NUL. Linux refuses a path that does not end in one.
fn interpreter(headers: &Headers<'_>) -> io::Result<Option<Vec<u8>>> {
    let Some(program) = headers.of_type(PT_INTERP).next() else { return Ok(None) };
    let len = program.p_filesz.min(INTERPRETER_MAX) as usize;
    let bytes = headers.bytes(program.p_offset, len)?;
    let end = memchr::memchr(0, &bytes).filter(|&end| end > 0);
    Ok(end.map(|end| bytes[..end].to_vec()))
}
