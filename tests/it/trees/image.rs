//! The same with a store that is an image.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;

use super::{TREE, cbin, dedupe, json, lay, recovers_with, there_and_back, trees_are_read};
use crate::crash::Killed;
use crate::rig::call::{Call, Kind};
use crate::rig::image::{Below, scratch};
use crate::rig::scene::{NEEDS, Scene, run};
use crate::snapshot::Snapshot;
use crate::suite::{Need, Suite};

pub fn tests(suite: &mut Suite) {
    let image = [Need::Program("mkfs.erofs"), Need::File("/dev/loop-control")];
    let needs = [NEEDS, &image[..]].concat();
    let mut test = |name: &str, run: fn()| {
        suite.test(&format!("privileged_trees_in_an_image_{name}"), &needs, run);
    };
    test("become_links_and_come_back", || there_and_back(apply, view));
    test("are_those_of_the_store", same);
    test("kill_apply", killed_while_applying);
    test("kill_gc", killed_while_collecting);
}

fn apply(scene: &Scene) -> Command {
    let mut command = dedupe(scene, &["--apply", "--json", "--store-format", "erofs"]);
    command.args(scene.roots());
    command
}

/// Nothing else is shown to containers.
fn view(scene: &Scene) -> PathBuf {
    scene.store().join(".view")
}

fn recovers(scene: &Scene, before: &[Snapshot]) -> Result<(), String> {
    recovers_with(scene, before, &view(scene))
}

fn gc(scene: &Scene) -> Command {
    let mut command = crate::command::cbin_audit();
    command.arg("gc").arg("--store").arg(scene.store()).arg("--journal").arg(scene.journal());
    command
}

/// Names, modes, times, and which names are one file; nobody writes them. A hole is none on the disk.
fn same() {
    let dir = scratch();
    let _mounts = Below(dir.path().to_owned());
    let scene = lay(&dir.path().join("scene"));
    for root in scene.roots() {
        let holed = fs::File::create(root.join(TREE).join("holed")).unwrap();
        holed.set_len(64 << 20).unwrap();
    }
    let said = run(&mut apply(&scene)).unwrap();
    let target = fs::read_link(scene.roots()[0].join(TREE)).unwrap_or_else(|_| panic!("{said}"));
    let object = target.file_name().unwrap();
    let snapshot =
        |store: &std::path::Path| Snapshot::of(&store.join(object)).without_access_times();
    let (kept, shown) = (snapshot(&scene.store()), snapshot(&scene.store().join(".view")));
    assert_eq!(kept.differences(&shown), [""; 0]);
    let written = fs::write(scene.store().join(".view").join(object).join("x"), "x").unwrap_err();
    assert_eq!(written.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    let image = fs::metadata(scene.store().join(".view.erofs")).unwrap();
    assert!(image.len() > 64 << 20 && image.blocks() * 512 < 8 << 20, "{image:?}");
    // Another directory makes another image, which holds the first one, too.
    for root in scene.roots() {
        let more = root.join("usr/share/more");
        fs::create_dir(&more).unwrap();
        fs::write(more.join("data"), vec![b'm'; 80 << 10]).unwrap();
    }
    let again = json(&crate::command::Ran::from(apply(&scene).output().unwrap()));
    assert_eq!(again["applied"], 2, "{again}");
    let images = |scene: &Scene| {
        let names = fs::read_dir(scene.store().join(".generations")).unwrap().flatten();
        names.filter(|name| name.path().extension().is_some_and(|it| it == "erofs")).count()
    };
    assert_eq!(images(&scene), 2);
    for root in scene.roots() {
        for tree in [TREE, "usr/share/more"] {
            let target = fs::read_link(root.join(tree)).unwrap();
            assert!(scene.store().join(".view").join(target.file_name().unwrap()).is_dir());
        }
    }
    let collected = cbin(&scene, "gc");
    assert_eq!((collected.status, images(&scene)), (0, 1), "{collected:?}");
    trees_are_read_with_more(&scene);
    for _ in 0..2 {
        assert_eq!(cbin(&scene, "undo").status, 0);
    }
    assert_eq!(cbin(&scene, "gc").status, 0);
    assert_eq!(fs::read_dir(scene.store().join(".view")).unwrap().count(), 0);
}

/// `holed` is one name more.
fn trees_are_read_with_more(scene: &Scene) {
    let error = trees_are_read(scene, &view(scene)).unwrap_err();
    assert!(error.contains("9 names"), "{error}");
}

fn killed_while_applying() {
    let broken = Killed { check: recovers, lay, before, ..Killed::new(apply) }.at_each_call();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Of the bytes of an image every hundredth or so: all but the last are a part of one.
fn before(call: &Call) -> bool {
    let in_an_image = call.path.to_string_lossy().contains(".generations/");
    call.kind != Kind::Write || !in_an_image || call.index.is_multiple_of(97)
}

fn applied(scene: &Scene) {
    run(&mut apply(scene)).unwrap();
}

/// What a later run needs stays, whatever of the earlier one was collected.
fn killed_while_collecting() {
    let prepare = |scene: &Scene| {
        for root in scene.roots() {
            let more = root.join("usr/share/more");
            fs::create_dir(&more).unwrap();
            fs::write(more.join("data"), vec![b'm'; 80 << 10]).unwrap();
        }
        applied(scene);
        run(&mut scene.undo()).unwrap();
        for root in scene.roots() {
            fs::remove_dir_all(root.join("usr/share/more")).unwrap();
            crate::rig::scene::age(&root);
        }
        applied(scene);
    };
    let gc = Killed { check: recovers, lay, prepare, before, ..Killed::new(gc) };
    let broken = gc.at_each_call();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
