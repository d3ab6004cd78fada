//! Directories that are the same in several roots, all the way down.
//!
//! First by shape: names, kinds, modes, link targets and file sizes, which the
//! walk knows already. Only what has a twin by shape is read. Then by content.

use std::collections::{BTreeMap, HashMap};

use rayon::prelude::*;

use super::held::Held;
use super::inodes::{Inodes, Name};
use super::paths::PathIds;
use crate::model::{
    Bytes, ContentId, DirId, EntryKind, Extents, FileId, Inventory, RootId, Tree, TreeHasher,
};

/// What two directories have in common when they are the same.
type Digest = ContentId;

/// A directory of one of the roots.
type Place = (u32, DirId);

/// Directories that have a twin by shape at the same path of another root.
#[derive(Debug)]
pub struct Alike(Vec<Place>);

impl Alike {
    /// Finds them.
    pub fn of(inventories: &[Inventory], paths: &PathIds) -> Self {
        let size = |inventory: &Inventory, file| Some(inventory.file(file).size.0.to_le_bytes());
        let shapes: Vec<_> = inventories
            .par_iter()
            .map(|inventory| digests(inventory, |file| size(inventory, file)))
            .collect();
        let classes = classes(inventories, paths, &shapes);
        Self(classes.into_iter().flat_map(|class| class.members).collect())
    }

    /// For each inode, whether it has a name in one of them.
    pub fn files(&self, inodes: &Inodes, inventories: &[Inventory]) -> Vec<bool> {
        let mut wanted = vec![false; inodes.len()];
        for &(root, dir) in &self.0 {
            for (_, kind) in inventories[root as usize].entries(dir) {
                if let EntryKind::File(file) = kind {
                    wanted[inodes.inode(Name { root, file })] = true;
                }
            }
        }
        wanted
    }
}

/// What the trees are made from.
#[derive(Clone, Copy)]
pub struct Forest<'a> {
    /// The roots' inventories; the host's own last, if it was walked.
    pub inventories: &'a [Inventory],
    /// The host's place among them.
    pub host: Option<u32>,
    /// The paths of their directories.
    pub paths: &'a PathIds,
    /// The inodes of all of them.
    pub inodes: &'a Inodes,
    /// The contents that were read, for each inode.
    pub content: &'a Held,
    /// Where the blocks lie of files that share some.
    pub extents: &'a HashMap<usize, Extents>,
}

/// The trees, and the inodes that they waste.
#[derive(Debug, Default)]
pub struct Trees {
    /// By waste, the most first.
    pub trees: Vec<Tree>,
    /// Inodes beyond one copy of a tree, in order.
    pub wasted: Vec<usize>,
}

/// The highest directories that are the same in two or more roots, or in a root and on the host.
pub fn trees(forest: Forest<'_>) -> Trees {
    let digests: Vec<_> = forest
        .inventories
        .par_iter()
        .enumerate()
        .map(|(root, inventory)| {
            let name = |file| Name { root: root as u32, file };
            digests(inventory, |file| {
                forest.content.get(forest.inodes.inode(name(file))).map(|id| id.0)
            })
        })
        .collect();
    let classes = classes(forest.inventories, forest.paths, &digests);
    let class_of: HashMap<Place, usize> = classes
        .iter()
        .enumerate()
        .flat_map(|(at, class)| class.members.iter().map(move |&place| (place, at)))
        .collect();
    let canonical = forest.canonical();
    let mut found = Trees::default();
    let highest = classes.par_iter().filter(|class| !forest.is_part(class, &classes, &class_of));
    let told: Vec<_> = highest.map(|class| forest.tree(class, &canonical)).collect();
    for (tree, wasted) in told {
        if tree.wasted > Bytes(0) {
            found.trees.push(tree);
            found.wasted.extend(wasted);
        }
    }
    found.wasted.par_sort_unstable();
    found.wasted.dedup();
    found.trees.sort_by(|a, b| b.wasted.cmp(&a.wasted).then_with(|| a.path.cmp(&b.path)));
    found
}

/// A directory below one of the roots, by the root's place and its own number.
pub type Member = (usize, DirId);

/// Where data lies that programs only read (hier(7)): trees below are shared, each as a whole.
pub const SHARED: &[u8] = b"usr/share";

/// The directories right below `/usr/share` that were read whole, those with one name and one
/// digest together.
pub fn below_share(
    inventories: &[Inventory],
    inodes: &Inodes,
    content: &Held,
) -> BTreeMap<(Vec<u8>, ContentId), Vec<Member>> {
    let mut found: BTreeMap<_, Vec<Member>> = BTreeMap::new();
    for (root, inventory) in inventories.iter().enumerate() {
        let Some(share) = dir_at(inventory, SHARED) else { continue };
        let name = |file| Name { root: root as u32, file };
        let leaf = |file| content.get(inodes.inode(name(file))).map(|id| id.0);
        let digests = digests(inventory, leaf);
        for (name, kind) in inventory.entries(share) {
            if let EntryKind::Dir(dir) = kind
                && let Some(digest) = digests[dir.0 as usize]
            {
                found.entry((name.to_vec(), digest)).or_default().push((root, dir));
            }
        }
    }
    found
}

/// A directory of a root, without following a link.
pub fn dir_at(inventory: &Inventory, path: &[u8]) -> Option<DirId> {
    path.split(|&byte| byte == b'/').try_fold(DirId(0), |at, name| {
        match inventory.lookup(at, name) {
            Some(EntryKind::Dir(dir)) => Some(dir),
            _ => None,
        }
    })
}

/// Directories at one path with one digest.
struct Class {
    digest: Digest,
    members: Vec<Place>,
}

/// Digests from the leaves up: children stand behind their parents.
fn digests<T: AsRef<[u8]>>(
    inventory: &Inventory,
    leaf: impl Fn(FileId) -> Option<T>,
) -> Vec<Option<Digest>> {
    let mut digests = vec![None; inventory.dir_ids().len()];
    for dir in inventory.dir_ids().rev() {
        digests[dir.0 as usize] = digest(inventory, dir, &digests, &leaf);
    }
    digests
}

/// `None` for a directory that holds what cannot be compared.
fn digest<T: AsRef<[u8]>>(
    inventory: &Inventory,
    dir: DirId,
    below: &[Option<Digest>],
    leaf: impl Fn(FileId) -> Option<T>,
) -> Option<Digest> {
    let this = inventory.dir(dir);
    if !this.complete {
        return None;
    }
    let mut hasher = TreeHasher::new(this.meta.mode);
    for (name, kind) in inventory.entries(dir) {
        match kind {
            EntryKind::Dir(child) => hasher.dir(name, below[child.0 as usize]?),
            EntryKind::File(file) => {
                hasher.file(name, inventory.file(file).mode, leaf(file)?.as_ref());
            }
            EntryKind::Symlink(target) => hasher.link(name, target),
            EntryKind::Special(_) => return None,
        }
    }
    Some(hasher.finish())
}

/// Two or more directories at one path with one digest. A root itself is no
/// class: nothing can be mounted over it.
fn classes(
    inventories: &[Inventory],
    paths: &PathIds,
    digests: &[Vec<Option<Digest>>],
) -> Vec<Class> {
    let mut placed: Vec<(u32, Digest, Place)> = Vec::new();
    for (root, inventory) in (0u32..).zip(inventories) {
        for dir in inventory.dir_ids().skip(1) {
            if let Some(digest) = digests[root as usize][dir.0 as usize] {
                placed.push((paths.at(root, dir), digest, (root, dir)));
            }
        }
    }
    placed.par_sort_unstable();
    placed
        .chunk_by(|a, b| (a.0, a.1) == (b.0, b.1))
        .filter(|same| same.len() > 1)
        .map(|same| Class {
            digest: same[0].1,
            members: same.iter().map(|&(_, _, place)| place).collect(),
        })
        .collect()
}

impl Forest<'_> {
    /// The class is told already by a directory above it, of the same roots.
    fn is_part(&self, class: &Class, classes: &[Class], class_of: &HashMap<Place, usize>) -> bool {
        let (root, dir) = class.members[0];
        let parent = self.inventories[root as usize].dir(dir).parent;
        // Equal parents have equal children, so as many parents are the same roots.
        class_of
            .get(&(root, parent))
            .is_some_and(|&above| classes[above].members.len() == class.members.len())
    }

    fn tree(&self, class: &Class, canonical: &HashMap<usize, usize>) -> (Tree, Vec<usize>) {
        let on_host = class.members.iter().any(|&(root, _)| Some(root) == self.host);
        let copies: Vec<Vec<usize>> =
            class.members.iter().map(|&place| self.inodes_below(place, canonical)).collect();
        let kept = match on_host {
            true => class.members.iter().position(|&(root, _)| Some(root) == self.host),
            false => (0..copies.len()).max_by_key(|&at| self.allocated(&copies[at])),
        };
        // Sorted, as each copy is.
        let kept = &copies[kept.unwrap_or(0)];
        let is_wasted = |inode: &usize| kept.binary_search(inode).is_err();
        let mut wasted: Vec<usize> = copies.iter().flatten().copied().filter(is_wasted).collect();
        wasted.sort_unstable();
        wasted.dedup();
        let (root, dir) = class.members[0];
        let (files, size) = self.count((root, dir));
        let members = class.members.iter().map(|&(root, _)| root);
        let tree = Tree {
            path: self.inventories[root as usize].dir_path(dir),
            roots: members.filter(|&root| Some(root) != self.host).map(RootId).collect(),
            on_host,
            files,
            size,
            wasted: self.allocated(&wasted),
            digest: class.digest,
        };
        (tree, wasted)
    }

    /// The inodes in a tree; reflinked ones by the first that has their blocks.
    fn inodes_below(&self, (root, dir): Place, canonical: &HashMap<usize, usize>) -> Vec<usize> {
        let mut inodes: Vec<usize> = files_below(&self.inventories[root as usize], dir)
            .map(|file| self.inodes.inode(Name { root, file }))
            .map(|inode| canonical.get(&inode).copied().unwrap_or(inode))
            .collect();
        inodes.sort_unstable();
        inodes.dedup();
        inodes
    }

    fn count(&self, (root, dir): Place) -> (u64, Bytes) {
        let inventory = &self.inventories[root as usize];
        files_below(inventory, dir).fold((0, Bytes(0)), |(files, size), file| {
            (files + 1, size + inventory.file(file).size)
        })
    }

    fn allocated(&self, inodes: &[usize]) -> Bytes {
        inodes.iter().map(|&inode| self.inodes.meta(inode, self.inventories).allocated).sum()
    }

    /// For each inode that shares all its blocks, the first that does.
    fn canonical(&self) -> HashMap<usize, usize> {
        let mut sharing: Vec<_> = self.extents.iter().collect();
        sharing.sort_unstable_by_key(|&(inode, _)| *inode);
        let mut first: HashMap<&Extents, usize> = HashMap::new();
        sharing
            .into_iter()
            .map(|(&inode, extents)| (inode, *first.entry(extents).or_insert(inode)))
            .collect()
    }
}

/// Every name of a regular file below a directory.
pub fn files_below(inventory: &Inventory, dir: DirId) -> impl Iterator<Item = FileId> {
    let mut dirs = vec![dir];
    let mut files = Vec::new();
    while let Some(dir) = dirs.pop() {
        for (_, kind) in inventory.entries(dir) {
            match kind {
                EntryKind::Dir(below) => dirs.push(below),
                EntryKind::File(file) => files.push(file),
                EntryKind::Symlink(_) | EntryKind::Special(_) => {}
            }
        }
    }
    files.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Listed;

    /// A root with a tree of two files, `own` an inode and content of its own.
    fn root(first_ino: u64) -> Vec<(&'static str, Listed<'static>)> {
        vec![
            ("etc/hostname", Listed::sample_file(first_ino, first_ino)),
            ("usr/share/zoneinfo/UTC", Listed::sample_file(first_ino + 1, 100)),
            ("usr/share/zoneinfo/Etc/GMT", Listed::sample_file(first_ino + 2, 200)),
            ("usr/share/zoneinfo/Zulu", Listed::Symlink(b"UTC")),
        ]
    }

    /// Files of one size have one content, but for the inodes named.
    fn found(inventories: &[Inventory], host: Option<u32>, altered: &[u64]) -> Vec<Tree> {
        let inodes = Inodes::of(inventories);
        let content: Held = (0..inodes.len())
            .map(|inode| {
                let meta = inodes.meta(inode, inventories);
                let odd = u8::from(altered.contains(&meta.inode.ino));
                let mut id = [odd; 32];
                id[0] = meta.size.0 as u8;
                Some(ContentId(id))
            })
            .collect();
        let extents = HashMap::new();
        let forest = Forest {
            inventories,
            host,
            paths: &PathIds::of(inventories),
            inodes: &inodes,
            content: &content,
            extents: &extents,
        };
        trees(forest).trees
    }

    fn paths(trees: &[Tree]) -> Vec<String> {
        trees.iter().map(|tree| tree.path.as_path().display().to_string()).collect()
    }

    #[test]
    fn only_the_highest_directory_is_told() {
        let inventories = [Inventory::sample(&root(10)), Inventory::sample(&root(20))];
        let trees = found(&inventories, None, &[]);
        assert_eq!(paths(&trees), ["usr"]);
        assert_eq!((trees[0].files, trees[0].size), (2, Bytes(300)));
        assert_eq!(trees[0].wasted, Bytes(8192));
    }

    #[test]
    fn what_more_roots_share_is_told_below_what_fewer_share() {
        let mut third = root(30);
        third.push(("usr/share/doc", Listed::sample_file(39, 5)));
        let inventories =
            [Inventory::sample(&root(10)), Inventory::sample(&root(20)), Inventory::sample(&third)];
        let trees = found(&inventories, None, &[]);
        assert_eq!(paths(&trees), ["usr/share/zoneinfo", "usr"]);
        assert_eq!((trees[0].roots.len(), trees[1].roots.len()), (3, 2));
    }

    #[test]
    fn the_hosts_own_copy_makes_every_other_one_waste() {
        let inventories = [Inventory::sample(&root(10)), Inventory::sample(&root(20))];
        let trees = found(&inventories, Some(1), &[]);
        assert_eq!(paths(&trees), ["usr"]);
        assert_eq!((trees[0].on_host, trees[0].wasted), (true, Bytes(8192)));
        assert_eq!(trees[0].roots, [RootId(0)]);
    }

    #[test]
    fn another_byte_mode_target_or_name_makes_another_tree() {
        let one = Inventory::sample(&root(10));
        let other = Inventory::sample(&root(20));
        assert_eq!(paths(&found(&[one.clone(), other], None, &[22])), [] as [&str; 0]);
        let mut mode = root(20);
        let Listed::File(meta) = &mut mode[2].1 else { unreachable!() };
        meta.mode = 0o100755;
        let other = Inventory::sample(&mode);
        assert_eq!(paths(&found(&[one.clone(), other], None, &[])), [] as [&str; 0]);
        let mut target = root(20);
        target[3].1 = Listed::Symlink(b"GMT");
        let other = Inventory::sample(&target);
        assert_eq!(paths(&found(&[one, other], None, &[])), ["usr/share/zoneinfo/Etc"]);
    }

    #[test]
    fn what_lies_right_below_share_is_found_by_name_and_digest() {
        let inventories = [Inventory::sample(&root(10)), Inventory::sample(&root(20))];
        let inodes = Inodes::of(&inventories);
        let content: Held = vec![Some(ContentId([1; 32])); inodes.len()].into_iter().collect();
        let names = |content: &Held| -> Vec<(Vec<u8>, usize)> {
            let found = below_share(&inventories, &inodes, content);
            found.into_iter().map(|((name, _), members)| (name, members.len())).collect()
        };
        assert_eq!(names(&content), [(b"zoneinfo".to_vec(), 2)]);
        let mut unread = content.clone();
        unread.set(0, None);
        assert_eq!(names(&unread), [(b"zoneinfo".to_vec(), 1)]);
    }

    #[test]
    fn hard_linked_trees_waste_nothing() {
        let inventories = [Inventory::sample(&root(10)), Inventory::sample(&root(10))];
        assert_eq!(found(&inventories, None, &[]), []);
    }

    #[test]
    fn what_was_not_read_whole_equals_nothing() {
        let mut cut = Inventory::sample(&root(20));
        let dirs: Vec<DirId> = cut.dir_ids().collect();
        dirs.into_iter().for_each(|dir| cut.mark_incomplete(dir));
        assert_eq!(found(&[Inventory::sample(&root(10)), cut], None, &[]), []);
    }

    #[test]
    fn files_without_a_twin_by_shape_are_not_wanted() {
        let inventories = [Inventory::sample(&root(10)), Inventory::sample(&root(20))];
        let inodes = Inodes::of(&inventories);
        let wanted =
            Alike::of(&inventories, &PathIds::of(&inventories)).files(&inodes, &inventories);
        let of = |ino: u64| {
            let found =
                (0..inodes.len()).find(|&at| inodes.meta(at, &inventories).inode.ino == ino);
            found.map(|at| wanted[at])
        };
        assert_eq!((of(10), of(11), of(22)), (Some(false), Some(true), Some(true)));
    }
}
