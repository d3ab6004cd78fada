//! From what was found to what would be changed: values in, a [`Plan`] out.
//!
//! A content is shared where two or more inodes may become links to one object, or where
//! the store has the object already. What may not, or need not, is a [`Skip`] that says why.

mod applets;
mod domains;
mod eligible;
mod hardlinks;
mod libraries;
mod misfit;
mod root;
mod sharable;
mod trees;
mod twins;
mod world;

use std::collections::BTreeSet;

use rayon::prelude::*;

use crate::model::{
    Action, InodeId, Method, Notices, ObjectName, Plan, RootId, RootPath, Saves, Skip, SkipReason,
    Step,
};

pub use domains::{Tenant, apart, harms, seen_by_both};
pub use misfit::{is_beyond_compare, misfit, odd};
pub use root::mount_point_is_free;
pub use sharable::{Holding, Libraries, Loads, Multicall, Sharable};
pub use trees::{LoneTree, SharedTree, TreeMember};
pub use world::{Ground, Member, World, Writes};

/// Why something is left as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// A word for it.
    pub reason: SkipReason,
    /// A sentence that says why, and what would change it.
    pub explanation: String,
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
/// copies have in common: the caller fills it in.
pub fn plan(world: World<'_>) -> (Plan, Vec<Freed>) {
    let mut draft = Draft::new(world);
    for (at, sharable) in world.contents.iter().enumerate() {
        let kept = draft.keep(sharable);
        match world.settings.method {
            Method::Symlink => draft.link(at, sharable, kept),
            Method::Reflink | Method::Hardlink => draft.twin(at, sharable, &kept),
        }
    }
    world.trees.iter().for_each(|tree| draft.tree(tree));
    world.lone_trees.iter().for_each(|lone| draft.lone_tree(lone));
    draft.finish()
}

/// Names that are bound over in one container, at most.
const MOST_BINDS: usize = 1024;

/// A plan in the making.
struct Draft<'a> {
    world: World<'a>,
    /// Why each root is left as it is, where it is.
    barred: Vec<Option<Refusal>>,
    chosen: Vec<Chosen<'a>>,
    /// How many names are chosen in each root.
    names: Vec<usize>,
    /// For each root the steps of its directories.
    trees: Vec<Vec<Unnumbered>>,
    freed: Vec<Freed>,
    actions: Vec<Unnumbered>,
    skips: Vec<Skip>,
}

impl<'a> Draft<'a> {
    fn new(world: World<'a>) -> Self {
        let barred = domains::barred(world);
        let skips = refused_roots(world, &barred);
        let chosen = vec![Chosen::default(); world.roots.len()];
        let trees = vec![Vec::new(); world.roots.len()];
        let (names, freed, actions) = (vec![0; world.roots.len()], Vec::new(), Vec::new());
        Self { world, barred, chosen, names, trees, freed, actions, skips }
    }

    /// The holdings of a content that are shared; the others are skips. None where that
    /// would gain nothing.
    fn keep(&mut self, sharable: &'a Sharable) -> Vec<&'a Holding> {
        let (world, by_link) = (self.world, self.world.settings.method == Method::Symlink);
        let mut kept = Vec::new();
        let open = sharable.holdings.iter().filter(|holding| self.barred[holding.root].is_none());
        for holding in open {
            let ground = &world.roots[holding.root];
            let refusal = eligible::refusal(world.settings, ground, sharable, holding);
            match refusal.or_else(|| self.too_many(holding)) {
                None => kept.push(holding),
                Some(refusal) => self.skips.push(entry_skip(world, holding, refusal)),
            }
        }
        if by_link {
            let unlike = libraries::unlike(sharable, &mut kept).into_iter();
            self.skips.extend(unlike.map(|(holding, why)| entry_skip(world, holding, why)));
        }
        let distinct: BTreeSet<InodeId> = kept.iter().map(|holding| holding.pages).collect();
        let stored = by_link && world.stored.contains(&sharable.object);
        if distinct.len() < 2 && !stored {
            let only = |holding: &Holding| {
                let stack = world.roots[holding.root].stack;
                entry_skip(world, holding, eligible::only_copy(stack))
            };
            self.skips.extend(kept.drain(..).map(only));
        }
        kept
    }

    /// Each name of a container that is bound over is a mount of its own.
    fn too_many(&self, holding: &Holding) -> Option<Refusal> {
        let many = self.names[holding.root] + holding.files.len();
        (self.world.roots[holding.root].stack && many > MOST_BINDS).then(eligible::too_many)
    }

    /// Links into the store.
    fn link(&mut self, content: usize, sharable: &'a Sharable, kept: Vec<&'a Holding>) {
        let Some(first) = kept.first() else { return };
        let stored_anew = !self.world.stored.contains(&sharable.object);
        if stored_anew {
            self.actions.push(store(self.world, sharable, first));
        }
        // What is bound over keeps its blocks.
        let linked = kept.iter().filter(|holding| !self.world.roots[holding.root].stack);
        let inodes: BTreeSet<usize> = linked.map(|holding| holding.inode).collect();
        self.freed.push(Freed { content, inodes: inodes.into_iter().collect(), stored_anew });
        for holding in kept {
            self.names[holding.root] += holding.files.len();
            self.chosen[holding.root].push((content, holding));
        }
    }

    /// Shared extents, or hard links.
    fn twin(&mut self, content: usize, sharable: &Sharable, kept: &[&Holding]) {
        let (made, skips) = match self.world.settings.method {
            Method::Hardlink => hardlinks::make(self.world, sharable, kept),
            _ => twins::make(self.world, sharable, kept),
        };
        self.freed.extend(twins::freed(content, &made));
        self.actions.extend(made.into_iter().map(|(action, _)| action));
        self.skips.extend(skips);
    }

    fn finish(mut self) -> (Plan, Vec<Freed>) {
        let world = self.world;
        let roots = self.chosen.par_iter().zip(self.trees).enumerate();
        let made: Vec<root::Made> =
            roots.map(|(at, (chosen, trees))| root::make(world, at, chosen, trees)).collect();
        for made in made {
            self.actions.extend(made.actions);
            self.skips.extend(made.skips);
        }
        self.skips.sort();
        let plan = Plan {
            settings: world.settings.clone(),
            roots: world.roots.iter().map(|ground| ground.root.clone()).collect(),
            steps: number(self.actions),
            skips: self.skips,
            saves: Saves::default(),
            notices: Notices::default(),
        };
        (plan, self.freed)
    }
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

fn refused_roots(world: World<'_>, barred: &[Option<Refusal>]) -> Vec<Skip> {
    let concerned: BTreeSet<usize> = world
        .contents
        .iter()
        .flat_map(|sharable| sharable.holdings.iter().map(|holding| holding.root))
        .chain(world.trees.iter().flat_map(|tree| tree.members.iter().map(|it| it.root)))
        .collect();
    let refused =
        |at: usize| Some(skip(world.roots[at].root.id, RootPath::default(), barred[at].clone()?));
    concerned.into_iter().filter_map(refused).collect()
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
