//! The distinct inodes behind the names of all roots.

use rayon::prelude::*;

use crate::model::{FileId, FileMeta, InodeId, Inventory};

/// A name of a regular file: the root's place in the list, and the file in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// The root's place in the list of inventories.
    pub root: u32,
    /// The file in it.
    pub file: FileId,
}

/// Every inode once, with its names, in the order of first names.
#[derive(Debug, Default)]
pub struct Inodes {
    names: Vec<Name>,
    /// Where each inode's names begin; one more at the end.
    starts: Vec<u32>,
    /// For each root and file, the inode.
    of: Vec<Vec<u32>>,
}

impl Inodes {
    /// Brings the names of each inode together.
    pub fn of(inventories: &[Inventory]) -> Self {
        let files = inventories.iter().map(|inventory| inventory.files().len());
        let mut named: Vec<(InodeId, Name)> = Vec::with_capacity(files.clone().sum());
        for (inventory, root) in inventories.iter().zip(0..) {
            let name = |(file, meta): (FileId, FileMeta)| (meta.inode, Name { root, file });
            named.extend(inventory.files().map(name));
        }
        named.par_sort_unstable();
        // Where each inode's names begin, in the order of first names.
        let is_first = |&at: &usize| at == 0 || named[at - 1].0 != named[at].0;
        let mut firsts: Vec<u32> = (0..named.len()).filter(is_first).map(|at| at as u32).collect();
        firsts.par_sort_unstable_by_key(|&at| named[at as usize].1);
        let mut inodes = Self {
            names: Vec::with_capacity(named.len()),
            starts: Vec::with_capacity(firsts.len() + 1),
            of: files.map(|files| vec![0; files]).collect(),
        };
        for (first, inode) in firsts.into_iter().zip(0..) {
            inodes.starts.push(inodes.names.len() as u32);
            let names = &named[first as usize..];
            for &(_, name) in names.iter().take_while(|(id, _)| *id == names[0].0) {
                inodes.of[name.root as usize][name.file.0 as usize] = inode;
                inodes.names.push(name);
            }
        }
        inodes.starts.push(inodes.names.len() as u32);
        inodes
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An inode's names, in order; at least one.
    pub fn names(&self, inode: usize) -> &[Name] {
        &self.names[self.starts[inode] as usize..self.starts[inode + 1] as usize]
    }

    /// The inode that a name leads to.
    pub fn inode(&self, name: Name) -> usize {
        self.of[name.root as usize][name.file.0 as usize] as usize
    }

    /// What `statx(2)` said of an inode.
    pub fn meta(&self, inode: usize, inventories: &[Inventory]) -> FileMeta {
        let first = self.names(inode)[0];
        inventories[first.root as usize].file(first.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Listed;

    #[test]
    fn hard_links_within_and_between_roots_are_one_inode() {
        let inventories = [
            Inventory::sample(&[
                ("a", Listed::sample_file(7, 1)),
                ("b", Listed::sample_file(8, 1)),
                ("c", Listed::sample_file(7, 1)),
            ]),
            Inventory::sample(&[("d", Listed::sample_file(7, 1))]),
        ];
        let inodes = Inodes::of(&inventories);
        assert_eq!(inodes.len(), 2);
        let name = |root, file| Name { root, file: FileId(file) };
        assert_eq!(inodes.names(0), [name(0, 0), name(0, 2), name(1, 0)]);
        assert_eq!(inodes.names(1), [name(0, 1)]);
        assert_eq!(inodes.inode(name(1, 0)), 0);
    }
}
