//! A plan is carried out, and what then still runs from the old files is told.

use std::path::Path;

use crate::exec::{self, ApplyOptions, ExecError};
use crate::model::{Applied, PendingRestart, Plan, Progress, RunId};
use crate::scan;

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
    let mut applied = exec::apply(plan, options, progress)?;
    if let Some(run) = applied.run.filter(|_| applied.changed > 0) {
        applied.pending_restart = pending(plan, run);
    }
    Ok(applied)
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
