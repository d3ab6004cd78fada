//! The directories of all roots by their paths: containers of one image have the same ones.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::inodes::{Inodes, Name};
use crate::model::{Bytes, DirId, EntryKind, Inventory};

/// A number for the path of each directory, the same in every root.
#[derive(Debug, Default)]
pub struct PathIds(Vec<Vec<u32>>);

impl PathIds {
    /// Those of all directories.
    pub fn of(inventories: &[Inventory]) -> Self {
        let mut ids: HashMap<(u32, &[u8]), u32> = HashMap::new();
        let mut all = Vec::with_capacity(inventories.len());
        for inventory in inventories {
            let mut paths = vec![0; inventory.dir_ids().len()];
            for dir in inventory.dir_ids().skip(1) {
                let parent = paths[inventory.dir(dir).parent.0 as usize];
                let next = ids.len() as u32 + 1;
                let path = ids.entry((parent, inventory.dir_name(dir))).or_insert(next);
                paths[dir.0 as usize] = *path;
            }
            all.push(paths);
        }
        Self(all)
    }

    /// That of a directory of a root.
    pub fn at(&self, root: u32, dir: DirId) -> u32 {
        self.0[root as usize][dir.0 as usize]
    }
}

/// The inodes of all roots, each by its first name, in an order that has files of one path and size
/// one after another: they hold the same, mostly.
pub struct ByPath<'a> {
    inventories: &'a [Inventory],
    inodes: &'a Inodes,
    /// By path, the directories that have it.
    dirs: Vec<(u32, u32, DirId)>,
}

impl<'a> ByPath<'a> {
    /// Brings the directories of one path together.
    pub fn of(inventories: &'a [Inventory], paths: &PathIds, inodes: &'a Inodes) -> Self {
        let mut dirs = Vec::new();
        for (inventory, root) in inventories.iter().zip(0..) {
            dirs.extend(inventory.dir_ids().map(|dir| (paths.at(root, dir), root, dir)));
        }
        dirs.sort_unstable();
        Self { inventories, inodes, dirs }
    }

    /// The inodes that are asked for.
    pub fn inodes<'b>(
        &'b self,
        asked: impl Fn(usize) -> bool + Copy + 'b,
    ) -> impl Iterator<Item = usize> + 'b {
        self.dirs.chunk_by(|a, b| a.0 == b.0).flat_map(move |dirs| self.in_dirs(dirs, asked))
    }

    /// Those whose first name stands in one of these directories: their names, in order each, are
    /// merged, so that no more is held than one name of each directory.
    fn in_dirs<'b>(
        &'b self,
        dirs: &'b [(u32, u32, DirId)],
        asked: impl Fn(usize) -> bool + Copy + 'b,
    ) -> impl Iterator<Item = usize> + 'b {
        let files = |&(_, root, dir): &(u32, u32, DirId)| self.files(root, dir, asked);
        let mut rest: Vec<_> = dirs.iter().map(files).collect();
        let take = |at: usize, rest: &mut [_]| {
            let next: Option<(&[u8], Bytes, usize)> = Iterator::next(&mut rest[at]);
            next.map(|(name, size, inode)| Reverse((name, size, at, inode)))
        };
        let mut heap: BinaryHeap<_> =
            (0..rest.len()).filter_map(|at| take(at, &mut rest)).collect();
        std::iter::from_fn(move || {
            let Reverse((_, _, at, inode)) = heap.pop()?;
            heap.extend(take(at, &mut rest));
            Some(inode)
        })
    }

    /// Name, size and inode of each file of a directory that is its inode's first name.
    fn files(
        &self,
        root: u32,
        dir: DirId,
        asked: impl Fn(usize) -> bool,
    ) -> impl Iterator<Item = (&[u8], Bytes, usize)> {
        let inventory = &self.inventories[root as usize];
        inventory.entries(dir).filter_map(move |(name, kind)| {
            let EntryKind::File(file) = kind else { return None };
            let inode = self.inodes.inode(Name { root, file });
            let wanted = asked(inode) && self.inodes.names(inode)[0] == (Name { root, file });
            wanted.then(|| (name, inventory.file(file).size, inode))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Listed;

    #[test]
    fn files_of_one_path_and_size_stand_together_and_each_inode_once() {
        let file = Listed::sample_file;
        let inventories = [
            Inventory::sample(&[("a/x", file(1, 9)), ("a/y", file(2, 9)), ("b/x", file(3, 9))]),
            Inventory::sample(&[("a/x", file(4, 8)), ("a/y", file(2, 9)), ("c/z", file(5, 9))]),
            Inventory::sample(&[("a/x", file(6, 9)), ("a/y", file(7, 9)), ("b/x", file(8, 9))]),
        ];
        let inodes = Inodes::of(&inventories);
        let by_path = ByPath::of(&inventories, &PathIds::of(&inventories), &inodes);
        let told = by_path.inodes(|_| true).map(|inode| inodes.meta(inode, &inventories).inode.ino);
        assert_eq!(told.collect::<Vec<_>>(), [4, 1, 6, 2, 7, 3, 8, 5]);
        let some: Vec<usize> = by_path.inodes(|inode| inode != 1).collect();
        assert_eq!((some.len(), some.contains(&1)), (7, false));
    }
}
