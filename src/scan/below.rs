//! What everything in a directory is beyond its inventory, the directory itself first.

use std::os::fd::AsFd as _;

use super::candidate::{Label, of_link, of_open, told};
use super::dir::{RootDir, open_regular, pin};
use crate::model::{DirId, EntryKind, FileTraits, Inventory, RootPath};

/// Looks at a directory of a root and everything in it, by paths from that directory. A label that
/// is the store's, too, is none that is lost there.
pub fn below(
    root: &RootDir,
    inventory: &Inventory,
    dir: DirId,
    store: Option<&Label>,
) -> Vec<(RootPath, FileTraits)> {
    let mut found = Vec::new();
    let mut dirs = vec![(dir, RootPath::default())];
    while let Some((at, path)) = dirs.pop() {
        let opened = match root.open_dir(&inventory.dir_path(at)) {
            Err(error) => {
                found.push((path, told(Err(error))));
                continue;
            }
            Ok(opened) => opened,
        };
        found.push((path.clone(), told(of_open(opened.as_fd(), store))));
        for (name, kind) in inventory.entries(at) {
            let looked = match kind {
                EntryKind::Dir(below) => {
                    dirs.push((below, path.join(name)));
                    continue;
                }
                EntryKind::File(_) => open_regular(opened.as_fd(), name)
                    .and_then(|(file, _)| of_open(file.as_fd(), store)),
                EntryKind::Symlink(_) => {
                    pin(opened.as_fd(), name).and_then(|link| of_link(link.as_fd(), store))
                }
                // The inventory says what it is.
                EntryKind::Special(_) => continue,
            };
            found.push((path.join(name), told(looked)));
        }
    }
    found
}
