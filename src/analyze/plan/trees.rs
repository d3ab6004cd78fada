//! Directories that are the same in several roots: each becomes a link to one in the store.

use super::eligible::only_copy;
use super::{Draft, Refusal, Unnumbered, World, skip};
use crate::model::{Action, Bytes, ContainerPath, ContentId, ObjectName, RootPath, Skip};

/// A directory that could be shared.
#[derive(Debug, Clone)]
pub struct SharedTree {
    /// What it holds.
    pub digest: ContentId,
    /// Its path in every root.
    pub path: RootPath,
    /// The blocks that its files have, each inode once.
    pub size: Bytes,
    /// Names of regular files below it.
    pub files: u64,
    /// Where it was found.
    pub members: Vec<TreeMember>,
}

/// The directory in one root.
#[derive(Debug, Clone)]
pub struct TreeMember {
    /// The root's place in the list.
    pub root: usize,
    /// Why it stays as it is; `None` where it may become a link.
    pub refusal: Option<Refusal>,
}

/// A directory of one root that cannot be compared with those of others.
#[derive(Debug, Clone)]
pub struct LoneTree {
    /// The root's place in the list.
    pub root: usize,
    /// Its path.
    pub path: RootPath,
    /// Why it stays as it is.
    pub refusal: Refusal,
}

impl Draft<'_> {
    /// Says why a directory is not shared.
    pub(super) fn lone_tree(&mut self, lone: &LoneTree) {
        if self.takes_trees(lone.root) {
            let root = self.world.roots[lone.root].root.id;
            self.skips.push(skip(root, lone.path.clone(), lone.refusal.clone()));
        }
    }

    /// Directories of a stack stay as they are.
    fn takes_trees(&self, root: usize) -> bool {
        self.barred[root].is_none() && !self.world.roots[root].stack
    }

    /// Links to a directory in the store.
    pub(super) fn tree(&mut self, tree: &SharedTree) {
        let object = ObjectName::tree(tree.digest);
        let mut kept = Vec::new();
        for member in &tree.members {
            if !self.takes_trees(member.root) {
                continue;
            }
            match member.refusal.clone() {
                None => kept.push(member.root),
                Some(refusal) => self.skips.push(self.world.tree_skip(tree, member.root, refusal)),
            }
        }
        let stored = self.world.stored.contains(&object);
        if kept.len() < 2 && !stored {
            let only = |root: usize| self.world.tree_skip(tree, root, only_copy(false));
            self.skips.extend(kept.iter().map(|root| only(*root)));
            return;
        }
        if let (Some(first), false) = (kept.first(), stored) {
            let (source, content) = (tree.path.clone(), tree.digest);
            let store = Action::Store { source, content, size: tree.size };
            self.actions.push((self.world.roots[*first].root.id, store, Some(object)));
        }
        kept.into_iter().for_each(|root| self.trees[root].push(tree.step(self.world, root)));
    }
}

impl SharedTree {
    fn step(&self, world: World<'_>, root: usize) -> Unnumbered {
        let object = ObjectName::tree(self.digest);
        let target = ContainerPath(world.settings.mount_point.0.join(object.as_str()));
        let (path, digest, files) = (self.path.clone(), self.digest, self.files);
        let action = Action::RemoveTree { path, digest, files, target };
        (world.roots[root].root.id, action, Some(object))
    }
}

impl World<'_> {
    fn tree_skip(&self, tree: &SharedTree, root: usize, refusal: Refusal) -> Skip {
        skip(self.roots[root].root.id, tree.path.clone(), refusal)
    }
}
