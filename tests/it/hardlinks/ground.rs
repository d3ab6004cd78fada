//! Two containers whose programs become names of one file, and what is asked of them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::cbin_audit;
use crate::rig::scene::{Scene, age, run};
use crate::snapshot::Snapshot;
use crate::world::{file, hardlink};

/// Two containers whose programs have several names, attributes, and times of their own.
pub fn lay(base: &Path) -> Scene {
    let scene = Scene::lay_small(base);
    let [web, db] = scene.roots();
    crate::world! { web, "usr/bin/vi" => hardlink("bin/busybox") }
    crate::world! { db,
        "bin/cat" => hardlink("bin/busybox"),
        "sbin/mount" => hardlink("bin/busybox"),
        "bin/notes" => file("not a program\n"),
    }
    age(&web);
    age(&db);
    date(&db.join("bin/busybox"));
    scene
}

/// Gives a program times of its own.
pub fn date(program: &Path) {
    let then = std::time::UNIX_EPOCH + std::time::Duration::new(900_000_000, 77);
    let times = fs::FileTimes::new().set_modified(then).set_accessed(then);
    fs::File::open(program).unwrap().set_times(times).unwrap();
}

pub fn dedupe(scene: &Scene, options: &[&str]) -> Command {
    let mut command = cbin_audit();
    command.args(["dedupe", "--method", "hardlink"]).args(options);
    command.arg("--store").arg(scene.store()).arg("--journal").arg(scene.journal());
    command.args(scene.roots());
    command
}

pub const TRUSTED: [&str; 3] = ["--json", "--trust-domain", "mine"];

pub fn apply(scene: &Scene) -> Command {
    dedupe(scene, &[&TRUSTED[..], &["--apply"]].concat())
}

pub fn plan(scene: &Scene) -> PathBuf {
    let at = scene.base().join("plan.json");
    fs::write(&at, run(&mut dedupe(scene, &TRUSTED)).unwrap()).unwrap();
    at
}

pub fn apply_plan(scene: &Scene) -> Command {
    let mut command = cbin_audit();
    command.args(["dedupe", "--apply", "--json", "--plan"]).arg(scene.base().join("plan.json"));
    command.arg("--journal").arg(scene.journal());
    command
}

pub fn inode(path: impl AsRef<Path>) -> u64 {
    path.as_ref().symlink_metadata().unwrap().ino()
}

/// The inodes of the programs of both containers.
pub fn inodes(scene: &Scene) -> [u64; 2] {
    scene.roots().map(|root| inode(root.join("bin/busybox")))
}

/// After a kill or a power cut. Of the two programs that of `web` comes to be a name of that of `db`.
///
/// # Errors
/// As [`Scene::recovers`], and that after undo they are one file.
pub fn recovers(scene: &Scene, before: &[Snapshot]) -> Result<(), String> {
    scene.recovers(before)?;
    let [one, other] = inodes(scene);
    if one == other {
        return Err("after undo both containers have names of one file".to_owned());
    }
    Ok(())
}

/// The container that has the file which stays gets a new one, from somebody who flushes nothing.
pub fn renew_what_stays(scene: &Scene) {
    let [_, db] = scene.roots();
    let program = db.join("bin/busybox");
    let bytes = fs::read(&program).unwrap();
    for name in ["bin/busybox", "bin/cat", "sbin/mount"] {
        fs::remove_file(db.join(name)).unwrap();
    }
    fs::write(&program, bytes).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    for name in ["bin/cat", "sbin/mount"] {
        fs::hard_link(&program, db.join(name)).unwrap();
    }
}

/// The other container's programs run, whatever its neighbour has lost that it had not flushed.
///
/// # Errors
/// What did not run, or was not recovered.
pub fn entries_run(scene: &Scene, _: &[Snapshot]) -> Result<(), String> {
    let [web, _] = scene.roots();
    let mut sh = Command::new("chroot");
    run(sh.arg(&web).args(["/bin/sh", "-c", "true"]))
        .map_err(|error| format!("at once: {error}"))?;
    run(&mut scene.recover())?;
    run(&mut sh).map_err(|error| format!("after recover: {error}"))?;
    Ok(())
}
