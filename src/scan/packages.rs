//! The package databases of a root: what they own, and whether a package manager is at work.
//!
//! They are read below the root like every other file of it, and never made.

mod locks;

use std::collections::HashSet;
use std::io::{self, Read as _};
use std::os::fd::AsFd;

use super::dir::{RootDir, open_regular};
use crate::model::{DirId, EntryKind, Inventory, RootPath};

pub use locks::at_work;

/// Lists of one file for each package, one path a line: dpkg(1), opkg.
const LISTS: [(&str, &str); 3] =
    [("dpkg", "var/lib/dpkg/info"), ("opkg", "usr/lib/opkg/info"), ("opkg", "var/lib/opkg/info")];

/// One file for all packages, with `F:` before each directory and `R:` before each file: apk(8).
const APK: [&str; 2] = ["lib/apk/db/installed", "usr/lib/apk/db/installed"];

/// Where pacman keeps a directory for each package, in it a file `files`.
const PACMAN: &str = "var/lib/pacman/local";

/// Databases of rpm(8). Their format is not read: programs of such a root are taken to be owned.
const RPM: [&str; 4] = [
    "var/lib/rpm/rpmdb.sqlite",
    "var/lib/rpm/Packages",
    "var/lib/rpm/Packages.db",
    "usr/lib/sysimage/rpm/rpmdb.sqlite",
];

/// A longer list is none.
const LONGEST: u64 = 64 << 20;

/// Which package manager lists each of the `paths`.
pub fn owners(
    root: &RootDir,
    inventory: &Inventory,
    paths: &[RootPath],
) -> Vec<Option<&'static str>> {
    let mut search = Search { root, inventory, paths, owners: vec![None; paths.len()] };
    if RPM.iter().any(|path| search.dir_and_name(path).is_some()) {
        search.owners.fill(Some("rpm"));
        return search.owners;
    }
    for (manager, dir) in LISTS {
        search.lists(manager, dir);
    }
    search.apk();
    search.pacman();
    search.owners
}

struct Search<'a> {
    root: &'a RootDir,
    inventory: &'a Inventory,
    paths: &'a [RootPath],
    owners: Vec<Option<&'static str>>,
}

impl Search<'_> {
    fn lists(&mut self, manager: &'static str, dir: &str) {
        let Some(at) = self.dir(dir) else { return };
        // The package that ships a program is most often called like it.
        let likely: HashSet<&[u8]> = self.paths.iter().map(|path| stem(path.file_name())).collect();
        let is_likely = |name: &&[u8]| likely.iter().any(|stem| name.starts_with(stem));
        let lists =
            self.inventory.entries(at).filter(|(_, kind)| matches!(kind, EntryKind::File(_)));
        let names = lists.map(|(name, _)| name).filter(|name| name.ends_with(b".list"));
        let (first, rest): (Vec<_>, Vec<_>) = names.partition(is_likely);
        for name in first.into_iter().chain(rest) {
            if self.owners.iter().all(Option::is_some) {
                return;
            }
            if let Ok(list) = self.read(&RootPath::new(dir), name) {
                self.mark(manager, list.split(|&byte| byte == b'\n'));
            }
        }
    }

    fn apk(&mut self) {
        for path in APK {
            let Some((dir, name)) = self.dir_and_name(path) else { continue };
            let Ok(list) = self.read(&dir, name.as_bytes()) else { continue };
            let mut dir = Vec::new();
            let mut listed = Vec::new();
            for line in list.split(|&byte| byte == b'\n') {
                if let Some(path) = line.strip_prefix(b"F:") {
                    dir = path.to_vec();
                } else if let Some(name) = line.strip_prefix(b"R:") {
                    listed.push(RootPath::new(dir.clone()).join(name));
                }
            }
            self.mark("apk", listed.iter().map(RootPath::as_bytes));
        }
    }

    fn pacman(&mut self) {
        let Some(at) = self.dir(PACMAN) else { return };
        let packages: Vec<_> = self.inventory.entries(at).map(|(name, _)| name.to_vec()).collect();
        for package in packages {
            if let Ok(list) = self.read(&RootPath::new(PACMAN).join(&package), b"files") {
                self.mark("pacman", list.split(|&byte| byte == b'\n'));
            }
        }
    }

    /// Takes the paths of a list for the manager's own. A database of before the merge of
    /// `/usr` says `/bin/ls`, and the file lies in `usr/bin`.
    fn mark<'l>(&mut self, manager: &'static str, listed: impl Iterator<Item = &'l [u8]>) {
        let wanted: Vec<(usize, &[u8])> =
            self.paths.iter().map(|path| merged(path.as_bytes())).enumerate().collect();
        for path in listed {
            let path = merged(path.strip_prefix(b"/").unwrap_or(path));
            for (at, _) in wanted.iter().filter(|(_, wanted)| *wanted == path) {
                self.owners[*at] = Some(manager);
            }
        }
    }

    fn dir(&self, path: &str) -> Option<DirId> {
        let mut at = DirId(0);
        for part in path.split('/') {
            match self.inventory.lookup(at, part.as_bytes())? {
                EntryKind::Dir(dir) => at = dir,
                _ => return None,
            }
        }
        Some(at)
    }

    fn dir_and_name<'p>(&self, path: &'p str) -> Option<(RootPath, &'p str)> {
        let (dir, name) = path.rsplit_once('/')?;
        match self.inventory.lookup(self.dir(dir)?, name.as_bytes())? {
            EntryKind::File(_) => Some((RootPath::new(dir), name)),
            _ => None,
        }
    }

    fn read(&self, dir: &RootPath, name: &[u8]) -> io::Result<Vec<u8>> {
        let dir = self.root.open_dir(dir)?;
        let (file, _) = open_regular(dir.as_fd(), name)?;
        let mut bytes = Vec::new();
        file.take(LONGEST).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// `busybox` of `busybox-x86_64`, `libc` of `libc.so.6`.
fn stem(name: &[u8]) -> &[u8] {
    let end = name.iter().position(|byte| !byte.is_ascii_alphanumeric());
    &name[..end.unwrap_or(name.len())]
}

/// A path without the `usr/` that merging `/usr` puts before it.
fn merged(path: &[u8]) -> &[u8] {
    path.strip_prefix(b"usr/").unwrap_or(path)
}
