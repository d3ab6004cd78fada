//! Common symbols: memory that only the linker will lay out.

use goblin::elf::header::{ET_DYN, ET_EXEC};

use super::header::Header;
use super::sections::Visited;
use super::symbol::Symbol;
use super::{Object, Rejected};

/// Symbols are read this many at a time.
const CHUNK: u64 = 4096;

/// Sum of the sizes of common symbols. Linked files have none left.
pub(super) fn size(
    object: &mut Object<'_>,
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
