//! Object files, core dumps and archives, as the binutils' `size` reads them.
//!
//! Only headers are read, by position into small buffers. What becomes a
//! section, what refuses a file and in which order things are found follows the
//! BFD library; section contents are never looked at, except for the few words
//! of section groups and for the notes of core dumps.

mod archive;
mod common;
mod core;
mod groups;
mod header;
mod notes;
mod object;
mod oddities;
mod operand;
mod sections;
mod symbol;

use goblin::elf::SectionHeader;
use goblin::elf::header::ET_CORE;
use goblin::elf::section_header as sh;

pub use operand::{Target, Wanted, measure};

use self::header::{Header, Tables};
use self::object::Object;
use self::sections::Visited;
use super::Source;
use crate::model::{ObjectSizes, ReadOnly, Section, SectionSums, SectionTraits};

/// No string table that is meant to be shown is larger.
const LARGEST_NAME_TABLE: u64 = 256 << 20;

/// Why an object was not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rejected {
    /// It is none, or it is damaged.
    NotRecognized,
    /// Its symbols are cut off.
    TruncatedSymbols,
}

/// What is read besides the sizes.
#[derive(Debug, Clone, Copy, Default)]
struct Extras {
    names: bool,
    common: bool,
}

/// `text`, `data` and `bss` in format `berkeley`.
///
/// `None` where `size` says "file format not recognized", where the object has
/// no section table, and for core dumps.
pub fn section_sums(source: &Source<'_>) -> Option<SectionSums> {
    let mut object = Object::new(*source, source.len());
    let header = Header::read(&mut object).ok()?;
    if header.kind == ET_CORE || !header.has_section_table() {
        return None;
    }
    let sizes = read_sections(&mut object, header, Extras::default()).ok()?;
    Some(sizes.sums(ReadOnly::Text))
}

/// Reads an object or a core dump. `nominal` is the size its file claims to have.
fn read_object(source: Source<'_>, nominal: u64, extras: Extras) -> Result<ObjectSizes, Rejected> {
    let mut object = Object::new(source, nominal);
    let header = Header::read(&mut object)?;
    if header.kind == ET_CORE {
        core::read_core(&mut object, header)
    } else {
        read_sections(&mut object, header, extras)
    }
}

fn read_sections(
    object: &mut Object<'_>,
    header: Header,
    extras: Extras,
) -> Result<ObjectSizes, Rejected> {
    let mut tables = Tables::read(object, header)?;
    let mut oddities = std::mem::take(&mut tables.oddities);
    let header = tables.header.clone();
    let visited = sections::visit(object, tables)?;
    oddities.extend(visited.oddities.iter().cloned());
    if visited.generic && visited.headers.iter().any(is_solaris_order) {
        return Err(Rejected::NotRecognized);
    }
    let names = if extras.names { read_names(object, &header, &visited)? } else { Vec::new() };
    let common = if extras.common { common::size(object, &header, &visited)? } else { 0 };
    let mut sizes = ObjectSizes { names, common, oddities, ..ObjectSizes::default() };
    sizes.sections.reserve_exact(visited.order.len());
    for &index in &visited.order {
        let section = section(&visited.headers[index as usize], &sizes);
        sizes.sections.push(section);
    }
    Ok(sizes)
}

/// Only the backends of x86 accept the links that Solaris' linker writes.
fn is_solaris_order(header: &SectionHeader) -> bool {
    matches!(header.sh_link, 0xff00 | 0xff01)
}

fn read_names(
    object: &mut Object<'_>,
    header: &Header,
    visited: &Visited,
) -> Result<Vec<u8>, Rejected> {
    if header.names_index == 0 || visited.order.is_empty() {
        return Ok(Vec::new());
    }
    let Some(table) = visited.headers.get(header.names_index as usize) else {
        return Ok(Vec::new());
    };
    if visited.order.iter().all(|&index| visited.headers[index as usize].sh_name == 0) {
        return Ok(Vec::new());
    }
    header::refuse(table.sh_size > LARGEST_NAME_TABLE)?;
    object.copy(table.sh_offset, usize::try_from(table.sh_size).unwrap_or(0))
}

fn section(header: &SectionHeader, sizes: &ObjectSizes) -> Section {
    let has = |flag: u32| header.sh_flags & u64::from(flag) != 0;
    let section = Section {
        name_at: if header.sh_name == 0 { u64::MAX } else { header.sh_name as u64 },
        size: header.sh_size,
        address: header.sh_addr,
        traits: SectionTraits {
            alloc: has(sh::SHF_ALLOC),
            code: has(sh::SHF_EXECINSTR),
            readonly: !has(sh::SHF_WRITE),
            contents: header.sh_type != sh::SHT_NOBITS,
            other: has(sh::SHF_MERGE | sh::SHF_STRINGS | sh::SHF_TLS | sh::SHF_EXCLUDE),
        },
    };
    if section.traits.listed() {
        return section;
    }
    let other = is_special(sizes.name(&section));
    Section { traits: SectionTraits { other, ..section.traits }, ..section }
}

/// Sections that are for debuggers, or linked once, by their names alone.
fn is_special(name: &[u8]) -> bool {
    const PREFIXES: [&[u8]; 9] = [
        b".debug",
        b".gdb_index",
        b".gnu.build.attributes",
        b".gnu.debuglto_.debug_",
        b".gnu.linkonce",
        b".line",
        b".note.gnu",
        b".stab",
        b".zdebug",
    ];
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}
