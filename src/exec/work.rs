//! One step of a batch: checked against the plan, and held, before anything is written.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::rc::Rc;

use rustix::fs::Statx;

use super::cause::explain;
use super::directories::nanoseconds;
use super::held::{Held, HeldTree, same};
use super::place::{Found, Parents, Place, identity, metadata, stat_now};
use super::roots::Roots;
use super::settle::Pair;
use super::twin::{self, Links};
use crate::model::{
    Action, Before, Bytes, ContainerPath, FileState, Intent, Metadata, Outcome, RootId, RootPath,
    RunId, Step,
};
use crate::scan::candidate::Label;
use crate::scan::dir::{RootDir, open_regular};

/// What temporary names begin with.
pub const TEMPORARY: &str = ".cbin-audit-";

/// How far a step is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Checked; nothing is written.
    Ready,
    /// Our link stands beside the entry.
    Beside,
    /// Our link has the name.
    Swapped,
    /// What was displaced is gone.
    Removed,
    /// It went wrong, and was brought to an end.
    Ended(Outcome, Option<String>),
}

/// A step under way.
#[derive(Debug)]
pub(crate) struct Work {
    /// What is journaled of it.
    pub(crate) intent: Intent,
    /// The entry.
    pub(crate) place: Place,
    /// The temporary name.
    pub(crate) beside: Place,
    /// Whose the link is.
    pub(crate) owner: (u32, u32),
    /// The file, where it is one.
    pub(crate) held: Option<Rc<Held>>,
    /// The directory, where it is one.
    pub(crate) tree: Option<HeldTree>,
    /// The file that it becomes a name of, where it becomes no link.
    pub(crate) twin: Option<Rc<Held>>,
    /// Which inode the entry is, where it is one.
    was: Option<(u64, i64, u32)>,
    /// How far it is.
    pub(crate) stage: Stage,
}

impl Work {
    /// The two names, and what is intended.
    pub(crate) fn pair(&self) -> Pair<'_> {
        let tree = self.tree.as_ref().map_or(&[][..], HeldTree::entries);
        Pair { place: &self.place, beside: &self.beside, intent: &self.intent, tree }
    }

    /// What was displaced is what was checked.
    pub(crate) fn displaced_as_planned(&self) -> io::Result<bool> {
        let displaced = match self.beside.stat() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(self.intent.before == Before::Absent);
            }
            displaced => displaced?,
        };
        match (&self.intent.before, &self.held) {
            // A link is never written: it is what it was if it is the same inode.
            (Before::Link { target, .. }, _) => match identity(&displaced) {
                (ino, 0, 0) if self.was == Some((ino, 0, 0)) => self.beside.is_link_to(target),
                it => Ok(self.was == Some(it)),
            },
            (Before::File { .. }, Some(held)) => {
                Ok(same(&displaced, &held.stat) && held.is_unchanged()?)
            }
            (Before::Tree { .. }, _) => match &self.tree {
                Some(tree) if self.was == Some(identity(&displaced)) => tree.is_whole(&self.beside),
                _ => Ok(false),
            },
            _ => Ok(false),
        }
    }

    /// Nobody has begun to write the file that the entry is about to become a name of. Once it is,
    /// who writes may have come by this name: what he writes would be lost if that were taken back.
    pub(crate) fn twin_is_unwritten(&self) -> io::Result<bool> {
        self.twin.as_ref().map_or(Ok(true), |twin| twin.is_unchanged())
    }

    /// Nobody has begun to write what was displaced, by a name that it had until now.
    pub(crate) fn displaced_still_unwritten(&self) -> io::Result<bool> {
        match &self.tree {
            Some(tree) => tree.may_go(&self.beside),
            None => self.held.as_ref().map_or(Ok(true), |held| held.is_unchanged()),
        }
    }
}

/// Checks steps, one after the other.
#[derive(Debug)]
pub(crate) struct Checker<'a> {
    run: RunId,
    roots: &'a Roots,
    parents: Parents,
    /// Files that were read already, by device and inode: they have several names.
    held: HashMap<(u32, u32, u64), Rc<Held>>,
    /// Files that entries become names of.
    twins: HashMap<(RootId, RootPath), Rc<Held>>,
    /// How many names of an inode the plan replaces.
    names: &'a Names,
    /// How many names the files had that entries become names of.
    links: &'a Links,
    /// What objects of the store have.
    label: Option<&'a Label>,
}

/// How many names of each inode a plan replaces.
pub(crate) type Names = HashMap<(RootId, u64), u32>;

impl<'a> Checker<'a> {
    /// For one batch of a run.
    pub(crate) fn new(
        run: RunId,
        roots: &'a Roots,
        (names, links): (&'a Names, &'a Links),
    ) -> Self {
        let (parents, held, twins) = (Parents::default(), HashMap::new(), HashMap::new());
        Self { run, roots, parents, held, twins, names, links, label: None }
    }

    /// For a store whose objects have a label.
    pub(crate) fn labelled(self, label: Option<&'a Label>) -> Self {
        Self { label, ..self }
    }

    /// Checks a step; the reason why it cannot be carried out.
    pub(crate) fn check(&mut self, step: &Step) -> Result<Work, String> {
        let root = self.roots.opened(step.root)?;
        match &step.action {
            Action::Replace { path, before, target } => {
                let place = self.pin(step.root, root, path)?;
                self.replace(step, place, (path, before), target).map(|(work, _)| work)
            }
            Action::Hardlink { path, before, of_root, of, of_state, of_names } => {
                let twin = self.twin(*of_root, of, (of_state, *of_names))?;
                let place = self.pin(step.root, root, path)?;
                let none = ContainerPath(PathBuf::new());
                let (mut work, held) = self.replace(step, place, (path, before), &none)?;
                twin::unlike(&held, &twin)?;
                let noted = twin::noted(&twin, *of_root, of);
                work.intent.twin = Some(noted.map_err(|error| explain("look at it", &error))?);
                Ok(Work { twin: Some(twin), ..work })
            }
            Action::Relink { path, before, target } => {
                let place = self.pin(step.root, root, path)?;
                let (before, was) = link(&place, before)?;
                Ok(Work { was: Some(was), ..self.work(step, path, place, before, target) })
            }
            Action::Link { path, target } => {
                let place = self.pin(step.root, root, path)?;
                match place.look() {
                    Ok(Found::Absent) => {}
                    Ok(_) => return Err(CHANGED.to_owned()),
                    Err(error) => return Err(explain("look at it", &error)),
                }
                Ok(self.work(step, path, place, Before::Absent, target))
            }
            Action::RemoveTree { path, digest, target, .. } => {
                let place = self.pin(step.root, root, path)?;
                let tree = HeldTree::take(&place, *digest, (owner(root)?, self.label))?;
                let was = Before::Tree { metadata: tree.top().clone() };
                let which = Some(tree.which);
                Ok(Work {
                    tree: Some(tree),
                    was: which,
                    ..self.work(step, path, place, was, target)
                })
            }
            other => Err(format!("{} is not done entry by entry", other.name())),
        }
    }

    fn pin(&mut self, id: RootId, root: &RootDir, path: &RootPath) -> Result<Place, String> {
        let place = self.parents.pin(id, root, path);
        let place = place.map_err(|error| explain("open its directory", &error))?;
        if place.parent.is_locked() {
            return Err("its directory is immutable or append-only; `chattr -i -a`".to_owned());
        }
        Ok(place)
    }

    /// A regular file, held; its names may all be displaced.
    fn replace(
        &mut self,
        step: &Step,
        place: Place,
        (path, before): (&RootPath, &FileState),
        target: &ContainerPath,
    ) -> Result<(Work, Rc<Held>), String> {
        let (file, stat) = open(&place, before)?;
        self.are_all_names(step.root, &stat)?;
        let held = self.hold(file, stat, before)?;
        let kept = metadata(held.file.as_fd(), &held.stat);
        let metadata = kept.map_err(|error| explain("read its attributes", &error))?;
        let (ino, nlink) = (held.stat.stx_ino, held.stat.stx_nlink);
        let (size, content) = (before.size, before.content);
        let was = Before::File { ino, size, nlink, content, metadata };
        let work = self.work(step, path, place, was, target);
        Ok((Work { held: Some(Rc::clone(&held)), ..work }, held))
    }

    /// The file that stays, held, and flushed: it stands for what was flushed long ago. Only the
    /// names that the plan knows may lead to it, for who has another one could write it.
    fn twin(
        &mut self,
        id: RootId,
        of: &RootPath,
        (state, names): (&FileState, u32),
    ) -> Result<Rc<Held>, String> {
        let key = (id, of.clone());
        if let Some(twin) = self.twins.get(&key) {
            return Ok(Rc::clone(twin));
        }
        let about = |why: String| format!("the file that stays, {:?}: {why}", of.as_path());
        let root =
            self.roots.get(id).ok_or("the root of the file that stays could not be opened")?;
        let place = self.parents.pin(id, root, of);
        let place = place.map_err(|error| about(explain("open its directory", &error)))?;
        let (file, stat) = open(&place, state).map_err(about)?;
        if self.links.get(&key) != Some(&names) {
            return Err(about(format!("it had {names} names in these roots, and has others now")));
        }
        let twin = self.hold(file, stat, state).map_err(about)?;
        twin.file.sync_all().map_err(|error| about(explain("flush it", &error)))?;
        self.twins.insert(key, Rc::clone(&twin));
        Ok(twin)
    }

    fn hold(&mut self, file: File, stat: Statx, before: &FileState) -> Result<Rc<Held>, String> {
        let key = (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino);
        if let Some(held) = self.held.get(&key).filter(|held| same(&held.stat, &stat)) {
            return Ok(Rc::clone(held));
        }
        let held = Held::take(file, stat, before.size)?;
        if held.content() != before.content {
            return Err(CHANGED.to_owned());
        }
        let held = Rc::new(held);
        self.held.insert(key, Rc::clone(&held));
        Ok(held)
    }

    /// Undo makes the names one inode again: it must know all of them.
    fn are_all_names(&self, root: RootId, stat: &Statx) -> Result<(), String> {
        let names = self.names.get(&(root, stat.stx_ino)).copied().unwrap_or(1);
        match stat.stx_nlink == names {
            true => Ok(()),
            false => {
                Err(format!("it has {} names, and the plan knows {names} of them", stat.stx_nlink))
            }
        }
    }

    fn work(
        &self,
        step: &Step,
        path: &RootPath,
        place: Place,
        before: Before,
        target: &ContainerPath,
    ) -> Work {
        use std::os::unix::ffi::OsStrExt as _;
        let temporary = format!("{TEMPORARY}{}-{}", self.run, step.seq).into_bytes();
        let beside = Place { parent: Rc::clone(&place.parent), name: temporary.clone() };
        let owner = match &before {
            Before::Absent => {
                stat_now(place.dir()).map_or((0, 0), |dir| (dir.stx_uid, dir.stx_gid))
            }
            other => other.metadata().map_or((0, 0), |metadata| (metadata.uid, metadata.gid)),
        };
        let intent = Intent {
            step: step.seq,
            root: step.root,
            path: path.clone(),
            temporary,
            before,
            target: target.0.as_os_str().as_bytes().to_vec(),
            object: step.object.clone(),
            twin: None,
        };
        let (held, tree, twin, was) = (None, None, None, None);
        Work { intent, place, beside, owner, held, tree, twin, was, stage: Stage::Ready }
    }
}

/// Nothing is decided again while a plan is carried out.
pub(crate) const CHANGED: &str = "it changed after planning; run dedupe again";

/// Opens a file that must be the planned one; its content is looked at later.
fn open(place: &Place, before: &FileState) -> Result<(File, Statx), String> {
    let opened = open_regular(place.dir(), &place.name);
    let (file, _) = opened.map_err(|error| explain("open it", &error))?;
    let stat = stat_now(file.as_fd()).map_err(|error| explain("look at it", &error))?;
    let found = (
        (stat.stx_ino, Bytes(stat.stx_size), u32::from(stat.stx_mode)),
        nanoseconds(stat.stx_mtime),
    );
    match found == ((before.ino, before.size, before.mode), before.mtime) {
        true => Ok((file, stat)),
        false => Err(CHANGED.to_owned()),
    }
}

/// Whose the root is.
fn owner(root: &RootDir) -> Result<u32, String> {
    let stat = root.open_dir(&RootPath::default()).and_then(|dir| stat_now(dir.as_fd()));
    stat.map(|stat| stat.stx_uid).map_err(|error| explain("look at its root", &error))
}

/// A link as the plan saw it, and which inode it is.
fn link(place: &Place, before: &[u8]) -> Result<(Before, (u64, i64, u32)), String> {
    let found = place.look().map_err(|error| explain("look at it", &error))?;
    let Found::Link(link) = found else { return Err(CHANGED.to_owned()) };
    if link.target != before {
        return Err(CHANGED.to_owned());
    }
    let stat = &link.pinned.stat;
    if stat.stx_nlink != 1 {
        return Err("it is a link with several names".to_owned());
    }
    let metadata: io::Result<Metadata> = link.pinned.metadata();
    let metadata = metadata.map_err(|error| explain("read its attributes", &error))?;
    Ok((Before::Link { target: link.target, metadata }, identity(stat)))
}
