//! Inventories written as tables, for tests.

#![allow(clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use crate::model::{Bytes, DirId, FileMeta, InodeId, Inventory, Listed, SpecialKind};

#[derive(Debug, Clone)]
enum Node {
    Dir { read: bool, names: BTreeMap<Vec<u8>, Node> },
    Leaf(Listed<'static>),
    Link(Vec<u8>),
}

/// A root under construction. Directories on the way are made.
#[derive(Debug, Clone)]
pub(super) struct World(Node);

impl Default for World {
    fn default() -> Self {
        Self(Node::Dir { read: true, names: BTreeMap::new() })
    }
}

impl World {
    /// A file with this inode number; two of one number are hard links.
    pub(super) fn file(self, path: &str, ino: u64) -> Self {
        self.put(path, Node::Leaf(Listed::File(meta(ino))))
    }

    pub(super) fn link(self, path: &str, target: &str) -> Self {
        self.put(path, Node::Link(target.into()))
    }

    pub(super) fn special(self, path: &str, kind: SpecialKind) -> Self {
        self.put(path, Node::Leaf(Listed::Special(kind)))
    }

    pub(super) fn dir(self, path: &str) -> Self {
        self.put(path, Node::Dir { read: true, names: BTreeMap::new() })
    }

    /// A directory that could not be read.
    pub(super) fn unread(self, path: &str) -> Self {
        self.put(path, Node::Dir { read: false, names: BTreeMap::new() })
    }

    pub(super) fn inventory(&self) -> Inventory {
        let mut inventory = Inventory::new();
        let mut level = vec![(DirId(0), &self.0)];
        while !level.is_empty() {
            level = level.into_iter().flat_map(|(id, dir)| fill(&mut inventory, id, dir)).collect();
        }
        inventory
    }

    fn put(mut self, path: &str, node: Node) -> Self {
        let mut at = &mut self.0;
        for part in path.split('/') {
            let Node::Dir { names, .. } = at else { unreachable!("{path}: not below a directory") };
            let empty = || Node::Dir { read: true, names: BTreeMap::new() };
            at = names.entry(part.into()).or_insert_with(empty);
        }
        *at = node;
        self
    }
}

fn fill<'a>(inventory: &mut Inventory, id: DirId, dir: &'a Node) -> Vec<(DirId, &'a Node)> {
    let Node::Dir { read, names } = dir else { return Vec::new() };
    let listing = names.iter().map(|(name, node)| match node {
        Node::Dir { .. } => (name.clone(), Listed::Dir),
        Node::Leaf(listed) => (name.clone(), *listed),
        Node::Link(target) => (name.clone(), Listed::Symlink(target)),
    });
    let below = inventory.taken(id, &listing.collect());
    if !read {
        inventory.mark_incomplete(id);
    }
    let dirs = names.values().filter(|node| matches!(node, Node::Dir { .. }));
    below.into_iter().zip(dirs).collect()
}

fn meta(ino: u64) -> FileMeta {
    FileMeta {
        inode: InodeId { dev: 1, ino },
        size: Bytes(0),
        allocated: Bytes(0),
        mtime: 0,
        ctime: 0,
        mode: 0o100_755,
        nlink: 1,
    }
}
