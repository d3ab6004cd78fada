//! Containers that an OCI runtime has running, by the state it keeps in `/run`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::classify::{self, Kind};
use super::resolve::{self, Last};
use super::{Finder, Place, below, processes};
use crate::model::Runtime;

/// A runtime's state has the whole OCI configuration in it.
const MAX_STATE: u64 = 16 << 20;

/// Directories that hold one directory per container, and who keeps them.
const STATES: [(&str, Runtime); 7] = [
    ("/run/runc", Runtime::Oci),
    ("/run/crun", Runtime::Oci),
    ("/run/youki", Runtime::Oci),
    ("/run/docker/runtime-runc/moby", Runtime::Docker),
    ("/run/docker/runtime-crun/moby", Runtime::Docker),
    ("/run/containerd/runc/default", Runtime::Containerd),
    ("/run/containerd/runc/k8s.io", Runtime::Containerd),
];

/// runc's `state.json`.
#[derive(Deserialize)]
struct RuncState {
    config: RuncConfig,
}

#[derive(Deserialize)]
struct RuncConfig {
    rootfs: PathBuf,
}

/// crun's `status`.
#[derive(Deserialize)]
struct CrunStatus {
    bundle: Option<PathBuf>,
    rootfs: PathBuf,
}

/// The roots of the containers that the host's OCI runtimes know.
pub(super) fn discover(finder: &mut Finder<'_>) {
    for (dir, runtime) in STATES {
        let Some(place) = finder.host_place(dir) else { continue };
        for container in finder.children(&place) {
            if let Some(rootfs) = rootfs(&container) {
                take(finder, &container, &rootfs, runtime);
            }
        }
    }
    tasks(finder);
}

/// containerd's own bundles: `NAMESPACE/ID/rootfs`.
fn tasks(finder: &mut Finder<'_>) {
    let Some(place) = finder.host_place("/run/containerd/io.containerd.runtime.v2.task") else {
        return;
    };
    for namespace in finder.children(&place) {
        for bundle in finder.children(&namespace) {
            let path = Path::new("/").join(relative(finder.host, bundle.path())).join("rootfs");
            take(finder, &bundle, &path, Runtime::Containerd);
        }
    }
}

fn relative<'a>(host: &Path, path: &'a Path) -> &'a Path {
    path.strip_prefix(host).unwrap_or(path)
}

/// Where the container's root lies, by what its runtime wrote down.
fn rootfs(container: &Place) -> Option<PathBuf> {
    if let Ok(state) = container.read("state.json", MAX_STATE) {
        return Some(serde_json::from_slice::<RuncState>(&state).ok()?.config.rootfs);
    }
    let status = container.read("status", MAX_STATE).ok()?;
    let status = serde_json::from_slice::<CrunStatus>(&status).ok()?;
    Some(status.bundle.unwrap_or_default().join(status.rootfs))
}

/// Takes a root, or the layers that it is the merged view of.
fn take(finder: &mut Finder<'_>, container: &Place, rootfs: &Path, runtime: Runtime) {
    let path = below(finder.host, rootfs);
    // A container that has ended, or one whose root only its own mounts show.
    let Ok(place) = resolve::resolve(finder.host, &path, Last::NoLink) else { return };
    let is_empty = || place.names().is_ok_and(|names| names.is_empty());
    if finder.fs_type(&place) == Some(b"overlay") {
        processes::add_merged(finder, &place);
    } else if !finder.may_hang(&place) && !is_empty() {
        finder.add(&place, Kind::whole(runtime, classify::name_of(container.path())));
    }
}
