//! Copies that share extents, without a store.

use std::collections::BTreeSet;

use super::eligible::because;
use super::{Freed, Holding, Sharable, Unnumbered, World, entry_skip, root};
use crate::model::{Action, Skip, SkipReason};

/// A change, and the inode whose blocks it frees.
pub(super) type Made = (Unnumbered, usize);

/// The steps for one content: the first copy on each file system stays.
pub(super) fn make(
    world: World<'_>,
    sharable: &Sharable,
    kept: &[&Holding],
) -> (Vec<Made>, Vec<Skip>) {
    let mut made = Vec::new();
    let mut skips = Vec::new();
    let mut first: Vec<(u64, &Holding)> = Vec::new();
    let mut done = BTreeSet::new();
    for holding in kept {
        let Some(place) = world.roots[holding.root].sharing else {
            let refusal = because(SkipReason::FileSystem, CANNOT);
            skips.push(entry_skip(world, holding, refusal));
            continue;
        };
        match first.iter().find(|(known, _)| *known == place) {
            None => first.push((place, holding)),
            // It has no block of its own to give back.
            Some((_, of)) if shares(world, of, holding) => {}
            Some((_, of)) if of.inode != holding.inode && done.insert(holding.inode) => {
                made.extend(steps(world, sharable, of, holding));
            }
            Some(_) => {}
        }
    }
    (made, skips)
}

/// The blocks are the very same already, or the file is so small that it has none: its bytes
/// lie in its inode.
fn shares(world: World<'_>, of: &Holding, holding: &Holding) -> bool {
    const BLOCK: u64 = 4096;
    let inventory = world.roots[holding.root].inventory;
    let small = |file: &crate::model::FileId| inventory.file(*file).allocated.0 < BLOCK;
    of.blocks == holding.blocks || holding.files.first().is_some_and(small)
}

/// What the content frees.
pub(super) fn freed(content: usize, made: &[Made]) -> Option<Freed> {
    let inodes: BTreeSet<usize> = made.iter().map(|(_, inode)| *inode).collect();
    let freed = Freed { content, inodes: inodes.into_iter().collect(), stored_anew: false };
    (!freed.inodes.is_empty()).then_some(freed)
}

const CANNOT: &str = "its file system cannot share extents between files: btrfs and xfs can; \
     --method symlink shares programs on any";

fn steps(world: World<'_>, sharable: &Sharable, of: &Holding, holding: &Holding) -> Vec<Made> {
    let (kept, ground) = (&world.roots[of.root], &world.roots[holding.root]);
    let Some(first) = of.files.first() else { return Vec::new() };
    let (of_path, of_state) =
        (kept.inventory.file_path(*first), root::state(kept.inventory, *first, sharable));
    // One name is enough to reach the extents of all.
    let step = |file: &crate::model::FileId| {
        let path = ground.inventory.file_path(*file);
        let before = root::state(ground.inventory, *file, sharable);
        let (of_root, of) = (kept.root.id, of_path.clone());
        let action = Action::Reflink { path, before, of_root, of, of_state };
        ((ground.root.id, action, None), holding.inode)
    };
    holding.files.first().map(step).into_iter().collect()
}
