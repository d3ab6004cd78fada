//! Objects that no run needs any more are removed.

use std::collections::HashSet;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::error::ExecError;
use super::generations;
use super::journal::{self, Reading, Run};
use super::lock::Lock;
use super::recover;
use super::store::{Store, blocks, remove_tree};
use super::tree;
use crate::model::{Collected, Method, ObjectName, Outcome};

/// Removes the objects that no run needs: of `store`, and of each store that a run names.
///
/// An object is needed as long as an entry stands, or is not settled, that leads to it.
///
/// # Errors
///
/// When another command is at work, or a journal is damaged: then nothing is removed.
pub fn gc(journal: &Path, store: &Path) -> Result<Collected, ExecError> {
    let mut lock = Lock::take(journal)?;
    recover::recover_all(&lock)?;
    let (needed, stores) = mark(&lock.journal, store)?;
    let mut collected = Collected::default();
    let mut seen = HashSet::new();
    for path in stores {
        if fs::symlink_metadata(&path).is_err() {
            continue;
        }
        let store = Store::open(&path)?;
        // One store may have been named by several ways to it.
        if !seen.insert(store.path.clone()) {
            continue;
        }
        lock.also(&store.path, &store.dir)?;
        sweep(&store, &needed, &mut collected)?;
        renew(&store, &mut collected)?;
    }
    Ok(collected)
}

/// What an image store shows is what is left; older generations go when nobody uses them.
fn renew(store: &Store, collected: &mut Collected) -> Result<(), ExecError> {
    if generations::mounts(&store.path).is_empty() {
        return Ok(());
    }
    generations::publish(&store.path)?;
    let images = generations::collect(&store.path)?.into_iter();
    collected.removed.extend(images.map(|(image, blocks)| (image.into(), blocks)));
    Ok(())
}

fn mark(journal: &Path, store: &Path) -> Result<(HashSet<ObjectName>, Vec<PathBuf>), ExecError> {
    let mut needed = HashSet::new();
    let mut stores = vec![store.to_owned()];
    for id in journal::runs(journal)? {
        let Some(begin) = journal::begin(journal, id)? else { continue };
        if begin.method == Method::Symlink && !stores.contains(&begin.store.0) {
            stores.push(begin.store.0);
        }
        // Of a long history most runs are undone: their last record says that nothing stands.
        if journal::is_gone(journal, id)? {
            continue;
        }
        if let Reading::Run { run, .. } = journal::read(journal, id)? {
            needed.extend(needs(&run));
        }
    }
    Ok((needed, stores))
}

fn needs(run: &Run) -> Vec<ObjectName> {
    let stands = |outcome| {
        !matches!(outcome, Some(Outcome::Undone | Outcome::RolledBack | Outcome::Superseded))
    };
    let entries = run.entries.values().filter(|entry| stands(entry.outcome));
    entries.filter_map(|entry| entry.intent.object.clone()).collect()
}

fn sweep(
    store: &Store,
    needed: &HashSet<ObjectName>,
    collected: &mut Collected,
) -> Result<(), ExecError> {
    let list = || ExecError::io("list", &store.path);
    for entry in fs::read_dir(&store.path).map_err(list())? {
        let entry = entry.map_err(list())?;
        let found = entry.metadata().map_err(ExecError::io("look at", entry.path()))?;
        let name = entry.file_name();
        if tree::is_scrap(name.as_bytes()) && found.is_dir() {
            remove_tree(&entry.path())?;
            continue;
        }
        let name = name.to_str().and_then(ObjectName::parse);
        let is_object =
            |name: &ObjectName| if name.is_tree() { found.is_dir() } else { found.is_file() };
        let Some(name) = name.filter(is_object) else { continue };
        if needed.contains(&name) {
            collected.kept += 1;
            continue;
        }
        let blocks = blocks(&entry.path());
        store.remove(&name)?;
        collected.removed.push((entry.path().into(), blocks));
    }
    collected.removed.sort();
    store.flush()
}
