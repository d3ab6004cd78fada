//! Archives of object files: `ar`'s common format with the naming of System V,
//! GNU and BSD, and GNU's thin archives.

use crate::scan::Source;

/// Bytes of a member's header.
const HEADER: usize = 60;
/// ELF's `ar` ends every short name with a slash, so that one of 16 bytes loses its last.
const LONGEST_SHORT_NAME: usize = 15;

/// An archive, read from one member to the next.
#[derive(Debug)]
pub(super) struct Archive<'a> {
    source: Source<'a>,
    pub thin: bool,
    /// The table of long names, each ended by a NUL.
    names: Option<Vec<u8>>,
    /// `None` behind a member that is too large for any file.
    next: Option<u64>,
}

/// One member, as its header has it.
#[derive(Debug)]
pub(super) struct Member {
    pub name: Vec<u8>,
    /// Where its contents start.
    pub start: u64,
    /// The size its header claims.
    pub size: u64,
    /// In a thin archive: where in the nested archive the member's header is, if not 0.
    pub nested_at: u64,
}

/// Why there is no further member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    End,
    Malformed,
}

impl<'a> Archive<'a> {
    /// `None` for what is no archive, or has a damaged index.
    pub(super) fn open(source: Source<'a>) -> Option<Self> {
        let magic = source.bytes(0, 8).ok()?;
        let thin = match magic.as_slice() {
            b"!<arch>\n" => false,
            b"!<thin>\n" => true,
            _ => return None,
        };
        let mut archive = Self { source, thin, names: None, next: None };
        let behind_index = archive.skip_index(8)?;
        archive.next = Some(archive.read_names(behind_index)?);
        Some(archive)
    }

    /// The next member.
    pub(super) fn next(&mut self) -> Result<Member, Stop> {
        let at = self.next.ok_or(Stop::Malformed)?;
        let member = self.member_at(at)?;
        self.next = if self.thin { Some(member.start) } else { even_end(&member) };
        Ok(member)
    }

    /// The member whose header is at `at`.
    pub(super) fn member_at(&self, at: u64) -> Result<Member, Stop> {
        let mut header = [0; HEADER];
        let got = self.source.read_at(at, &mut header).map_err(|_| Stop::Malformed)?;
        if got < HEADER {
            return Err(Stop::End);
        }
        if &header[58..] != b"`\n" {
            return Err(Stop::Malformed);
        }
        let size = leading_number(&header[48..58]).ok_or(Stop::Malformed)?;
        let start = at + HEADER as u64;
        self.name_member(&header[..16], start, size)
    }

    fn name_member(&self, field: &[u8], start: u64, size: u64) -> Result<Member, Stop> {
        if is_table_reference(field) && self.names.is_some() {
            let (name, nested_at) = self.long_name(field).ok_or(Stop::Malformed)?;
            return Ok(Member { name, start, size, nested_at });
        }
        if let Some(length) = bsd_name_length(field) {
            if length > size || length > self.source.len() {
                return Err(Stop::Malformed);
            }
            let name = self.bytes(start, length).ok_or(Stop::End)?;
            let name = up_to(&name, 0).unwrap_or(&name).to_vec();
            return Ok(Member { name, start: start + length, size: size - length, nested_at: 0 });
        }
        Ok(Member { name: short_name(field).to_vec(), start, size, nested_at: 0 })
    }

    /// `/N`, and in a thin archive `/N:OFFSET`.
    fn long_name(&self, field: &[u8]) -> Option<(Vec<u8>, u64)> {
        let names = self.names.as_deref()?;
        let digits = |bytes: &[u8]| bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let reference = &field[1..];
        let (index, rest) = reference.split_at(digits(reference));
        let index = usize::try_from(leading_number(index).unwrap_or(0)).ok()?;
        let name = names.get(index..).filter(|name| !name.is_empty())?;
        let nested_at = rest.strip_prefix(b":").and_then(leading_number).unwrap_or(0);
        let nested_at = if self.thin { nested_at } else { 0 };
        Some((up_to(name, 0).unwrap_or(name).to_vec(), nested_at))
    }

    /// A member's bytes, and the size they are claimed to have.
    pub(super) fn contents(&self, member: &Member) -> (Source<'a>, u64) {
        let nominal = member.size.min(self.source.len());
        (self.source.window(member.start, member.size), nominal)
    }

    /// Passes over the index of symbols, which may lie in two members (Microsoft's).
    fn skip_index(&self, at: u64) -> Option<u64> {
        let name = self.source.bytes(at, 16).ok()?;
        match name.as_slice() {
            [] => Some(at),
            name if name.len() < 16 => None,
            b"/               " => Some(self.skip_second_index(self.system_v_index(at, 4)?)),
            b"/SYM64/         " => self.system_v_index(at, 8),
            b"__.SYMDEF       " | b"__.SYMDEF/      " => self.bsd_index(at),
            b"#1/20           " if self.has_long_bsd_index(at) => self.bsd_index(at),
            _ => Some(at),
        }
    }

    fn has_long_bsd_index(&self, at: u64) -> bool {
        let name = self.source.bytes(at + HEADER as u64, 20);
        name.is_ok_and(|name| name.starts_with(b"__.SYMDEF"))
    }

    /// A count, that many offsets of `width` bytes, and the symbols' names.
    fn system_v_index(&self, at: u64, width: u64) -> Option<u64> {
        let member = self.member_at(at).ok()?;
        let count = self.bytes(member.start, width)?;
        let count = count.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte));
        let needed = count.checked_mul(width)?.checked_add(width)?;
        (needed <= member.size).then_some(())?;
        self.whole(&member)
    }

    /// A count of bytes, that many bytes of pairs, and the symbols' names.
    fn bsd_index(&self, at: u64) -> Option<u64> {
        let member = self.member_at(at).ok()?;
        let room = member.size.checked_sub(8)? / 8;
        let count: [u8; 4] = self.bytes(member.start, 4)?.try_into().ok()?;
        let fits = |bytes: u32| u64::from(bytes / 8) <= room;
        (fits(u32::from_le_bytes(count)) || fits(u32::from_be_bytes(count))).then_some(())?;
        self.whole(&member)
    }

    fn skip_second_index(&self, at: u64) -> u64 {
        let name = self.source.bytes(at, 2);
        if !name.is_ok_and(|name| name == b"/ ") {
            return at;
        }
        self.member_at(at).ok().and_then(|second| even_end(&second)).unwrap_or(at)
    }

    fn read_names(&mut self, at: u64) -> Option<u64> {
        let name = self.source.bytes(at, 16).ok()?;
        if !matches!(name.as_slice(), b"//              " | b"ARFILENAMES/    ") {
            return Some(at);
        }
        let member = self.member_at(at).ok()?;
        let mut names = self.bytes(member.start, member.size)?;
        end_names(&mut names);
        self.names = Some(names);
        self.whole(&member)
    }

    /// All of the member's contents are there; says where the next one starts.
    fn whole(&self, member: &Member) -> Option<u64> {
        let end = member.start.checked_add(member.size)?;
        if end <= self.source.len() { even_end(member) } else { None }
    }

    fn bytes(&self, at: u64, len: u64) -> Option<Vec<u8>> {
        if at.checked_add(len)? > self.source.len() {
            return None;
        }
        let len = usize::try_from(len).ok()?;
        self.source.bytes(at, len).ok().filter(|bytes| bytes.len() == len)
    }
}

/// A line feed ends a name, with the slash before it; DOS writes its separators the other way.
fn end_names(names: &mut [u8]) {
    for at in 0..names.len() {
        match names[at] {
            b'\n' if at > 0 && names[at - 1] == b'/' => names[at - 1] = 0,
            b'\n' => names[at] = 0,
            b'\\' => names[at] = b'/',
            _ => {}
        }
    }
}

/// Members start at even offsets.
fn even_end(member: &Member) -> Option<u64> {
    member.start.checked_add(member.size)?.checked_next_multiple_of(2)
}

fn is_table_reference(field: &[u8]) -> bool {
    let slash = field[..LONGEST_SHORT_NAME].contains(&b'/');
    field[0] == b'/' || (field[0] == b' ' && !slash)
}

/// `#1/N`: the name is the first N bytes of the contents.
fn bsd_name_length(field: &[u8]) -> Option<u64> {
    let digits = field.strip_prefix(b"#1/")?;
    digits[0].is_ascii_digit().then(|| leading_number(digits))?
}

fn short_name(field: &[u8]) -> &[u8] {
    let field = &field[..LONGEST_SHORT_NAME];
    up_to(field, 0).or_else(|| up_to(field, b'/')).or_else(|| up_to(field, b' ')).unwrap_or(field)
}

fn up_to(bytes: &[u8], end: u8) -> Option<&[u8]> {
    bytes.iter().position(|&byte| byte == end).map(|at| &bytes[..at])
}

/// As `sscanf("%lu")` reads it: blanks, a sign that wraps, digits.
fn leading_number(field: &[u8]) -> Option<u64> {
    let field = field.trim_ascii_start();
    let (negative, digits) = match field {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, field),
    };
    let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let digits = digits.get(..count).filter(|digits| !digits.is_empty())?;
    let number = digits
        .iter()
        .fold(0_u64, |sum, digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0')));
    Some(if negative { number.wrapping_neg() } else { number })
}
