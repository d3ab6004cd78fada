//! Mount tables: `/proc/PID/mountinfo`, as proc_pid_mountinfo(5) describes it.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use crate::model::MountFlags;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// Its number, as `statx(2)` has it in `stx_mnt_id`.
    pub(super) id: u64,
    /// Major and minor number, as written.
    pub(super) dev: (u32, u32),
    /// The directory of the file system that is mounted.
    pub(super) root: PathBuf,
    /// Where, below the root of the process whose table it is.
    pub(super) point: PathBuf,
    /// How this mount is restricted.
    pub(super) flags: MountFlags,
    /// The file system's name.
    pub(super) kind: Vec<u8>,
    /// What is mounted: a device, or a word.
    pub(super) source: Vec<u8>,
    /// Options of the file system.
    pub(super) options: Vec<u8>,
}

/// The mounts of a table, in its order; lines that are none are left out.
pub(super) fn parse(table: &[u8]) -> Vec<Mount> {
    table.split(|&byte| byte == b'\n').filter_map(parse_line).collect()
}

/// `36 35 98:0 /root /point rw,noatime master:1 - ext4 /dev/sda rw`
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let (id, dev) = (fields.next()?, fields.nth(1)?);
    let (root, point, flags) = (fields.next()?, fields.next()?, fields.next()?);
    fields.by_ref().find(|field| *field == b"-")?;
    let (kind, source, options) = (fields.next()?, fields.next()?, fields.next()?);
    let (major, minor) = std::str::from_utf8(dev).ok()?.split_once(':')?;
    Some(Mount {
        id: std::str::from_utf8(id).ok()?.parse().ok()?,
        dev: (major.parse().ok()?, minor.parse().ok()?),
        root: path(root),
        point: path(point),
        flags: restrictions(flags),
        kind: kind.to_vec(),
        source: unescape(source),
        options: options.to_vec(),
    })
}

fn restrictions(flags: &[u8]) -> MountFlags {
    let has = |name: &str| flags.split(|&byte| byte == b',').any(|flag| flag == name.as_bytes());
    MountFlags {
        read_only: has("ro"),
        nosuid: has("nosuid"),
        nodev: has("nodev"),
        noexec: has("noexec"),
        idmapped: has("idmapped"),
    }
}

fn path(field: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(unescape(field)))
}

/// Undoes the octal escapes of blanks, newlines and backslashes.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let octal = |digits: &[u8]| {
            let text = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(text, 8).ok()
        };
        match after.get(..3).filter(|_| first == b'\\').and_then(octal) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn reads_a_table() {
        let table = b"22 27 0:21 / /proc rw,relatime - proc proc rw,hidepid=invisible\n\
            27 1 254:0 /srv/a\\040b / ro,nosuid,idmapped shared:1 master:2 - ext4 /dev/vda rw\nnonsense\n";
        let mounts = parse(table);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].options, b"rw,hidepid=invisible");
        assert_eq!((mounts[1].id, mounts[1].dev), (27, (254, 0)));
        let flags = MountFlags { read_only: true, nosuid: true, idmapped: true, ..mounts[0].flags };
        assert_eq!((mounts[1].flags, mounts[0].flags), (flags, MountFlags::default()));
        assert_eq!(mounts[1].source, b"/dev/vda");
        assert_eq!(mounts[1].root, PathBuf::from("/srv/a b"));
        assert_eq!(mounts[1].point, PathBuf::from("/"));
    }

    #[test]
    fn a_backslash_alone_stays() {
        assert_eq!(unescape(b"a\\b\\012\\"), b"a\\b\n\\");
    }
}
