//! Toybox: `toy_list[]` is an array of `{ name, function, options, flags }`, first
//! toybox itself, then every command in `strcmp` order.

use std::collections::HashSet;

use goblin::elf::dynamic::{DT_RELA, DT_RELASZ};
use memchr::memmem;

use super::{part, read_only, version};
use crate::model::{ElfFacts, Family, LoadSegment, Program};
use crate::scan::facts::{Headers, dynamic_entries, file_offset};
use crate::scan::source::Source;

pub(super) const MARKER: &[u8] = b" multicall binary";

/// Words in an entry: three pointers, and the flags padded to a fourth.
const WORDS: u64 = 4;
/// The directories that a command is installed to: `TOYFLAG_USR`, `_BIN`, `_SBIN`.
const INSTALLED: u32 = 0b111;
const NAME_MAX: usize = 64;
const COMMANDS_MAX: usize = 4096;
/// Pointers to "toybox" that are tried: there are two or three.
const PLACES_MAX: usize = 16;
/// Segments of a program: there are four or five.
const LOADS_MAX: usize = 64;

pub(super) fn read(bytes: &[u8], facts: &ElfFacts) -> Option<Program> {
    let image = Image::of(bytes, facts)?;
    let lists = image.places_of_pointers_to(b"toybox").into_iter().map(|at| image.commands(at));
    let applets = lists.max_by_key(Vec::len).filter(|commands| commands.len() > 1)?;
    Some(Program { family: Family::Toybox, version: toybox_version(bytes, facts), applets })
}

/// The program as it lies in memory once its relative relocations are applied.
struct Image<'a> {
    bytes: &'a [u8],
    loads: &'a [LoadSegment],
    headers: Headers<'a>,
    /// `(place, address)` of the `RELA` relocations without a symbol, by place.
    /// Those of `REL` and `RELR` have the address in place.
    relocations: Vec<(u64, u64)>,
}

impl<'a> Image<'a> {
    /// `None` for a file whose segments name the same bytes over and over: to search
    /// all of them could take hours.
    fn of(bytes: &'a [u8], facts: &'a ElfFacts) -> Option<Self> {
        let loaded = facts.loads.iter().map(|load| load.file_size).fold(0, u64::saturating_add);
        if facts.loads.len() > LOADS_MAX || loaded / 2 > bytes.len() as u64 {
            return None;
        }
        let headers = Headers::read(&Source::bytes_of(bytes)).ok()??;
        let relocations = relocations(bytes, &headers, &facts.loads);
        Some(Self { bytes, loads: &facts.loads, headers, relocations })
    }

    /// Every address at which a pointer to the string lies.
    fn places_of_pointers_to(&self, string: &[u8]) -> Vec<u64> {
        let targets = self.addresses_of(string);
        let relocated = self.relocations.iter().filter(|(_, to)| targets.contains(to));
        let mut places: Vec<u64> = relocated.map(|&(place, _)| place).collect();
        for load in self.loads {
            places.extend(self.words_of(load).filter(|(_, to)| targets.contains(to)).map(|w| w.0));
        }
        places.sort_unstable();
        places.dedup();
        places.truncate(PLACES_MAX);
        places
    }

    /// Where the string stands, also as the end of a longer one: linkers merge those.
    fn addresses_of(&self, string: &[u8]) -> HashSet<u64> {
        let ended = [string, b"\0"].concat();
        let finder = memmem::Finder::new(&ended);
        let in_load = |load: &LoadSegment| {
            let bytes = self.part_of(load);
            let places: Vec<_> = finder.find_iter(bytes).collect();
            places.into_iter().map(move |at| load.vaddr.wrapping_add(at as u64)).collect::<Vec<_>>()
        };
        self.loads.iter().flat_map(in_load).collect()
    }

    /// The aligned words of a segment, with their addresses.
    fn words_of(&self, load: &LoadSegment) -> impl Iterator<Item = (u64, u64)> {
        let words = self.headers.words;
        let size = words.size();
        let skip = load.vaddr.wrapping_neg() as usize % size;
        let bytes = self.part_of(load).get(skip..).unwrap_or_default();
        let first = load.vaddr.wrapping_add(skip as u64);
        bytes.chunks_exact(size).enumerate().filter_map(move |(at, word)| {
            Some((first.wrapping_add((at * size) as u64), words.word(word, 0)?))
        })
    }

    /// The commands of a `toy_list[]` at `list`, without toybox itself, in order.
    fn commands(&self, list: u64) -> Vec<String> {
        let size = self.headers.words.size() as u64;
        let entries = (1..COMMANDS_MAX as u64).map_while(|at| {
            let entry = list.checked_add(at * WORDS * size)?;
            let name = self.string(self.pointer(entry)?)?;
            let function = self.pointer(entry.checked_add(size)?)?;
            let flags = self.flags(entry.checked_add(3 * size)?)?;
            (function != 0 && is_name(name)).then_some((name, flags))
        });
        let mut last: &[u8] = b"";
        let ascending = entries.take_while(|&(name, _)| std::mem::replace(&mut last, name) < name);
        let installed = ascending.filter(|(_, flags)| flags & INSTALLED != 0);
        installed.map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect()
    }

    fn pointer(&self, place: u64) -> Option<u64> {
        match self.relocations.binary_search_by_key(&place, |relocation| relocation.0) {
            Ok(at) => Some(self.relocations[at].1),
            Err(_) => self.headers.words.word(self.at(place)?, 0),
        }
    }

    fn flags(&self, place: u64) -> Option<u32> {
        self.headers.words.u32(self.at(place)?, 0)
    }

    fn string(&self, address: u64) -> Option<&'a [u8]> {
        let bytes = self.at(address)?;
        let bytes = &bytes[..bytes.len().min(NAME_MAX)];
        memchr::memchr(0, bytes).map(|end| &bytes[..end])
    }

    /// The bytes from an address to the end of its segment.
    fn at(&self, address: u64) -> Option<&'a [u8]> {
        let (offset, len) = file_offset(self.loads, address)?;
        Some(part(self.bytes, &(offset..offset.saturating_add(len))))
    }

    fn part_of(&self, load: &LoadSegment) -> &'a [u8] {
        part(self.bytes, &(load.offset..load.offset.saturating_add(load.file_size)))
    }
}

fn relocations(bytes: &[u8], headers: &Headers<'_>, loads: &[LoadSegment]) -> Vec<(u64, u64)> {
    let entries = dynamic_entries(headers).unwrap_or_default();
    let value = |tag| entries.iter().find(|entry| entry.0 == tag).map(|entry| entry.1);
    let place = value(DT_RELA).and_then(|address| file_offset(loads, address));
    let (Some((offset, room)), Some(size)) = (place, value(DT_RELASZ)) else { return Vec::new() };
    let table = part(bytes, &(offset..offset.saturating_add(size.min(room))));
    let words = headers.words;
    let size = words.size();
    // The symbol's index stands in the high half of r_info, or its upper 24 bits.
    let symbol = |info: u64| if size == 8 { info >> 32 } else { info >> 8 };
    let entry = |bytes: &[u8]| {
        let relative = symbol(words.word(bytes, size)?) == 0;
        relative.then_some((words.word(bytes, 0)?, words.word(bytes, 2 * size)?))
    };
    let mut found: Vec<_> = table.chunks_exact(3 * size).filter_map(entry).collect();
    found.sort_unstable();
    found
}

/// A command's name. `-sh` is one: a login shell.
fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|&byte| byte.is_ascii_graphic() && byte != b'/')
}

/// The one version that the strings name: a string of its own, or, where the linker
/// merged that with the end of another one, how `wget` calls itself.
fn toybox_version(bytes: &[u8], facts: &ElfFacts) -> Option<String> {
    let constant = read_only(&facts.loads);
    let strings = constant.iter().flat_map(|range| part(bytes, range).split(|&byte| byte == 0));
    let mut found: Vec<_> = strings.filter_map(release).collect();
    found.sort_unstable();
    found.dedup();
    match found[..] {
        [only] => version(only),
        _ => None,
    }
}

fn release(string: &[u8]) -> Option<&[u8]> {
    let agent = string.strip_prefix(b"toybox wget/");
    Some(agent.unwrap_or(string)).filter(|string| is_release(string))
}

fn is_release(string: &[u8]) -> bool {
    let mut parts = string.split(|&byte| byte == b'.');
    let number = |part: Option<&[u8]>| {
        part.is_some_and(|part| !part.is_empty() && part.iter().all(u8::is_ascii_digit))
    };
    string.len() <= 16
        && number(parts.next())
        && number(parts.next())
        && number(parts.next())
        && parts.next().is_none()
}
