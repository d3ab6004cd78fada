//! The symbolic links of one root that name a program's file directly.
//!
//! In a chain (`usr/bin/view` → `vi` → `/etc/alternatives/vi` → `/bin/busybox`) that is the
//! last link alone: the others lead to it, and `argv[0]` stays the name that was called.

use std::collections::HashMap;

use crate::analyze::resolve::{Resolver, Target};
use crate::model::{DirId, EntryKind, FileId, Inventory, RootPath};

/// A link to one of the wanted files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LastLink {
    /// The link.
    pub(super) path: RootPath,
    /// Its target's exact bytes.
    pub(super) target: Vec<u8>,
    /// What it leads to, as the caller numbers it.
    pub(super) to: usize,
}

/// The last links to the `wanted` files, by path.
pub(super) fn last_links(inventory: &Inventory, wanted: &HashMap<FileId, usize>) -> Vec<LastLink> {
    let mut resolver = Resolver::new(inventory);
    let mut found = Vec::new();
    for dir in inventory.dir_ids() {
        for (name, kind) in inventory.entries(dir) {
            let EntryKind::Symlink(target) = kind else { continue };
            let file = named_file(&mut resolver, inventory, dir, target);
            if let Some(&to) = file.and_then(|file| wanted.get(&file)) {
                let path = inventory.dir_path(dir).join(name);
                found.push(LastLink { path, target: target.to_vec(), to });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// The file whose name is the target's last component: links of directories may be on the way.
fn named_file<'a>(
    resolver: &mut Resolver<'a>,
    inventory: &'a Inventory,
    dir: DirId,
    target: &'a [u8],
) -> Option<FileId> {
    let (parent, name) = match target.iter().rposition(|&byte| byte == b'/') {
        Some(cut) => (&target[..cut.max(1)], &target[cut + 1..]),
        None => (&b"."[..], target),
    };
    let Target::Dir(parent) = resolver.resolve(dir, parent) else { return None };
    match inventory.lookup(parent, name)? {
        EntryKind::File(file) => Some(file),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::analyze::world::World;

    #[test]
    fn only_the_last_link_of_a_chain_counts() {
        let world = World::default()
            .file("usr/bin/busybox", 1)
            .file("usr/bin/bash", 2)
            .link("bin", "usr/bin")
            .link("sbin", "/usr/bin")
            .link("usr/bin/sh", "bash")
            .link("usr/bin/ls", "/bin/busybox")
            .link("usr/bin/cat", "busybox")
            .link("usr/bin/slash", "busybox/")
            .link("usr/sbin/init", "../../sbin/./busybox")
            .link("usr/bin/view", "vi")
            .link("usr/bin/vi", "/etc/alternatives/vi")
            .link("etc/alternatives/vi", "/bin/busybox")
            .link("linuxrc", "bin/busybox")
            .link("gone", "bin/nothing");
        let inventory = world.inventory();
        let busybox = inventory
            .files()
            .find(|(file, _)| inventory.file_name(*file) == b"busybox")
            .map(|(file, _)| file)
            .unwrap();
        let found = last_links(&inventory, &HashMap::from([(busybox, 7)]));
        let paths: Vec<_> =
            found.iter().map(|link| String::from_utf8_lossy(link.path.as_bytes())).collect();
        let expected =
            ["etc/alternatives/vi", "linuxrc", "usr/bin/cat", "usr/bin/ls", "usr/sbin/init"];
        assert_eq!(paths, expected);
        assert!(found.iter().all(|link| link.to == 7));
        assert_eq!(found[3].target, b"/bin/busybox");
    }
}
