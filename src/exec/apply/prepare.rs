//! What a run has before it changes a root: its store, the roots opened, its journal.

use super::now;
use crate::exec::cause::explain;
use crate::exec::error::ExecError;
use crate::exec::journal::{self, Journal};
use crate::exec::lock::Lock;
use crate::exec::roots::Roots;
use crate::exec::store::Store;
use crate::model::{
    Action, Begin, JOURNAL_VERSION, JournalRoot, Method, Plan, PlannedRoot, Record, RootId, RunId,
    Step,
};

/// What shares blocks needs no store.
pub(super) fn make_store(plan: &Plan, lock: &mut Lock) -> Result<Option<Store>, ExecError> {
    if plan.settings.method != Method::Symlink {
        return Ok(None);
    }
    let store = Store::make(&plan.settings.store.0)?;
    lock.also(&store.path, &store.dir)?;
    Ok(Some(store))
}

/// Opens the roots; one that is not there any more is left as it is.
pub(super) fn open_roots(plan: &Plan, left: &mut Vec<(RootId, String)>) -> Roots {
    let mut roots = Roots::default();
    for root in &plan.roots {
        if let Err(error) = roots.open(root.id, &root.path, root.ino) {
            left.push((root.id, explain("open the root", &error)));
        }
    }
    roots
}

pub(super) fn begin(plan: &Plan, lock: &Lock) -> Result<Journal, ExecError> {
    let last = journal::runs(&lock.journal)?.last().map_or(0, |run| run.0);
    let run = RunId(last + 1);
    let mut journal = Journal::create(&lock.journal, run)?;
    let root = |root: &PlannedRoot| JournalRoot {
        id: root.id,
        path: root.path.clone(),
        ino: root.ino,
        name: root.name.clone(),
    };
    journal.append(&Record::Begin(Begin {
        version: JOURNAL_VERSION,
        run,
        time_seconds: now(),
        tool: env!("CARGO_PKG_VERSION").to_owned(),
        method: plan.settings.method,
        store: plan.settings.store.clone(),
        store_format: plan.settings.store_format,
        mount_point: plan.settings.mount_point.clone(),
        roots: plan.roots.iter().map(root).collect(),
        steps: plan.steps.iter().filter(|step| is_entry(step)).count() as u32,
        trust_domain: plan.settings.trust_domain.clone(),
    }))?;
    Ok(journal)
}

/// A step that changes one entry, or where one file's blocks are.
pub(super) fn is_entry(step: &Step) -> bool {
    matches!(
        step.action,
        Action::Replace { .. }
            | Action::Relink { .. }
            | Action::Link { .. }
            | Action::Hardlink { .. }
            | Action::Reflink { .. }
            | Action::Bind { .. }
            | Action::RemoveTree { .. }
    )
}
