//! What a run changed is put back.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::apply::now;
use super::batch::{self, Open};
use super::bind;
use super::cause::explain;
use super::directories;
use super::error::ExecError;
use super::journal::{self, Entry, Journal, Reading, Run};
use super::lock::Lock;
use super::recover;
use super::restore::Restorer;
use super::roots::Roots;
use super::space::{Space, takes};
use super::store::Store;
use super::surroundings::Kept;
use crate::model::{
    Before, Changed, HostPath, JournalDirectory, Left, Method, ObjectName, Outcome, Phase,
    Progress, Record, RootId, RootPath, RunId, RunState, Undone,
};

/// What is undone.
#[derive(Debug, Clone, Copy)]
pub struct UndoOptions<'a> {
    /// The journal's directory.
    pub journal: &'a Path,
    /// The run; `None`: the newest that stands.
    pub run: Option<RunId>,
    /// Only this root of it.
    pub root: Option<&'a Path>,
    /// Set when the work shall end after the batch that is under way.
    pub stop: &'a AtomicBool,
}

/// Puts back what a run changed.
///
/// # Errors
///
/// When another command is at work, there is no such run, an object that is needed is
/// damaged, or there is no room: then nothing was changed.
pub fn undo(options: UndoOptions<'_>, progress: &dyn Progress) -> Result<Undone, ExecError> {
    let mut lock = Lock::take(options.journal)?;
    let recovered = recover::recover_all(&lock)?;
    let (run, length) = choose(&lock.journal, options.run)?;
    if run.begin.method == Method::Reflink {
        return Err(ExecError::NothingChanged(run.begin.run));
    }
    let only = options.root.map(|root| find_root(&run, root)).transpose()?;
    let store = store(&run, &mut lock)?;
    let open = Open::new(batch::most_held(run.begin.roots.len()));
    let roots = recover::open_roots(&run);
    let entries: Vec<&Entry> =
        run.done().filter(|entry| only.is_none_or(|only| only == entry.intent.root)).collect();
    check_space(&entries, &roots, (&run, &lock.journal), store.as_ref())?;
    let all = (&run.trees, run.entries.values());
    let restorer = Restorer::new(all, &roots, store.as_ref(), &entries)?;
    let untouched = directories::untouched(&run, &roots, only);
    let mut log = Journal::reopen(&lock.journal, run.begin.run, length)?;
    log.append(&Record::UndoBegin { root: only, time_seconds: now() })?;
    let (bound, entries): (Vec<_>, Vec<_>) =
        entries.into_iter().partition(|entry| bind::is_bound(entry));
    let mut changed = put_back(&restorer, (&entries, &open), &mut log, options.stop, progress)?;
    changed.extend(take_away((&run, &roots), &bound, &mut log, options.stop)?);
    let mut undone = summary(&run, changed);
    let mut times = Vec::new();
    let (state, surroundings) =
        recover::close(&lock.journal, &mut log, &roots, &mut |run, _log| {
            times = give_times_back(&untouched, &roots, run, &undone.kept);
            Ok(())
        })?;
    (undone.state, undone.surroundings) = (state, surroundings);
    undone.surroundings.extend(times);
    undone.surroundings.extend(only.into_iter().flat_map(|only| still_shared(&run, only)));
    undone.recovered = recovered;
    Ok(undone)
}

/// What became names of a file has its content from there.
fn store(run: &Run, lock: &mut Lock) -> Result<Option<Store>, ExecError> {
    if run.begin.method != Method::Symlink {
        return Ok(None);
    }
    let store = Store::open(&run.begin.store.0)?;
    lock.also(&store.path, &store.dir)?;
    Ok(Some(store))
}

/// Files of a root that others have names of: nothing of the root itself was changed for it.
fn still_shared(run: &Run, only: RootId) -> Vec<Kept> {
    let twins = run.done().filter(|entry| entry.intent.root != only);
    let twins = twins.filter_map(|entry| entry.intent.twin.as_ref());
    let paths: BTreeSet<_> =
        twins.filter(|twin| twin.root == only).map(|twin| &twin.path).collect();
    let Some(root) = run.root(only) else { return Vec::new() };
    let told = |path: &RootPath| (path.on_host(&root.path), STILL_SHARED.to_owned());
    paths.into_iter().map(told).collect()
}

const STILL_SHARED: &str = "other roots have names of it since this run: undo of the whole run, or of those roots, \
     parts them";

/// Where something of the run was kept, the directory is not what it was.
fn give_times_back(
    untouched: &[&JournalDirectory],
    roots: &Roots,
    run: &Run,
    kept: &[Left],
) -> Vec<Kept> {
    let kept: HashSet<_> = kept.iter().map(|left| (left.root, left.path.parent())).collect();
    let mut failed = Vec::new();
    for dir in untouched {
        if !kept.contains(&(dir.root, dir.path.clone()))
            && let Err(error) = directories::restore(roots, dir)
            && let Some(root) = run.root(dir.root)
        {
            let path = dir.path.on_host(&root.path);
            failed.push((path, explain("set its time", &error)));
        }
    }
    failed
}

fn choose(journal: &Path, wanted: Option<RunId>) -> Result<(Box<Run>, u64), ExecError> {
    if let Some(run) = wanted {
        return match journal::read(journal, run)? {
            Reading::Run { run, length } => Ok((run, length)),
            Reading::Empty => Err(ExecError::NoRun { run, journal: journal.to_owned() }),
        };
    }
    for id in journal::runs(journal)?.into_iter().rev() {
        // Of a long history most runs are undone: their last record says so.
        if journal::is_gone(journal, id)? {
            continue;
        }
        if let Reading::Run { run, length } = journal::read(journal, id)?
            && run.begin.method != Method::Reflink
            && (run.done().next().is_some() || run.state == RunState::Applied)
        {
            return Ok((run, length));
        }
    }
    Err(ExecError::NothingToUndo(journal.to_owned()))
}

/// By path, or by what the path leads to.
fn find_root(run: &Run, wanted: &Path) -> Result<RootId, ExecError> {
    let real = std::fs::canonicalize(wanted).unwrap_or_else(|_| wanted.to_owned());
    let found = run.begin.roots.iter().find(|root| root.path.0 == real || root.path.0 == wanted);
    let none = || ExecError::NoSuchRoot { run: run.begin.run, root: wanted.to_owned() };
    found.map(|root| root.id).ok_or_else(none)
}

/// Every file that was replaced takes its space again, once for all its names: as much as the
/// object that it is copied from, for a hole stays one.
fn check_space(
    entries: &[&Entry],
    roots: &Roots,
    (run, journal): (&Run, &Path),
    store: Option<&Store>,
) -> Result<(), ExecError> {
    let mut space = Space::default();
    let (mut counted, mut needed) = (HashSet::new(), BTreeMap::new());
    let mut objects: HashMap<&ObjectName, u64> = HashMap::new();
    for entry in entries.iter().filter(|entry| !bind::is_bound(entry)) {
        let root = entry.intent.root;
        let (mut bytes, mut inodes) = (0_u64, 0_u64);
        let below = run.tree(entry);
        let all = std::iter::once(&entry.intent.before).chain(below.iter().map(|it| &it.before));
        for before in all {
            match before {
                Before::File { ino, size, .. } if counted.insert((root, *ino)) => {
                    bytes = bytes.saturating_add(takes::whole_blocks(size.0));
                    inodes += 1;
                }
                Before::Link { .. } | Before::Tree { .. } => inodes += 1,
                _ => {}
            }
        }
        if let (Some(store), Some(name)) = (store, &entry.intent.object) {
            bytes = bytes.min(*objects.entry(name).or_insert_with(|| store.taken(name)));
        }
        let (links, instead, more) = match &entry.intent.before {
            Before::Tree { .. } => (takes::beside_files(below), 0, inodes),
            Before::Link { target, .. } => (takes::link(target.len()), inodes, 0),
            _ => (0, inodes, 0),
        };
        let bytes = bytes.saturating_add(links);
        let needed = needed.entry(root).or_insert((0_u64, 0_u64, 0_u64));
        *needed = (bytes.saturating_add(needed.0), instead + needed.1, more + needed.2);
    }
    for (root, (bytes, inodes, more)) in needed {
        if let (Some(dir), Some(named)) = (roots.get(root), run.root(root))
            && let Ok(dir) = dir.open_dir(&RootPath::default())
        {
            space.need(dir.as_fd(), &named.path.0, (bytes, inodes))?;
            space.need_more(dir.as_fd(), &named.path.0, (0, more))?;
        }
    }
    for config in &run.configs {
        space.need_file(&config.file.0, config.before.as_ref().map_or(0, Vec::len))?;
    }
    space.need_in(journal, (takes::steps(entries.len()), 0))?;
    space.check()
}

fn put_back<'a>(
    restorer: &Restorer<'a>,
    (entries, open): (&[&'a Entry], &Open),
    log: &mut Journal,
    stop: &AtomicBool,
    progress: &dyn Progress,
) -> Result<Vec<Changed>, ExecError> {
    progress.start(Phase::Change, Some(entries.len() as u64));
    let run = log.run;
    let log = Mutex::new(log);
    // The last that was changed is the first that is put back.
    let batches = batch::batches(entries.iter().rev().copied(), replaced, |_| false);
    // Copies that are written together, what they are copied from, and directories.
    let held = |batch: &Vec<&Entry>| 512 + batch.len() as u64;
    batch::side_by_side(batches, (run, stop), (open, held), |batch| {
        let changed = restorer.put_back(&batch, &mut &log)?;
        progress.advance(batch.len() as u64);
        Ok(changed)
    })
}

/// What is bound goes, container by container.
fn take_away(
    (run, roots): (&Run, &Roots),
    bound: &[&Entry],
    log: &mut Journal,
    stop: &AtomicBool,
) -> Result<Vec<Changed>, ExecError> {
    let mut changed = Vec::new();
    for bound in bound.chunk_by(|a, b| a.intent.root == b.intent.root) {
        if stop.load(Ordering::Relaxed) {
            return Err(ExecError::Stopped { run: log.run });
        }
        let gone = bind::put_back((&run.begin, roots), bound, log);
        changed.extend(gone.map_err(|_| ExecError::Stopped { run: run.begin.run })?);
    }
    Ok(changed)
}

/// The inode that an entry was a name of.
fn replaced(entry: &Entry) -> Option<(RootId, u64)> {
    match &entry.intent.before {
        Before::File { ino, .. } => Some((entry.intent.root, *ino)),
        _ => None,
    }
}

fn root_path(run: &Run, entry: &Entry) -> HostPath {
    run.root(entry.intent.root).map_or_else(|| HostPath::from("/"), |root| root.path.clone())
}

fn summary(run: &Run, changed: Vec<Changed>) -> Undone {
    let (mut restored, mut kept) = (0, Vec::new());
    for changed in changed {
        if changed.outcome == Outcome::Undone {
            restored += 1;
        } else if let Some(entry) = run.entries.get(&changed.step) {
            kept.push(Left {
                step: changed.step,
                root: entry.intent.root,
                on_host: entry.intent.path.on_host(&root_path(run, entry)),
                path: entry.intent.path.clone(),
                cause: changed.cause.unwrap_or_default(),
            });
        }
    }
    Undone {
        run: run.begin.run,
        state: RunState::Unfinished,
        restored,
        kept,
        surroundings: Vec::new(),
        recovered: Vec::new(),
    }
}
