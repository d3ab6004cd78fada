//! Whether what runs changed still stands. Nothing is changed by looking.

mod mounts;
mod objects;
mod pages;
mod runs;
mod shared;
mod trust;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::analyze::drift;
use crate::exec::ExecError;
use crate::model::{
    Check, ContainerPath, HostPath, InodeId, Notice, Notices, ObjectName, Progress, Verified,
};
use crate::scan::dir::RootDir;
use crate::scan::isolation::{IsolationOptions, isolations};
use crate::scan::served::Served;
use crate::scan::walk::{WalkLimits, walk};
use crate::scan::{HostPlaces, Listings, RootsError, find_roots};

use super::memory::MemoryError;
use objects::Store;
use runs::{Standing, StandingRoot};
use shared::SharedFile;

/// What is verified.
#[derive(Debug, Clone)]
pub struct VerifyOptions {
    /// Roots, or directories that hold some; every root that a run changed when empty.
    pub roots: Vec<PathBuf>,
    /// The store on the host, beside those that runs name.
    pub store: PathBuf,
    /// The store's path inside the containers, for links that no run made.
    pub mount_point: ContainerPath,
    /// The journal's directory.
    pub journal: PathBuf,
    /// The pages of running containers are compared.
    pub memory: bool,
    /// Names in one root that are looked at.
    pub max_entries: u64,
}

/// Why nothing could be verified.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// A root that was named cannot be taken.
    #[error(transparent)]
    Roots(#[from] RootsError),
    /// The journal cannot be read at all.
    #[error(transparent)]
    Journal(#[from] ExecError),
    /// Processes cannot be looked at.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// Looks at the journal, the store, the roots' links, their mounts, and the pages of
/// what runs.
///
/// # Errors
///
/// When a root that was named cannot be taken, or nothing can be looked at. What is
/// damaged is a check.
pub fn verify(options: &VerifyOptions, progress: &dyn Progress) -> Result<Verified, VerifyError> {
    let mut found = Verified::default();
    let standing = runs::standing(&options.journal, &mut found.checks)?;
    let stores = stores(options, &standing, &mut found.checks);
    let objects: HashSet<ObjectName> = stores.iter().flat_map(Store::names).cloned().collect();
    let shown = standing.shown.clone();
    let used: Vec<HostPath> = standing.stores.to_vec();
    let watched = used.iter().map(|store| store.0.as_path());
    let guarded = HostPlaces::find(watched.chain([options.store.as_path(), &options.journal]));
    let roots = roots(options, standing, &mut found.notices)?;
    let shared = links(options, &roots, &objects, progress, &mut found);
    let asked = IsolationOptions {
        proc_root: "/proc".into(),
        roots: roots.iter().map(|root| (root.inode, root.standing.path.clone())).collect(),
        mount_point: options.mount_point.clone(),
        guarded: guarded.clone(),
    };
    let running = isolations(&asked)
        .map_err(|error| MemoryError::Processes { path: "/proc".into(), source: error.into() })?;
    let named = |path: &HostPath| {
        options.roots.is_empty() || roots.iter().any(|root| root.standing.path == *path)
    };
    let known = trust::known(&shown, guarded, &running.containers, &mut found.notices);
    trust::check(&shown, &known, named, &mut found.checks);
    let mine = running.containers.into_iter();
    let mine: Vec<_> =
        mine.filter(|it| roots.iter().any(|root| root.inode == it.key.root)).collect();
    for root in &roots {
        mounts::check(root, &mine, &mut found.checks);
    }
    if options.memory && !mine.is_empty() {
        pages::check(&mine, (&stores, &shared), &roots, progress, &mut found)?;
    }
    found.checks.sort_by_key(|check| (!check.damage, check.ok));
    found.notices = found.notices.sorted();
    Ok(found)
}

/// A root whose links are looked at.
struct Looked {
    standing: StandingRoot,
    inode: InodeId,
    dir: RootDir,
}

/// The stores that runs name, and the one that was named, where it is there.
fn stores(options: &VerifyOptions, standing: &Standing, checks: &mut Vec<Check>) -> Vec<Store> {
    let mut paths: Vec<&Path> = standing.stores.iter().map(|store| store.0.as_path()).collect();
    let named = options.store.as_path();
    if !paths.contains(&named) && named.symlink_metadata().is_ok() {
        paths.push(named);
    }
    paths.into_iter().map(|path| Store::read(path, standing, checks)).collect()
}

/// The roots that were named, or those that runs changed.
fn roots(
    options: &VerifyOptions,
    standing: Standing,
    notices: &mut Notices,
) -> Result<Vec<Looked>, VerifyError> {
    let mut changed = standing.roots;
    let wanted: Vec<StandingRoot> = if options.roots.is_empty() {
        changed
    } else {
        let found = find_roots(&options.roots, Path::new("/"), &options.store, notices)?;
        found
            .into_iter()
            .map(|root| match changed.iter().position(|it| it.path == root.path) {
                Some(at) => changed.swap_remove(at),
                None => StandingRoot::untouched(root.path, options),
            })
            .collect()
    };
    let mut looked = Vec::new();
    for standing in wanted {
        match RootDir::open(&standing.path) {
            Ok(dir) if dir.served().is_some() => {
                let cause = dir.served().map_or("", Served::explanation);
                notices.push(Notice::partial(standing.path, "look into", cause));
            }
            Ok(dir) => looked.push(Looked { inode: dir.inode(), dir, standing }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let cause = "the root that a run changed is gone";
                notices.push(Notice::info(standing.path, "open", cause));
            }
            Err(error) => {
                notices.push(Notice::partial(standing.path, "open", crate::scan::cause(&error)));
            }
        }
    }
    Ok(looked)
}

/// Looks at the names of each root; returns the files that several of them share.
fn links(
    options: &VerifyOptions,
    roots: &[Looked],
    objects: &HashSet<ObjectName>,
    progress: &dyn Progress,
    found: &mut Verified,
) -> Vec<SharedFile> {
    let mut shared = Vec::new();
    for root in roots.iter().filter(|root| root.standing.has_links()) {
        // One at a time: a root's inventory is not needed any more once it was looked at.
        let limits = WalkLimits { entries: options.max_entries };
        let (inventories, notices) =
            walk(std::slice::from_ref(&root.dir), limits, &Listings::default(), progress);
        found.notices.extend(notices);
        let path: &HostPath = &root.standing.path;
        for inventory in &inventories {
            let (made, point) = (&root.standing.made, &root.standing.mount_point);
            found.checks.extend(drift::links(path, inventory, made, objects, point));
            let (checks, first) = drift::names(path, inventory, &root.standing.named);
            found.checks.extend(checks);
            for name in first {
                match SharedFile::read(root, name) {
                    Ok(file) => shared.push(file),
                    Err(check) => found.checks.push(check),
                }
            }
        }
    }
    shared::merge(shared)
}
