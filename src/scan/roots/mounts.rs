//! `/proc/PID/mountinfo`: proc_pid_mountinfo(5).

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// One mount, as far as it tells where a root lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// `st_dev` of what is on it, where the file system has one number for all.
    pub(super) dev: u64,
    /// The directory of the file system that is mounted.
    pub(super) root: PathBuf,
    /// Where.
    pub(super) point: PathBuf,
    /// `ext4`, `overlay`, ...
    pub(super) fs_type: Vec<u8>,
    /// The file system's own options.
    options: Vec<u8>,
}

/// Every mount that a process sees; none when its file cannot be read.
pub(super) fn read(file: &Path) -> Vec<Mount> {
    std::fs::read(file).map(|bytes| parse(&bytes)).unwrap_or_default()
}

fn parse(bytes: &[u8]) -> Vec<Mount> {
    bytes.split(|&byte| byte == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let dev = device(fields.nth(2)?)?;
    let (root, point) = (path(fields.next()?), path(fields.next()?));
    // Optional fields end with a hyphen.
    let mut tail = fields.skip_while(|field| *field != b"-").skip(1);
    let (fs_type, _source, options) = (tail.next()?, tail.next()?, tail.next()?);
    Some(Mount { dev, root, point, fs_type: fs_type.to_vec(), options: options.to_vec() })
}

fn device(field: &[u8]) -> Option<u64> {
    let (major, minor) = std::str::from_utf8(field).ok()?.split_once(':')?;
    Some(rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?))
}

fn path(field: &[u8]) -> PathBuf {
    PathBuf::from(std::ffi::OsString::from_vec(unescape(field)))
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

impl Mount {
    /// The directories that an overlay stacks, the writable one first. A relative one
    /// counts from the directory that holds all layers.
    pub(super) fn layers(&self) -> Vec<PathBuf> {
        let mut layers: Vec<PathBuf> = self.values("upperdir").collect();
        let home = layers.first().and_then(|upper| upper.ancestors().nth(2)).map(Path::to_owned);
        for key in ["lowerdir", "lowerdir+", "datadir+"] {
            layers.extend(self.values(key).flat_map(|value| split_layers(&value)));
        }
        let home = home.unwrap_or_default();
        layers.into_iter().map(|layer| home.join(layer)).collect()
    }

    fn values<'a>(&'a self, key: &'a str) -> impl Iterator<Item = PathBuf> + 'a {
        split_escaped(&self.options, b',').into_iter().filter_map(move |option| {
            let value = option.strip_prefix(key.as_bytes())?.strip_prefix(b"=")?;
            Some(path(value))
        })
    }
}

/// `a:b::data`: layers stand between colons, data-only ones between two.
fn split_layers(value: &Path) -> Vec<PathBuf> {
    split_escaped(value.as_os_str().as_bytes(), b':')
        .into_iter()
        .filter(|part| !part.is_empty())
        .map(|part| PathBuf::from(OsStr::from_bytes(&without_backslashes(part))))
        .collect()
}

/// Splits at a separator that no backslash precedes.
fn split_escaped(bytes: &[u8], separator: u8) -> Vec<&[u8]> {
    let mut escaped = false;
    bytes
        .split(|&byte| {
            let splits = byte == separator && !escaped;
            escaped = byte == b'\\' && !escaped;
            splits
        })
        .collect()
}

fn without_backslashes(bytes: &[u8]) -> Vec<u8> {
    let mut escaped = false;
    let keep = |byte: &u8| {
        escaped = *byte == b'\\' && !escaped;
        !escaped
    };
    bytes.iter().copied().filter(keep).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_optional_fields_and_escapes() {
        let line = b"36 35 98:0 /mnt\\0401 /mnt/a\\134b rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n";
        let mounts = parse(line);
        assert_eq!(mounts.len(), 1);
        assert_eq!(mounts[0].dev, rustix::fs::makedev(98, 0));
        assert_eq!(mounts[0].root, Path::new("/mnt 1"));
        assert_eq!(mounts[0].point, Path::new("/mnt/a\\b"));
        assert_eq!(mounts[0].fs_type, b"ext3");
    }

    #[test]
    fn layers_of_an_overlay_in_order() {
        let line = b"1 2 0:50 / / rw - overlay overlay rw,lowerdir=/s/l/A:l/B:/s/x\\134:y,upperdir=/s/u/diff,workdir=/s/u/work";
        let layers = parse(line)[0].layers();
        let expected = ["/s/u/diff", "/s/l/A", "/s/l/B", "/s/x:y"].map(PathBuf::from);
        assert_eq!(layers, expected);
    }

    #[test]
    fn a_line_cut_off_is_no_mount() {
        assert_eq!(parse(b"36 35 98:0 /mnt1 /mnt2 rw\n\n36 35 x /a /b rw - ext4 /d rw"), []);
    }
}
