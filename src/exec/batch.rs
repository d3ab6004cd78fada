//! Steps of a batch are carried out together: each stage for all of them, then a flush.
//!
//! - check and hold all;
//! - `Intents` in the journal, flushed;
//! - our links under temporary names; flush;
//! - exchange, and look at what was displaced; flush;
//! - remove what was displaced; flush;
//! - `Ended` in the journal, flushed.
//!
//! Each name leads to a working program at every moment, whatever of this is cut off:
//! the object was flushed before, and an exchange leaves no gap. Batches need nothing of each
//! other, so several are under way at once: while one waits for a flush, another works.

mod open;
mod schedule;

use std::collections::HashSet;
use std::io;
use std::os::fd::AsFd as _;
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};

use super::cause::explain;
use super::content;
use super::error::ExecError;
use super::held::{Held, HeldTree};
use super::journal::Journal;
use super::link;
use super::place::Parent;
use super::roots::Roots;
use super::settle::{exchange, rename_to_free};
use super::tree;
use super::twin;
use super::work::{Checker, Names, Stage, Work};
use crate::model::{Action, Before, Bytes, Changed, Ended, Outcome, Record, RootId, RunId, Step};
pub(crate) use open::Open;
pub use open::most_held;
pub(crate) use schedule::{batches, held, side_by_side, takes_a_tree, under_way};

/// Where records go before what they announce is done.
pub trait Log {
    /// Writes a record, and flushes it.
    ///
    /// # Errors
    ///
    /// When it could not: then nothing of what it announces may be done.
    fn append(&mut self, record: &Record) -> Result<(), ExecError>;
}

impl Log for Journal {
    fn append(&mut self, record: &Record) -> Result<(), ExecError> {
        Journal::append(self, record)
    }
}

/// Several workers share a journal: each goes on when its own record is flushed.
impl Log for &Mutex<&mut Journal> {
    fn append(&mut self, record: &Record) -> Result<(), ExecError> {
        self.lock().unwrap_or_else(PoisonError::into_inner).append(record)
    }
}

/// Forgets: for races that are run in memory.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoLog;

impl Log for NoLog {
    fn append(&mut self, _record: &Record) -> Result<(), ExecError> {
        Ok(())
    }
}

/// Carries steps out that replace, re-point or add one entry each. Those of a plan
/// that replace names of one inode must all be among them.
///
/// # Errors
///
/// Those of the log. What goes wrong with an entry is its outcome.
pub fn change(
    run: RunId,
    roots: &Roots,
    steps: &[Step],
    log: &mut dyn Log,
) -> Result<Vec<Changed>, ExecError> {
    let known = (&names(steps), &twin::links(steps, roots));
    let steps: Vec<&Step> = steps.iter().collect();
    carry_out(&mut Checker::new(run, roots, known), &steps, log)
}

/// The inode whose name a step replaces.
pub(crate) fn replaced(step: &Step) -> Option<(RootId, u64)> {
    match &step.action {
        Action::Replace { before, .. } | Action::Hardlink { before, .. } => {
            Some((step.root, before.ino))
        }
        _ => None,
    }
}

/// How many names of each inode the steps replace.
pub(crate) fn names<'a>(steps: impl IntoIterator<Item = &'a Step>) -> Names {
    let mut names = Names::new();
    for inode in steps.into_iter().filter_map(replaced) {
        *names.entry(inode).or_default() += 1;
    }
    names
}

/// Carries a batch out.
pub(crate) fn carry_out(
    checker: &mut Checker<'_>,
    steps: &[&Step],
    log: &mut dyn Log,
) -> Result<Vec<Changed>, ExecError> {
    let (mut works, mut changed) = check(checker, steps);
    if !works.is_empty() {
        for work in &works {
            if let Some(tree) = &work.tree {
                let entries = tree.entries().to_vec();
                log.append(&Record::Tree { step: work.intent.step, entries })?;
            }
        }
        let intents = works.iter().map(|work| work.intent.clone()).collect();
        log.append(&Record::Intents(intents))?;
        make_links(&mut works);
        swap(&mut works);
        remove(&mut works);
    }
    let mut counted = Vec::new();
    changed.extend(works.into_iter().map(|work| ended(work, &mut counted)));
    changed.sort_by_key(|changed| changed.step);
    log.append(&Record::Ended(summary(&changed)))?;
    Ok(changed)
}

/// Checks steps. Of the names of one inode all are taken, or none: undo makes them one again.
fn check(checker: &mut Checker<'_>, steps: &[&Step]) -> (Vec<Work>, Vec<Changed>) {
    let checked: Vec<_> = steps.iter().map(|step| checker.check(step)).collect();
    let refused = steps.iter().zip(&checked).filter(|(_, checked)| checked.is_err());
    let split: HashSet<_> = refused.filter_map(|(step, _)| replaced(step)).collect();
    let (mut works, mut changed) = (Vec::new(), Vec::new());
    for (step, checked) in steps.iter().zip(checked) {
        let cause = match checked {
            Ok(_) if replaced(step).is_some_and(|inode| split.contains(&inode)) => {
                "another of its names has to stay as it is".to_owned()
            }
            Ok(work) => {
                works.push(work);
                continue;
            }
            Err(cause) => cause,
        };
        let (step, cause) = (step.seq, Some(cause));
        changed.push(Changed { step, outcome: Outcome::RolledBack, cause, freed: Bytes(0) });
    }
    (works, changed)
}

fn make_links(works: &mut [Work]) {
    for work in works.iter_mut() {
        let made = match &work.twin {
            Some(twin) => content::name(twin.file.as_fd(), work.beside.dir(), &work.beside.name),
            None => link::make(&work.beside, &work.intent.target, work.owner),
        };
        match made {
            Ok(()) => work.stage = Stage::Beside,
            Err(error) => back_out(work, &explain("make the link beside it", &error)),
        }
    }
    flush(works, &Stage::Beside);
}

fn swap(works: &mut [Work]) {
    for work in works.iter_mut().filter(|work| work.stage == Stage::Beside) {
        match work.twin_is_unwritten() {
            Ok(true) => {}
            Ok(false) => {
                back_out(work, TWIN_CHANGED);
                continue;
            }
            Err(error) => {
                back_out(work, &explain("look at the file that stays", &error));
                continue;
            }
        }
        let swapped = match work.intent.before {
            Before::Absent => rename_to_free(&work.beside, &work.place),
            _ => exchange(&work.beside, &work.place),
        };
        match swapped.map(|()| work.displaced_as_planned()) {
            Ok(Ok(true)) => work.stage = Stage::Swapped,
            Ok(Ok(false)) => back_out(work, CHANGED),
            Ok(Err(error)) => back_out(work, &explain("look at what was displaced", &error)),
            Err(error) => back_out(work, &explain("exchange it", &error)),
        }
    }
    flush(works, &Stage::Swapped);
}

const CHANGED: &str = "it changed while it was being replaced";
const TWIN_CHANGED: &str = "somebody began to write the file that stays";

/// Longer than it takes from looking a name up to opening what it leads to, for whoever is not
/// taken off the processor between the two: some instructions of the kernel's, in which nothing
/// waits (who is held up later, by fanotify(7) say, counts as a writer already). On a processor
/// that five others want, one opening in 3,000 was interrupted for longer than a millisecond, at
/// any place, some of them for 90; with the lowest priority, for seconds: a longer wait would not
/// end this. Nobody can see from outside that a process is between the two. Who is loses what he
/// writes into a program in that moment, as with every upgrade that puts a new file under the
/// name; the name leads to a working program all the same.
pub(crate) const LOOKUP: std::time::Duration = std::time::Duration::from_millis(1);

fn remove(works: &mut [Work]) {
    // Who looked a name up before the exchange opens the old file now, and ends its lease: that
    // has to be seen before its last name goes. A flush takes longer, where there is one.
    let is_file =
        |work: &Work| work.stage == Stage::Swapped && (work.held.is_some() || work.tree.is_some());
    hide_trees(works);
    if works.iter().any(is_file) {
        std::thread::sleep(LOOKUP);
    }
    for work in works.iter_mut().filter(|work| work.stage == Stage::Swapped) {
        match work.displaced_still_unwritten() {
            Ok(true) => {}
            Ok(false) => {
                show_again(work, CHANGED);
                continue;
            }
            Err(error) => {
                show_again(work, &explain("look at what was displaced", &error));
                continue;
            }
        }
        let removed = match work.intent.before {
            Before::Absent => Ok(None),
            Before::Tree { .. } => work.pair().clear(),
            _ => work.pair().take_away(),
        };
        match removed {
            Ok(None) => work.stage = Stage::Removed,
            Ok(kept) => work.stage = Stage::Ended(Outcome::Done, kept),
            Err(error) => {
                let cause = explain("remove what was displaced", &error);
                work.stage = Stage::Ended(Outcome::Parked, Some(cause));
            }
        }
    }
    let failed = flush_parents(works, &Stage::Removed);
    for (at, error) in failed {
        if let Some(work) = works.get_mut(at) {
            let cause = explain("flush its directory", &error);
            work.stage = Stage::Ended(Outcome::Parked, Some(cause));
        }
    }
}

/// Who works in a directory finds the files of it by their names: those go first.
fn hide_trees(works: &mut [Work]) {
    for work in works.iter_mut().filter(|work| work.stage == Stage::Swapped) {
        let hidden = work.tree.as_ref().map_or(Ok(()), |tree| tree.hide(&work.beside));
        if let Err(error) = hidden {
            show_again(work, &explain("take it away", &error));
        }
    }
}

/// What was displaced is not what it was: it has its names again, and goes back.
fn show_again(work: &mut Work, why: &str) {
    let shown = match &work.tree {
        Some(tree) => tree::show(&work.beside, tree.entries()),
        None => Ok(None),
    };
    match shown {
        Ok(None) => back_out(work, why),
        Ok(Some(more)) => back_out(work, &format!("{why}; {more}")),
        Err(error) => back_out(work, &format!("{why}; {}", explain("show it again", &error))),
    }
}

/// Flushes the directories of a stage; where that fails, nothing of it is taken further.
fn flush(works: &mut [Work], stage: &Stage) {
    for (at, error) in flush_parents(works, stage) {
        if let Some(work) = works.get_mut(at) {
            back_out(work, &explain("flush its directory", &error));
        }
    }
}

/// The works whose directory could not be flushed. Each directory is flushed once.
fn flush_parents(works: &[Work], stage: &Stage) -> Vec<(usize, io::Error)> {
    let mut flushed: Vec<(*const Parent, Option<i32>)> = Vec::new();
    let mut failed = Vec::new();
    for (at, work) in works.iter().enumerate().filter(|(_, work)| work.stage == *stage) {
        let parent = Rc::as_ptr(&work.place.parent);
        let known = flushed.iter().rev().find(|(known, _)| *known == parent);
        let errno = match known {
            Some((_, errno)) => *errno,
            None => {
                let errno = work.place.parent.flush().err().map(|error| {
                    error.raw_os_error().unwrap_or(rustix::io::Errno::IO.raw_os_error())
                });
                flushed.push((parent, errno));
                errno
            }
        };
        failed.extend(errno.map(|errno| (at, io::Error::from_raw_os_error(errno))));
    }
    failed
}

/// A work that went wrong is brought to an end by looking at it.
fn back_out(work: &mut Work, why: &str) {
    let settled = work.pair().settle().and_then(|settled| {
        work.place.parent.flush()?;
        Ok(settled)
    });
    work.stage = match settled {
        Ok((Outcome::Done, _)) => Stage::Removed,
        Ok((Outcome::RolledBack, more)) => {
            let cause = more.map_or_else(|| why.to_owned(), |more| format!("{why}; {more}"));
            Stage::Ended(Outcome::RolledBack, Some(cause))
        }
        Ok((outcome, cause)) => Stage::Ended(outcome, cause.or_else(|| Some(why.to_owned()))),
        Err(error) => {
            let cause = format!("{why}; {}", explain("put it back", &error));
            Stage::Ended(Outcome::Parked, Some(cause))
        }
    };
}

fn ended(work: Work, counted: &mut Vec<*const Held>) -> Changed {
    let mut freed = Bytes(0);
    // A file with several names is freed once.
    if let Some(held) = work.held.as_ref().filter(|held| !counted.contains(&Rc::as_ptr(held))) {
        counted.push(Rc::as_ptr(held));
        freed = held.freed();
    }
    freed += work.tree.as_ref().map_or(Bytes(0), HeldTree::freed);
    let (outcome, cause) = match work.stage {
        Stage::Removed => (Outcome::Done, None),
        Stage::Ended(outcome, cause) => (outcome, cause),
        Stage::Ready | Stage::Beside | Stage::Swapped => (Outcome::Parked, None),
    };
    Changed { step: work.intent.step, outcome, cause, freed }
}

/// Outcomes as the journal has them: those that are alike, together.
pub(crate) fn summary(changed: &[Changed]) -> Vec<Ended> {
    let mut ended: Vec<Ended> = Vec::new();
    for Changed { step, outcome, cause, .. } in changed {
        match ended.iter_mut().find(|ended| ended.outcome == *outcome && ended.cause == *cause) {
            Some(ended) => ended.steps.push(*step),
            None => {
                ended.push(Ended { steps: vec![*step], outcome: *outcome, cause: cause.clone() });
            }
        }
    }
    ended
}
