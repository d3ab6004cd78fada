//! Image stores: Docker's, Podman's (and CRI-O's), containerd's.
//!
//! A layer is taken where it lies, once, however many containers stand on it; the
//! merged views of running containers hold nothing that the layers do not.

use std::path::Path;

use super::classify::{self, Kind};
use super::store_names::{self, Names};
use super::{Finder, Place};
use crate::model::Runtime;

/// Takes what a directory keeps if it is an image store, or a part of one; true if it is.
pub(super) fn take(finder: &mut Finder<'_>, place: &Place) -> bool {
    let has = |name: &str| place.dir(name).is_ok();
    let named = |name: &str| place.name() == name;
    if has("image") && (has("overlay2") || has("vfs") || has("btrfs")) {
        docker(finder, place);
    } else if has("overlay-layers") || has("vfs-layers") || has("btrfs-layers") {
        podman(finder, place);
    } else if has("io.containerd.snapshotter.v1.overlayfs") {
        containerd(finder, place);
    } else if has("snapshots") && place.name().as_encoded_bytes().starts_with(b"io.containerd.") {
        snapshots(finder, place);
    } else if has("l") && named("overlay2") {
        layers(finder, place, Runtime::Docker, &Names::default());
    } else if has("l") && named("overlay") {
        layers(finder, place, Runtime::Podman, &Names::default());
    } else {
        return false;
    }
    true
}

/// Docker's data root: `/var/lib/docker`.
pub(super) fn docker(finder: &mut Finder<'_>, place: &Place) {
    let names = store_names::docker(place);
    if let Some(driver) = finder.child(place, Path::new("overlay2")) {
        layers(finder, &driver, Runtime::Docker, &names);
    }
    copies(finder, place, Runtime::Docker, &names);
    // With the containerd image store the layers are containerd's.
    if let Some(store) = finder.child(place, Path::new("containerd/daemon")) {
        containerd(finder, &store);
    }
}

/// A store of containers/storage: `/var/lib/containers/storage`.
pub(super) fn podman(finder: &mut Finder<'_>, place: &Place) {
    let names = store_names::podman(place);
    if let Some(driver) = finder.child(place, Path::new("overlay")) {
        layers(finder, &driver, Runtime::Podman, &names);
    }
    copies(finder, place, Runtime::Podman, &names);
}

/// containerd's root: `/var/lib/containerd`.
pub(super) fn containerd(finder: &mut Finder<'_>, place: &Place) {
    for snapshotter in ["overlayfs", "native", "btrfs"] {
        let name = format!("io.containerd.snapshotter.v1.{snapshotter}");
        if let Some(place) = finder.child(place, Path::new(&name)) {
            snapshots(finder, &place);
        }
    }
}

/// `snapshots/N/fs` of the overlay snapshotter are layers; with the others `snapshots/N`
/// is a whole root file system.
fn snapshots(finder: &mut Finder<'_>, snapshotter: &Place) {
    let stacked = snapshotter.name().as_encoded_bytes().ends_with(b"overlayfs");
    let Some(place) = finder.child(snapshotter, Path::new("snapshots")) else { return };
    for snapshot in finder.children(&place) {
        let name = classify::name_of(snapshot.path());
        if !stacked {
            finder.add(&snapshot, Kind::whole(Runtime::Containerd, name));
        } else if let Some(layer) = finder.child(&snapshot, Path::new("fs")) {
            finder.add(&layer, Kind::layer(Runtime::Containerd, name));
        }
    }
}

/// `ID/diff` of the overlay drivers.
fn layers(finder: &mut Finder<'_>, driver: &Place, runtime: Runtime, names: &Names) {
    for layer in finder.children(driver) {
        if layer.name() == "l" {
            continue;
        }
        if let Some(diff) = finder.child(&layer, Path::new("diff")) {
            finder.add(&diff, Kind::layer(runtime, name(names, &layer)));
        }
    }
}

/// The drivers that keep each layer as a whole root file system.
fn copies(finder: &mut Finder<'_>, store: &Place, runtime: Runtime, names: &Names) {
    for driver in ["vfs/dir", "btrfs/subvolumes"] {
        let Some(driver) = finder.child(store, Path::new(driver)) else { continue };
        for copy in finder.children(&driver) {
            finder.add(&copy, Kind::whole(runtime, name(names, &copy)));
        }
    }
}

fn name(names: &Names, layer: &Place) -> String {
    let id = classify::name_of(layer.path());
    names.get(&id).cloned().unwrap_or(id)
}
