//! One symbol.

use super::header::Header;

const SHN_COMMON: u16 = 0xfff2;
const SHN_X86_64_LCOMMON: u16 = 0xff02;
const STT_SECTION: u8 = 3;

/// The fields of `Elf64_Sym` or `Elf32_Sym` that matter here.
pub(super) struct Symbol {
    /// `st_name`.
    pub name: u32,
    info: u8,
    /// `st_shndx`.
    pub section: u16,
    /// `st_size`.
    pub size: u64,
}

impl Symbol {
    /// Parses an entry of the table.
    pub(super) fn parse(bytes: &[u8], header: &Header) -> Self {
        let (info, section, size) = if header.wide() { (4, 6, 16..24) } else { (12, 14, 8..12) };
        let number = |range: std::ops::Range<usize>| {
            let add = |number: u64, byte: &u8| (number << 8) | u64::from(*byte);
            let bytes = bytes.get(range).unwrap_or_default();
            if header.little() {
                bytes.iter().rev().fold(0, add)
            } else {
                bytes.iter().fold(0, add)
            }
        };
        Self {
            name: u32::try_from(number(0..4)).unwrap_or_default(),
            info: bytes.get(info).copied().unwrap_or_default(),
            section: u16::try_from(number(section..section + 2)).unwrap_or_default(),
            size: number(size),
        }
    }

    /// It stands for a section.
    pub(super) fn is_section(&self) -> bool {
        self.info & 0xf == STT_SECTION
    }

    /// It is memory that only the linker will lay out; `large`: x86-64 has a second kind.
    pub(super) fn is_common(&self, large: bool) -> bool {
        let common = self.section == SHN_COMMON || (large && self.section == SHN_X86_64_LCOMMON);
        common && !self.is_section()
    }
}
