//! The distinct inodes behind the names of all roots.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

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
        let (of, mut counts) = numbered(inventories);
        let mut total = 0;
        for count in &mut counts {
            total += std::mem::replace(count, total);
        }
        // Where each inode's names begin; and once they are all there, where they end.
        let mut places = counts;
        let mut names = vec![Name { root: 0, file: FileId(0) }; total as usize];
        for (inodes, root) in of.iter().zip(0..) {
            for (&inode, file) in inodes.iter().zip(0..) {
                let place = &mut places[inode as usize];
                names[*place as usize] = Name { root, file: FileId(file) };
                *place += 1;
            }
        }
        places.insert(0, 0);
        let starts = places;
        Self { names, starts, of }
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

/// For each root and file the number of its inode, and for each inode how many names it has.
///
/// Of an inode that is known its number and its first name are kept, not what it is: there are millions.
fn numbered(inventories: &[Inventory]) -> (Vec<Vec<u32>>, Vec<u32>) {
    let files = inventories.iter().map(|inventory| inventory.files().len()).sum();
    let (hasher, mut known) = (RandomState::new(), HashTable::<u32>::with_capacity(files));
    let (mut firsts, mut counts): (Vec<Name>, Vec<u32>) = (Vec::new(), Vec::new());
    let mut number = |name: Name, inode: InodeId| {
        let inode_of = |&at: &u32| {
            let first = firsts[at as usize];
            inventories[first.root as usize].file(first.file).inode
        };
        let hash = hasher.hash_one(inode);
        if let Some(&at) = known.find(hash, |at| inode_of(at) == inode) {
            counts[at as usize] += 1;
            return at;
        }
        let at = counts.len() as u32;
        known.insert_unique(hash, at, |at| hasher.hash_one(inode_of(at)));
        firsts.push(name);
        counts.push(1);
        at
    };
    let of_root = |(inventory, root): (&Inventory, u32)| {
        let files = inventory.files();
        files.map(|(file, meta)| number(Name { root, file }, meta.inode)).collect()
    };
    let of = inventories.iter().zip(0..).map(of_root).collect();
    (of, counts)
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
