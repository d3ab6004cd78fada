//! What a run has before it changes a root: its store, the roots opened, room, its journal.

use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd as _;

use super::now;
use crate::exec::bind::is_bind;
use crate::exec::cause::explain;
use crate::exec::error::ExecError;
use crate::exec::journal::{self, Journal};
use crate::exec::lock::Lock;
use crate::exec::place::Parents;
use crate::exec::prefix;
use crate::exec::roots::Roots;
use crate::exec::space::Space;
use crate::exec::store::Store;
use crate::model::{
    Action, Begin, JOURNAL_VERSION, JournalRoot, Method, Plan, PlannedRoot, Record, RootId,
    RootPath, RunId, Step,
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

/// Objects, and a record for each entry: the names themselves take the place of others.
pub(super) fn check_space(
    plan: &Plan,
    store: Option<&Store>,
    roots: &Roots,
    lock: &Lock,
) -> Result<(), ExecError> {
    const RECORD: u64 = 1024;
    let mut space = Space::default();
    let mut counted = HashSet::new();
    for step in &plan.steps {
        if let (Action::Store { size, source, .. }, Some(name)) = (&step.action, &step.object)
            && let Some(store) = store
            && counted.insert(name)
            && !store.has(name)?
        {
            // Of a tree the size is what its blocks take; a file may have holes, which stay ones.
            let bytes = match name.is_tree() {
                true => size.0,
                false => size.0.min(blocks(roots, step.root, source).unwrap_or(u64::MAX)),
            };
            space.need(store.dir.as_fd(), &store.path, (bytes, 1))?;
            let files = plan.steps.iter().find_map(|other| match other.action {
                Action::RemoveTree { files, .. } if other.object == step.object => Some(files),
                _ => None,
            });
            space.need_more(store.dir.as_fd(), &store.path, files.unwrap_or(0))?;
        }
    }
    let (path, dir) = prefix::open(&lock.journal)?;
    let names = |step: &Step| match step.action {
        Action::RemoveTree { files, .. } => files.saturating_add(1),
        _ => 1,
    };
    let records = plan.steps.iter().map(names).fold(0, u64::saturating_add);
    space.need(dir.as_fd(), &path, (RECORD.saturating_mul(records), 2))?;
    let mut entries: HashMap<RootId, u64> = HashMap::new();
    for step in plan.steps.iter().filter(|step| is_entry(step) && !is_bind(step)) {
        *entries.entry(step.root).or_default() += 1;
    }
    for root in &plan.roots {
        let links = match plan.settings.method {
            Method::Symlink => entries.get(&root.id).copied().unwrap_or(0),
            Method::Reflink | Method::Hardlink => 0,
        };
        if let Some(open) = roots.get(root.id)
            && let Ok(dir) = open.open_dir(&RootPath::default())
        {
            space.need(dir.as_fd(), &root.path.0, (0, links))?;
        }
    }
    space.check()
}

/// What a file takes on its own file system. What cannot be looked at is found out later.
fn blocks(roots: &Roots, root: RootId, path: &RootPath) -> Option<u64> {
    let place = Parents::default().pin(root, roots.get(root)?, path).ok()?;
    Some(place.stat().ok()?.stx_blocks.saturating_mul(512))
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
fn is_entry(step: &Step) -> bool {
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
