//! The store becomes visible in a root before anything leads to it, and goes when nothing
//! does any more.

use std::collections::HashSet;
use std::path::Path;

use super::batch::Log;
use super::config;
use super::error::{ExecError, sentence};
use super::journal::{self, Attach, Config, Reading, Run};
use super::live::{self, Source};
use super::roots::Roots;
use super::surroundings::{self, Kept};
use crate::model::{
    Bind, ConfigChange, ContainerPath, HostPath, MountMeans, MountPlan, Outcome, Record, RootId,
    Step,
};
use crate::scan::dir::RootDir;
use crate::scan::mount_namespaces;

/// What is to be journaled of a step's mount points; why they cannot be used.
pub(crate) fn announce(
    step: &Step,
    mount: &MountPlan,
    root: &RootDir,
) -> Result<Vec<Record>, String> {
    let announce = |bind| surroundings::announce(step, root, bind, is_at_once(mount));
    let announced: Result<Vec<_>, _> = mount.binds.iter().map(announce).collect();
    Ok(announced?.into_iter().flatten().collect())
}

fn is_at_once(mount: &MountPlan) -> bool {
    mount.means == MountMeans::Host || mount.live
}

/// Makes what a step says visible in its root, once that is announced in the journal; why
/// it could not be.
pub(crate) fn carry_out(
    step: &Step,
    mount: &MountPlan,
    (root, announced): (&RootDir, &[Record]),
    log: &mut dyn Log,
) -> Result<Result<(), String>, ExecError> {
    let mut points = announced.iter();
    if let Err(cause) = points.try_for_each(|point| surroundings::make_mount_point(point, root)) {
        return Ok(Err(cause));
    }
    for change in &mount.config {
        log.append(&Record::Config {
            step: step.seq,
            root: step.root,
            file: change.file.clone(),
            before: change.before.clone(),
            after: change.after.clone(),
        })?;
        if let Err(error) = config::put(change) {
            return Ok(Err(sentence(&error)));
        }
    }
    if !is_at_once(mount) {
        return Ok(Ok(()));
    }
    Ok(mount.binds.iter().try_for_each(|bind| attach(mount, bind, root)))
}

fn attach(mount: &MountPlan, bind: &Bind, root: &RootDir) -> Result<(), String> {
    let source = Source::open(&bind.source).map_err(|error| sentence(&error))?;
    if mount.means == MountMeans::Host {
        live::attach_on_host(root, &source, &bind.target).map_err(|error| sentence(&error))?;
    }
    if !mount.live {
        return Ok(());
    }
    let namespaces = mount_namespaces(Path::new("/proc"), root.inode());
    for namespace in namespaces.map_err(|error| crate::scan::cause(&error))? {
        let attached = match namespace.own {
            true => live::attach_on_host(root, &source, &bind.target),
            false => live::attach_in(&namespace, &source, &bind.target),
        };
        attached.map_err(|error| sentence(&error))?;
    }
    Ok(())
}

/// Takes away what a run made beside the entries, in those of its roots in which nothing of
/// any run stands. What could not be, and why.
pub(crate) fn put_back(journal: &Path, run: &Run, roots: &Roots) -> Result<Vec<Kept>, ExecError> {
    let standing = standing(journal)?;
    let free = |id: RootId| run.root(id).is_some_and(|root| !standing.contains(&root.path));
    let mut kept = Vec::new();
    for attach in run.attaches.iter().rev().filter(|attach| free(attach.root)) {
        let Some(root) = roots.get(attach.root) else { continue };
        kept.extend(detach(attach, root));
        kept.extend(surroundings::remove_mount_point(attach, root));
    }
    kept.extend(configs(&run.configs, |config| {
        free(config.root) && !ConfigChange::is_of_store(&config.file)
    }));
    if standing.is_empty() {
        kept.extend(put_back_shared(journal)?);
    }
    Ok(kept)
}

/// What no root has for itself goes when nothing stands any more: it may be an earlier run
/// that made it.
fn put_back_shared(journal: &Path) -> Result<Vec<Kept>, ExecError> {
    let mut kept = Vec::new();
    for id in journal::runs(journal)?.into_iter().rev() {
        let Reading::Run { run, .. } = journal::read(journal, id)? else { continue };
        kept.extend(surroundings::remove_link(&run));
        kept.extend(configs(&run.configs, |config| ConfigChange::is_of_store(&config.file)));
    }
    Ok(kept)
}

/// Files that a run wrote become what they were.
fn configs(written: &[Config], goes: impl Fn(&Config) -> bool) -> Vec<Kept> {
    let mut kept = Vec::new();
    let mut changes = Vec::new();
    for config in written.iter().rev().filter(|config| goes(config)) {
        let change = ConfigChange {
            file: config.file.clone(),
            before: config.before.clone(),
            after: config.after.clone(),
        };
        match config::take_back(&change) {
            Ok(()) => changes.push(change),
            Err(error) => kept.push((change.file, sentence(&error))),
        }
    }
    if let Err(error) = config::reload(&changes) {
        kept.push((HostPath::from("/etc/systemd"), sentence(&error)));
    }
    kept
}

/// What is mounted goes, on the host and inside running containers.
fn detach(attach: &Attach, root: &RootDir) -> Option<Kept> {
    if !attach.mounted {
        return None;
    }
    let target = ContainerPath(Path::new("/").join(attach.path.as_path()));
    let at = attach.path.on_host(root.path());
    let detached = || -> Result<(), String> {
        let source = Source::open(&attach.source).map_err(|error| sentence(&error))?;
        let namespaces = mount_namespaces(Path::new("/proc"), root.inode());
        for namespace in namespaces.map_err(|error| crate::scan::cause(&error))? {
            if !namespace.own {
                let gone = live::detach_in(&namespace, &source, &target);
                gone.map_err(|error| sentence(&error))?;
            }
        }
        live::detach_on_host(root, &source, &target).map_err(|error| sentence(&error))?;
        Ok(())
    };
    detached().err().map(|why| (at, why))
}

/// The roots in which something of a run stands, or is not settled.
fn standing(journal: &Path) -> Result<HashSet<HostPath>, ExecError> {
    let mut standing = HashSet::new();
    for id in journal::runs(journal)? {
        let Reading::Run { run, .. } = journal::read(journal, id)? else { continue };
        let stands = run
            .entries
            .values()
            .filter(|entry| matches!(entry.outcome, None | Some(Outcome::Done | Outcome::Parked)));
        let ids: HashSet<RootId> = stands.map(|entry| entry.intent.root).collect();
        standing.extend(ids.into_iter().filter_map(|id| Some(run.root(id)?.path.clone())));
    }
    Ok(standing)
}
