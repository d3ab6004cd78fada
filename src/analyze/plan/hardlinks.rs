//! Copies that become names of one inode, without a store: inside a trust domain.
//!
//! One file system, one owner and one mode: what is shared looks in each root as it looked
//! before. The time of modification may differ; undo gives each root its own again.

use std::collections::{BTreeMap, BTreeSet};

use super::eligible::because;
use super::twins::Made;
use super::{Holding, Sharable, World, entry_skip, root};
use crate::model::{Action, Skip, SkipReason};

/// An inode, with what it is in each root that has names of it.
type Inode<'a> = Vec<&'a Holding>;

/// What must be the same for two inodes to become one: file system, owner and group, mode.
type Like = (u64, (u32, u32), u32);

/// The steps for one content: of inodes that are alike the one with the most names stays.
pub(super) fn make(
    world: World<'_>,
    sharable: &Sharable,
    kept: &[&Holding],
) -> (Vec<Made>, Vec<Skip>) {
    let mut inodes: BTreeMap<usize, Inode<'_>> = BTreeMap::new();
    for holding in kept {
        inodes.entry(holding.inode).or_default().push(holding);
    }
    let mut skips = Vec::new();
    let mut alike: BTreeMap<Like, Vec<Inode<'_>>> = BTreeMap::new();
    for inode in inodes.into_values() {
        match like(world, &inode) {
            Some((like, links)) if names(&inode) == u64::from(links) => {
                alike.entry(like).or_default().push(inode);
            }
            Some((_, links)) => {
                let why = elsewhere(names(&inode), links);
                skip(world, &inode, (SkipReason::OtherNames, &why), &mut skips);
            }
            None => {}
        }
    }
    let file_systems: BTreeSet<u64> = alike.keys().map(|(dev, ..)| *dev).collect();
    let mut made = Vec::new();
    for ((dev, ..), group) in &alike {
        let beside = alike.keys().filter(|(other, ..)| other == dev).count() > 1;
        if group.len() == 1 && (beside || file_systems.len() > 1) {
            let why = if beside { ATTRIBUTES } else { FILE_SYSTEM };
            group.iter().for_each(|inode| skip(world, inode, why, &mut skips));
        }
        join(world, sharable, group, (&mut made, &mut skips));
    }
    (made, skips)
}

type Words<'a> = (SkipReason, &'a str);

/// One inode stays, the names of the others come to lead to it. One that several roots share
/// already is not taken apart: undo of the run that shared it would not find it again.
fn join(
    world: World<'_>,
    sharable: &Sharable,
    group: &[Inode<'_>],
    (made, skips): (&mut Vec<Made>, &mut Vec<Skip>),
) {
    let most = |&at: &usize| (group[at].len(), names(&group[at]), usize::MAX - at);
    let Some(stays) = (0..group.len()).max_by_key(most) else { return };
    for (at, inode) in group.iter().enumerate().filter(|(at, _)| *at != stays) {
        match inode.as_slice() {
            [holding] => made.extend(steps(world, sharable, &group[stays], holding)),
            _ => skip(world, &group[at], SHARED, skips),
        }
    }
}

fn steps(world: World<'_>, sharable: &Sharable, of: &Inode<'_>, holding: &Holding) -> Vec<Made> {
    let Some((kept, first)) = of.first().and_then(|it| Some((it, *it.files.first()?))) else {
        return Vec::new();
    };
    let (theirs, ours) = (&world.roots[kept.root], &world.roots[holding.root]);
    let of_state = root::state(theirs.inventory, first, sharable);
    let step = |file: &crate::model::FileId| {
        let action = Action::Hardlink {
            path: ours.inventory.file_path(*file),
            before: root::state(ours.inventory, *file, sharable),
            of_root: theirs.root.id,
            of: theirs.inventory.file_path(first),
            of_state,
            of_names: names(of) as u32,
        };
        ((ours.root.id, action, None), holding.inode)
    };
    holding.files.iter().map(step).collect()
}

/// The names of an inode in the roots that take part.
fn names(inode: &Inode<'_>) -> u64 {
    inode.iter().map(|holding| holding.files.len() as u64).sum()
}

/// What an inode must have in common with another; and how many names it has.
fn like(world: World<'_>, inode: &Inode<'_>) -> Option<(Like, u32)> {
    let holding = inode.first()?;
    let meta = world.roots[holding.root].inventory.file(*holding.files.first()?);
    Some(((meta.inode.dev, holding.traits.user, meta.mode), meta.nlink))
}

fn skip(world: World<'_>, inode: &Inode<'_>, (reason, why): Words<'_>, skips: &mut Vec<Skip>) {
    let one = |holding: &&Holding| entry_skip(world, holding, because(reason, why));
    skips.extend(inode.iter().map(one));
}

const ATTRIBUTES: Words<'_> = (
    SkipReason::AttributesDiffer,
    "no other copy on its file system has its owner and mode, and names of one file have them in common: chown and \
     chmod make them the same, --method symlink shares it as it is",
);
const FILE_SYSTEM: Words<'_> = (
    SkipReason::FileSystem,
    "no other copy lies on its file system, and a hard link leads to no other: --method symlink shares it",
);
const SHARED: Words<'_> = (
    SkipReason::OtherNames,
    "several roots share it already, and others another copy: cbin-audit undo of the run that made it one, then \
     dedupe takes all of them",
);

fn elsewhere(seen: u64, links: u32) -> String {
    format!(
        "it has {links} names, and {seen} of them lie in the roots that take part: who has the others could write it"
    )
}
