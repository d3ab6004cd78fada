//! What the next start of the host and of the containers makes of what is on the device.

use std::fs;
use std::path::{Path, PathBuf};

use cbin_audit::model::StoreFormat;

use crate::rig::mutator::{MOUNTS, configs};
use crate::rig::scene::{ROOTS, Scene};
use crate::rig::supervise::succeed;
use crate::snapshot::Snapshot;

/// What a file holds that is there already.
const OTHERS: &str = "a = b\n";

/// Containers with a directory to share, and places for the files of what starts them.
pub fn lay_configs(base: &Path) -> Scene {
    let scene = Scene::lay_tree(base);
    let mounts = base.join(MOUNTS);
    for dir in ["nspawn", "system", "lxc/web", "lxc/db"] {
        fs::create_dir_all(mounts.join(dir)).unwrap();
    }
    for name in ROOTS {
        fs::write(mounts.join("lxc").join(name).join("config"), OTHERS).unwrap();
    }
    fs::write(mounts.join("by"), "config").unwrap();
    scene
}

/// The same with a store that is an image.
pub fn lay_image(base: &Path) -> Scene {
    Scene::lay_tree(base).with_an_image()
}

/// # Errors
/// As [`Scene::recovers`], and that after undo a file is not what it was.
pub fn recovers_by_configs(scene: &Scene, before: &[Snapshot]) -> Result<(), String> {
    scene
        .recovers_where(before, |scene| scene.programs_run_with(|name| by_configs(scene, name)))?;
    for config in ROOTS.iter().flat_map(|name| configs(scene, name)) {
        let (file, found) = (&config.file.0, fs::read_to_string(&config.file.0).ok());
        let then = file.starts_with(scene.base().join(MOUNTS).join("lxc")).then_some(OTHERS);
        if found.as_deref() != then {
            return Err(format!("after undo {file:?} is {found:?}"));
        }
    }
    Ok(())
}

/// Each container may be started by any of the files: it sees the store if all of them say so.
fn by_configs(scene: &Scene, name: &str) -> PathBuf {
    let says = |file: &Path| fs::read_to_string(file).is_ok_and(|text| text.contains("cbin"));
    match configs(scene, name).iter().all(|config| says(&config.file.0)) {
        true => scene.store(),
        false => PathBuf::new(),
    }
}

/// # Errors
/// As [`Scene::recovers`].
pub fn recovers_by_image(scene: &Scene, before: &[Snapshot]) -> Result<(), String> {
    mount_image(scene);
    scene.recovers(before)
}

/// As the unit does that a plan writes.
fn mount_image(scene: &Scene) {
    let (view, image) = (scene.shown(), scene.store().join(StoreFormat::IMAGE));
    if image.exists() && view.is_dir() {
        let mut mount = std::process::Command::new("mount");
        succeed(mount.args(["-t", "erofs", "-o", "ro,nodev"]).args([image, view]));
    }
}
