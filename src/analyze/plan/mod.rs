//! From what was found to what would be changed: values in, a [`Plan`] out.
//!
//! A content is shared where two or more inodes may become links to one object, or where
//! the store has the object already. What may not, or need not, is a [`Skip`] that says why.

mod applets;
mod eligible;
mod root;

use std::collections::BTreeSet;

use rayon::prelude::*;

use crate::model::{
    Action, Bytes, ContentId, FileId, FileTraits, Inventory, MountPlan, ObjectName, Plan,
    PlanSettings, PlannedRoot, RootId, RootPath, Saves, Skip, SkipReason, Step,
};

pub use root::mount_point_is_free;

/// Why something is left as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// A word for it.
    pub reason: SkipReason,
    /// A sentence that says why, and what would change it.
    pub explanation: String,
}

/// One root, as the planner sees it.
#[derive(Debug, Clone)]
pub struct Ground<'a> {
    /// The root.
    pub root: PlannedRoot,
    /// What it holds.
    pub inventory: &'a Inventory,
    /// Why the whole root is left as it is.
    pub refusal: Option<Refusal>,
    /// What makes the store visible in it; `None` where it is visible already.
    pub mount: Option<MountPlan>,
}

/// What a multi-call program answers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Multicall {
    /// How its own file name begins.
    pub prefix: &'static str,
    /// The names it answers to, sorted; empty where only its links tell.
    pub applets: Vec<String>,
}

/// One content that could be shared.
#[derive(Debug, Clone)]
pub struct Sharable {
    /// The content.
    pub content: ContentId,
    /// What its object is called.
    pub object: ObjectName,
    /// How long it is.
    pub size: Bytes,
    /// What it answers to, where it is a multi-call program.
    pub multicall: Option<Multicall>,
    /// Where it was found.
    pub holdings: Vec<Holding>,
}

/// One inode that holds a content, in one root.
#[derive(Debug, Clone)]
pub struct Holding {
    /// The root's place in the list.
    pub root: usize,
    /// The inode's place among all of them.
    pub inode: usize,
    /// Its names in the root, by path.
    pub files: Vec<FileId>,
    /// What else is known of it.
    pub traits: FileTraits,
}

/// Everything that a plan is made from.
#[derive(Debug, Clone, Copy)]
pub struct World<'a> {
    /// What was asked for.
    pub settings: &'a PlanSettings,
    /// The roots, by number.
    pub roots: &'a [Ground<'a>],
    /// The contents.
    pub contents: &'a [Sharable],
    /// The objects that the store has already.
    pub stored: &'a BTreeSet<ObjectName>,
}

/// The inodes of one content that become links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freed {
    /// The content's place in the list.
    pub content: usize,
    /// The inodes, each once.
    pub inodes: Vec<usize>,
    /// The store gets a new object for them.
    pub stored_anew: bool,
}

/// Makes the plan, and says which inodes it frees. What that saves depends on blocks that
/// holdings have in common: the caller fills it in.
pub fn plan(world: World<'_>) -> (Plan, Vec<Freed>) {
    let mut skips = refused_roots(world);
    let mut chosen: Vec<Chosen> = vec![Chosen::default(); world.roots.len()];
    let mut freed = Vec::new();
    let mut actions = Vec::new();
    for (at, sharable) in world.contents.iter().enumerate() {
        let kept = keep(world, sharable, &mut skips);
        let Some(first) = kept.first() else { continue };
        let stored_anew = !world.stored.contains(&sharable.object);
        if stored_anew {
            actions.push(store(world, sharable, first));
        }
        for holding in &kept {
            chosen[holding.root].push((at, holding));
        }
        let inodes: BTreeSet<usize> = kept.iter().map(|holding| holding.inode).collect();
        freed.push(Freed { content: at, inodes: inodes.into_iter().collect(), stored_anew });
    }
    let made: Vec<root::Made> =
        chosen.par_iter().enumerate().map(|(at, chosen)| root::make(world, at, chosen)).collect();
    for made in made {
        actions.extend(made.actions);
        skips.extend(made.skips);
    }
    skips.sort();
    let plan = Plan {
        settings: world.settings.clone(),
        roots: world.roots.iter().map(|ground| ground.root.clone()).collect(),
        steps: number(actions),
        skips,
        saves: Saves::default(),
        notices: crate::model::Notices::default(),
    };
    (plan, freed)
}

/// The holdings that become links in one root, each with its content's place.
type Chosen<'a> = Vec<(usize, &'a Holding)>;

/// A change before it has its number: the root, what is done, and the object.
type Unnumbered = (RootId, Action, Option<ObjectName>);

fn number(actions: Vec<Unnumbered>) -> Vec<Step> {
    (0..)
        .zip(actions)
        .map(|(seq, (root, action, object))| Step { seq, root, action, object })
        .collect()
}

fn refused_roots(world: World<'_>) -> Vec<Skip> {
    let concerned: BTreeSet<usize> = world
        .contents
        .iter()
        .flat_map(|sharable| sharable.holdings.iter().map(|holding| holding.root))
        .collect();
    let roots = concerned.into_iter().map(|at| &world.roots[at]);
    roots
        .filter_map(|ground| {
            Some(skip(ground.root.id, RootPath::default(), ground.refusal.clone()?))
        })
        .collect()
}

/// The holdings of a content that become links; the others are skips. None where that would
/// gain nothing.
fn keep<'a>(world: World<'_>, sharable: &'a Sharable, skips: &mut Vec<Skip>) -> Vec<&'a Holding> {
    let mut kept = Vec::new();
    for holding in &sharable.holdings {
        let ground = &world.roots[holding.root];
        if ground.refusal.is_some() {
            continue;
        }
        match eligible::refusal(world.settings, ground.inventory, sharable, holding) {
            None => kept.push(holding),
            Some(refusal) => skips.push(entry_skip(world, holding, refusal)),
        }
    }
    let distinct: BTreeSet<usize> = kept.iter().map(|holding| holding.inode).collect();
    if distinct.len() < 2 && !world.stored.contains(&sharable.object) {
        let alone = kept.drain(..).map(|holding| entry_skip(world, holding, eligible::only_copy()));
        skips.extend(alone);
    }
    kept
}

fn store(world: World<'_>, sharable: &Sharable, first: &Holding) -> Unnumbered {
    let ground = &world.roots[first.root];
    let source = first.files.first().map(|file| ground.inventory.file_path(*file));
    let action = Action::Store {
        source: source.unwrap_or_default(),
        content: sharable.content,
        size: sharable.size,
    };
    (ground.root.id, action, Some(sharable.object.clone()))
}

fn entry_skip(world: World<'_>, holding: &Holding, refusal: Refusal) -> Skip {
    let ground = &world.roots[holding.root];
    let path = holding.files.first().map(|file| ground.inventory.file_path(*file));
    skip(ground.root.id, path.unwrap_or_default(), refusal)
}

fn skip(root: RootId, path: RootPath, refusal: Refusal) -> Skip {
    Skip { root, path, reason: refusal.reason, explanation: refusal.explanation }
}
