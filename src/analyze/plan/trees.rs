//! Directories that are the same in several roots: each becomes a link to one in the store.

use super::eligible::{because, only_copy};
use super::{Draft, Refusal, Unnumbered, World, skip};
use crate::model::{
    Action, Bytes, ContainerPath, ContentId, DirId, EntryKind, Inventory, ObjectName, RootPath,
    Skip, SkipReason,
};

/// A directory that could be shared.
#[derive(Debug, Clone)]
pub struct SharedTree {
    /// What it holds.
    pub digest: ContentId,
    /// Its path in every root.
    pub path: RootPath,
    /// How long its files are together.
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

impl Draft<'_> {
    /// Links to a directory in the store.
    pub(super) fn tree(&mut self, tree: &SharedTree) {
        let object = ObjectName::tree(tree.digest);
        let mut kept = Vec::new();
        let open = tree.members.iter().filter(|member| self.barred[member.root].is_none());
        for member in open {
            match member.refusal.clone() {
                None => kept.push(member.root),
                Some(refusal) => self.skips.push(self.world.tree_skip(tree, member.root, refusal)),
            }
        }
        let stored = self.world.stored.contains(&object);
        if kept.len() < 2 && !stored {
            let only = |root: usize| self.world.tree_skip(tree, root, only_copy());
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

/// To share less is not worth a link.
const SMALLEST: u64 = 64 * 1024;

/// Why a directory cannot be the store's, by what it holds: whoever reads it must find what he
/// found, and whoever writes it must not be one that is kept from it.
pub fn misfit(inventory: &Inventory, dir: DirId) -> Option<Refusal> {
    let mut dirs = vec![(dir, 0)];
    let mut allocated = 0;
    while let Some((at, depth)) = dirs.pop() {
        if let Some(why) = mode(inventory.dir(at).mode, READ_AND_SEARCH) {
            return Some(because(SkipReason::Tree, why));
        }
        for (_, kind) in inventory.entries(at) {
            let why = match kind {
                EntryKind::Dir(below) => {
                    dirs.push((below, depth + 1));
                    None
                }
                EntryKind::File(file) => {
                    let meta = inventory.file(file);
                    allocated += meta.allocated.0 / u64::from(meta.nlink.max(1));
                    (meta.mode & 0o111 != 0).then_some(PROGRAMS).or_else(|| mode(meta.mode, READ))
                }
                EntryKind::Symlink(target) => escapes(depth, target).then_some(ESCAPES),
                EntryKind::Special(_) => Some(SPECIAL),
            };
            if let Some(why) = why {
                return Some(because(SkipReason::Tree, why));
            }
        }
    }
    (allocated < SMALLEST).then(|| because(SkipReason::Tree, SMALL))
}

const READ: u32 = 0o444;
const READ_AND_SEARCH: u32 = 0o555;

fn mode(mode: u32, wanted: u32) -> Option<&'static str> {
    match mode {
        _ if mode & 0o7000 != 0 => Some(SPECIAL_BITS),
        _ if mode & 0o022 != 0 => Some(WRITABLE),
        _ if mode & wanted != wanted => Some(CLOSED),
        _ => None,
    }
}

/// A relative link that leads out of the tree leads elsewhere when the tree lies elsewhere.
fn escapes(depth: usize, target: &[u8]) -> bool {
    let mut depth = depth;
    if target.starts_with(b"/") {
        return false;
    }
    for part in target.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if depth == 0 => return true,
            b".." => depth -= 1,
            _ => depth += 1,
        }
    }
    false
}

const PROGRAMS: &str = "a tree that holds programs: these are shared one by one";
const SPECIAL: &str = "a tree that holds special files or mount points";
const SPECIAL_BITS: &str = "a tree in which something has a set-id or sticky bit";
const WRITABLE: &str = "a tree that others than its owner may write: the store is read-only";
const CLOSED: &str = "a tree that not everybody may read: in the store everybody could";
const ESCAPES: &str = "a tree with a relative link that leads out of it: from the store it would \
     lead elsewhere";
const SMALL: &str = "a tree of less than 64 KiB: to share it saves nothing worth a link";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Listed;

    fn of(entries: &[(&str, Listed)]) -> Option<String> {
        let inventory = Inventory::sample(entries);
        let dir = crate::analyze::trees::dir_at(&inventory, b"t")?;
        Some(misfit(&inventory, dir).map(|why| why.explanation).unwrap_or_default())
    }

    fn file(mode: u32, allocated: u64) -> Listed {
        let Listed::File(mut meta) = Listed::sample_file(1, allocated) else { unreachable!() };
        (meta.mode, meta.allocated) = (mode, Bytes(allocated));
        Listed::File(meta)
    }

    #[test]
    fn what_everybody_reads_and_nobody_writes_may_be_shared() {
        let link = Listed::Symlink(b"a/../b".to_vec());
        let entries = [("t/f", file(0o100_644, SMALLEST)), ("t/l", link)];
        assert_eq!(of(&entries).as_deref(), Some(""));
    }

    #[test]
    fn what_would_be_lost_is_refused() {
        let large = |mode| file(mode, SMALLEST);
        let cases = [
            (vec![("t/f", file(0o100_644, SMALLEST - 1))], SMALL),
            (vec![("t/f", large(0o100_755))], PROGRAMS),
            (vec![("t/f", large(0o100_640))], CLOSED),
            (vec![("t/f", large(0o100_664))], WRITABLE),
            (vec![("t/f", large(0o104_644))], SPECIAL_BITS),
            (
                vec![("t/f", large(0o100_644)), ("t/d/l", Listed::Symlink(b"../../x".to_vec()))],
                ESCAPES,
            ),
        ];
        for (entries, expected) in cases {
            assert_eq!(of(&entries).as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_link_that_stays_in_the_tree_does_not_escape() {
        for (depth, target, out) in [
            (0, "../x", true),
            (1, "../x", false),
            (1, "../../x", true),
            (0, "a/../../x", true),
            (0, "/etc/localtime", false),
            (2, "a/./../..", false),
        ] {
            assert_eq!(escapes(depth, target.as_bytes()), out, "{depth} {target}");
        }
    }
}
