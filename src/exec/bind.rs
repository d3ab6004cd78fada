//! Objects are bound over names of running containers, and taken away again.
//!
//! The root of a container of an image is a stack of layers, and layers are not edited: what is
//! re-pointed in the upper one would lead nowhere once the container is started anew, when nothing
//! is mounted for it. So the name stays what it is, and is hidden: nothing on disk changes, and with
//! the container's last process the mount is gone, too. Whether it is there is looked at, in the
//! container's own mount namespace, by device and inode.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::Statx;

use super::batch::{Log, summary};
use super::cause::explain;
use super::directories::nanoseconds;
use super::error::{ExecError, sentence};
use super::held::Held;
use super::journal::Entry;
use super::live::{MountError, Names, Source};
use super::place::stat_now;
use super::recover::CUT_OFF;
use super::roots::Roots;
use super::settle::Settled;
use super::store::Store;
use super::work::CHANGED;
use crate::model::{
    Action, Before, Begin, Bytes, Changed, ContentId, FileState, HostPath, Intent, ObjectName,
    Outcome, Record, RootId, RootPath, Step, StoreFormat,
};
use crate::scan::dir::{file_type, reopen};
use crate::scan::mount_namespaces;

/// It binds an object over a name.
pub(crate) fn is_bind(step: &Step) -> bool {
    matches!(step.action, Action::Bind { .. })
}

/// An object is, or may be, bound over it.
pub(crate) fn is_bound(entry: &Entry) -> bool {
    matches!(entry.intent.before, Before::Hidden { .. })
}

/// Binds objects over names, in every mount namespace that has them.
pub(crate) fn carry_out(
    steps: &[&Step],
    (roots, store, format): (&Roots, &Store, StoreFormat),
    log: &mut dyn Log,
) -> Result<Vec<Changed>, ExecError> {
    log.append(&Record::Intents(steps.iter().filter_map(|step| intent(step)).collect()))?;
    let mut binder = Binder::new(roots, (HostPath(store.path.clone()), format));
    let changed: Vec<Changed> = steps
        .iter()
        .map(|step| {
            let (outcome, cause) = binder.bind(step, store);
            Changed { step: step.seq, outcome, cause, freed: Bytes(0) }
        })
        .collect();
    log.append(&Record::Ended(summary(&changed)))?;
    Ok(changed)
}

fn intent(step: &Step) -> Option<Intent> {
    let Action::Bind { path, before } = &step.action else { return None };
    let FileState { ino, size, content, .. } = *before;
    Some(Intent {
        step: step.seq,
        root: step.root,
        path: path.clone(),
        temporary: Vec::new(),
        before: Before::Hidden { ino, size, content },
        target: Vec::new(),
        object: step.object.clone(),
        twin: None,
    })
}

/// Takes objects away from names.
pub(crate) fn put_back(
    (begin, roots): (&Begin, &Roots),
    entries: &[&Entry],
    log: &mut dyn Log,
) -> Result<Vec<Changed>, ExecError> {
    log.append(&Record::Undoing(entries.iter().map(|entry| entry.intent.step).collect()))?;
    let mut binder = Binder::of(begin, roots);
    let changed: Vec<Changed> = entries
        .iter()
        .map(|entry| {
            let (outcome, cause) = binder.put_back(&entry.intent);
            Changed { step: entry.intent.step, outcome, cause, freed: Bytes(0) }
        })
        .collect();
    log.append(&Record::Ended(summary(&changed)))?;
    Ok(changed)
}

/// Binds, or takes away, and looks.
pub(crate) struct Binder<'a> {
    roots: &'a Roots,
    store: (HostPath, StoreFormat),
    objects: HashMap<ObjectName, Result<Source, String>>,
    /// The mount namespaces of each root: none where its container has ended.
    containers: HashMap<RootId, Result<Vec<Names>, String>>,
}

impl<'a> Binder<'a> {
    fn new(roots: &'a Roots, store: (HostPath, StoreFormat)) -> Self {
        Self { roots, store, objects: HashMap::new(), containers: HashMap::new() }
    }

    /// For what a run bound.
    pub(crate) fn of(begin: &Begin, roots: &'a Roots) -> Self {
        Self::new(roots, (begin.store.clone(), begin.store_format))
    }

    fn bind(&mut self, step: &Step, store: &Store) -> Settled {
        let left = |why: String| (Outcome::RolledBack, Some(why));
        let (Action::Bind { path, before }, Some(object)) = (&step.action, &step.object) else {
            return left("it names no object".to_owned());
        };
        // What it holds is seen to before the first name.
        if !self.objects.contains_key(object)
            && let Err(error) = store.get(object, before.content)
        {
            return left(sentence(&error));
        }
        let (names, source) = match self.both(step.root, object) {
            Ok(([], _)) => return left("its container does not run any more".to_owned()),
            Ok(both) => both,
            Err(why) => return left(why),
        };
        let bound = names.iter().try_for_each(|names| bind(names, source, (path, before)));
        match bound {
            Ok(()) => (Outcome::Done, None),
            Err(why) => match unbind(names, source, path) {
                Ok(()) => left(why),
                Err(more) => (Outcome::Parked, Some(format!("{why}; {more}"))),
            },
        }
    }

    /// `Done` where it could not be taken away.
    fn put_back(&mut self, intent: &Intent) -> Settled {
        match self.take_away(intent) {
            Ok(()) => (Outcome::Undone, None),
            Err(why) => (Outcome::Done, Some(why)),
        }
    }

    /// Ends what was cut off, by looking.
    pub(crate) fn settle(&mut self, entry: &Entry) -> Settled {
        let intent = &entry.intent;
        if entry.undoing {
            return self.put_back(intent);
        }
        match self.is_bound_everywhere(intent) {
            Ok(true) => return (Outcome::Done, None),
            Ok(false) => {}
            Err(why) => return (Outcome::Parked, Some(why)),
        }
        match self.take_away(intent) {
            Ok(()) => (Outcome::RolledBack, Some(CUT_OFF.to_owned())),
            Err(why) => (Outcome::Parked, Some(why)),
        }
    }

    fn is_bound_everywhere(&mut self, intent: &Intent) -> Result<bool, String> {
        let object = intent.object.as_ref().ok_or("it names no object")?;
        if self.container(intent.root)?.is_empty() {
            return Ok(false);
        }
        let (names, source) = self.both(intent.root, object)?;
        for names in names {
            let bound = names.bound(source, &intent.path);
            if bound.map_err(|error| sentence(&error))?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// With a container that has ended the mounts are gone.
    fn take_away(&mut self, intent: &Intent) -> Result<(), String> {
        let object = intent.object.as_ref().ok_or("it names no object")?;
        if self.container(intent.root)?.is_empty() {
            return Ok(());
        }
        match self.both(intent.root, object) {
            Ok((names, source)) => unbind(names, source, &intent.path),
            // By the object what is mounted would be told; where nothing is, nothing is bound.
            Err(why) => match self.container(intent.root)?.iter().all(|it| is_free(it, intent)) {
                true => Ok(()),
                false => Err(why),
            },
        }
    }

    /// Where a root's names are seen, and the object.
    fn both(&mut self, root: RootId, object: &ObjectName) -> Result<(&[Names], &Source), String> {
        self.container(root)?;
        let (store, format) = &self.store;
        let open = || Source::object((store, *format), object).map_err(|error| sentence(&error));
        let source = self.objects.entry(object.clone()).or_insert_with(open);
        let names = self.containers.get(&root).and_then(|names| names.as_ref().ok());
        Ok((names.map_or(&[], Vec::as_slice), source.as_ref().map_err(String::clone)?))
    }

    fn container(&mut self, root: RootId) -> Result<&[Names], String> {
        let roots = self.roots;
        let names = self.containers.entry(root).or_insert_with(|| namespaces(roots, root));
        names.as_deref().map_err(|why| why.clone())
    }
}

fn namespaces(roots: &Roots, id: RootId) -> Result<Vec<Names>, String> {
    if roots.is_gone(id) {
        return Ok(Vec::new());
    }
    let found = mount_namespaces(Path::new("/proc"), roots.opened(id)?.inode());
    let found = found.map_err(|error| explain("look for its processes", &error))?;
    Ok(found.into_iter().map(Names::of).collect())
}

/// Binds it over what was planned and nothing else, once nobody has that open for writing.
fn bind(
    names: &Names,
    source: &Source,
    (path, before): (&RootPath, &FileState),
) -> Result<(), String> {
    let told = |error: MountError| sentence(&error);
    names.may_bind().map_err(told)?;
    if names.bound(source, path).map_err(told)?.is_some() {
        return Ok(());
    }
    let point = names.hold(path).map_err(told)?;
    let (file, held) = hold(&point, before)?;
    let is_same = || -> io::Result<bool> {
        let now = stat_now(point.as_fd())?;
        Ok(times(&now) == times(&file) && held.is_unchanged()?)
    };
    let unchanged = || match is_same() {
        Ok(true) => Ok(()),
        Ok(false) => Err(CHANGED.to_owned()),
        Err(error) => Err(explain("look at it", &error)),
    };
    unchanged()?;
    names.bind(source, (path, &point)).map_err(told)?;
    // Who had opened it for writing meanwhile would write what nobody sees.
    unchanged()
}

/// The file, read.
fn hold(point: &OwnedFd, before: &FileState) -> Result<(Statx, Held), String> {
    let stat = stat_now(point.as_fd()).map_err(|error| explain("look at it", &error))?;
    let found = (
        (stat.stx_ino, Bytes(stat.stx_size), u32::from(stat.stx_mode)),
        nanoseconds(stat.stx_mtime),
    );
    let is_planned = found == ((before.ino, before.size, before.mode), before.mtime);
    // A device is not opened.
    if !is_planned || file_type(&stat) != rustix::fs::FileType::RegularFile {
        return Err(CHANGED.to_owned());
    }
    let file = reopen(point).map_err(|error| explain("open it", &error))?;
    let held = Held::take(File::from(file), stat, before.size)?;
    let as_planned: ContentId = held.content();
    if as_planned != before.content {
        return Err(CHANGED.to_owned());
    }
    Ok((stat, held))
}

/// Nothing of it moves these but a change: no name is exchanged.
fn times(stat: &Statx) -> (i64, i64) {
    (nanoseconds(stat.stx_mtime), nanoseconds(stat.stx_ctime))
}

fn is_free(names: &Names, intent: &Intent) -> bool {
    names.is_mounted_on(&intent.path).is_ok_and(|mounted| !mounted)
}

fn unbind(names: &[Names], source: &Source, path: &RootPath) -> Result<(), String> {
    let unbound = names.iter().map(|names| names.unbind(source, path));
    let failed = unbound.filter_map(Result::err).map(|error| sentence(&error)).next();
    failed.map_or(Ok(()), Err)
}
