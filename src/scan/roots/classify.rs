//! Whose root a directory is, told by where it lies.

use std::ffi::OsStr;
use std::path::Path;

use crate::model::Runtime;

/// What a root's place says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) runtime: Runtime,
    pub(super) name: String,
    pub(super) layer: bool,
}

impl Kind {
    pub(super) fn whole(runtime: Runtime, name: impl Into<String>) -> Self {
        Self { runtime, name: name.into(), layer: false }
    }

    pub(super) fn layer(runtime: Runtime, name: impl Into<String>) -> Self {
        Self { runtime, name: name.into(), layer: true }
    }
}

/// The kind of the root at `path`, a path without links.
pub(super) fn by_path(host: &Path, path: &Path) -> Kind {
    let last = name_of(path);
    let parent = path.parent().unwrap_or(path);
    let above = parent.parent().map(Path::file_name).unwrap_or_default();
    match (above.and_then(OsStr::to_str), last.as_str()) {
        (Some("overlay2"), "diff") => Kind::layer(Runtime::Docker, name_of(parent)),
        (Some("overlay"), "diff") => Kind::layer(Runtime::Podman, name_of(parent)),
        (Some("snapshots"), "fs") => Kind::layer(Runtime::Containerd, name_of(parent)),
        (_, "rootfs") => in_bundle(path, parent),
        _ => plain(host, path, last),
    }
}

/// `NAME/rootfs`: LXC, Incus and LXD keep a configuration or metadata beside it, an
/// OCI bundle its `config.json`.
fn in_bundle(path: &Path, parent: &Path) -> Kind {
    let name = name_of(parent);
    let beside = |file: &str| parent.join(file).is_file();
    let runtime = if beside("config.json") {
        match path.components().any(|part| part.as_os_str() == "containerd") {
            true => Runtime::Containerd,
            false => Runtime::Oci,
        }
    } else if beside("config") || beside("backup.yaml") || beside("metadata.yaml") {
        Runtime::Lxc
    } else {
        Runtime::Directory
    };
    Kind::whole(runtime, name)
}

/// systemd-nspawn(1) keeps machines in one place, and settings for others in two.
fn plain(host: &Path, path: &Path, name: String) -> Kind {
    let settings = format!("{name}.nspawn");
    let nspawn = path.parent() == Some(&host.join("var/lib/machines"))
        || ["etc/systemd/nspawn", "run/systemd/nspawn"]
            .iter()
            .any(|dir| host.join(dir).join(&settings).is_file());
    Kind::whole(if nspawn { Runtime::Nspawn } else { Runtime::Directory }, name)
}

/// The last component, for people.
pub(super) fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
