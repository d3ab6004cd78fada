//! Integers of an ELF file, in its own byte order and word size.

use crate::model::{ElfClass, Endian};

/// How one file writes its integers.
#[derive(Debug, Clone, Copy)]
pub(in crate::scan) struct Words {
    pub(in crate::scan) class: ElfClass,
    pub(in crate::scan) endian: Endian,
}

impl Words {
    /// The bytes of an address or an offset.
    pub(in crate::scan) fn size(self) -> usize {
        match self.class {
            ElfClass::Elf32 => 4,
            ElfClass::Elf64 => 8,
        }
    }

    /// Four bytes at `at`.
    pub(in crate::scan) fn u32(self, bytes: &[u8], at: usize) -> Option<u32> {
        let bytes = *bytes.get(at..)?.first_chunk()?;
        Some(match self.endian {
            Endian::Little => u32::from_le_bytes(bytes),
            Endian::Big => u32::from_be_bytes(bytes),
        })
    }

    /// An address, an offset, or another number of the word size at `at`.
    pub(in crate::scan) fn word(self, bytes: &[u8], at: usize) -> Option<u64> {
        match self.class {
            ElfClass::Elf32 => self.u32(bytes, at).map(u64::from),
            ElfClass::Elf64 => self.u64(bytes, at),
        }
    }

    fn u64(self, bytes: &[u8], at: usize) -> Option<u64> {
        let bytes = *bytes.get(at..)?.first_chunk()?;
        Some(match self.endian {
            Endian::Little => u64::from_le_bytes(bytes),
            Endian::Big => u64::from_be_bytes(bytes),
        })
    }
}
