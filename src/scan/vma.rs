//! The file-backed mappings of a process, by `PROCMAP_QUERY` or by the text of
//! `/proc/PID/maps`.
//!
//! The ioctl (Linux 6.11) answers in binary and skips what is not asked for; the
//! text costs three times as much for a small process and ten times for one with
//! hundreds of mappings. Both give the same answer.

use std::ops::Range;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use crate::model::FileKey;
use crate::sys::{Query, next_vma};

/// One file-backed mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vma {
    /// Its addresses.
    pub address: Range<u64>,
    /// Where in the file it begins, in bytes.
    pub offset: u64,
    /// The file, as maps shows it.
    pub key: FileKey,
    /// Mapped `x`.
    pub executable: bool,
}

/// Where mappings are read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VmaSource {
    /// The ioctl where the kernel has it, otherwise the text.
    #[default]
    Auto,
    /// `PROCMAP_QUERY` alone.
    Query,
    /// The text alone.
    Text,
}

/// Reads the file-backed mappings into `vmas`, in order of address.
///
/// # Errors
///
/// `ESRCH` when the process has no memory (any more), `ENOTTY` where the kernel
/// lacks the ioctl and `source` insists on it.
pub(super) fn read(
    maps: BorrowedFd<'_>,
    source: VmaSource,
    vmas: &mut Vec<Vma>,
    text: &mut Vec<u8>,
) -> Result<(), Errno> {
    vmas.clear();
    match source {
        VmaSource::Query => query(maps, vmas),
        VmaSource::Text => read_text(maps, vmas, text),
        VmaSource::Auto => match query(maps, vmas) {
            Err(Errno::NOTTY) => read_text(maps, vmas, text),
            answer => answer,
        },
    }
}

/// Keeps the mappings of programs: of files that are also mapped `x` here. Text, and the
/// read-only and clean data beside it. `keys` is room to work in.
pub(super) fn keep_programs(vmas: &mut Vec<Vma>, keys: &mut Vec<FileKey>) {
    keys.clear();
    keys.extend(vmas.iter().filter(|vma| vma.executable).map(|vma| vma.key));
    keys.sort_unstable();
    keys.dedup();
    vmas.retain(|vma| keys.binary_search(&vma.key).is_ok());
}

fn query(maps: BorrowedFd<'_>, vmas: &mut Vec<Vma>) -> Result<(), Errno> {
    let mut address = 0;
    while let Some(found) = next_vma(maps, address)? {
        // A mapping that does not end above where the search began would be asked for for ever.
        if found.vma_end <= address {
            return Err(Errno::IO);
        }
        address = found.vma_end;
        let dev = u64::from(found.dev_major) << 32 | u64::from(found.dev_minor);
        if found.inode != 0 {
            vmas.push(Vma {
                address: found.vma_start..found.vma_end,
                offset: found.vma_offset,
                key: FileKey { dev, ino: found.inode },
                executable: found.vma_flags & Query::EXECUTABLE != 0,
            });
        }
    }
    Ok(())
}

/// The text path. A process without memory reads as empty there, not as `ESRCH`.
fn read_text(maps: BorrowedFd<'_>, vmas: &mut Vec<Vma>, text: &mut Vec<u8>) -> Result<(), Errno> {
    text.clear();
    let mut chunk = [0_u8; 8192];
    loop {
        match rustix::io::read(maps, &mut chunk)? {
            0 => break,
            count => text.extend_from_slice(&chunk[..count]),
        }
    }
    if text.is_empty() {
        return Err(Errno::SRCH);
    }
    parse_maps(text, vmas)
}

/// Parses the text of a maps file, as proc_pid_maps(5) describes it. What
/// follows the inode is a name, in which the kernel writes a newline as `\012`:
/// one mapping is one line whatever the file is called.
///
/// # Errors
///
/// `EIO` for a line that is none of maps'.
pub(super) fn parse_maps(text: &[u8], vmas: &mut Vec<Vma>) -> Result<(), Errno> {
    for line in text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        let vma = parse_line(line).ok_or(Errno::IO)?;
        if vma.key.ino != 0 {
            vmas.push(vma);
        }
    }
    Ok(())
}

/// `START-END PERM OFFSET MAJOR:MINOR INODE   NAME`
fn parse_line(line: &[u8]) -> Option<Vma> {
    let (start, rest) = number(line, 16, b'-')?;
    let (end, rest) = number(rest, 16, b' ')?;
    let (permissions, rest) = rest.split_at_checked(5)?;
    let (offset, rest) = number(rest, 16, b' ')?;
    let (major, rest) = number(rest, 16, b':')?;
    let (minor, rest) = number(rest, 16, b' ')?;
    let (ino, _name) = number(rest, 10, b' ')?;
    Some(Vma {
        address: start..end,
        offset,
        key: FileKey { dev: major << 32 | minor, ino },
        executable: permissions.get(2) == Some(&b'x'),
    })
}

/// The number up to `end`, which the last field of a line may lack.
fn number(text: &[u8], radix: u32, end: u8) -> Option<(u64, &[u8])> {
    let length = text.iter().position(|&byte| byte == end).unwrap_or(text.len());
    let (digits, rest) = text.split_at(length);
    let digit = |value: u64, byte: &u8| {
        let digit = char::from(*byte).to_digit(radix)?;
        value.checked_mul(u64::from(radix))?.checked_add(u64::from(digit))
    };
    let value = digits.iter().try_fold(0, digit)?;
    (!digits.is_empty()).then_some((value, rest.get(1..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    const TEXT: &[u8] = b"\
00400000-00401000 r--p 00000000 fe:00 131 /bin/busybox
00401000-00585000 r-xp 00001000 fe:00 131                                /bin/busybox
7ffe0000-7ffe1000 rw-p 00000000 00:00 0                                  [heap]
7fff0000-7fff2000 r-xp 00003000 100:1f 18446744073709551615 /a\\012b r-xp (deleted)
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
";

    fn parsed(text: &[u8]) -> Result<Vec<Vma>, Errno> {
        let mut vmas = Vec::new();
        parse_maps(text, &mut vmas).map(|()| vmas)
    }

    #[test]
    fn reads_file_backed_lines() {
        let vmas = parsed(TEXT).unwrap();
        assert_eq!(vmas.len(), 3);
        assert_eq!(
            vmas[1],
            Vma {
                address: 0x0040_1000..0x0058_5000,
                offset: 0x1000,
                key: FileKey { dev: 0xfe << 32, ino: 131 },
                executable: true,
            }
        );
        assert!(!vmas[0].executable);
        assert_eq!(vmas[2].key, FileKey { dev: 0x100 << 32 | 0x1f, ino: u64::MAX });
    }

    #[test]
    fn refuses_what_is_no_maps() {
        for text in [&b"hello\n"[..], b"1-2 r", b"1-2 r-xp 0 fe:00 x", b"1-2 r-xp 0 fe:00 "] {
            assert_eq!(parsed(text), Err(Errno::IO), "{:?}", String::from_utf8_lossy(text));
        }
        assert!(parsed(b"1-2 r-xp 0 0:0 99999999999999999999 x").is_err());
    }

    #[test]
    fn data_files_are_left_out() {
        let vma = |ino, executable| Vma {
            address: 0..4096,
            offset: 0,
            key: FileKey { dev: 1, ino },
            executable,
        };
        let mut vmas = vec![vma(5, false), vma(5, true), vma(6, false)];
        keep_programs(&mut vmas, &mut Vec::new());
        assert_eq!(vmas, [vma(5, false), vma(5, true)]);
    }

    #[test]
    fn both_sources_agree_on_this_process() {
        let read_by = |source| {
            let maps = std::fs::File::open("/proc/self/maps").unwrap();
            let mut vmas = Vec::new();
            let fd = std::os::fd::AsFd::as_fd(&maps);
            read(fd, source, &mut vmas, &mut Vec::new()).map(|()| vmas)
        };
        let text = read_by(VmaSource::Text).unwrap();
        assert!(text.iter().any(|vma| vma.executable));
        match read_by(VmaSource::Query) {
            Ok(query) => assert_eq!(query, text),
            Err(error) => assert_eq!(error, Errno::NOTTY, "older than Linux 6.11"),
        }
        assert_eq!(read_by(VmaSource::Auto).unwrap(), text);
    }
}
