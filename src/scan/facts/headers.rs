//! The file header and the program headers.

use std::borrow::Cow;
use std::io;

use goblin::container::Ctx;
use goblin::elf::program_header::{PT_LOAD, ProgramHeader};

use super::words::Words;
use crate::model::{ElfClass, ElfType, Endian, LoadSegment};
use crate::scan::source::Source;

/// Read at once: in most files it holds the program headers, the interpreter and the notes.
const HEAD: usize = 4096;

/// The longest program header table that Linux loads (`load_elf_phdrs`, fs/binfmt_elf.c).
const TABLE_MAX: usize = 65536;

/// `e_phnum` of a file whose count stands in the first section header's `sh_info`.
const PN_XNUM: u16 = 0xffff;

/// A file's headers, and the file itself for what they point at.
pub(in crate::scan) struct Headers<'a> {
    pub(in crate::scan) words: Words,
    pub(in crate::scan) machine: u16,
    pub(in crate::scan) kind: ElfType,
    /// Every program header, up to the table size that Linux loads.
    pub(in crate::scan) programs: Vec<ProgramHeader>,
    source: Source<'a>,
    head: Cow<'a, [u8]>,
}

impl<'a> Headers<'a> {
    /// Reads them; `None` where the file is not ELF.
    ///
    /// # Errors
    ///
    /// As `pread(2)` says.
    pub(in crate::scan) fn read(source: &Source<'a>) -> io::Result<Option<Self>> {
        Self::read_on(source, Cow::Owned(source.bytes(0, HEAD)?))
    }

    /// As [`Headers::read`], where the file's first bytes are known.
    ///
    /// # Errors
    ///
    /// As `pread(2)` says.
    pub(in crate::scan) fn read_on(
        source: &Source<'a>,
        head: Cow<'a, [u8]>,
    ) -> io::Result<Option<Self>> {
        let Some((header, words, ctx)) = file_header(&head) else { return Ok(None) };
        let mut headers = Self {
            words,
            machine: header.e_machine,
            kind: kind(header.e_type),
            programs: Vec::new(),
            source: *source,
            head,
        };
        headers.programs = headers.table(&header, ctx)?;
        Ok(Some(headers))
    }

    /// At most `len` bytes of the file from `offset` on.
    ///
    /// # Errors
    ///
    /// As `pread(2)` says.
    pub(in crate::scan) fn bytes(&self, offset: u64, len: usize) -> io::Result<Cow<'_, [u8]>> {
        let end = usize::try_from(offset).ok().and_then(|at| Some(at..at.checked_add(len)?));
        match end.and_then(|range| self.head.get(range)) {
            Some(known) => Ok(Cow::Borrowed(known)),
            None => self.source.bytes(offset, len).map(Cow::Owned),
        }
    }

    /// Every `PT_LOAD`, in order.
    pub(in crate::scan) fn loads(&self) -> Vec<LoadSegment> {
        self.of_type(PT_LOAD)
            .map(|program| LoadSegment {
                flags: program.p_flags,
                offset: program.p_offset,
                vaddr: program.p_vaddr,
                file_size: program.p_filesz,
                mem_size: program.p_memsz,
                align: program.p_align,
            })
            .collect()
    }

    /// The program headers of one type, in order.
    pub(in crate::scan) fn of_type(&self, wanted: u32) -> impl Iterator<Item = &ProgramHeader> {
        self.programs.iter().filter(move |program| program.p_type == wanted)
    }

    fn table(&self, header: &goblin::elf::Header, ctx: Ctx) -> io::Result<Vec<ProgramHeader>> {
        let size = ProgramHeader::size(ctx);
        let count = match header.e_phnum {
            PN_XNUM => self.extended_count(header.e_shoff)?,
            count => usize::from(count),
        };
        let bytes = self.bytes(header.e_phoff, (count * size).min(TABLE_MAX))?;
        let whole = bytes.len() / size;
        Ok(ProgramHeader::parse(&bytes, 0, whole, ctx).unwrap_or_default())
    }

    fn extended_count(&self, section_table: u64) -> io::Result<usize> {
        let sh_info = match self.words.class {
            ElfClass::Elf32 => 28,
            ElfClass::Elf64 => 44,
        };
        let bytes = self.bytes(section_table.saturating_add(sh_info), 4)?;
        Ok(self.words.u32(&bytes, 0).unwrap_or_default() as usize)
    }
}

fn file_header(head: &[u8]) -> Option<(goblin::elf::Header, Words, Ctx)> {
    let header = goblin::elf::Elf::parse_header(head).ok()?;
    let ctx = Ctx::new(header.container().ok()?, header.endianness().ok()?);
    let class = if ctx.is_big() { ElfClass::Elf64 } else { ElfClass::Elf32 };
    let endian = if ctx.is_little_endian() { Endian::Little } else { Endian::Big };
    Some((header, Words { class, endian }, ctx))
}

fn kind(e_type: u16) -> ElfType {
    match e_type {
        1 => ElfType::Relocatable,
        2 => ElfType::Executable,
        3 => ElfType::Dynamic,
        4 => ElfType::Core,
        other => ElfType::Other(other),
    }
}
