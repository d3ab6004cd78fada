//! The roots of running containers that are stacks of layers, as the host sees them.

use std::collections::HashSet;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use super::classify;
use super::place::Place;
use super::processes::{self, Processes};
use super::resolve::{self, Last};
use crate::model::{HostPath, InodeId, Root, RootPath, RootState, Runtime};
use crate::scan::dir::{RootDir, file_type, inode_id, stat_name};

/// One of them.
#[derive(Debug)]
pub struct Stack {
    /// All layers as one, as the container has them for its `/`.
    pub root: Root,
    /// The layers, the writable one first; `None` for one that is out of reach.
    layers: Vec<Option<RootDir>>,
}

impl Stack {
    /// The inode of a regular file in the layer that shows it, which its pages are of: two stacks
    /// that show one file of a layer have them in common. `None` where it is not found.
    pub fn shown(&self, path: &RootPath) -> Option<InodeId> {
        for layer in &self.layers {
            let layer = layer.as_ref()?;
            let Ok(dir) = layer.open_dir(&path.parent()) else { continue };
            let Ok(stat) = stat_name(dir.as_fd(), path.file_name()) else { continue };
            // What is hidden below it is not what the stack shows.
            return (file_type(&stat) == FileType::RegularFile).then(|| inode_id(&stat));
        }
        None
    }
}

/// The stacks that these roots are layers of, or that are among them.
pub fn stacks(found: &[Root], host: &Path) -> Vec<Stack> {
    let known: HashSet<InodeId> = found.iter().map(|root| root.inode).collect();
    let host_root = Place::open(host).and_then(|place| place.inode()).ok();
    let processes = Processes::read(host, host_root.as_slice());
    let mut stacks = Vec::new();
    for (inode, pid) in processes.all() {
        let Some(mount) = processes::overlay_root(host, inode, pid) else { continue };
        let Some(place) = processes::on_host(host, inode, pid) else { continue };
        let paths = mount.layers();
        let layers: Vec<_> = paths.iter().map(|path| layer(host, path)).collect();
        let mut inodes = layers.iter().flatten().map(RootDir::inode).chain([inode]);
        if !inodes.any(|inode| known.contains(&inode)) {
            continue;
        }
        let root = root(found, (inode, place.path()), (&paths, &layers));
        stacks.push(Stack { root, layers });
    }
    stacks
}

fn layer(host: &Path, path: &Path) -> Option<RootDir> {
    let place = resolve::resolve(host, path, Last::TrustedLink).ok()?;
    let dir = RootDir::open(&HostPath(place.path().to_owned())).ok()?;
    dir.served().is_none().then_some(dir)
}

/// It is named as its writable layer is, which belongs to it alone.
fn root(
    found: &[Root],
    (inode, path): (InodeId, &Path),
    (paths, layers): (&[PathBuf], &[Option<RootDir>]),
) -> Root {
    let top = layers.first().and_then(Option::as_ref).map(RootDir::inode);
    let kind = paths.first().map(|path| classify::by_path(Path::new("/"), path));
    let runtime = match kind.as_ref().map(|kind| kind.runtime) {
        None | Some(Runtime::Directory) => Runtime::Oci,
        Some(runtime) => runtime,
    };
    let named = found.iter().find(|root| Some(root.inode) == top);
    let named = named.or_else(|| found.iter().find(|root| root.inode == inode));
    let name = named.map(|root| root.name.clone()).or(kind.map(|kind| kind.name));
    Root {
        path: HostPath(path.to_owned()),
        inode,
        name: name.unwrap_or_default(),
        runtime,
        state: RootState::Running,
        layer: false,
    }
}
