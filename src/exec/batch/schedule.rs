//! Which steps are a batch, and how many batches are under way at once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::open::Open;
use crate::exec::error::ExecError;
use crate::model::{Action, Changed, RootId, RunId, Step};

/// Entries of a batch; one file with several names may make it larger.
const ENTRIES: usize = 2048;

/// Files of a batch that are held open.
const FILES: usize = 256;

/// Workers at most: they wait for one journal.
const WORKERS: usize = 8;

/// Entries that are under way at once, at most.
pub(crate) fn under_way() -> usize {
    rayon::current_num_threads().min(WORKERS) * ENTRIES
}

/// Carries batches out, several at once, until it is told to stop; the outcomes of all. `held` says
/// how many files one holds.
pub(crate) fn side_by_side<B: Send>(
    batches: Vec<B>,
    (run, stop): (RunId, &AtomicBool),
    (open, held): (&Open, impl Fn(&B) -> u64 + Sync),
    carry_out: impl Fn(B) -> Result<Vec<Changed>, ExecError> + Sync,
) -> Result<Vec<Changed>, ExecError> {
    let workers = rayon::current_num_threads().min(WORKERS).min(batches.len());
    let batches = Mutex::new(batches.into_iter());
    let work = || -> Result<Vec<Changed>, ExecError> {
        let mut changed = Vec::new();
        loop {
            let next = batches.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(batch) = next else { return Ok(changed) };
            let _held = open.hold(held(&batch));
            if stop.load(Ordering::Relaxed) {
                return Err(ExecError::Stopped { run });
            }
            // Only a journal that cannot be written ends a batch: then no other goes on either.
            changed.extend(carry_out(batch).map_err(|_| ExecError::Stopped { run })?);
        }
    };
    let worked =
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..workers).map(|_| scope.spawn(work)).collect();
            let mut worked = vec![work()];
            worked.extend(others.into_iter().map(|other| {
                other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            }));
            worked
        });
    worked.into_iter().collect::<Result<Vec<_>, _>>().map(|all| all.into_iter().flatten().collect())
}

/// What a batch holds: its files, or the directory's, and directories on the way.
pub(crate) fn held(steps: &[&Step]) -> u64 {
    let of = |step: &&Step| match step.action {
        Action::RemoveTree { files, .. } => files,
        _ => 1,
    };
    steps.iter().map(of).fold(FILES as u64, u64::saturating_add)
}

/// A directory becomes a link: every file in it is held.
pub(crate) fn takes_a_tree(step: &Step) -> bool {
    matches!(step.action, Action::RemoveTree { .. })
}

/// Cuts steps, or entries, into batches. Those of one inode stay together, and some are by
/// themselves.
pub(crate) fn batches<'a, T>(
    all: impl IntoIterator<Item = &'a T>,
    inode: impl Fn(&T) -> Option<(RootId, u64)>,
    is_alone: impl Fn(&T) -> bool,
) -> Vec<Vec<&'a T>> {
    let mut batches: Vec<Vec<&T>> = Vec::new();
    let (mut at, mut files) = (HashMap::new(), 0);
    for one in all {
        if is_alone(one) {
            batches.push(vec![one]);
            files = FILES;
            continue;
        }
        let inode = inode(one);
        if let Some(batch) = inode.and_then(|inode| at.get(&inode)) {
            batches.get_mut(*batch).into_iter().for_each(|batch: &mut Vec<_>| batch.push(one));
            continue;
        }
        if batches.last().is_none_or(|batch| batch.len() >= ENTRIES || files >= FILES) {
            batches.push(Vec::new());
            files = 0;
        }
        let last = batches.len() - 1;
        batches.get_mut(last).into_iter().for_each(|batch| batch.push(one));
        if let Some(inode) = inode {
            at.insert(inode, last);
            files += 1;
        }
    }
    batches
}
