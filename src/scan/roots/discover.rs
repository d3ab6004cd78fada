//! Every root on the host: where runtimes keep them, where people do, and where
//! processes run.

use std::path::Path;

use super::classify::{self, Kind};
use super::{Finder, Place, bundles, lxc, overlay, processes};
use crate::model::Runtime;

/// Finds them. The first to find a root gives it its name: stores know the
/// container's, running processes only the directory's.
pub(super) fn discover(finder: &mut Finder<'_>) {
    machines(finder);
    lxc::discover(finder);
    image_stores(finder);
    bundles::discover(finder);
    homes(finder);
    processes::discover(finder);
}

/// machinectl's directories and subvolumes.
fn machines(finder: &mut Finder<'_>) {
    let Some(place) = finder.host_place("/var/lib/machines") else { return };
    for machine in finder.children(&place) {
        if finder.looks_like_root(&machine) {
            let kind = Kind::whole(Runtime::Nspawn, classify::name_of(machine.path()));
            finder.add(&machine, kind);
        }
    }
    for name in place.names().unwrap_or_default() {
        if Path::new(&name).extension().is_some_and(|extension| extension == "raw") {
            let image = place.path().join(&name);
            finder.info(
                &image,
                "a disk image, which is not looked into: mount it and name the mount point",
            );
        }
    }
}

fn image_stores(finder: &mut Finder<'_>) {
    if let Some(place) = finder.host_place("/var/lib/docker") {
        overlay::docker(finder, &place);
    }
    if let Some(place) = finder.host_place("/var/lib/containers/storage") {
        overlay::podman(finder, &place);
    }
    for home in ["/var/lib/containerd", "/var/lib/rancher/k3s/agent/containerd"] {
        if let Some(place) = finder.host_place(home) {
            overlay::containerd(finder, &place);
        }
    }
}

/// Roots beside the home directories, and the stores that users have in theirs.
fn homes(finder: &mut Finder<'_>) {
    if let Some(place) = finder.host_place("/home") {
        for home in finder.children(&place) {
            if finder.looks_like_root(&home) {
                finder.add(&home, classify::by_path(finder.host, home.path()));
            } else if !finder.may_hang(&home) {
                user_stores(finder, &home);
            }
        }
    }
    if let Some(place) = finder.host_place("/root") {
        user_stores(finder, &place);
    }
}

/// Rootless Podman, Docker and LXC.
fn user_stores(finder: &mut Finder<'_>, home: &Place) {
    // Closed to the caller: that has been noted when it was looked at.
    let Ok(share) = home.dir(".local/share") else { return };
    if let Some(store) = finder.child(&share, Path::new("containers/storage")) {
        overlay::podman(finder, &store);
    }
    if let Some(store) = finder.child(&share, Path::new("docker")) {
        overlay::docker(finder, &store);
    }
    if let Some(place) = finder.child(&share, Path::new("lxc")) {
        for container in finder.children(&place) {
            lxc::take_default(finder, &container);
        }
    }
}
