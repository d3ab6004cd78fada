//! Mount tables: `/proc/PID/mountinfo`, as proc_pid_mountinfo(5) describes it.

mod layers;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::model::MountFlags;

/// One mount, as the process sees it whose table it is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Its number, as statx(2) has it in `stx_mnt_id`.
    pub id: u64,
    /// The mount that it lies on.
    pub parent: u64,
    /// `st_dev` of what is on it, where the file system has one number for all.
    pub dev: u64,
    /// The directory of the file system that is mounted.
    pub root: PathBuf,
    /// Where, below the root of the process.
    pub point: PathBuf,
    /// The options of the mount itself: `ro,nosuid,relatime`.
    pub mount_options: Vec<u8>,
    /// How it is restricted, by these alone.
    pub flags: MountFlags,
    /// How mounts and unmounts below it spread.
    pub propagation: Propagation,
    /// `ext4`, `overlay`, ...
    pub fs_type: Vec<u8>,
    /// What is mounted: a device's path, or whatever the mounter wrote.
    pub source: Vec<u8>,
    /// The file system's own options, the same at each of its mounts.
    pub options: Vec<u8>,
}

/// mount_namespaces(7): none of them is a private mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Propagation {
    /// Its peer group: what happens here happens at each peer.
    pub shared: Option<u64>,
    /// The peer group it receives from.
    pub master: Option<u64>,
    /// It cannot be bound elsewhere.
    pub unbindable: bool,
}

/// The mounts of a table, in its order; lines that are none are left out.
pub fn parse(table: &[u8]) -> Vec<Mount> {
    table.split(|&byte| byte == b'\n').filter_map(parse_line).collect()
}

/// Every mount of a table that lies in a file; none when it cannot be read.
pub(super) fn read(file: &Path) -> Vec<Mount> {
    std::fs::read(file).map(|bytes| parse(&bytes)).unwrap_or_default()
}

/// Hands over each mount of an open table, one at a time: a container may have a
/// hundred thousand, each with a path of several thousand bytes.
///
/// # Errors
///
/// When it cannot be read to its end.
pub(crate) fn each(table: impl Into<File>, mut take: impl FnMut(Mount)) -> io::Result<()> {
    let mut table = BufReader::new(table.into());
    let mut line = Vec::new();
    loop {
        line.clear();
        if table.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if !line.ends_with(b"\n") && line.len() as u64 == LONGEST_LINE {
            return Err(Errno::FBIG.into());
        }
        parse_line(line.strip_suffix(b"\n").unwrap_or(&line)).map(&mut take);
    }
}

/// The last mount of a table of which this holds: the one that a process sees.
pub(super) fn last(table: impl Into<File>, is_it: impl Fn(&Mount) -> bool) -> Option<Mount> {
    let mut last = None;
    let _cut_off = each(table, |mount| {
        if is_it(&mount) {
            last = Some(mount);
        }
    });
    last
}

/// Paths and options with all their escapes are far from it.
const LONGEST_LINE: u64 = 4 << 20;

/// Where the mounts of a table show the directory that another mount shows.
pub(super) fn places_of(mount: &Mount, table: &[Mount]) -> Vec<PathBuf> {
    let same = table.iter().filter(|other| other.dev == mount.dev);
    same.filter_map(|other| Some(join(&other.point, mount.root.strip_prefix(&other.root).ok()?)))
        .collect()
}

/// A path and what is below it. Joined with nothing, it would end in a slash.
fn join(path: &Path, below: &Path) -> PathBuf {
    if below.as_os_str().is_empty() { path.to_owned() } else { path.join(below) }
}

/// `36 35 98:0 /root /point rw,noatime master:1 - ext4 /dev/sda rw`
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let (id, parent) = (number(fields.next()?)?, number(fields.next()?)?);
    let dev = device(fields.next()?)?;
    let (root, point) = (path(fields.next()?), path(fields.next()?));
    let mount_options = fields.next()?.to_vec();
    let flags = restrictions(&mount_options);
    let mut propagation = Propagation::default();
    // Optional fields end with a hyphen.
    fields.by_ref().take_while(|field| *field != b"-").for_each(|field| propagation.take(field));
    let fs_type = unescape(fields.next()?);
    let (source, options) = (unescape(fields.next()?), fields.next()?.to_vec());
    Some(Mount {
        id,
        parent,
        dev,
        root,
        point,
        mount_options,
        flags,
        propagation,
        fs_type,
        source,
        options,
    })
}

fn restrictions(options: &[u8]) -> MountFlags {
    let has = |name: &str| has_option(options, name);
    MountFlags {
        read_only: has("ro"),
        nosuid: has("nosuid"),
        nodev: has("nodev"),
        noexec: has("noexec"),
        idmapped: has("idmapped"),
    }
}

fn has_option(options: &[u8], name: &str) -> bool {
    options.split(|&byte| byte == b',').any(|option| option == name.as_bytes())
}

impl Propagation {
    /// Takes one optional field.
    fn take(&mut self, field: &[u8]) {
        let group = |prefix: &[u8]| number(field.strip_prefix(prefix)?);
        self.shared = group(b"shared:").or(self.shared);
        self.master = group(b"master:").or(self.master);
        self.unbindable |= field == b"unbindable";
    }
}

impl Mount {
    /// Nothing can be written through this mount: it, or its file system, is read-only.
    pub fn is_read_only(&self) -> bool {
        self.flags.read_only || self.file_system_options().any(|option| option == b"ro")
    }

    /// The mount itself has this option: `nosuid`, `nodev`, `noexec`, `nosymfollow`,
    /// `idmapped`, ...
    pub fn has_option(&self, name: &str) -> bool {
        has_option(&self.mount_options, name)
    }

    /// The file system's own options, one by one; octal escapes stand as they are.
    pub fn file_system_options(&self) -> impl Iterator<Item = &[u8]> {
        layers::split_escaped(&self.options, b',').into_iter()
    }
}

fn number(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

fn device(field: &[u8]) -> Option<u64> {
    let (major, minor) = std::str::from_utf8(field).ok()?.split_once(':')?;
    Some(rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?))
}

fn path(field: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(unescape(field)))
}

/// Space, tab, newline and backslash stand as `\` and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] => {
                out.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                rest = after;
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_optional_fields_and_escapes() {
        let line = b"36 35 98:0 /mnt\\0401 /mnt/a\\134b rw,noatime shared:7 master:1 - ext3 /dev/root rw,errors=continue\n";
        let mounts = parse(line);
        let expected = Mount {
            id: 36,
            parent: 35,
            dev: rustix::fs::makedev(98, 0),
            root: "/mnt 1".into(),
            point: "/mnt/a\\b".into(),
            mount_options: b"rw,noatime".into(),
            propagation: Propagation { shared: Some(7), master: Some(1), unbindable: false },
            fs_type: b"ext3".into(),
            flags: MountFlags::default(),
            source: b"/dev/root".into(),
            options: b"rw,errors=continue".into(),
        };
        assert_eq!(mounts, [expected]);
        assert!(mounts[0].has_option("noatime") && !mounts[0].has_option("atime"));
    }

    #[test]
    fn a_mount_or_its_file_system_is_read_only() {
        let table = b"1 0 8:1 / /a ro,nosuid - ext4 d rw\n2 0 8:1 / /b rw - ext4 d ro,x\n\
            3 0 8:1 / /c rw unbindable - ext4 d rw,errors=remount-ro\n";
        let mounts = parse(table);
        let read_only: Vec<bool> = mounts.iter().map(Mount::is_read_only).collect();
        assert_eq!(read_only, [true, true, false]);
        assert!(mounts[2].propagation.unbindable);
        let flags = MountFlags { read_only: true, nosuid: true, ..MountFlags::default() };
        assert_eq!((mounts[0].flags, mounts[1].flags), (flags, MountFlags::default()));
    }

    #[test]
    fn what_a_mount_shows_lies_elsewhere_too() {
        let host = parse(
            b"1 0 0:9 / /docker/a/merged rw - overlay o rw\n2 0 0:9 /x /y rw - overlay o rw\n",
        );
        let of = |root: &str| -> Vec<OsString> {
            let theirs = parse(format!("7 0 0:9 {root} / rw - overlay o rw\n").as_bytes());
            places_of(&theirs[0], &host).into_iter().map(PathBuf::into_os_string).collect()
        };
        assert_eq!(of("/"), ["/docker/a/merged"]);
        assert_eq!(of("/x/z"), ["/docker/a/merged/x/z", "/y/z"]);
    }

    #[test]
    fn a_line_cut_off_is_no_mount() {
        assert_eq!(parse(b"36 35 98:0 /mnt1 /mnt2 rw\n\n36 35 x /a /b rw - ext4 /d rw"), []);
    }

    #[test]
    fn a_backslash_alone_stays() {
        assert_eq!(unescape(b"a\\b\\012\\"), b"a\\b\n\\");
    }
}
