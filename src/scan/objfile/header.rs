//! The ELF header and the tables it points at, read by position and never as a whole.

use goblin::container::Ctx;
use goblin::elf::header::{EI_VERSION, ET_CORE, ET_REL, EV_CURRENT};
use goblin::elf::section_header::{SHF_INFO_LINK, SHT_NOBITS, SHT_REL, SHT_RELA, SHT_STRTAB};
use goblin::elf::{Elf, SectionHeader};

use super::{Object, Rejected};
use crate::model::Oddity;

/// `e_shstrndx` and `e_phnum` are found in section header 0 instead.
const XINDEX: u32 = 0xffff;
/// More sections than any linker makes; a sparse file could claim billions.
const MOST_SECTIONS: u64 = 1 << 20;
/// The string table of section names usually lies just before the table of sections.
const LEAD: u64 = 2048;

/// The ELF header's fields that matter here, with the indirect ones resolved.
#[derive(Debug, Clone)]
pub(super) struct Header {
    pub ctx: Ctx,
    pub kind: u16,
    pub machine: u16,
    pub sections_at: u64,
    pub section_count: u32,
    pub section_entry: u16,
    pub names_index: u32,
    pub segments_at: u64,
    pub segment_count: u32,
    pub segment_entry: u16,
}

impl Header {
    /// Reads the first bytes of an object.
    pub(super) fn read(object: &mut Object<'_>) -> Result<Self, Rejected> {
        let got = object.read_head()?;
        let mut bytes = [0; 64];
        let known = got.min(bytes.len());
        bytes[..known].copy_from_slice(&object.head()[..known]);
        let raw = Elf::parse_header(&bytes).map_err(|_| Rejected::NotRecognized)?;
        let (Ok(container), Ok(endian)) = (raw.container(), raw.endianness()) else {
            return Err(Rejected::NotRecognized);
        };
        let header = Self {
            ctx: Ctx::new(container, endian),
            kind: raw.e_type,
            machine: raw.e_machine,
            sections_at: raw.e_shoff,
            section_count: raw.e_shnum.into(),
            section_entry: raw.e_shentsize,
            names_index: raw.e_shstrndx.into(),
            segments_at: raw.e_phoff,
            segment_count: raw.e_phnum.into(),
            segment_entry: raw.e_phentsize,
        };
        let whole = got >= header.size();
        if whole && (raw.e_ident[EI_VERSION] == EV_CURRENT || raw.e_type == ET_CORE) {
            Ok(header)
        } else {
            Err(Rejected::NotRecognized)
        }
    }

    pub(super) fn wide(&self) -> bool {
        self.ctx.is_big()
    }

    pub(super) fn little(&self) -> bool {
        self.ctx.is_little_endian()
    }

    fn size(&self) -> usize {
        if self.wide() { 64 } else { 52 }
    }

    /// Bytes of one section header.
    pub(super) fn section_size(&self) -> usize {
        if self.wide() { 64 } else { 40 }
    }

    /// Bytes of one program header.
    pub(super) fn segment_size(&self) -> usize {
        if self.wide() { 56 } else { 32 }
    }

    /// The table of sections lies behind the header, where one can be.
    pub(super) fn has_section_table(&self) -> bool {
        self.sections_at >= self.size() as u64
    }

    /// binutils have a backend of their own for this machine, not only the generic one.
    pub(super) fn is_x86(&self) -> bool {
        self.little() && (self.machine == 62 || (!self.wide() && matches!(self.machine, 3 | 6)))
    }
}

/// Every section header that an object has.
#[derive(Debug)]
pub(super) struct Tables {
    pub header: Header,
    pub sections: Vec<SectionHeader>,
    pub oddities: Vec<Oddity>,
}

impl Tables {
    /// Reads and checks the header and the table of sections.
    pub(super) fn read(object: &mut Object<'_>, mut header: Header) -> Result<Self, Rejected> {
        refuse(header.kind == ET_CORE || (header.kind == ET_REL && !header.has_section_table()))?;
        let counted = header.section_count != 0;
        refuse(counted && usize::from(header.section_entry) != header.section_size())?;
        refuse(counted && !header.has_section_table())?;

        let sections = if header.has_section_table() {
            read_sections(object, &mut header)?
        } else {
            Vec::new()
        };
        refuse(sections.is_empty() && header.names_index != 0)?;
        let odd_segments = has_odd_segments(object, &header)?;
        let mut tables = Self { header, sections, oddities: Vec::new() };
        tables.check_links()?;
        tables.find_oddities(object.nominal);
        // Told only of a file of which nothing else was told that keeps it from being written.
        if odd_segments && !tables.oddities.contains(&Oddity::SectionPastEnd) {
            tables.oddities.push(Oddity::SegmentAlignment);
        }
        Ok(tables)
    }

    /// Sections are linked to by index; an index outside the table refuses the file.
    fn check_links(&self) -> Result<(), Rejected> {
        let count = self.header.section_count;
        // SHN_BEFORE and SHN_AFTER, which Solaris' linker writes.
        let solaris = self.header.is_x86();
        for section in self.sections.iter().skip(1) {
            let ordered = solaris && matches!(section.sh_link, 0xff00 | 0xff01);
            refuse(section.sh_link >= count && !ordered)?;
            let points = section.sh_flags & u64::from(SHF_INFO_LINK) != 0
                || matches!(section.sh_type, SHT_REL | SHT_RELA);
            refuse(points && section.sh_info >= count)?;
        }
        Ok(())
    }

    fn find_oddities(&mut self, file_size: u64) {
        let past_end = |section: &SectionHeader| {
            let room = file_size.checked_sub(section.sh_offset);
            section.sh_type != SHT_NOBITS && room.is_none_or(|room| section.sh_size > room)
        };
        if self.sections.iter().any(past_end) {
            self.oddities.push(Oddity::SectionPastEnd);
        }
        if !self.sections.is_empty() && !self.names_table_is_one() {
            self.oddities.push(Oddity::NoNameTable);
            self.header.names_index = 0;
        }
    }

    fn names_table_is_one(&self) -> bool {
        self.sections
            .get(self.header.names_index as usize)
            .is_some_and(|section| section.sh_type == SHT_STRTAB)
    }
}

/// Refuses the file where `condition` holds.
pub(super) fn refuse(condition: bool) -> Result<(), Rejected> {
    if condition { Err(Rejected::NotRecognized) } else { Ok(()) }
}

/// Section header 0 holds the numbers that outgrew the header's 16 bits.
fn read_sections(
    object: &mut Object<'_>,
    header: &mut Header,
) -> Result<Vec<SectionHeader>, Rejected> {
    let expected = u64::from(header.section_count.max(1)) * header.section_size() as u64;
    object.preload(header.sections_at.saturating_sub(LEAD), header.sections_at, expected)?;
    let first = parse_sections(object, header, 1)?.swap_remove(0);
    if header.section_count == 0 {
        refuse(first.sh_size == 0 || first.sh_size > MOST_SECTIONS)?;
        header.section_count = u32::try_from(first.sh_size).unwrap_or(u32::MAX);
    }
    if header.names_index == XINDEX {
        header.names_index = first.sh_link;
    }
    if header.segment_count == XINDEX && first.sh_info != 0 {
        header.segment_count = first.sh_info;
    }
    parse_sections(object, header, header.section_count as usize)
}

fn parse_sections(
    object: &mut Object<'_>,
    header: &Header,
    count: usize,
) -> Result<Vec<SectionHeader>, Rejected> {
    let bytes = object.slice(header.sections_at, count * header.section_size())?;
    SectionHeader::parse_from(bytes, 0, count, header.ctx).map_err(|_| Rejected::NotRecognized)
}

/// The program headers are not needed, but a file that lacks them is no object.
fn has_odd_segments(object: &mut Object<'_>, header: &Header) -> Result<bool, Rejected> {
    let count = u64::from(header.segment_count);
    let entry = header.segment_size() as u64;
    refuse(count > object.nominal / entry)?;
    if count == 0 {
        return Ok(false);
    }
    let table = object.copy_checked(header.segments_at, count * entry)?;
    let width = if header.wide() { 8 } else { 4 };
    // A power of two, or 0, has at most one bit set in whichever byte order.
    let odd = |entry: &[u8]| {
        let align = &entry[entry.len() - width..];
        align.iter().map(|byte| byte.count_ones()).sum::<u32>() > 1
    };
    Ok(table.chunks_exact(header.segment_size()).any(odd))
}
