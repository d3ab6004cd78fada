//! `--select all`: a directory that is the same in several containers becomes a link to one in the
//! store. Real trees, the real binary; the containers read them through the mount of the store.

mod image;
mod refused;
mod sparse;

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use crate::command::{Ran, cbin_audit};
use crate::crash::Killed;
use crate::rig::call::Kind;
use crate::rig::image::scratch;
use crate::rig::scene::{NEEDS, Scene, age, run};
use crate::rig::supervise::{Answer, supervise};
use crate::snapshot::Snapshot;
use crate::suite::Suite;
use crate::world::{file, hardlink, link};

pub fn tests(suite: &mut Suite) {
    suite.test("privileged_trees_become_links_and_come_back", NEEDS, || {
        there_and_back(apply, Scene::store);
    });
    image::tests(suite);
    suite.test("privileged_trees_kill_apply", NEEDS, killed_while_applying);
    suite.test("privileged_trees_kill_undo", NEEDS, killed_while_undoing);
    suite.test("privileged_trees_unannounced_are_red", NEEDS, unannounced_is_red);
    suite.test("privileged_trees_that_changed_are_kept", NEEDS, changed);
    refused::tests(suite);
    sparse::tests(suite);
    suite.test("privileged_trees_with_odd_names_come_back", NEEDS, odd_names);
    suite.test("privileged_trees_swapped_for_a_link_lose_nothing", NEEDS, swapped);
    suite.test("privileged_trees_of_a_package_stay", NEEDS, owned);
    suite.test("privileged_trees_that_are_damaged_are_told", NEEDS, damaged);
}

const TREE: &str = "usr/share/zoneinfo";
/// Names in the tree, it itself included.
const NAMES: usize = 8;

/// Two containers with a directory, hard links, links and times long ago.
fn lay(base: &Path) -> Scene {
    let scene = Scene::lay_small(base);
    for root in scene.roots() {
        crate::world! { root,
            "usr/share/zoneinfo/Etc/UTC" => file("UTC0"),
            "usr/share/zoneinfo/Etc/posix/UTC" => link("../UTC"),
            "usr/share/zoneinfo/Zulu" => hardlink("usr/share/zoneinfo/Etc/UTC"),
            "usr/share/zoneinfo/localtime" => link("/etc/localtime"),
            "usr/share/zoneinfo/tzdata" => file(vec![b'z'; 80 << 10]),
            "usr/share/small/file" => file("not worth it"),
        }
        age(&root);
    }
    scene
}

fn dedupe(scene: &Scene, options: &[&str]) -> Command {
    let mut command = cbin_audit();
    command.args(["dedupe", "--select", "all", "--mounts", "none"]).args(options);
    command.arg("--store").arg(scene.store()).arg("--journal").arg(scene.journal());
    command
}

fn apply(scene: &Scene) -> Command {
    let mut command = dedupe(scene, &["--apply", "--json"]);
    command.args(scene.roots());
    command
}

fn cbin(scene: &Scene, command: &str) -> Ran {
    let mut cbin = cbin_audit();
    cbin.arg(command).arg("--json").arg("--journal").arg(scene.journal());
    if matches!(command, "verify" | "gc") {
        cbin.arg("--store").arg(scene.store());
    }
    Ran::from(cbin.output().unwrap())
}

fn json(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
}

/// What each container finds at the tree's path, with the store mounted read-only where its
/// links lead to.
fn trees_are_read(scene: &Scene, shown: &Path) -> Result<(), String> {
    const SCRIPT: &str = r#"
        store=$1 names=$2; shift 2
        for root; do
            if [ -d "$store" ]; then mount --bind -o ro "$store" "$root/cbin" || exit 9; fi
            zone=$(chroot "$root" /bin/busybox cat /usr/share/zoneinfo/Etc/posix/UTC)
            [ "$zone" = UTC0 ] || { echo "$root: $zone"; exit 1; }
            found=$(chroot "$root" /bin/busybox find /usr/share/zoneinfo/ | wc -l)
            [ "$found" = "$names" ] || { echo "$root: $found names"; exit 1; }
            [ -L "$root/usr/share/zoneinfo" ] || continue
            chroot "$root" /bin/busybox touch /usr/share/zoneinfo/x 2>/dev/null && exit 8
        done; exit 0"#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", SCRIPT, "sh"]).arg(shown).arg(NAMES.to_string());
    let output = command.args(scene.roots()).output().unwrap();
    match output.status.code() {
        Some(0) => Ok(()),
        _ => Err(format!("the tree is not read: {output:?}")),
    }
}

fn whole(scene: &Scene) -> Vec<Snapshot> {
    scene.roots().iter().map(|root| Snapshot::of(root).without_access_times()).collect()
}

fn blocks(scene: &Scene) -> u64 {
    let mut seen = HashSet::new();
    let dirs = scene.roots().into_iter().chain([scene.store()]);
    let entries = dirs.flat_map(|dir| walkdir::WalkDir::new(dir).into_iter().flatten());
    let stats = entries.map(|entry| entry.metadata().unwrap());
    stats.filter(|stat| seen.insert(stat.ino())).map(|stat| stat.blocks()).sum()
}

fn fresh() -> (tempfile::TempDir, Scene) {
    let dir = scratch();
    let scene = lay(&dir.path().join("scene"));
    (dir, scene)
}

fn there_and_back(apply: fn(&Scene) -> Command, shown: fn(&Scene) -> PathBuf) {
    let (dir, scene) = fresh();
    let _mounts = crate::rig::image::Below(dir.path().to_owned());
    let (before, held) = (whole(&scene), blocks(&scene));
    let said = run(&mut apply(&scene)).unwrap();
    let applied: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(applied["state"], "applied", "{said}");
    let steps = applied["steps"].as_array().unwrap();
    let trees: Vec<_> = steps.iter().filter(|step| step["action"] == "remove_tree").collect();
    assert_eq!(trees.len(), 2, "{said}");
    let object = trees[0]["object"].as_str().unwrap();
    for root in scene.roots() {
        let target = fs::read_link(root.join(TREE)).unwrap();
        assert_eq!(target, Path::new("/cbin").join(object));
        assert!(root.join("usr/share/small/file").is_file());
    }
    trees_are_read(&scene, &shown(&scene)).unwrap();
    // Of two copies one is left, less what the journal's own links take; an image is another.
    if shown(&scene) == scene.store() {
        let saved = (held - blocks(&scene)) * 512;
        assert!(saved >= 80 << 10, "{saved} bytes");
    }
    let verified = cbin(&scene, "verify");
    assert!(!verified.stdout.contains("\"damage\": true"), "{verified:?}");
    let bad: Vec<Value> = json(&verified)["checks"].as_array().unwrap().clone();
    let bad: Vec<_> = bad.iter().filter(|it| it["ok"] == false && it["what"] != "mount").collect();
    assert!(bad.is_empty(), "{bad:?}");
    let again = json(&Ran::from(apply(&scene).output().unwrap()));
    assert_eq!(again["steps"].as_array().unwrap().len(), 0, "{again}");
    let kept = json(&cbin(&scene, "gc"));
    assert_eq!(kept["removed"].as_array().unwrap().len(), 0, "{kept}");
    assert_eq!(cbin(&scene, "undo").status, 0);
    for (now, then) in whole(&scene).iter().zip(&before) {
        assert_eq!(then.differences(now), [""; 0]);
    }
    assert_eq!(cbin(&scene, "gc").status, 0);
    assert!(!scene.store().join(object).exists());
}

fn killed_while_applying() {
    let broken = Killed { check: recovers, lay, ..Killed::new(apply) }.at_each_call();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

fn killed_while_undoing() {
    let prepare = |scene: &Scene| drop(run(&mut apply(scene)).unwrap());
    let undo = Killed { check: recovers, lay, prepare, ..Killed::new(Scene::undo) };
    let broken = undo.at_each_call();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// A run whose journal does not say what it was about to take away: a part of that stays.
fn unannounced_is_red() {
    let (_dir, scene) = fresh();
    let before = scene.snapshot();
    let ended = supervise(&apply(&scene), |call| {
        let path = call.path.to_string_lossy();
        let takes = call.kind == Kind::Unlink && path.contains("-scrap/");
        if takes { Answer::Kill } else { Answer::Happen }
    });
    assert!(ended.is_killed(), "{ended:?}");
    for run in fs::read_dir(scene.journal().join("runs")).unwrap() {
        let run = run.unwrap().path();
        let records = fs::read_to_string(&run).unwrap();
        let told =
            |line: &&str| line.split_once(' ').is_none_or(|it| !it.1.starts_with(r#"{"tree""#));
        let kept: Vec<&str> = records.lines().filter(told).collect();
        assert!(kept.len() < records.lines().count(), "{records}");
        fs::write(&run, kept.join("\n") + "\n").unwrap();
    }
    recovers(&scene, &before).expect_err("a part of a tree is left behind, and nobody noticed");
}

fn recovers(scene: &Scene, before: &[Snapshot]) -> Result<(), String> {
    recovers_with(scene, before, &scene.store())
}

/// Containers are shown what is at `shown`, once it is there.
fn recovers_with(scene: &Scene, before: &[Snapshot], shown: &Path) -> Result<(), String> {
    trees_are_read(scene, shown).map_err(|error| format!("at once: {error}"))?;
    run(&mut scene.recover())?;
    trees_are_read(scene, shown).map_err(|error| format!("after recover: {error}"))?;
    for root in scene.roots() {
        let snapshot = Snapshot::of(&root);
        let ours = |name: &&Path| name.to_string_lossy().contains(cbin_audit::exec::TEMPORARY);
        if let Some(left) = snapshot.names().into_iter().find(ours) {
            return Err(format!("after recover there is {left:?}"));
        }
    }
    scene.undoes(before)?;
    trees_are_read(scene, shown).map_err(|error| format!("after undo: {error}"))?;
    let collected = cbin(scene, "gc");
    let left = fs::read_dir(scene.store()).into_iter().flatten().flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
    // Those of images, of which the last is empty.
    let is_object = |name: &&std::ffi::OsString| !name.to_string_lossy().starts_with('.');
    match left.iter().find(is_object) {
        Some(object) => Err(format!("after gc: {object:?} in the store: {collected:?}")),
        None => Ok(()),
    }
}

fn plan(scene: &Scene) -> PathBuf {
    let mut command = dedupe(scene, &["--json"]);
    let at = scene.base().join("plan.json");
    fs::write(&at, run(command.args(scene.roots())).unwrap()).unwrap();
    at
}

fn apply_plan(scene: &Scene, plan: &Path) -> Ran {
    Ran::from(apply_plan_command(scene, plan).output().unwrap())
}

fn apply_plan_command(scene: &Scene, plan: &Path) -> Command {
    let mut command = cbin_audit();
    command.args(["dedupe", "--apply", "--json", "--plan"]).arg(plan);
    command.arg("--journal").arg(scene.journal());
    command
}

/// Something in it is another after planning, or is being written.
fn changed() {
    let changes: [fn(&Path) -> Option<fs::File>; 5] = [
        |tree| fs::write(tree.join("new"), "new").map(|()| None).unwrap(),
        |tree| fs::write(tree.join("Etc/UTC"), "UTC1").map(|()| None).unwrap(),
        |tree| fs::remove_file(tree.join("Etc/posix/UTC")).map(|()| None).unwrap(),
        |tree| fs::hard_link(tree.join("Zulu"), tree.join("../other")).map(|()| None).unwrap(),
        |tree| fs::OpenOptions::new().append(true).open(tree.join("tzdata")).map(Some).unwrap(),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let (_dir, scene) = fresh();
        let plan = plan(&scene);
        let tree = scene.roots()[1].join(TREE);
        let _open = change(&tree);
        let before = Snapshot::of(&tree).without_access_times();
        let applied = json(&apply_plan(&scene, &plan));
        assert_eq!(applied["state"], "partial", "{number}: {applied}");
        assert!(tree.symlink_metadata().unwrap().is_dir(), "{number}");
        let now = Snapshot::of(&tree).without_access_times();
        assert_eq!(before.differences(&now), [""; 0], "{number}");
        assert!(scene.roots()[0].join(TREE).is_symlink(), "{number}");
    }
}

/// Names that are no text, or look like something else on a terminal.
fn odd_names() {
    use std::os::unix::ffi::OsStrExt;
    let (_dir, scene) = fresh();
    for root in scene.roots() {
        for name in
            [&b"new\nline"[..], b"\xff\xfe", b"-rf", b"\x1b[31m", b".cbin-audit-0", &[b'n'; 255]]
        {
            let dir = root.join(TREE).join(std::ffi::OsStr::from_bytes(name));
            fs::create_dir(&dir).unwrap();
            fs::write(dir.join(std::ffi::OsStr::from_bytes(name)), name).unwrap();
        }
        age(&root);
    }
    let before = whole(&scene);
    run(&mut apply(&scene)).unwrap();
    assert!(scene.roots().iter().all(|root| root.join(TREE).is_symlink()));
    assert_eq!(cbin(&scene, "undo").status, 0);
    for (now, then) in whole(&scene).iter().zip(&before) {
        assert_eq!(then.differences(now), [""; 0]);
    }
}

/// A thread of the container's puts a link in the tree's place, and takes it back, all the time.
fn swapped() {
    const ROUNDS: usize = 30;
    for round in 0..ROUNDS {
        let (_dir, scene) = fresh();
        let outside = scene.base().join("outside");
        crate::world! { outside, "Etc/UTC" => file("the host's"), "tzdata" => file("the host's") }
        let before = Snapshot::of(&outside).without_access_times();
        let tree = scene.roots()[1].join(TREE);
        let bait = tree.with_file_name("bait");
        symlink(&outside, &bait).unwrap();
        let plan = plan(&scene);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    exchange(&tree, &bait);
                    exchange(&tree, &bait);
                }
            });
            let _applied = apply_plan(&scene, &plan);
            let linked = scene.roots()[0].join(TREE).is_symlink();
            let _undone = cbin(&scene, "undo");
            stop.store(true, Ordering::Relaxed);
            assert!(linked, "{round}: the other container's was changed");
        });
        let now = Snapshot::of(&outside).without_access_times();
        assert_eq!(before.differences(&now), [""; 0], "{round}");
        let whole = [&tree, &bait].into_iter().any(|at| is_whole(&scene, at));
        assert!(whole, "{round}: the tree, or the link to it, is under one of its names");
    }
}

/// The tree itself, or a link of ours that the container gave another name.
fn is_whole(scene: &Scene, at: &Path) -> bool {
    let dir = match fs::read_link(at) {
        Ok(target) => scene.store().join(target.file_name().unwrap()),
        Err(_) => at.to_owned(),
    };
    walkdir::WalkDir::new(&dir).into_iter().count() == NAMES
        && fs::read(dir.join("Etc/UTC")).is_ok_and(|text| text == b"UTC0")
}

fn exchange(one: &Path, other: &Path) {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    // One of them may be under a temporary name at this moment.
    let _missed = renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE);
}

/// dpkg would write into the store when it upgrades the package.
fn owned() {
    let (_dir, scene) = fresh();
    for root in scene.roots() {
        let list = "/.\n/usr/share\n/usr/share/zoneinfo\n/usr/share/zoneinfo/Zulu\n";
        crate::world! { root, "var/lib/dpkg/info/tzdata.list" => file(list) }
    }
    let said = fs::read_to_string(plan(&scene)).unwrap();
    let plan: Value = serde_json::from_str(&said).unwrap();
    let skips = plan["skips"].as_array().unwrap();
    let owned = |skip: &&Value| skip["path"] == TREE && skip["reason"] == "tree";
    assert_eq!(skips.iter().filter(owned).count(), 2, "{said}");
    assert!(!said.contains("remove_tree"), "{said}");
}

fn damaged() {
    let (_dir, scene) = fresh();
    run(&mut apply(&scene)).unwrap();
    let target = fs::read_link(scene.roots()[0].join(TREE)).unwrap();
    let object = scene.store().join(target.file_name().unwrap());
    fs::write(object.join("Etc/UTC"), "UTC1").unwrap();
    let verified = cbin(&scene, "verify");
    assert_eq!(verified.status, 4, "{verified:?}");
    let undone = cbin(&scene, "undo");
    assert_eq!(undone.status, 4, "{undone:?}");
    assert!(scene.roots()[0].join(TREE).is_symlink());
    fs::write(object.join("Etc/UTC"), "UTC0").unwrap();
    assert_eq!(cbin(&scene, "undo").status, 0);
}
