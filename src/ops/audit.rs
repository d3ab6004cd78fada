//! The audit: what the roots hold twice.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::links;
use super::memory::{Interest, MemoryOptions, memory};
use super::survey::Survey;
use crate::analyze::groups::{self, Description, Twins};
use crate::analyze::inodes::Name;
use crate::analyze::trees::{self, Forest, Trees};
use crate::model::{
    Bytes, ContentId, Group, InodeId, MemoryReport, Notice, Notices, Phase, Progress, Report, Root,
    RootId, RootPath, RootSummary, Select, Totals,
};
use crate::scan::dir::RootDir;
use crate::scan::served::Served;
use crate::scan::{self, Cache, RootsError, cause, find_roots};

/// The store of shared programs, which is no root.
const STORE: &str = "/home/cbin";

/// What an audit may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Names below one root; what lies beyond is left out, and said.
    pub max_entries: u64,
    /// A file larger than this is not compared, and said.
    pub max_file_size: Bytes,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_entries: 10_000_000, max_file_size: Bytes(512 * 1024 * 1024) }
    }
}

/// What an audit is asked.
#[derive(Debug, Clone)]
pub struct AuditOptions {
    /// Roots, or directories of roots; none: they are discovered.
    pub roots: Vec<PathBuf>,
    /// Which files are compared.
    pub select: Select,
    /// Compare trees, too; never with [`Select::Multicall`], which reads programs only.
    pub trees: bool,
    /// Look at the pages of running containers, too.
    pub memory: bool,
    /// What it may cost.
    pub limits: Limits,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// No root to look at.
    #[error("no container root was found")]
    NoRoots,
    /// Every root that there is had to be left out.
    #[error("{:?} is left out: {}", .0.path.0, .0.cause)]
    LeftOut(Box<Notice>),
    /// A directory that was named is none that could be a container's root.
    #[error(transparent)]
    Root(#[from] RootsError),
}

/// Audits the roots. What the cache knows is not read again; what is read, it learns.
///
/// # Errors
///
/// When there is no root to look at. What cannot be read below a root is a
/// notice in the report.
pub fn audit(
    options: &AuditOptions,
    cache: &mut Cache,
    progress: &dyn Progress,
) -> Result<Report, AuditError> {
    let mut notices = Notices::default();
    progress.start(Phase::Roots, None);
    let found = find_roots(&options.roots, Path::new("/"), Path::new(STORE), &mut notices)?;
    let (roots, dirs) = open_roots(found, &mut notices);
    if roots.is_empty() {
        let left = notices.iter().find(|notice| notice.partial);
        return Err(
            left.map_or(AuditError::NoRoots, |left| AuditError::LeftOut(Box::new(left.clone())))
        );
    }
    let mut survey = Survey::make(dirs, options, cache, progress, &mut notices);
    let memory = Answer { survey: &survey, options, roots: &roots }.live(progress, &mut notices);
    memory.iter().for_each(|memory| learn(&mut survey, memory));
    let report = Answer { survey: &survey, options, roots: &roots }.report(memory, notices);
    // Nothing holds a root any more. The rest is large, and nobody need wait until it is taken apart.
    survey.dirs.clear();
    rayon::spawn(move || drop(survey));
    Ok(report)
}

/// What is in memory twice is a group, even if the roots hold one inode of it: the other
/// may be the host's, or deleted, or the same one seen through a snapshot.
fn learn(survey: &mut Survey, memory: &MemoryReport) {
    let mapped = memory.mapped.iter();
    let contents = mapped.filter_map(|object| Some((object.content?, &object.inodes)));
    let held: HashMap<InodeId, ContentId> = contents
        .flat_map(|(content, inodes)| inodes.iter().map(move |inode| (*inode, content)))
        .collect();
    for inode in 0..survey.contents.content.len() {
        let meta = survey.inodes.meta(inode, &survey.inventories);
        if let Some(content) = held.get(&meta.inode) {
            let known = survey.contents.content.get(inode).unwrap_or(*content);
            survey.contents.content.set(inode, Some(known));
            survey.contents.in_memory_twice.insert(known);
        }
    }
}

/// Opens the roots; one that cannot be opened is left out, and said.
pub(super) fn open_roots(found: Vec<Root>, notices: &mut Notices) -> (Vec<Root>, Vec<RootDir>) {
    let (mut roots, mut dirs) = (Vec::new(), Vec::new());
    for root in found {
        match RootDir::open(&root.path) {
            Ok(dir) if dir.served() == Some(Served::Fuse) => {
                notices.push(Notice::partial(root.path, "look into", Served::Fuse.explanation()));
            }
            Ok(dir) if dir.inode() == root.inode => {
                roots.push(root);
                dirs.push(dir);
            }
            Ok(_) => notices.push(Notice::partial(root.path, "open", REPLACED)),
            Err(error) => notices.push(Notice::partial(root.path, "open", cause(&error))),
        }
    }
    (roots, dirs)
}

const REPLACED: &str = "it was replaced by another directory after the roots were found";

/// What the survey of the roots amounts to.
struct Answer<'a> {
    survey: &'a Survey,
    options: &'a AuditOptions,
    roots: &'a [Root],
}

impl Answer<'_> {
    fn report(&self, memory: Option<MemoryReport>, mut notices: Notices) -> Report {
        let (trees, (groups, dangling)) =
            rayon::join(|| self.trees(), || self.groups(&mut notices));
        let summary = |(at, links)| self.summary(at, links);
        let summaries: Vec<RootSummary> =
            dangling.into_par_iter().enumerate().map(summary).collect();
        let totals = self.totals(&summaries, &groups, &trees, memory.as_ref());
        Report {
            select: self.options.select,
            roots: summaries,
            groups,
            trees: trees.trees,
            memory,
            totals,
            notices: notices.sorted(),
        }
    }

    /// The groups, and each root's links that lead to nothing.
    fn groups(&self, notices: &mut Notices) -> (Vec<Group>, Vec<Vec<RootPath>>) {
        let survey = self.survey;
        let mut twins =
            groups::twins(&survey.contents, self.options.select, |inode| self.counts(inode));
        // In the order in which their files were walked, so that what is near in memory is used together.
        twins.sort_unstable_by_key(|twins| twins.inodes[0]);
        let (mut groups, found): (Vec<Group>, Vec<Option<Notice>>) = twins
            .par_iter()
            .map(|twins| {
                let (description, notice) = match survey.contents.elf[twins.inodes[0]] {
                    true => survey.describe(twins.inodes[0]),
                    false => (Description::default(), None),
                };
                (self.group(twins, description), notice)
            })
            .unzip();
        notices.extend(found.into_iter().flatten());
        let dangling = links::add_links(survey, self.roots.len(), &twins, &mut groups);
        groups.sort_unstable_by_key(|group| group.content);
        (groups, dangling)
    }

    fn group(&self, twins: &Twins, description: Description) -> Group {
        let survey = self.survey;
        let inventories = &survey.inventories[..self.roots.len()];
        let paths = &survey.paths;
        groups::group(twins, description, &survey.contents, &survey.inodes, inventories, paths)
    }

    /// The inode has a name in a root, not on the host alone.
    fn counts(&self, inode: usize) -> bool {
        (self.survey.inodes.names(inode)[0].root as usize) < self.roots.len()
    }

    fn trees(&self) -> Trees {
        let survey = self.survey;
        if survey.host.is_none() {
            return Trees::default();
        }
        trees::trees(Forest {
            inventories: &survey.inventories,
            host: survey.host,
            paths: &survey.paths,
            inodes: &survey.inodes,
            content: &survey.contents.content,
            extents: &survey.contents.extents,
        })
    }

    /// The live view of the containers that run from these roots; of the whole
    /// host where none was named.
    fn live(&self, progress: &dyn Progress, notices: &mut Notices) -> Option<MemoryReport> {
        if !self.options.memory {
            return None;
        }
        progress.start(Phase::Memory, None);
        let found = memory(&self.memory_options(), progress);
        match found {
            Ok(found) => {
                notices.extend(found.notices.iter().cloned());
                Some(found)
            }
            Err(error) => {
                let why = std::error::Error::source(&error).map(ToString::to_string);
                let why = why.unwrap_or_else(|| error.to_string());
                notices.push(Notice::partial("/proc", "list", why));
                None
            }
        }
    }

    fn memory_options(&self) -> MemoryOptions {
        let survey = self.survey;
        MemoryOptions {
            threads: rayon::current_num_threads(),
            known: survey.known(),
            roots: self.roots.iter().map(|root| (root.inode, root.path.clone())).collect(),
            only_roots: !self.options.roots.is_empty(),
            max_file_size: self.options.limits.max_file_size,
            interest: Interest { twice: true, ..Interest::default() },
            ..MemoryOptions::new(scan::host().page_size)
        }
    }

    fn summary(&self, at: usize, dangling: Vec<RootPath>) -> RootSummary {
        let (root, inventory) = (&self.roots[at], &self.survey.inventories[at]);
        let inode = |file| self.survey.inodes.inode(Name { root: at as u32, file });
        let mut counted = HashSet::new();
        let (mut elf_files, mut apparent) = (0, Bytes(0));
        for (file, meta) in inventory.files() {
            elf_files += u64::from(self.survey.contents.elf[inode(file)]);
            if meta.nlink == 1 || counted.insert(inode(file)) {
                apparent += meta.size;
            }
        }
        RootSummary {
            id: RootId(at as u32),
            path: root.path.clone(),
            name: root.name.clone(),
            runtime: root.runtime,
            state: root.state,
            layer: root.layer,
            files: inventory.files().len() as u64,
            elf_files,
            apparent,
            dangling,
        }
    }

    fn totals(
        &self,
        roots: &[RootSummary],
        groups: &[Group],
        trees: &Trees,
        memory: Option<&MemoryReport>,
    ) -> Totals {
        let survey = self.survey;
        let grouped: HashSet<_> = groups.iter().map(|group| group.content).collect();
        let in_group = |inode: &usize| {
            survey.contents.content.get(*inode).is_some_and(|content| grouped.contains(&content))
        };
        let allocated = |inode: usize| survey.inodes.meta(inode, &survey.inventories).allocated;
        Totals {
            roots: roots.len() as u64,
            files: roots.iter().map(|root| root.files).sum(),
            elf_files: roots.iter().map(|root| root.elf_files).sum(),
            groups: groups.len() as u64,
            wasted_disk: groups.iter().map(|group| group.wasted).sum(),
            wasted_trees: trees
                .wasted
                .par_iter()
                .filter(|inode| !in_group(inode))
                .map(|&inode| allocated(inode))
                .sum(),
            wasted_memory: memory.map(|memory| memory.totals.wasted_bytes).unwrap_or_default(),
        }
    }
}
