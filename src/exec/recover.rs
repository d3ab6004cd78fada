//! What was cut off is brought to an end: by looking at the entries, never by trusting
//! the last record.

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use super::batch::summary;
use super::bind::{self, Binder};
use super::cause::explain;
use super::directories;
use super::error::ExecError;
use super::generations;
use super::journal::{self, Entry, Journal, Reading, Run};
use super::lock::Lock;
use super::mount;
use super::place::{Parents, Place};
use super::roots::Roots;
use super::settle::{Pair, Settled};
use super::surroundings::Kept;
use crate::model::{
    Bytes, Changed, Outcome, Record, Recovered, RunId, RunState, StoreFormat, TreeEntry,
};

/// Brings every run of a journal to an end that was cut off.
///
/// # Errors
///
/// When another command holds the journal, or it is damaged.
pub fn recover(journal: &Path) -> Result<Vec<Recovered>, ExecError> {
    let lock = Lock::take(journal)?;
    let recovered = recover_all(&lock)?;
    for id in journal::runs(&lock.journal)? {
        if let Some(begin) = journal::begin(&lock.journal, id)?
            && begin.store_format == StoreFormat::Erofs
            && begin.store.0.symlink_metadata().is_ok()
        {
            // After a restart of the host the image is mounted nowhere.
            generations::restore(&begin.store.0)?;
        }
    }
    Ok(recovered)
}

/// The same, under the lock that a command holds.
pub(crate) fn recover_all(lock: &Lock) -> Result<Vec<Recovered>, ExecError> {
    let mut recovered = Vec::new();
    for run in journal::runs(&lock.journal)? {
        if !journal::is_finished(&lock.journal, run)? {
            recovered.extend(recover_run(&lock.journal, run)?);
        }
    }
    Ok(recovered)
}

fn recover_run(journal: &Path, id: RunId) -> Result<Option<Recovered>, ExecError> {
    let Reading::Run { run, length } = journal::read(journal, id)? else { return Ok(None) };
    if run.state != RunState::Unfinished {
        return Ok(None);
    }
    let mut log = Journal::reopen(journal, id, length)?;
    let roots = open_roots(&run);
    let open = run.entries.values().filter(|entry| is_open(entry));
    let entries = settle(&run, &roots, open);
    if !entries.is_empty() {
        log.append(&Record::Ended(summary(&entries)))?;
    }
    let (state, _kept) = close(journal, &mut log, &roots, &mut |run, log| {
        let noted = directories::settle(run, &roots);
        if noted.is_empty() { Ok(()) } else { log.append(&Record::Directories(noted)) }
    })?;
    Ok(Some(Recovered { run: id, state, entries }))
}

/// It was cut off, or could not be ended before.
fn is_open(entry: &Entry) -> bool {
    matches!(entry.outcome, None | Some(Outcome::Parked)) || entry.undoing
}

/// The roots of a run that are still there.
pub(crate) fn open_roots(run: &Run) -> Roots {
    let mut roots = Roots::default();
    for root in &run.begin.roots {
        // What lies in a root that is not there cannot be looked at: it stays open.
        let _missing = roots.open(root.id, &root.path, root.ino);
    }
    roots
}

fn settle<'a>(run: &Run, roots: &Roots, open: impl Iterator<Item = &'a Entry>) -> Vec<Changed> {
    let mut parents = Parents::default();
    let mut settled = Vec::new();
    let mut touched: BTreeMap<usize, Place> = BTreeMap::new();
    let mut binder = Binder::of(&run.begin, roots);
    for entry in open {
        if bind::is_bound(entry) {
            let (outcome, cause) = binder.settle(entry);
            settled.push(Changed { step: entry.intent.step, outcome, cause, freed: Bytes(0) });
            continue;
        }
        let (outcome, cause) = match pin(roots, &mut parents, entry) {
            Ok(place) => {
                let ended = settle_one(entry, run.tree(entry), &place);
                touched.insert(Rc::as_ptr(&place.parent) as usize, place);
                ended
            }
            Err(cause) => (Outcome::Parked, Some(cause)),
        };
        settled.push(Changed { step: entry.intent.step, outcome, cause, freed: Bytes(0) });
    }
    if touched.values().any(|place| place.parent.flush().is_err()) {
        for changed in &mut settled {
            changed.outcome = Outcome::Parked;
            changed.cause = Some("its directory could not be flushed".to_owned());
        }
    }
    settled
}

fn pin(roots: &Roots, parents: &mut Parents, entry: &Entry) -> Result<Place, String> {
    let intent = &entry.intent;
    let root = roots.opened(intent.root)?;
    let pinned = parents.pin(intent.root, root, &intent.path);
    pinned.map_err(|error| explain("open its directory", &error))
}

/// Why an entry is what it was that somebody else did not change.
pub(crate) const CUT_OFF: &str = "the run was cut off; it is what it was";

fn settle_one(entry: &Entry, tree: &[TreeEntry], place: &Place) -> Settled {
    let intent = &entry.intent;
    let beside = Place { parent: Rc::clone(&place.parent), name: intent.temporary.clone() };
    let pair = Pair { place, beside: &beside, intent, tree };
    let settled = if entry.undoing { pair.settle_undo() } else { pair.settle() };
    match settled {
        Ok((Outcome::RolledBack, None)) => (Outcome::RolledBack, Some(CUT_OFF.to_owned())),
        Ok(settled) => settled,
        Err(error) => (Outcome::Parked, Some(explain("settle it", &error))),
    }
}

/// What is done last: when nothing else of the run is changed any more.
type Last<'a> = &'a mut dyn FnMut(&Run, &mut Journal) -> Result<(), ExecError>;

/// Writes the end of a run, by what its entries are; takes away what it has no use for.
pub(crate) fn close(
    journal: &Path,
    log: &mut Journal,
    roots: &Roots,
    last: Last<'_>,
) -> Result<(RunState, Vec<Kept>), ExecError> {
    let Reading::Run { run, .. } = journal::read(journal, log.run)? else {
        return Ok((RunState::Unfinished, Vec::new()));
    };
    let state = state(&run);
    if state == RunState::Unfinished {
        return Ok((state, Vec::new()));
    }
    let kept = match state {
        RunState::Applied | RunState::Partial | RunState::Unfinished => Vec::new(),
        _ => mount::put_back(journal, &run, roots)?,
    };
    last(&run, log)?;
    log.append(&Record::End { state })?;
    Ok((state, kept))
}

/// What a run amounts to, by its entries.
fn state(run: &Run) -> RunState {
    let done = run.done().count() + run.shared.len();
    if run.entries.values().any(is_open) {
        RunState::Unfinished
    } else if run.undo.is_some() {
        if done == 0 { RunState::Undone } else { RunState::PartlyUndone }
    } else if done as u64 == u64::from(run.begin.steps) && (done > 0 || run.refused.is_empty()) {
        RunState::Applied
    } else if done == 0 {
        RunState::RolledBack
    } else {
        RunState::Partial
    }
}
