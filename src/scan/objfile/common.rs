//! Common symbols: memory that only the linker will lay out.

use goblin::elf::header::{ET_DYN, ET_EXEC};

use super::header::Header;
use super::sections::Visited;
use super::{Object, Rejected};

const SHN_COMMON: u16 = 0xfff2;
const SHN_X86_64_LCOMMON: u16 = 0xff02;
const STT_SECTION: u8 = 3;
/// Symbols are read this many at a time.
const CHUNK: u64 = 4096;

/// Sum of the sizes of common symbols. Linked files have none left.
pub(super) fn size(
    object: &Object<'_>,
    header: &Header,
    visited: &Visited,
) -> Result<u64, Rejected> {
    if matches!(header.kind, ET_EXEC | ET_DYN) || visited.symbols == 0 {
        return Ok(0);
    }
    let table = &visited.headers[visited.symbols];
    let entry: u64 = if header.wide() { 24 } else { 16 };
    let count = table.sh_size / entry;
    // binutils reserve a pointer for each symbol, and take that for more than the file.
    let reserved = count.saturating_mul(8) > object.nominal;
    if count > 1 && (reserved || !object.holds(table.sh_offset, count * entry)) {
        return Err(Rejected::TruncatedSymbols);
    }
    let large = header.machine == 62 && header.little() && !visited.generic;
    let mut sum = 0_u64;
    let mut next = 1;
    while next < count {
        let batch = CHUNK.min(count - next);
        let bytes = usize::try_from(batch * entry).unwrap_or(0);
        let symbols = object.copy(table.sh_offset + next * entry, bytes)?;
        for symbol in symbols.chunks_exact(bytes / usize::try_from(batch).unwrap_or(1)) {
            let symbol = Symbol::parse(symbol, header);
            sum = sum.wrapping_add(if symbol.is_common(large) { symbol.size } else { 0 });
        }
        next += batch;
    }
    Ok(sum)
}

struct Symbol {
    info: u8,
    section: u16,
    size: u64,
}

impl Symbol {
    /// Parses `Elf64_Sym` or `Elf32_Sym`.
    fn parse(bytes: &[u8], header: &Header) -> Self {
        let (info, section, size) = if header.wide() { (4, 6, 16..24) } else { (12, 14, 8..12) };
        let number = |range: std::ops::Range<usize>| {
            let add = |number: u64, byte: &u8| (number << 8) | u64::from(*byte);
            let bytes = &bytes[range];
            if header.little() {
                bytes.iter().rev().fold(0, add)
            } else {
                bytes.iter().fold(0, add)
            }
        };
        Self {
            info: bytes[info],
            section: u16::try_from(number(section..section + 2)).unwrap_or_default(),
            size: number(size),
        }
    }

    fn is_common(&self, large: bool) -> bool {
        let common = self.section == SHN_COMMON || (large && self.section == SHN_X86_64_LCOMMON);
        common && self.info & 0xf != STT_SECTION
    }
}
