//! From the survey to a plan.

mod boot;
mod grounds;
mod libraries;
mod memory;
mod stacks;
mod trees;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::audit::{AuditOptions, Limits, open_roots};
use super::members::{self, Known, Shown};
use super::survey::Survey;
use crate::analyze::groups::{self, Twins};
use crate::analyze::plan::{
    self as planner, Freed, Ground, Holding, Libraries, Loads, Multicall, Sharable, World,
};
use crate::exec;
use crate::model::{
    Bytes, ContentId, ElfFacts, FileId, FileTraits, HostPath, Linkage, Method, MountMeans, Notice,
    Notices, ObjectName, Phase, Plan, PlanSettings, Progress, Root, RootState, StoreFormat,
};
use crate::scan::candidate::Label;
use crate::scan::dir::RootDir;
use crate::scan::store::{Store, store};
use crate::scan::{self, Cache, HostPlaces, RootsError, candidate, extents, find_roots, packages};

use grounds::HostFacts;
use stacks::Stacks;

/// What a plan is asked.
#[derive(Debug, Clone)]
pub struct PlanOptions {
    /// Roots, or directories of roots; none: they are discovered.
    pub roots: Vec<PathBuf>,
    /// What is wanted.
    pub settings: PlanSettings,
    /// Whose means mount the store in a container; `None`: as each root is run.
    pub mounts: Option<MountMeans>,
    /// What the survey may cost.
    pub limits: Limits,
    /// The journal's directory: earlier runs say who uses the store already.
    pub journal: PathBuf,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// No root to look at.
    #[error("no container root was found")]
    NoRoots,
    /// Every root that there is had to be left out.
    #[error("{:?} is left out: {}", .0.path.0, .0.cause)]
    LeftOut(Box<Notice>),
    /// A directory that was named is none that could be a container's root.
    #[error(transparent)]
    Root(#[from] RootsError),
    /// The store is there, and cannot be listed.
    #[error("cannot list the store {path:?}")]
    Store {
        /// The store.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Looks at the roots, and plans how what they hold twice becomes one.
///
/// # Errors
///
/// When there is no root to look at, or the store cannot be listed. What cannot be read
/// below a root is a notice in the plan.
pub fn plan(options: &PlanOptions, progress: &dyn Progress) -> Result<Plan, PlanError> {
    let mut notices = Notices::default();
    let at = &options.settings.store;
    let stored = store(at).map_err(|source| PlanError::Store { path: at.0.clone(), source })?;
    progress.start(Phase::Roots, None);
    let mut found = find_roots(&options.roots, Path::new("/"), &at.0, &mut notices)?;
    let stacks = Stacks::find(&options.settings, &mut found);
    let stacks = stacks.stored(&at.0, stored.objects.iter());
    let (roots, dirs) = answering(open_roots(found, &mut notices), &mut notices);
    if roots.is_empty() {
        let left = notices.iter().find(|notice| notice.partial);
        return Err(
            left.map_or(PlanError::NoRoots, |left| PlanError::LeftOut(Box::new(left.clone())))
        );
    }
    // What is to be changed is read.
    let mut cache = Cache::none();
    let survey = Survey::make(dirs, &audit_options(options), &mut cache, progress, &mut notices);
    let most_held = exec::most_held(roots.len());
    let planning =
        Planning { options, survey: &survey, roots: &roots, store: &stored, stacks, most_held };
    let mut plan = planning.plan(&mut notices, progress);
    plan.notices = notices.sorted();
    Ok(plan)
}

/// Without those whose file system may never answer: nothing on it can be changed safely.
fn answering(
    (roots, dirs): (Vec<Root>, Vec<RootDir>),
    notices: &mut Notices,
) -> (Vec<Root>, Vec<RootDir>) {
    let mut answers = |(_, dir): &(Root, RootDir)| match dir.served() {
        None => true,
        Some(served) => {
            let notice = Notice::partial(dir.path().clone(), "look into", served.explanation());
            notices.push(notice);
            false
        }
    };
    roots.into_iter().zip(dirs).filter(|it| answers(it)).unzip()
}

fn audit_options(options: &PlanOptions) -> AuditOptions {
    AuditOptions {
        roots: options.roots.clone(),
        select: options.settings.select,
        trees: false,
        memory: false,
        limits: options.limits,
    }
}

/// What a plan is made from.
struct Planning<'a> {
    options: &'a PlanOptions,
    survey: &'a Survey,
    roots: &'a [Root],
    store: &'a Store,
    stacks: Stacks,
    /// Files that may be held open at once when it is carried out here.
    most_held: u64,
}

impl Planning<'_> {
    fn plan(&self, notices: &mut Notices, progress: &dyn Progress) -> Plan {
        let host = self.host_facts(notices);
        let grounds: Vec<Ground<'_>> =
            (0..self.roots.len()).into_par_iter().map(|at| self.ground(at, &host)).collect();
        let mut contents = self.contents(notices);
        if self.options.settings.method == Method::Symlink {
            libraries::fill(self.survey, &mut contents, notices);
            self.own(&mut contents);
        }
        let (trees, lone_trees) = (self.trees(), self.lone_trees());
        let world = World {
            settings: &self.options.settings,
            roots: &grounds,
            contents: &contents,
            trees: &trees,
            lone_trees: &lone_trees,
            stored: &self.store.objects,
            tenants: &host.tenants,
        };
        let (mut plan, freed) = planner::plan(world);
        plan.saves.disk = freed.iter().map(|freed| self.saved(freed)).sum();
        plan.saves.disk += self.saved_by_trees(&plan);
        let shared = memory::shared(&freed, &contents);
        let live = memory::live(self.survey, self.roots, &plan, progress);
        plan.saves.memory = live.map_or(Bytes(0), |live| memory::forecast(live, &shared, notices));
        plan
    }

    /// What the host says, read once for all roots.
    fn host_facts(&self, notices: &mut Notices) -> HostFacts {
        let settings = &self.options.settings;
        let shown = self.shown(notices);
        let known = self.known(&shown, notices);
        let method = settings.method;
        HostFacts {
            tenants: shown.iter().filter_map(|shown| known.tenant(shown)).collect(),
            known,
            locks: std::fs::read("/proc/locks").unwrap_or_default(),
            sharing: match method {
                Method::Reflink => {
                    extents::sharing_file_systems(&self.survey.dirs, Path::new("/proc"))
                }
                _ => Vec::new(),
            },
        }
    }

    /// The roots that earlier runs left in the store, where it matters.
    fn shown(&self, notices: &mut Notices) -> Vec<Shown> {
        let settings = &self.options.settings;
        if settings.method != Method::Symlink {
            return Vec::new();
        }
        members::shown_of(&settings.store.0, &self.options.journal, notices)
    }

    /// What tells who the roots are, and those that are there already.
    fn known(&self, shown: &[Shown], notices: &mut Notices) -> Known {
        let settings = &self.options.settings;
        if settings.method != Method::Symlink {
            return Known::default();
        }
        let mut paths: Vec<HostPath> = self.roots.iter().map(|root| root.path.clone()).collect();
        paths.extend(shown.iter().map(|shown| shown.root.clone()));
        paths.sort();
        paths.dedup();
        let config = scan::host_config(Path::new("/"), &paths, notices);
        let stopped = self.roots.iter().all(|root| root.state == RootState::Stopped);
        let guarded = HostPlaces::find([settings.store.0.as_path(), &self.options.journal]);
        let running = if stopped && shown.is_empty() {
            Vec::new()
        } else {
            let known = self.roots.iter().map(|root| (root.inode, root.path.clone()));
            members::running(known.collect(), &settings.mount_point, &guarded, notices)
        };
        Known { host: config.into(), guarded, running }
    }

    /// The contents that could be shared, with all their copies.
    fn contents(&self, notices: &mut Notices) -> Vec<Sharable> {
        let survey = self.survey;
        let of_roots =
            |inode: usize| (survey.inodes.names(inode)[0].root as usize) < self.roots.len();
        let twins = groups::twins(&survey.contents, self.options.settings.select, of_roots);
        let (found, told): (Vec<_>, Vec<_>) =
            twins.par_iter().map(|twins| self.sharable(twins)).unzip();
        notices.extend(told.into_iter().flatten());
        found.into_iter().flatten().collect()
    }

    fn sharable(&self, twins: &Twins) -> (Option<Sharable>, Option<Notice>) {
        let (described, notice) = self.survey.describe(twins.inodes[0]);
        let Some(elf) = described.elf.filter(|elf| is_loaded(elf.linkage)) else {
            return (self.data(twins), notice);
        };
        let program = described.program;
        let holdings = self.holdings(&twins.inodes, twins.content);
        let library = elf.linkage == Linkage::SharedObject;
        let family = match &program {
            Some(_) if library => "libbusybox.so".to_owned(),
            Some(program) => program.family.file_prefix().to_owned(),
            None => self.first_name(&holdings),
        };
        let locates_itself = match (&program, self.options.settings.method) {
            (None, Method::Symlink) => self.locates_itself(&elf, &holdings),
            _ => None,
        };
        let sharable = Sharable {
            content: twins.content,
            object: ObjectName::new(&family, &ElfFacts::arch(&elf), twins.content),
            size: self.survey.inodes.meta(twins.inodes[0], &self.survey.inventories).size,
            multicall: program.filter(|_| !library).map(|program| Multicall {
                prefix: program.family.file_prefix(),
                applets: program.applets,
            }),
            loads: Loads::of(&elf),
            locates_itself,
            holdings,
        };
        (Some(sharable), notice)
    }

    /// What no program is made of shares extents alone: a link to the store could not be
    /// written any more, and a hard link would be written by every root.
    fn data(&self, twins: &Twins) -> Option<Sharable> {
        if self.options.settings.method != Method::Reflink {
            return None;
        }
        let holdings = self.holdings(&twins.inodes, twins.content);
        Some(Sharable {
            content: twins.content,
            object: ObjectName::new("file", "any", twins.content),
            size: self.survey.inodes.meta(twins.inodes[0], &self.survey.inventories).size,
            multicall: None,
            loads: Loads::default(),
            locates_itself: None,
            holdings,
        })
    }

    fn first_name(&self, holdings: &[Holding]) -> String {
        let named = holdings.first().and_then(|holding| {
            let inventory = &self.survey.inventories[holding.root];
            holding.files.first().map(|file| inventory.file_name(*file))
        });
        String::from_utf8_lossy(named.unwrap_or_default()).into_owned()
    }

    /// Every inode of a content once for each root that it has a name in.
    fn holdings(&self, inodes: &[usize], content: ContentId) -> Vec<Holding> {
        let names = |&inode: &usize| {
            let names = self.survey.inodes.names(inode).chunk_by(|a, b| a.root == b.root);
            names.map(move |names| (inode, names))
        };
        let found: Vec<_> = inodes.iter().flat_map(names).collect();
        let mut holdings: Vec<Holding> = found
            .into_par_iter()
            .filter(|(_, names)| (names[0].root as usize) < self.roots.len())
            .filter_map(|(inode, names)| {
                let root = names[0].root as usize;
                let inventory = &self.survey.inventories[root];
                let mut files: Vec<_> = names.iter().map(|name| name.file).collect();
                files.sort_by_cached_key(|file| inventory.file_path(*file));
                self.unbound(root, content, &mut files);
                let first = *files.first()?;
                let (traits, pages) = (self.traits(root, first), self.pages(root, first));
                let (blocks, libraries) = (self.survey.same_blocks.of(inode), Libraries::default());
                Some(Holding { root, inode, blocks, pages, files, traits, libraries })
            })
            .collect();
        holdings.sort_by_key(|holding| (holding.root, holding.inode));
        holdings
    }

    /// Says of every program which package manager owns it.
    fn own(&self, contents: &mut [Sharable]) {
        let mut by_root: BTreeMap<usize, Vec<&mut Holding>> = BTreeMap::new();
        for holding in contents
            .iter_mut()
            .filter(|content| content.multicall.is_some())
            .flat_map(|content| &mut content.holdings)
        {
            by_root.entry(holding.root).or_default().push(holding);
        }
        by_root.into_par_iter().for_each(|(root, mut holdings)| {
            let inventory = &self.survey.inventories[root];
            let first = |holding: &&mut Holding| {
                holding.files.first().map(|file| inventory.file_path(*file)).unwrap_or_default()
            };
            let paths: Vec<_> = holdings.iter().map(first).collect();
            let owners = packages::owners(&self.survey.dirs[root], inventory, &paths);
            for (holding, owner) in holdings.iter_mut().zip(owners) {
                holding.traits.owner = owner;
            }
        });
    }

    /// What shows that a content, no multi-call program, finds its files by where it lies.
    fn locates_itself(&self, elf: &ElfFacts, holdings: &[Holding]) -> Option<&'static str> {
        let holding = holdings.first()?;
        let inventory = &self.survey.inventories[holding.root];
        let file = *holding.files.first()?;
        let dir = inventory.dir_path(inventory.file_dir(file));
        let (root, name) = (&self.survey.dirs[holding.root], inventory.file_name(file));
        // What cannot be read is refused for that.
        candidate::locates_itself(root, &dir, name, &elf.runpath).unwrap_or(None)
    }

    fn traits(&self, root: usize, file: FileId) -> FileTraits {
        let inventory = &self.survey.inventories[root];
        let dir = inventory.dir_path(inventory.file_dir(file));
        let (dirs, name) = (&self.survey.dirs, inventory.file_name(file));
        candidate::traits(&dirs[root], &dir, name, self.label())
    }

    /// The label that objects get. An image has none.
    fn label(&self) -> Option<&Label> {
        let plain = self.options.settings.store_format == StoreFormat::Dir;
        self.store.label.as_ref().filter(|_| plain)
    }

    /// The blocks that the content's old inodes give back, less those of a new object.
    fn saved(&self, freed: &Freed) -> Bytes {
        let survey = self.survey;
        let blocks =
            groups::blocks(&freed.inodes, &survey.contents, &survey.inodes, &survey.inventories);
        match freed.stored_anew {
            true => blocks.all.saturating_sub(blocks.largest),
            false => blocks.all,
        }
    }
}

/// A program, or what is loaded into one; no object file, kernel module or core dump.
fn is_loaded(linkage: Linkage) -> bool {
    !matches!(linkage, Linkage::Relocatable | Linkage::Core | Linkage::Other)
}
