//! Identity: of bytes, and of the inode that holds them.

use std::fmt;

use super::Bytes;

/// BLAKE3 over a whole file. Two files with one `ContentId` hold the same bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentId(pub [u8; 32]);

impl ContentId {
    /// Takes the 64 hexadecimal digits that [`Display`](fmt::Display) writes.
    pub fn parse(digits: &str) -> Option<Self> {
        let bytes = digits.as_bytes();
        if bytes.len() != 64 || !bytes.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let mut content = [0; 32];
        for (byte, pair) in content.iter_mut().zip(bytes.chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(content))
    }
}

impl fmt::Display for ContentId {
    /// 64 lowercase hexadecimal digits, as `b3sum` prints them.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for ContentId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "ContentId({self})")
    }
}

/// An inode as `statx(2)` names it. Valid on one host, while it is mounted:
/// btrfs gives a subvolume another device number at the next mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct InodeId {
    /// `st_dev`.
    pub dev: u64,
    /// `st_ino`.
    pub ino: u64,
}

/// A file as it was at one time: its content is the same as long as this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileStamp {
    /// The inode.
    pub inode: InodeId,
    /// `st_size`.
    pub size: Bytes,
    /// `st_mtime` in nanoseconds since the epoch.
    pub mtime: i64,
}
