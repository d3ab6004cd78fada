//! A plan is carried out, and what then still runs from the old files is told.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::members::{self, Known, Shown};
use crate::analyze::config::engine_lines;
use crate::analyze::plan::{self as planner, Tenant};
use crate::exec::{self, ApplyOptions, ExecError};
use crate::model::{
    Action, Applied, Bind, HostPath, Left, Method, Notices, PendingRestart, Plan, Progress, RootId,
    RootPath, RunId,
};
use crate::scan::dir::RootDir;
use crate::scan::{self, HostPlaces, OldProcess};

/// Carries a plan out.
///
/// # Errors
///
/// Those of [`exec::apply`].
pub fn apply(
    plan: &Plan,
    options: ApplyOptions<'_>,
    progress: &dyn Progress,
) -> Result<Applied, ExecError> {
    let mut applied = exec::apply(plan, options, progress, &|| may_share(plan, options.journal))?;
    if let Some(run) = applied.run.filter(|_| applied.changed > 0) {
        applied.pending_restart = pending(plan, run);
        let bound = bound_over(plan, &applied.left);
        applied.pending_restart.extend(bound);
        applied.advice.extend(for_good(plan));
    }
    Ok(applied)
}

/// Since the plan was made others may have come to the store, or a root to be another's.
fn may_share(plan: &Plan, journal: &Path) -> Result<(), ExecError> {
    let settings = &plan.settings;
    if settings.method != Method::Symlink {
        return Ok(());
    }
    // What cannot be read of it ends the run elsewhere.
    let mut notices = Notices::default();
    let shown = members::shown_of(&settings.store.0, journal, &mut notices);
    let changed: BTreeSet<RootId> = plan.steps.iter().map(|step| step.root).collect();
    let mine = plan.roots.iter().filter(|root| changed.contains(&root.id));
    let mine: Vec<Shown> = mine
        .map(|root| Shown {
            root: root.path.clone(),
            store: settings.store.clone(),
            format: settings.store_format,
            declared: settings.trust_domain.clone(),
        })
        .collect();
    let paths: Vec<HostPath> = mine.iter().chain(&shown).map(|it| it.root.clone()).collect();
    let guarded = HostPlaces::find([settings.store.0.as_path(), journal]);
    let known = Known {
        host: scan::host_config(Path::new("/"), &paths, &mut notices).into(),
        running: members::running(Vec::new(), &settings.mount_point, &guarded, &mut notices),
        guarded,
    };
    let tenants = |all: &[Shown]| -> Vec<Tenant> {
        all.iter().filter_map(|shown| known.tenant(shown)).collect()
    };
    let (mine, others) = (tenants(&mine), tenants(&shown));
    let newcomers: Vec<_> = mine.iter().map(|it| (&it.path, &it.member)).collect();
    let refused = planner::apart(settings, &newcomers, &others);
    match mine.iter().zip(refused).find_map(|(it, refusal)| Some((it, refusal?))) {
        Some((tenant, refusal)) => {
            Err(ExecError::Trust { root: tenant.path.0.clone(), why: refusal.explanation })
        }
        None => Ok(()),
    }
}

/// Memory is saved once these have ended.
fn pending(plan: &Plan, run: RunId) -> Vec<PendingRestart> {
    let prefix = format!("{}{run}-", exec::TEMPORARY);
    let old = scan::old_processes(Path::new("/proc"), &prefix);
    old.into_iter().filter_map(|process| named(plan, process)).collect()
}

/// The same of files that objects are bound over: they keep their names.
fn bound_over(plan: &Plan, left: &[Left]) -> Vec<PendingRestart> {
    let left: BTreeSet<u32> = left.iter().map(|left| left.step).collect();
    let binds = plan.steps.iter().filter(|step| matches!(step.action, Action::Bind { .. }));
    let binds = binds.filter(|step| !left.contains(&step.seq));
    let mut files: BTreeMap<RootId, Vec<(&RootPath, u32)>> = BTreeMap::new();
    for step in binds {
        let path = exec::entry_path(&step.action).map(|path| (path, step.seq));
        files.entry(step.root).or_default().extend(path);
    }
    let mut pending = Vec::new();
    for (id, files) in files {
        let root = plan.roots.iter().find(|root| root.id == id);
        let Some(Ok(dir)) = root.map(|root| RootDir::open(&root.path)) else { continue };
        let inode = |path: &RootPath| dir.look(path).ok();
        // Of several names of one file the first.
        let files = files.into_iter().rev().filter_map(|(path, seq)| Some((inode(path)?, seq)));
        let old = scan::running_from(Path::new("/proc"), dir.inode(), &files.collect());
        pending.extend(old.into_iter().filter_map(|process| named(plan, process)));
    }
    pending
}

fn named(plan: &Plan, process: OldProcess) -> Option<PendingRestart> {
    let at = plan.steps.binary_search_by_key(&process.step, |step| step.seq).ok()?;
    let step = plan.steps.get(at)?;
    let root = plan.roots.iter().find(|root| root.id == step.root)?;
    Some(PendingRestart {
        pid: process.pid,
        comm: process.comm,
        root: step.root,
        path: exec::entry_path(&step.action)?.on_host(&root.path),
    })
}

/// What is bound over lasts as long as the container runs.
fn for_good(plan: &Plan) -> Vec<String> {
    let settings = &plan.settings;
    let bind = Bind {
        source: settings.store_format.shown(&settings.store),
        target: settings.mount_point.clone(),
    };
    let binds = plan.steps.iter().filter(|step| matches!(step.action, Action::Bind { .. }));
    let roots: BTreeSet<RootId> = binds.map(|step| step.root).collect();
    let bound = plan.roots.iter().filter(|root| roots.contains(&root.id));
    bound
        .map(|root| {
            let name = &root.name;
            let lines = engine_lines(root.runtime, std::slice::from_ref(&bind));
            let mut words = vec![format!("{name}: {UNTIL_RESTART}")];
            words.extend(lines);
            words.join("; ")
        })
        .collect()
}

const UNTIL_RESTART: &str = "new processes share from now on, until the container restarts: then it is as it was; for good, \
     let its image link into the store, and start it with that mounted";
