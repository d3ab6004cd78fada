//! LXC's containers, and those of Incus and LXD: lxc.container.conf(5).

use std::path::{Path, PathBuf};

use super::classify::{self, Kind};
use super::resolve::{self, Last};
use super::{Finder, Place, RootsError, below, processes};
use crate::model::Runtime;

/// A configuration is some kilobytes; more is none.
const MAX_CONFIG: u64 = 1 << 20;
/// lxc.include can go in circles.
const MAX_INCLUDES: usize = 16;

/// The containers of the system's LXC, and of Incus and LXD.
pub(super) fn discover(finder: &mut Finder<'_>) {
    let settings = std::fs::read(finder.host.join("etc/lxc/lxc.conf")).unwrap_or_default();
    if let Some(place) = finder.host_place(lxc_path(&settings)) {
        for container in finder.children(&place) {
            take(finder, &container);
        }
    }
    for home in ["/var/lib/incus", "/var/lib/lxd", "/var/snap/lxd/common/lxd"] {
        let pools = finder.host_place(Path::new(home).join("storage-pools"));
        for pool in pools.map(|place| finder.children(&place)).unwrap_or_default() {
            let kept = finder.child(&pool, Path::new("containers"));
            for container in kept.map(|place| finder.children(&place)).unwrap_or_default() {
                take_default(finder, &container);
            }
        }
    }
}

/// `lxc.lxcpath` of `/etc/lxc/lxc.conf`, lxc.system.conf(5), or its default.
pub(in crate::scan) fn lxc_path(settings: &[u8]) -> PathBuf {
    let set = lines(settings).filter(|(key, _)| *key == "lxc.lxcpath").last();
    set.map_or_else(|| PathBuf::from("/var/lib/lxc"), |(_, value)| PathBuf::from(value))
}

/// The directory has a configuration that root, or the caller, wrote.
pub(super) fn is_container(place: &Place) -> bool {
    place.is_trusted() && place.stat("config").is_ok()
}

/// One container's root by its configuration. One that somebody else owns is not
/// asked, it could name any directory: then the root lies where it does by default.
pub(super) fn take(finder: &mut Finder<'_>, container: &Place) {
    let config = match is_container(container) {
        true => container.read("config", MAX_CONFIG).unwrap_or_default(),
        false => Vec::new(),
    };
    match rootfs_path(finder.host, &config, &mut 0) {
        Some(path) => take_path(finder, container, &path),
        None => take_default(finder, container),
    }
}

/// One container's root where it lies by default.
pub(super) fn take_default(finder: &mut Finder<'_>, container: &Place) {
    if let Some(rootfs) = finder.child(container, Path::new("rootfs"))
        && finder.looks_like_root(&rootfs)
    {
        finder.add(&rootfs, kind(container));
    }
}

fn kind(container: &Place) -> Kind {
    Kind::whole(Runtime::Lxc, classify::name_of(container.path()))
}

/// `lxc.rootfs.path`, or `lxc.rootfs` as it was called before LXC 2.1; the last one counts.
fn rootfs_path(host: &Path, config: &[u8], included: &mut usize) -> Option<String> {
    let mut found = None;
    for (key, value) in lines(config) {
        match key {
            "lxc.rootfs.path" | "lxc.rootfs" => found = Some(value.to_owned()),
            "lxc.include" if *included < MAX_INCLUDES => {
                *included += 1;
                for file in included_files(&below(host, Path::new(value))) {
                    let config = std::fs::read(&file).unwrap_or_default();
                    found = rootfs_path(host, &config, included).or(found);
                }
            }
            _ => {}
        }
    }
    found.filter(|path| !path.is_empty())
}

/// A file, or a directory's `*.conf` files.
fn included_files(path: &Path) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_owned()];
    }
    let entries = walkdir::WalkDir::new(path).min_depth(1).max_depth(1).sort_by_file_name();
    let files = entries.into_iter().filter_map(|entry| Some(entry.ok()?.into_path()));
    files.filter(|file| file.extension().is_some_and(|ext| ext == "conf")).collect()
}

/// Takes what `lxc.rootfs.path` names: a directory, perhaps behind the name of the
/// way it is stored, or the layers of an overlay.
fn take_path(finder: &mut Finder<'_>, container: &Place, value: &str) {
    if let Some(layers) = value.strip_prefix("overlay:").or(value.strip_prefix("overlayfs:")) {
        for layer in layers.split(':').filter(|part| part.starts_with('/')) {
            processes::add_layer(finder, &below(finder.host, Path::new(layer)));
        }
        return;
    }
    let path = value.strip_prefix("dir:").or(value.strip_prefix("btrfs:")).unwrap_or(value);
    let found = resolve::resolve(finder.host, &below(finder.host, Path::new(path)), Last::NoLink);
    match found {
        Ok(place) if path.starts_with('/') => finder.add(&place, kind(container)),
        Ok(_) | Err(RootsError::NotDirectory { .. } | RootsError::Missing { .. }) => {
            let cause =
                format!("its root {value:?} is no directory: mount it and name the mount point");
            finder.info(container.path(), &cause);
        }
        Err(error) => finder.note(container.path(), &error),
    }
}

/// `key = value` lines; what is not UTF-8 is no line.
pub(in crate::scan) fn lines(config: &[u8]) -> impl Iterator<Item = (&str, &str)> {
    config
        .split(|&byte| byte == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok())
        .map(str::trim)
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.trim(), value.trim().trim_matches('"')))
}
