//! Entries are put back together: the inverse of a batch, by the same stages.

mod build;
mod shared;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;

use super::batch::{LOOKUP, Log, summary};
use super::cause::explain;
use super::error::ExecError;
use super::held::Held;
use super::journal::Entry;
use super::place::{Parents, Place};
use super::roots::Roots;
use super::settle::{Is, Pair, Settled, exchange, remove, rename_to_free};
use super::store::Store;
use crate::model::{Before, Bytes, Changed, ObjectName, Outcome, Record, RootId, TreeEntry};
use shared::Shared;

/// Puts entries back whose objects lie in the store `path`: an undo without the run around it. All
/// names of one inode must be among them; `below` is what the directories among them held, by step.
///
/// # Errors
///
/// When the store cannot be opened, an object is missing or damaged; and those of the log. What
/// goes wrong with an entry is its outcome.
pub fn put_back(
    roots: &Roots,
    path: &Path,
    (below, entries): (&BTreeMap<u32, Vec<TreeEntry>>, &[Entry]),
    log: &mut dyn Log,
) -> Result<Vec<Changed>, ExecError> {
    let store = Store::open(path)?;
    let entries: Vec<&Entry> = entries.iter().collect();
    let all = entries.iter().copied();
    Restorer::new((below, all), roots, Some(&store), &entries)?.put_back(&entries, log)
}

/// Puts entries back.
#[derive(Debug)]
pub(crate) struct Restorer<'a> {
    /// What was below entries that were directories, by step.
    below: &'a BTreeMap<u32, Vec<TreeEntry>>,
    roots: &'a Roots,
    objects: HashMap<ObjectName, File>,
    /// Directories that are objects.
    trees: HashMap<ObjectName, OwnedFd>,
    /// Names of one inode, by the root and the number it had; only where it had several.
    groups: HashMap<(RootId, u64), Vec<&'a Entry>>,
}

/// An entry that is being put back.
#[derive(Debug)]
struct Back<'a> {
    entry: &'a Entry,
    tree: &'a [TreeEntry],
    place: Place,
    beside: Place,
    /// What it is a name of, where it is no link.
    shared: Option<Rc<Held>>,
    /// How it ended, once it has.
    ended: Option<Settled>,
}

impl Back<'_> {
    fn pair(&self) -> Pair<'_> {
        let (place, beside, intent) = (&self.place, &self.beside, &self.entry.intent);
        Pair { place, beside, intent, tree: self.tree }
    }

    fn adds(&self) -> bool {
        self.entry.intent.before == Before::Absent
    }

    /// Nobody has begun to write what it shares with others: they would, and it would not, have
    /// what is written.
    fn is_unwritten(&self) -> io::Result<bool> {
        self.shared.as_ref().map_or(Ok(true), |held| held.is_unchanged())
    }

    /// It stays what it is by now.
    fn exchange_back(&mut self, why: &str) {
        // Where that fails, what stood there before is there, and stays.
        let _settled_by_looking = exchange(&self.beside, &self.place);
        self.back_out(why);
    }

    /// Something went wrong: it is brought to an end by looking at it.
    fn back_out(&mut self, why: &str) {
        let settled = self.pair().settle_undo().and_then(|settled| {
            self.place.parent.flush()?;
            Ok(settled)
        });
        self.ended = Some(match settled {
            Ok((outcome, cause)) => (outcome, cause.or_else(|| Some(why.to_owned()))),
            Err(error) => {
                let cause = format!("{why}; {}", explain("settle it", &error));
                (Outcome::Parked, Some(cause))
            }
        });
    }
}

impl<'a> Restorer<'a> {
    /// For the entries of one run, and what else `all` of it are: names of one inode that stayed
    /// as they were are such as others become again. Objects are read, and must be sound, before
    /// anything is changed; a run whose entries are no links has none.
    pub(crate) fn new(
        (below, all): (&'a BTreeMap<u32, Vec<TreeEntry>>, impl Iterator<Item = &'a Entry>),
        roots: &'a Roots,
        store: Option<&Store>,
        entries: &[&'a Entry],
    ) -> Result<Self, ExecError> {
        let (mut objects, mut trees) = (HashMap::new(), HashMap::new());
        let stored = store.into_iter().flat_map(|store| entries.iter().map(move |it| (store, it)));
        for (store, entry) in stored {
            if let (Before::Tree { .. }, Some(name)) = (&entry.intent.before, &entry.intent.object)
                && !trees.contains_key(name)
            {
                trees.insert(name.clone(), store.get_tree(name, None)?);
            }
            let Before::File { content, .. } = &entry.intent.before else { continue };
            if let Some(name) = &entry.intent.object
                && !objects.contains_key(name)
            {
                objects.insert(name.clone(), store.get(name, *content)?);
            }
        }
        let mut groups: HashMap<_, Vec<&Entry>> = HashMap::new();
        for entry in all {
            if let Before::File { ino, nlink: 2.., .. } = &entry.intent.before {
                groups.entry((entry.intent.root, *ino)).or_default().push(entry);
            }
        }
        Ok(Self { below, roots, objects, trees, groups })
    }

    /// Puts a batch back. All names of one inode must be in it.
    pub(crate) fn put_back(
        &self,
        entries: &[&'a Entry],
        log: &mut dyn Log,
    ) -> Result<Vec<Changed>, ExecError> {
        let mut parents = Parents::default();
        let mut changed = Vec::new();
        let mut backs = Vec::new();
        for entry in entries {
            match self.pin(&mut parents, entry) {
                Ok(back) => backs.push(back),
                // It still stands, and may be put back later.
                Err(cause) => {
                    changed.push(of(entry, (Outcome::Done, Some(cause))));
                }
            }
        }
        backs.iter_mut().for_each(look);
        hold(&mut backs);
        log.append(&Record::Undoing(under_way(&backs)))?;
        self.build(&mut backs);
        flush(&mut backs);
        swap(&mut backs);
        flush(&mut backs);
        clean(&mut backs);
        changed.extend(backs.into_iter().map(|back| {
            let settled = back.ended.unwrap_or((Outcome::Undone, None));
            of(back.entry, settled)
        }));
        changed.sort_by_key(|changed| changed.step);
        log.append(&Record::Ended(summary(&changed)))?;
        Ok(changed)
    }

    fn pin(&self, parents: &mut Parents, entry: &'a Entry) -> Result<Back<'a>, String> {
        let intent = &entry.intent;
        let root = self.roots.opened(intent.root)?;
        let place = parents.pin(intent.root, root, &intent.path);
        let place = place.map_err(|error| explain("open its directory", &error))?;
        let beside = Place { parent: Rc::clone(&place.parent), name: intent.temporary.clone() };
        Ok(Back {
            entry,
            tree: self.below.get(&entry.intent.step).map_or(&[], Vec::as_slice),
            place,
            beside,
            shared: None,
            ended: None,
        })
    }
}

fn of(entry: &Entry, (outcome, cause): Settled) -> Changed {
    Changed { step: entry.intent.step, outcome, cause, freed: Bytes(0) }
}

/// What is no longer our link is left alone.
fn look(back: &mut Back<'_>) {
    if back.entry.undoing || back.entry.outcome == Some(Outcome::Parked) {
        return back.back_out("");
    }
    back.ended = match back.pair().name_is() {
        Ok(Is::Ours) if back.place.parent.is_locked() => {
            let cause = "its directory is immutable or append-only; `chattr -i -a` allows it";
            Some((Outcome::Done, Some(cause.to_owned())))
        }
        Ok(Is::Ours) => None,
        Ok(Is::Original) => Some((Outcome::Undone, None)),
        Ok(Is::Nothing) if back.adds() => Some((Outcome::Undone, None)),
        Ok(_) => Some((Outcome::Superseded, Some(KEPT.to_owned()))),
        Err(error) => Some((Outcome::Done, Some(explain("look at it", &error)))),
    };
}

/// Holds what entries are names of.
fn hold(backs: &mut [Back<'_>]) {
    let mut shared = Shared::default();
    for back in backs.iter_mut().filter(|back| back.ended.is_none()) {
        match shared.hold(back) {
            Ok(held) => back.shared = held,
            // It still stands, and may be put back later.
            Err(cause) => back.ended = Some((Outcome::Done, Some(cause))),
        }
    }
}

const KEPT: &str = "it is no longer what the run made of it (a package upgrade?); it is kept";

fn under_way(backs: &[Back<'_>]) -> Vec<u32> {
    backs.iter().filter(|back| back.ended.is_none()).map(|back| back.entry.intent.step).collect()
}

fn swap(backs: &mut [Back<'_>]) {
    for back in backs.iter_mut().filter(|back| back.ended.is_none()) {
        let swapped = match back.adds() {
            true => rename_to_free(&back.place, &back.beside),
            false => exchange(&back.beside, &back.place),
        };
        let looked = swapped
            .and_then(|()| back.pair().displaced_ours())
            .and_then(|ours| Ok((ours, back.is_unwritten()?)));
        match looked {
            Ok((true, true)) => {}
            Ok((true, false)) => back.exchange_back(shared::WRITTEN),
            Ok((false, _)) => back.back_out(KEPT),
            Err(error) => back.back_out(&explain("exchange it", &error)),
        }
    }
}

fn clean(backs: &mut [Back<'_>]) {
    if backs.iter().any(|back| back.ended.is_none() && back.shared.is_some()) {
        std::thread::sleep(LOOKUP);
    }
    for back in backs.iter_mut().filter(|back| back.ended.is_none()) {
        if !back.is_unwritten().unwrap_or(false) {
            back.exchange_back(shared::WRITTEN);
            continue;
        }
        if let Err(error) = remove(&back.beside) {
            let cause = explain("remove our link", &error);
            back.ended = Some((Outcome::Parked, Some(cause)));
        }
    }
    flush(backs);
}

/// Flushes the directories of what is under way, each once.
fn flush(backs: &mut [Back<'_>]) {
    let mut flushed: Vec<(*const super::place::Parent, Option<String>)> = Vec::new();
    for back in backs.iter_mut().filter(|back| back.ended.is_none()) {
        let parent = Rc::as_ptr(&back.place.parent);
        let known = flushed.iter().rev().find(|(known, _)| *known == parent);
        let failed = match known {
            Some((_, failed)) => failed.clone(),
            None => {
                let failed = back.place.parent.flush().err();
                let failed = failed.map(|error| explain("flush its directory", &error));
                flushed.push((parent, failed.clone()));
                failed
            }
        };
        if let Some(why) = failed {
            back.back_out(&why);
        }
    }
}
