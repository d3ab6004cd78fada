//! Core dumps: their segments are shown as sections.

use goblin::elf::ProgramHeader;
use goblin::elf::program_header as ph;

use super::header::{Header, refuse};
use super::{Object, Rejected, notes};
use crate::model::{CoreDump, ObjectSizes, Oddity, Section, SectionTraits};

const PT_GNU_SFRAME: u32 = 0x6474_e554;
/// One note segment holds all threads' registers; beyond this it is no core dump.
const LARGEST_NOTES: u64 = 1 << 30;

/// Reads a core dump.
pub(super) fn read_core(
    object: &mut Object<'_>,
    mut header: Header,
) -> Result<ObjectSizes, Rejected> {
    resolve_count(object, &mut header)?;
    refuse(header.segments_at == 0)?;
    refuse(usize::from(header.segment_entry) != header.segment_size())?;
    let segments = read_segments(object, &header)?;
    let mut core = Core::new(object, &header);
    for (index, segment) in segments.iter().enumerate() {
        core.add_segment(index, segment)?;
    }
    let last = segments.iter().filter(|segment| segment.p_filesz > 0);
    let end = last.map(|segment| segment.p_offset.saturating_add(segment.p_filesz)).max();
    let mut sizes = core.sizes;
    if end.is_some_and(|end| end > core.object.nominal) {
        sizes.oddities.push(Oddity::SegmentPastEnd);
    }
    sizes.core = Some(core.dump);
    Ok(sizes)
}

/// With 65,535 segments or more their number is in section header 0.
fn resolve_count(object: &mut Object<'_>, header: &mut Header) -> Result<(), Rejected> {
    if header.sections_at == 0 || header.segment_count != 0xffff {
        return Ok(());
    }
    refuse(!header.has_section_table())?;
    let bytes = object.copy_checked(header.sections_at, header.section_size() as u64)?;
    let first = goblin::elf::SectionHeader::parse_from(&bytes, 0, 1, header.ctx);
    let info = first.map_err(|_| Rejected::NotRecognized)?.swap_remove(0).sh_info;
    if info != 0 {
        header.segment_count = info;
    }
    Ok(())
}

fn read_segments(object: &mut Object<'_>, header: &Header) -> Result<Vec<ProgramHeader>, Rejected> {
    let count = header.segment_count as usize;
    if count == 0 {
        return Ok(Vec::new());
    }
    let bytes = object.slice(header.segments_at, count * header.segment_size())?;
    ProgramHeader::parse(bytes, 0, count, header.ctx).map_err(|_| Rejected::NotRecognized)
}

/// A core dump's sections, as they are made.
pub(super) struct Core<'c, 'a> {
    object: &'c mut Object<'a>,
    pub header: &'c Header,
    pub sizes: ObjectSizes,
    pub dump: CoreDump,
    /// The process, and the thread whose notes are being read.
    pub process: i32,
    pub thread: i32,
}

impl<'c, 'a> Core<'c, 'a> {
    fn new(object: &'c mut Object<'a>, header: &'c Header) -> Self {
        let (sizes, dump) = (ObjectSizes::default(), CoreDump::default());
        Self { object, header, sizes, dump, process: 0, thread: 0 }
    }

    /// Adds a section.
    pub(super) fn add(&mut self, name: &str, size: u64, address: u64, traits: SectionTraits) {
        let name_at = self.sizes.names.len() as u64;
        self.sizes.names.extend_from_slice(name.as_bytes());
        self.sizes.names.push(0);
        self.sizes.sections.push(Section { name_at, size, address, traits });
    }

    /// There is a section of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        let mut sections = self.sizes.sections.iter();
        sections.any(|section| self.sizes.name(section) == name.as_bytes())
    }

    /// A segment becomes one section, or two where memory goes on behind the file's part.
    fn add_segment(&mut self, index: usize, segment: &ProgramHeader) -> Result<(), Rejected> {
        let (file, memory) = (segment.p_filesz, segment.p_memsz);
        let name = format!("{}{index}", kind_name(segment.p_type));
        let split = file > 0 && memory > file;
        let load = segment.p_type == ph::PT_LOAD;
        let traits = SectionTraits {
            alloc: load,
            code: load && segment.p_flags & ph::PF_X != 0,
            readonly: segment.p_flags & ph::PF_W == 0,
            contents: true,
            other: false,
        };
        if file > 0 {
            let name = if split { format!("{name}a") } else { name.clone() };
            self.add(&name, file, segment.p_vaddr, traits);
        }
        if memory > file {
            let name = if split { format!("{name}b") } else { name };
            let address = segment.p_vaddr.wrapping_add(file);
            let traits = SectionTraits { contents: false, ..traits };
            self.add(&name, memory - file, address, traits);
        }
        if segment.p_type == ph::PT_NOTE { self.add_notes(segment) } else { Ok(()) }
    }

    fn add_notes(&mut self, segment: &ProgramHeader) -> Result<(), Rejected> {
        let size = segment.p_filesz;
        if size == 0 || size == u64::MAX {
            return Ok(());
        }
        refuse(size > LARGEST_NOTES)?;
        let bytes = self.object.copy_checked(segment.p_offset, size)?;
        notes::add(self, &bytes, segment.p_align)
    }
}

fn kind_name(kind: u32) -> &'static str {
    match kind {
        ph::PT_NULL => "null",
        ph::PT_LOAD => "load",
        ph::PT_DYNAMIC => "dynamic",
        ph::PT_INTERP => "interp",
        ph::PT_NOTE => "note",
        ph::PT_SHLIB => "shlib",
        ph::PT_PHDR => "phdr",
        ph::PT_GNU_EH_FRAME => "eh_frame_hdr",
        ph::PT_GNU_STACK => "stack",
        ph::PT_GNU_RELRO => "relro",
        PT_GNU_SFRAME => "sframe",
        _ => "proc",
    }
}
