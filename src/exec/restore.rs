//! Entries are put back together: the inverse of a batch, by the same stages.
#![expect(clippy::disallowed_methods, reason = "what was replaced takes its place again")]

mod shared;

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, Permissions};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::rc::Rc;

use super::batch::{LOOKUP, Log, summary};
use super::cause::explain;
use super::content;
use super::error::ExecError;
use super::held::Held;
use super::journal::Entry;
use super::link;
use super::place::{Found, Parents, Place};
use super::roots::Roots;
use super::settle::{Is, Pair, Settled, exchange, remove, rename_to_free};
use super::store::Store;
use super::tree;
use crate::model::{
    Before, Bytes, Changed, ContentId, Metadata, ObjectName, Outcome, Record, RootId, TreeEntry,
};
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

/// The inodes that names of one inode have become again, in one batch.
type Made = HashMap<(RootId, u64), File>;

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
        let root = self.roots.get(intent.root).ok_or("its root could not be opened")?;
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

    /// Makes what stood there before, under the temporary names.
    fn build(&self, backs: &mut [Back<'a>]) {
        let mut made = Made::new();
        let mut written: Vec<(usize, File)> = Vec::new();
        for at in 0..backs.len() {
            if written.len() >= TOGETHER {
                name(backs, std::mem::take(&mut written));
            }
            let back = backs.get_mut(at).filter(|back| back.ended.is_none());
            let Some(back) = back else { continue };
            let intent = &back.entry.intent;
            let built = match &intent.before {
                Before::File { ino, size, nlink, content, metadata } => {
                    let group = (*nlink > 1).then_some((intent.root, *ino));
                    let object = intent.object.as_ref().and_then(|name| self.objects.get(name));
                    let source = back.shared.as_ref().map(|held| &held.file).or(object);
                    let group = group.map(|group| (group, &mut made));
                    self.file(&back.beside, group, (source, *size, *content), metadata)
                }
                Before::Link { target, metadata } => {
                    link::make_dressed(&back.beside, target, metadata).map(|()| None)
                }
                Before::Absent => Ok(None),
                Before::Tree { metadata } => {
                    let object = intent.object.as_ref().and_then(|name| self.trees.get(name));
                    let object = object.ok_or_else(|| io::Error::other(NO_OBJECT));
                    object
                        .and_then(|object| {
                            tree::make(&back.beside, (metadata, back.tree), object.as_fd())
                        })
                        .map(|()| None)
                }
            };
            match built {
                Ok(file) => written.extend(file.map(|file| (at, file))),
                Err(error) => back.back_out(&explain("make it anew", &error)),
            }
        }
        name(backs, written);
    }

    /// A file that is written, and has no name yet: it is to be flushed first. `None` where it
    /// has one: a file of several names is made with the first of them.
    fn file(
        &self,
        beside: &Place,
        mut group: Option<((RootId, u64), &mut Made)>,
        (source, size, content): (Option<&File>, Bytes, ContentId),
        metadata: &Metadata,
    ) -> io::Result<Option<File>> {
        if let Some((group, made)) = &mut group {
            if !made.contains_key(group)
                && let Some(standing) = self.standing(*group)
            {
                made.insert(*group, standing);
            }
            if let Some(made) = made.get(group) {
                return content::name(made.as_fd(), beside.dir(), &beside.name).map(|()| None);
            }
        }
        let source = source.ok_or_else(|| io::Error::other(NO_OBJECT))?;
        let file = content::nameless(beside.dir())?;
        if content::copy(source, &file, size)? != Some(content) {
            return Err(io::Error::other("what it is copied from changed meanwhile"));
        }
        link::chown(file.as_fd(), metadata.uid, metadata.gid)?;
        file.set_permissions(Permissions::from_mode(metadata.mode & 0o7777))?;
        link::dress(file.as_fd(), metadata)?;
        let Some((group, made)) = group else { return Ok(Some(file)) };
        file.sync_all()?;
        content::name(file.as_fd(), beside.dir(), &beside.name)?;
        made.insert(group, file);
        Ok(None)
    }

    /// A name of the group that an undo which was cut off has put back already.
    fn standing(&self, group: (RootId, u64)) -> Option<File> {
        let mut parents = Parents::default();
        self.groups.get(&group)?.iter().find_map(|entry| {
            let back = self.pin(&mut parents, entry).ok()?;
            if back.pair().name_is().ok()? != Is::Original {
                return None;
            }
            let (Found::Other(pinned), Before::File { size, content, .. }) =
                (back.place.look().ok()?, &entry.intent.before)
            else {
                return None;
            };
            let file = pinned.open().ok()?;
            (content::hash(&file, *size).ok()? == Some(*content)).then_some(file)
        })
    }
}

fn of(entry: &Entry, (outcome, cause): Settled) -> Changed {
    Changed { step: entry.intent.step, outcome, cause, freed: Bytes(0) }
}

/// Files that are written before the first of them is flushed: a journaling file system then
/// writes its journal once for all of them.
const TOGETHER: usize = 64;

/// Gives what was written the temporary names, flushed.
fn name(backs: &mut [Back<'_>], written: Vec<(usize, File)>) {
    for (at, file) in written {
        let Some(back) = backs.get_mut(at) else { continue };
        let beside = &back.beside;
        let named =
            file.sync_all().and_then(|()| content::name(file.as_fd(), beside.dir(), &beside.name));
        if let Err(error) = named {
            back.back_out(&explain("make it anew", &error));
        }
    }
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

const NO_OBJECT: &str = "the journal names no object";

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
