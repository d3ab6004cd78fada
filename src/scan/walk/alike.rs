//! The host's own tree, as far as roots have the like of it.

use std::collections::{HashMap, HashSet};

use rayon::prelude::*;

use super::names::RawNames;
use super::{DEEPEST, Walk, WalkLimits};
use crate::model::{DirId, EntryKind, Inventory, Progress};
use crate::scan::cache::Listings;
use crate::scan::dir::RootDir;

/// Walks the host's own tree, but only where one of the roots has a directory
/// of the same path: enough to find what the host has too.
pub fn walk_alike(
    host: &RootDir,
    roots: &[Inventory],
    limits: WalkLimits,
    known: &Listings,
    progress: &dyn Progress,
) -> Inventory {
    let mut walk = Walk::new(host, limits, known);
    let tops = HashSet::from([host.inode()]);
    let everywhere = (0..roots.len()).map(|at| (at, DirId(0))).collect();
    let mut twins: HashMap<DirId, Vec<Twin>> = HashMap::from([(DirId(0), everywhere)]);
    let mut level = vec![DirId(0)];
    for _ in 0..=DEEPEST {
        let alike = |dir: DirId, names: &RawNames| {
            twins[&dir].iter().any(|&(at, twin)| has_names(&roots[at], twin, names))
        };
        let below = walk.read_level(&level, &tops, &alike, progress);
        twins = below.par_iter().filter_map(|&dir| descend(&walk, dir, &twins, roots)).collect();
        level = below.into_iter().filter(|dir| twins.contains_key(dir)).collect();
    }
    walk.inventory
}

/// A directory of a root that has the path of one of the host: the root, and its place there.
type Twin = (usize, DirId);

/// A directory of a root has these names, and no others.
fn has_names(root: &Inventory, dir: DirId, names: &RawNames) -> bool {
    let entries = root.entries(dir);
    entries.len() == names.len()
        && entries.zip(names.iter()).all(|((has, _), listed)| has == listed.name)
}

/// The directories of the roots that have the host directory's path.
fn descend(
    host: &Walk<'_>,
    dir: DirId,
    twins: &HashMap<DirId, Vec<Twin>>,
    roots: &[Inventory],
) -> Option<(DirId, Vec<Twin>)> {
    let name = host.inventory.dir_name(dir);
    let same = |&(at, twin): &Twin| match roots[at].lookup(twin, name) {
        Some(EntryKind::Dir(below)) => Some((at, below)),
        _ => None,
    };
    let below: Vec<Twin> = twins[&host.inventory.dir(dir).parent].iter().filter_map(same).collect();
    (!below.is_empty()).then_some((dir, below))
}

#[cfg(test)]
mod tests {
    use super::super::tests::root;
    use super::super::walk;
    use super::*;
    use crate::model::{RootPath, Silent};

    #[test]
    fn of_the_host_only_directories_with_the_names_of_a_root_are_looked_at() {
        let (host, guest) =
            (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let host = root(host.path(), &["a/x", "a/b/y", "c/deep/z", "d/here"]);
        let guests = [root(guest.path(), &["a/x", "a/z", "a/b/y", "d/there"])];
        let limits = WalkLimits { entries: 100 };
        let known = Listings::default();
        let (guests, _) = walk(&guests, limits, &known, &Silent);
        let host = walk_alike(&host, &guests, limits, &known, &Silent);
        let files: Vec<_> = host.files().map(|(file, _)| host.file_path(file)).collect();
        assert_eq!(files, [RootPath::new("a/b/y")]);
        let complete = |dir: DirId| (host.dir_path(dir), host.dir(dir).complete);
        let found: Vec<_> = host.dir_ids().map(complete).collect();
        let expected = [("", false), ("a", false), ("c", false), ("d", false), ("a/b", true)];
        assert_eq!(found, expected.map(|(path, whole)| (RootPath::new(path), whole)));
    }
}
