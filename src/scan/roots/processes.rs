//! The root directories of the processes that run now.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use super::classify::{self, Kind};
use super::place;
use super::resolve::{self, Last};
use super::{Finder, Place};
use crate::model::{InodeId, RootState, Runtime};
use crate::scan::dir;
use crate::scan::mounts::{self, Mount};

/// One that ends while it is asked refuses root, too, and so does a child of a process that is
/// closed even to root, until it executes a program.
const TRIES: usize = 10;
const BETWEEN_TRIES: std::time::Duration = std::time::Duration::from_millis(20);

/// Who has which directory as its `/`.
#[derive(Debug, Default)]
pub(super) struct Processes {
    /// Root directories other than the host's, each with a process that has it.
    roots: BTreeMap<InodeId, u32>,
    /// Layers below the roots that are stacks of layers.
    layers: HashSet<InodeId>,
    /// Every process answered.
    all_asked: bool,
}

impl Processes {
    /// Asks every process of `host`'s `/proc` but the first: init's root is the host's
    /// by definition, and it may be closed even to root.
    pub(super) fn read(host: &Path, host_roots: &[InodeId]) -> Self {
        let mut all = Self::default();
        let Ok(pids) = pids(host) else {
            return Self::default();
        };
        let mut refused: Vec<u32> = pids.into_iter().filter(|&pid| pid != 1).collect();
        all.ask(host, &mut refused, host_roots);
        let tries = if rustix::process::geteuid().is_root() { TRIES } else { 0 };
        for _ in 0..tries {
            if refused.is_empty() {
                break;
            }
            std::thread::sleep(BETWEEN_TRIES);
            all.ask(host, &mut refused, host_roots);
        }
        all.all_asked = refused.is_empty();
        all.layers = all.layers_in_use(host);
        all
    }

    /// Asks processes, of which those stay that refuse to answer.
    fn ask(&mut self, host: &Path, pids: &mut Vec<u32>, host_roots: &[InodeId]) {
        pids.retain(|&pid| match root_of(&file(host, pid, "root")) {
            Ok(root) => {
                if !host_roots.contains(&root) {
                    self.roots.entry(root).or_insert(pid);
                }
                false
            }
            Err(error) => !has_ended(&error),
        });
    }

    /// Root directories other than the host's, each with a process that has it.
    pub(super) fn all(&self) -> impl Iterator<Item = (InodeId, u32)> {
        self.roots.iter().map(|(inode, pid)| (*inode, *pid))
    }

    /// Whether a process has this directory, or a stack on top of it, as its root.
    pub(super) fn state(&self, root: InodeId) -> RootState {
        if self.roots.contains_key(&root) || self.layers.contains(&root) {
            RootState::Running
        } else if self.all_asked {
            RootState::Stopped
        } else {
            RootState::Unknown
        }
    }

    /// A running container's root is a stack, and this is one of its layers.
    pub(super) fn stack_on(&self, root: InodeId) -> bool {
        self.layers.contains(&root)
    }

    fn layers_in_use(&self, host: &Path) -> HashSet<InodeId> {
        let mounts = self.roots.iter().filter_map(|(&root, &pid)| overlay_root(host, root, pid));
        mounts.flat_map(|mount| layers_of(host, &mount)).collect()
    }
}

/// The directories that an overlay stacks; those of other file systems are none.
pub(super) fn layers_of(host: &Path, mount: &Mount) -> Vec<InodeId> {
    let places = mount.layers().into_iter();
    places
        .filter_map(|layer| resolve::resolve(host, &layer, Last::TrustedLink).ok())
        .filter_map(|layer| layer.inode().ok())
        .collect()
}

/// Takes the roots of running containers that lie in no runtime's store.
pub(super) fn discover(finder: &mut Finder<'_>) {
    for (root, pid) in finder.processes.roots.clone() {
        match overlay_root(finder.host, root, pid) {
            Some(mount) => mount.layers().iter().for_each(|layer| add_layer(finder, layer)),
            None => {
                if let Some(place) = on_host(finder.host, root, pid) {
                    finder.add_if_root(&place);
                }
            }
        }
    }
}

/// Takes the layers that a mounted overlay shows as one.
pub(super) fn add_merged(finder: &mut Finder<'_>, merged: &Place) {
    let Ok(inode) = merged.inode() else { return };
    let mount = finder.mounts.iter().find(|mount| mount.dev == inode.dev);
    for layer in mount.map(Mount::layers).unwrap_or_default() {
        add_layer(finder, &layer);
    }
}

/// Takes one layer of a running container's stack, where it lies.
pub(super) fn add_layer(finder: &mut Finder<'_>, path: &Path) {
    // A layer that the host's mount namespace does not show is out of reach.
    let Ok(place) = resolve::resolve(finder.host, path, Last::TrustedLink) else { return };
    let kind = classify::by_path(finder.host, place.path());
    let runtime = match kind.runtime {
        Runtime::Directory => Runtime::Oci,
        known => known,
    };
    finder.add(&place, Kind::layer(runtime, kind.name));
}

/// The overlay that is this process's root, if it is one.
pub(super) fn overlay_root(host: &Path, root: InodeId, pid: u32) -> Option<Mount> {
    let table = File::open(file(host, pid, "mountinfo")).ok()?;
    let is_it = |it: &Mount| it.fs_type == b"overlay" && it.dev == root.dev && is_top(it);
    mounts::last(table, is_it)
}

fn is_top(mount: &Mount) -> bool {
    mount.point == Path::new("/")
}

/// Where on the host a process's root lies. It is that very directory, or none.
pub(super) fn on_host(host: &Path, root: InodeId, pid: u32) -> Option<Place> {
    candidates(host, root, pid)
        .into_iter()
        .filter_map(|path| resolve::resolve(host, &path, Last::NoLink).ok())
        .find(|place| place.inode().is_ok_and(|inode| inode == root))
}

fn candidates(host: &Path, root: InodeId, pid: u32) -> Vec<PathBuf> {
    // After chroot(2) the link tells; after pivot_root(2) it says `/`, and the mount table does.
    let linked = std::fs::read_link(file(host, pid, "root")).ok();
    let theirs = File::open(file(host, pid, "mountinfo")).ok();
    let top = theirs.and_then(|table| mounts::last(table, is_top));
    let top = top.filter(|top| top.dev == root.dev);
    let ours = mounts::read(&host.join("proc/self/mountinfo"));
    let mounted = top.iter().flat_map(|top| mounts::places_of(top, &ours));
    linked.into_iter().chain(mounted).collect()
}

fn pids(host: &Path) -> io::Result<Vec<u32>> {
    let names = std::fs::read_dir(host.join("proc"))?;
    let numbers = names.filter_map(|name| name.ok()?.file_name().to_str()?.parse().ok());
    let mut pids: Vec<u32> = numbers.collect();
    pids.sort_unstable();
    Ok(pids)
}

fn file(host: &Path, pid: u32, name: &str) -> PathBuf {
    host.join(format!("proc/{pid}/{name}"))
}

/// Asks without waiting for a file server: an `O_PATH` descriptor, and DONT_SYNC.
fn root_of(link: &Path) -> io::Result<InodeId> {
    let fd = rustix::fs::openat(CWD, link, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    place::stat(&fd).map(|stat| dir::inode_id(&stat))
}

fn has_ended(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::SRCH))
}
