//! From the survey to a plan.

use std::io;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::audit::{AuditOptions, Limits, open_roots};
use super::survey::Survey;
use crate::analyze::groups::{self, Twins};
use crate::analyze::plan::{
    self as planner, Freed, Ground, Holding, Multicall, Refusal, Sharable, World,
};
use crate::model::{
    Bind, Bytes, ElfFacts, FileTraits, HostPath, Linkage, MountMeans, MountPlan, Notices,
    ObjectName, Phase, Plan, PlanSettings, PlannedRoot, Progress, Root, RootId, RootState,
    SkipReason,
};
use crate::scan::store::{Store, store};
use crate::scan::{RootsError, candidate, find_roots};

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
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// No root to look at.
    #[error("no container root was found")]
    NoRoots,
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
    let found = find_roots(&options.roots, Path::new("/"), &at.0, &mut notices)?;
    let (roots, dirs) = open_roots(found, &mut notices);
    if roots.is_empty() {
        return Err(PlanError::NoRoots);
    }
    let survey = Survey::make(dirs, &audit_options(options), progress, &mut notices);
    let mut plan =
        Planning { options, survey: &survey, roots: &roots, store: &stored }.plan(&mut notices);
    plan.notices = notices.sorted();
    Ok(plan)
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
}

impl Planning<'_> {
    fn plan(&self, notices: &mut Notices) -> Plan {
        let grounds: Vec<Ground<'_>> = (0..self.roots.len()).map(|at| self.ground(at)).collect();
        let contents = self.contents(notices);
        let world = World {
            settings: &self.options.settings,
            roots: &grounds,
            contents: &contents,
            stored: &self.store.objects,
        };
        let (mut plan, freed) = planner::plan(world);
        plan.saves.disk = freed.iter().map(|freed| self.saved(freed)).sum();
        plan
    }

    fn ground(&self, at: usize) -> Ground<'_> {
        let root = &self.roots[at];
        let inventory = &self.survey.inventories[at];
        let mount_point = &self.options.settings.mount_point;
        let mut refusal = refusal(root, self.options.settings.live);
        if refusal.is_none() && !planner::mount_point_is_free(inventory, mount_point) {
            refusal = Some(mount_point_taken(&mount_point.0));
        }
        if self.store.noexec {
            refusal = Some(store_noexec(&self.options.settings.store));
        }
        Ground {
            root: PlannedRoot {
                id: RootId(at as u32),
                path: root.path.clone(),
                ino: root.inode.ino,
                name: root.name.clone(),
                runtime: root.runtime,
                state: root.state,
            },
            inventory,
            refusal,
            mount: Some(self.mount(root)),
        }
    }

    fn mount(&self, root: &Root) -> MountPlan {
        let settings = &self.options.settings;
        let bind = Bind { source: settings.store.clone(), target: settings.mount_point.clone() };
        let (means, why) = match self.options.mounts {
            Some(means) => (means, "as --mounts says".to_owned()),
            None => {
                (MountMeans::Host, "nothing was found that starts a container from it".to_owned())
            }
        };
        let live = settings.live && root.state == RootState::Running;
        MountPlan { means, why, binds: vec![bind], config: Vec::new(), live, advice: Vec::new() }
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

    fn sharable(&self, twins: &Twins) -> (Option<Sharable>, Option<crate::model::Notice>) {
        let (described, notice) = self.survey.describe(twins.inodes[0]);
        let Some(elf) = described.elf else { return (None, notice) };
        let program = described.program;
        let holdings = self.holdings(&twins.inodes);
        let library = elf.linkage == Linkage::SharedObject;
        let family = match &program {
            Some(_) if library => "libbusybox.so".to_owned(),
            Some(program) => program.family.file_prefix().to_owned(),
            None => self.first_name(&holdings),
        };
        let sharable = Sharable {
            content: twins.content,
            object: ObjectName::new(&family, &ElfFacts::arch(&elf), twins.content),
            size: self.survey.inodes.meta(twins.inodes[0], &self.survey.inventories).size,
            multicall: program.filter(|_| !library).map(|program| Multicall {
                prefix: program.family.file_prefix(),
                applets: program.applets,
            }),
            holdings,
        };
        (Some(sharable), notice)
    }

    fn first_name(&self, holdings: &[Holding]) -> String {
        let named = holdings.first().and_then(|holding| {
            let inventory = &self.survey.inventories[holding.root];
            holding.files.first().map(|file| inventory.file_name(*file))
        });
        String::from_utf8_lossy(named.unwrap_or_default()).into_owned()
    }

    /// Every inode of a content once for each root that it has a name in.
    fn holdings(&self, inodes: &[usize]) -> Vec<Holding> {
        let names = |&inode: &usize| {
            let names = self.survey.inodes.names(inode).chunk_by(|a, b| a.root == b.root);
            names.map(move |names| (inode, names))
        };
        let found: Vec<_> = inodes.iter().flat_map(names).collect();
        let mut holdings: Vec<Holding> = found
            .into_par_iter()
            .filter(|(_, names)| (names[0].root as usize) < self.roots.len())
            .map(|(inode, names)| {
                let root = names[0].root as usize;
                let inventory = &self.survey.inventories[root];
                let mut files: Vec<_> = names.iter().map(|name| name.file).collect();
                files.sort_by_cached_key(|file| inventory.file_path(*file));
                let traits = self.traits(root, files[0]);
                Holding { root, inode, files, traits }
            })
            .collect();
        holdings.sort_by_key(|holding| (holding.root, holding.inode));
        holdings
    }

    fn traits(&self, root: usize, file: crate::model::FileId) -> FileTraits {
        let inventory = &self.survey.inventories[root];
        let dir = inventory.dir_path(inventory.file_dir(file));
        candidate::traits(&self.survey.dirs[root], &dir, inventory.file_name(file))
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

/// Why a whole root is left as it is.
fn refusal(root: &Root, live: bool) -> Option<Refusal> {
    let (reason, explanation) = match root.state {
        _ if root.layer => (SkipReason::Overlay, OVERLAY),
        RootState::Running if !live => (SkipReason::Running, RUNNING),
        RootState::Unknown if !live => (SkipReason::StateUnknown, STATE_UNKNOWN),
        _ => return None,
    };
    Some(Refusal { reason, explanation: explanation.to_owned() })
}

const OVERLAY: &str = "a layer of a stacked root: to change it below its mounts is undefined; share the \
     programs by a read-only mount when the container is started, or in its image";
const RUNNING: &str = "a container runs from it, and would not find the store: stop it first, or use \
     --live, which attaches the store inside";
const STATE_UNKNOWN: &str =
    "not every process could be asked whether it runs from this root: run as root";

fn mount_point_taken(mount_point: &Path) -> Refusal {
    let explanation = format!(
        "something stands at {}: --mount-point DIR names another place for the store",
        mount_point.display()
    );
    Refusal { reason: SkipReason::MountPoint, explanation }
}

fn store_noexec(store: &HostPath) -> Refusal {
    let explanation = format!(
        "programs in {} cannot be executed, its file system is mounted noexec: --store DIR names another place",
        store.0.display()
    );
    Refusal { reason: SkipReason::StoreNoexec, explanation }
}
