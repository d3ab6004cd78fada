//! Roots written as tables, laid on a real file system.
//!
//! ```text
//! world! { dir.path(),
//!     "web/bin/busybox" => busybox(),
//!     "web/bin/ls" => link("busybox"),
//!     "db/bin/busybox" => hardlink("web/bin/busybox"),
//! }
//! ```

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

/// What a name leads to.
pub enum Entry {
    File(Vec<u8>, u32),
    Link(Vec<u8>),
    HardLink(&'static str),
    Dir,
}

/// A regular file of mode 0644.
pub fn file(bytes: impl Into<Vec<u8>>) -> Entry {
    Entry::File(bytes.into(), 0o644)
}

/// A symbolic link.
pub fn link(target: impl Into<Vec<u8>>) -> Entry {
    Entry::Link(target.into())
}

/// Another name of a file further up in the table.
pub fn hardlink(of: &'static str) -> Entry {
    Entry::HardLink(of)
}

/// An empty directory.
pub fn dir() -> Entry {
    Entry::Dir
}

/// A program of one segment that holds `text` and does nothing: of mode 0755.
pub fn program(text: &[u8]) -> Entry {
    Entry::File(elf(text), 0o755)
}

/// What is known by for a busybox: its banner and its table of applets.
pub fn busybox() -> Entry {
    program(b"\0BusyBox v1.36.1 (Debian)\0[\0[[\0ash\0cat\0chmod\0echo\0ls\0sh\0vi\0wget\0\0\0zz")
}

/// Lays a table out below a directory. Directories on the way are made.
#[macro_export]
macro_rules! world {
    ($at:expr, $($path:expr => $entry:expr),+ $(,)?) => {{
        let at: &std::path::Path = $at.as_ref();
        $($crate::world::lay(at, $path.as_ref(), $entry);)+
    }};
}

pub fn lay(at: &Path, path: &[u8], entry: Entry) {
    let path = at.join(OsStr::from_bytes(path));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    match entry {
        Entry::File(bytes, mode) => {
            fs::write(&path, bytes).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        Entry::Link(target) => symlink(OsStr::from_bytes(&target), &path).unwrap(),
        Entry::HardLink(of) => fs::hard_link(at.join(of), &path).unwrap(),
        Entry::Dir => fs::create_dir_all(&path).unwrap(),
    }
}

/// ELF64, x86_64, `ET_EXEC`, with one `PT_LOAD` that is the whole file, and no sections.
fn elf(text: &[u8]) -> Vec<u8> {
    const HEADERS: u64 = 64 + 56;
    const BASE: u64 = 0x40_0000;
    let size = HEADERS + text.len() as u64;
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let half = |value: u16| value.to_le_bytes().to_vec();
    let word = |value: u32| value.to_le_bytes().to_vec();
    let long = |value: u64| value.to_le_bytes().to_vec();
    let header = [half(2), half(62), word(1), long(BASE + HEADERS), long(64), long(0), word(0)];
    let sizes = [64_u16, 56, 1, 64, 0, 0].map(half);
    let load = [word(1), word(5), long(0), long(BASE), long(BASE), long(size), long(size)];
    bytes.extend(header.into_iter().chain(sizes).chain(load).flatten());
    bytes.extend(long(0x1000));
    bytes.extend(text);
    bytes
}
