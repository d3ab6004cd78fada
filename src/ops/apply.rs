//! A plan is carried out, and what then still runs from the old files is told.

use std::collections::BTreeSet;
use std::path::Path;

use super::members::{self, Known, Shown};
use crate::analyze::plan::{self as planner, Tenant};
use crate::exec::{self, ApplyOptions, ExecError};
use crate::model::{
    Applied, HostPath, Method, Notices, PendingRestart, Plan, Progress, RootId, RunId,
};
use crate::scan::{self, HostPlaces};

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
    old.into_iter()
        .filter_map(|process| {
            let at = plan.steps.binary_search_by_key(&process.step, |step| step.seq).ok()?;
            let step = plan.steps.get(at)?;
            let root = plan.roots.iter().find(|root| root.id == step.root)?;
            Some(PendingRestart {
                pid: process.pid,
                comm: process.comm,
                root: step.root,
                path: exec::entry_path(&step.action)?.on_host(&root.path),
            })
        })
        .collect()
}
