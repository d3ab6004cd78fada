//! What a root does not start without: the dynamic loader, the C library, and all that its
//! init and its shell load.

use std::collections::{BTreeSet, HashSet};

use super::libraries::{library_dirs, loaded};
use crate::analyze::inodes::Name;
use crate::analyze::plan::Loads;
use crate::analyze::resolve::{Resolver, Target};
use crate::model::{DirId, EntryKind, FileId};
use crate::ops::survey::Survey;

/// What the kernel, or a runtime, starts first; and the shell that scripts run in.
const FIRST: [&[u8]; 8] = [
    b"sbin/init",
    b"init",
    b"bin/init",
    b"etc/init",
    b"usr/lib/systemd/systemd",
    b"lib/systemd/systemd",
    b"bin/sh",
    b"bin/bash",
];

/// More would be no init.
const MOST: usize = 256;

/// The files of a root that are boot-critical.
pub(super) fn critical(survey: &Survey, root: usize) -> HashSet<FileId> {
    let inventory = &survey.inventories[root];
    let mut resolver = Resolver::new(inventory);
    let mut pending: BTreeSet<FileId> = FIRST
        .iter()
        .filter_map(|path| match resolver.resolve(DirId(0), path) {
            Target::File(file) => Some(file),
            _ => None,
        })
        .collect();
    for dir in library_dirs(inventory, &[]) {
        pending.extend(inventory.entries(dir).filter_map(|(name, kind)| match kind {
            EntryKind::File(file) if is_loader_or_libc(name) => Some(file),
            _ => None,
        }));
    }
    let mut found = HashSet::new();
    while let Some(file) = pending.pop_first() {
        if found.len() > MOST || !found.insert(file) {
            continue;
        }
        let inode = survey.inodes.inode(Name { root: root as u32, file });
        let (described, _) = survey.describe(inode);
        if let Some(elf) = described.elf {
            let files =
                loaded(inventory, &Loads::of(&elf)).into_iter().filter_map(|(_, file)| file);
            pending.extend(files.filter(|file| !found.contains(file)));
        }
    }
    found
}

fn is_loader_or_libc(name: &[u8]) -> bool {
    let starts: [&[u8]; 6] = [b"ld-", b"ld.so", b"ld64.so", b"libc.so", b"libc-", b"libc.musl"];
    starts.iter().any(|start| name.starts_with(start))
        && memchr::memmem::find(name, b".so").is_some()
}
