//! How much room a run takes, on every file system that it writes to.

use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd as _;
use std::path::Path;

use super::entry_path;
use super::prepare::is_entry;
use crate::exec::bind::is_bind;
use crate::exec::error::ExecError;
use crate::exec::generations;
use crate::exec::place::Parents;
use crate::exec::prefix;
use crate::exec::roots::Roots;
use crate::exec::space::takes::{self, record};
use crate::exec::space::{Space, at_once};
use crate::exec::store::Store;
use crate::exec::surroundings::inside;
use crate::exec::tree;
use crate::model::{
    Action, ConfigChange, ContentId, Method, MountMeans, ObjectName, Plan, RootId, RootPath, Step,
    StoreFormat, TreeEntry,
};
use crate::scan::dir::open_dir_at;

/// What a run writes, and where.
pub(super) struct Room<'a> {
    pub(super) plan: &'a Plan,
    pub(super) store: Option<&'a Store>,
    pub(super) roots: &'a Roots,
    pub(super) journal: &'a Path,
    /// Where the host's link to the store is made.
    pub(super) host: &'a Path,
}

impl Room<'_> {
    /// There is room for all of it.
    pub(super) fn check(&self) -> Result<(), ExecError> {
        let mut space = Space::default();
        let mut records = self.begin();
        let new = self.objects(&mut space, &mut records)?;
        self.image(&mut space, &new)?;
        self.mounts(&mut space, &mut records)?;
        self.entries(&mut space, &mut records)?;
        let (path, dir) = prefix::open(self.journal)?;
        // A directory and a file in it, beside the records.
        space.need(dir.as_fd(), &path, (records, 2))?;
        space.check()
    }

    fn begin(&self) -> u64 {
        let named = |path: &Path| record(&[path.as_os_str().len()]);
        self.plan.roots.iter().map(|root| named(&root.path.0)).fold(0, u64::saturating_add)
    }

    /// Objects that the store has not got, and the sizes of the files that they are.
    fn objects(
        &self,
        space: &mut Space,
        records: &mut u64,
    ) -> Result<Vec<(ObjectName, u64)>, ExecError> {
        let (mut counted, mut new) = (HashSet::new(), Vec::new());
        let Some(store) = self.store else { return Ok(new) };
        for step in &self.plan.steps {
            if let (Action::Store { size, source, .. }, Some(name)) = (&step.action, &step.object)
                && counted.insert(name)
            {
                *records = records.saturating_add(record(&[]));
                if !store.has(name)? {
                    let (takes, sizes) = self.object(step.root, source, (name, size.0));
                    space.need_more(store.dir.as_fd(), &store.path, takes)?;
                    new.push((name.clone(), sizes));
                }
            }
        }
        Ok(new)
    }

    /// The bytes and the inodes that an object takes, and the sizes of its files.
    fn object(
        &self,
        root: RootId,
        source: &RootPath,
        (name, size): (&ObjectName, u64),
    ) -> ((u64, u64), u64) {
        if name.is_tree() {
            let below = self.tree(root, source);
            let (links, sizes) = (takes::beside_files(&below), takes::sizes(&below));
            // Of a tree the size is what its blocks take.
            return ((size.saturating_add(links), below.len() as u64 + 1), links + sizes);
        }
        // A file may have holes, which stay ones.
        let blocks = self.blocks(root, source).unwrap_or(u64::MAX);
        ((takes::whole_blocks(size.min(blocks)), 1), takes::whole_blocks(size))
    }

    /// An image holds what the store holds, and is written beside the one before.
    fn image(&self, space: &mut Space, new: &[(ObjectName, u64)]) -> Result<(), ExecError> {
        match self.store {
            Some(store) if self.plan.settings.store_format == StoreFormat::Erofs => {
                let room = generations::room(&store.path, new)?;
                space.need_more(store.dir.as_fd(), &store.path, room)
            }
            _ => Ok(()),
        }
    }

    /// Mount points, and what tells others to mount there.
    fn mounts(&self, space: &mut Space, records: &mut u64) -> Result<(), ExecError> {
        let mut by_host = false;
        for step in &self.plan.steps {
            let Action::Mount(mount) = &step.action else { continue };
            by_host |= mount.means != MountMeans::None;
            for bind in &mount.binds {
                let target = inside(&bind.target.0);
                let said = record(&[bind.source.0.as_os_str().len(), target.as_bytes().len()]);
                *records = records.saturating_add(said);
                if let Some(root) = self.roots.get(step.root)
                    && root.open_dir(&target).is_err()
                    && let Ok(dir) = root.open_dir(&RootPath::default())
                {
                    space.need_more(dir.as_fd(), &root.path().0, (takes::DIRECTORY, 1))?;
                }
            }
            for change in &mount.config {
                *records = records.saturating_add(told(change));
                let size = change.after.as_ref().map_or(0, Vec::len);
                space.need_file(&change.file.0, size)?;
            }
        }
        match by_host {
            true => self.host_link(space, records),
            false => Ok(()),
        }
    }

    fn host_link(&self, space: &mut Space, records: &mut u64) -> Result<(), ExecError> {
        let settings = &self.plan.settings;
        let names = [&settings.mount_point.0, &settings.store.0].map(|it| it.as_os_str().len());
        *records = records.saturating_add(record(&names));
        space.need_in(self.host, (takes::link(settings.store.0.as_os_str().len()), 1))
    }

    /// Names take the place of others, but for those that are added.
    fn entries(&self, space: &mut Space, records: &mut u64) -> Result<(), ExecError> {
        let mut dirs = HashSet::new();
        let mut links: HashMap<RootId, Links> = HashMap::new();
        for step in self.plan.steps.iter().filter(|step| is_entry(step)) {
            *records = records.saturating_add(self.entry(step));
            // What is bound over stays as it is.
            if is_bind(step) {
                continue;
            }
            if let Some(above) = entry_path(&step.action).map(RootPath::parent) {
                let said = record(&[above.as_bytes().len()]);
                // What it was, and what it is afterwards.
                if dirs.insert((step.root, above)) {
                    *records = records.saturating_add(2 * said);
                }
            }
            if self.plan.settings.method == Method::Symlink {
                links.entry(step.root).or_default().count(&step.action);
            }
        }
        for root in &self.plan.roots {
            if let Some(links) = links.get(&root.id)
                && let Some(open) = self.roots.get(root.id)
                && let Ok(dir) = open.open_dir(&RootPath::default())
            {
                let bytes = links.largest.saturating_mul(at_once(links.instead));
                space.need(dir.as_fd(), &root.path.0, (bytes, links.instead))?;
                let bytes = links.largest.saturating_mul(links.more);
                space.need_more(dir.as_fd(), &root.path.0, (bytes, links.more))?;
            }
        }
        Ok(())
    }

    /// What the journal says of an entry.
    fn entry(&self, step: &Step) -> u64 {
        let path = entry_path(&step.action).map_or(0, |path| path.as_bytes().len());
        let said = record(&[path, target(&step.action)]);
        let more = match &step.action {
            Action::Relink { before, .. } => record(&[before.len()]),
            Action::Replace { path, .. } => self.attributes(step.root, path),
            Action::Hardlink { path, of, .. } => {
                self.attributes(step.root, path).saturating_add(record(&[of.as_bytes().len()]))
            }
            Action::RemoveTree { path, .. } => {
                let below = self.tree(step.root, path);
                below.iter().map(takes::below).fold(0, u64::saturating_add)
            }
            _ => 0,
        };
        said.saturating_add(more)
    }

    /// The extended attributes of a file, as the journal has them.
    fn attributes(&self, root: RootId, path: &RootPath) -> u64 {
        let found = || {
            let place = Parents::default().pin(root, self.roots.get(root)?, path).ok()?;
            place.pinned().ok()?.metadata().ok()
        };
        found().map_or(0, |metadata| takes::attributes(&metadata))
    }

    /// What lies below a directory. What cannot be looked at is found out later.
    fn tree(&self, root: RootId, path: &RootPath) -> Vec<TreeEntry> {
        let found = || {
            let place = Parents::default().pin(root, self.roots.get(root)?, path).ok()?;
            let dir = open_dir_at(place.dir(), &place.name).ok()?;
            tree::read(dir.as_fd(), &mut |_, _| Ok(ContentId([0; 32]))).ok()
        };
        found().map(|tree| tree.entries).unwrap_or_default()
    }

    /// What a file takes on its own file system.
    fn blocks(&self, root: RootId, path: &RootPath) -> Option<u64> {
        let place = Parents::default().pin(root, self.roots.get(root)?, path).ok()?;
        Some(place.stat().ok()?.stx_blocks.saturating_mul(512))
    }
}

/// The links that a root gets.
#[derive(Debug, Default)]
struct Links {
    /// In the place of what was there.
    instead: u64,
    /// Names that it lacked.
    more: u64,
    /// What the largest takes, beside its inode.
    largest: u64,
}

impl Links {
    fn count(&mut self, action: &Action) {
        match action {
            Action::Link { .. } => self.more += 1,
            _ => self.instead += 1,
        }
        self.largest = self.largest.max(takes::link(target(action)));
    }
}

/// How long the target of the link is that an entry becomes.
fn target(action: &Action) -> usize {
    match action {
        Action::Replace { target, .. }
        | Action::Relink { target, .. }
        | Action::Link { target, .. }
        | Action::RemoveTree { target, .. } => target.0.as_os_str().len(),
        _ => 0,
    }
}

/// What the journal says of a file of the host's.
fn told(change: &ConfigChange) -> u64 {
    let length = |text: &Option<Vec<u8>>| text.as_ref().map_or(0, Vec::len);
    record(&[change.file.0.as_os_str().len(), length(&change.before), length(&change.after)])
}
