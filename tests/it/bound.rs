//! Objects bound over the names of running containers whose roots are stacks of layers: one copy
//! in memory, nothing changed on disk, and nothing left behind.

mod boxes;
mod killed;
mod swapped;

use std::fs;
use std::path::Path;

use crate::memory_fuse::Server;
use crate::memory_ground::{Running, distinct, done, frames, is_asleep};
use crate::suite::{Need, Suite};
use boxes::{Boxes, Layers, NEEDS};

pub fn tests(suite: &mut Suite) {
    let mut test =
        |name: &str, run: fn()| suite.test(&format!("privileged_bound_{name}"), NEEDS, run);
    test("one_copy_and_back", one_copy_and_back);
    test("a_plan_that_was_saved", saved_plan);
    test("a_container_that_was_started_anew", started_anew);
    test("a_container_that_has_ended", ended);
    test("four_hundred_names", four_hundred_names);
    test("more_names_than_are_bound", more_names);
    test("one_layer_is_nothing_to_do", one_layer);
    test("another_mount_is_left_alone", another_mount);
    test("every_namespace_of_a_container", every_namespace);
    test("a_user_namespace_with_the_hosts_root_is_refused", maps_root);
    test("a_container_that_ends_half_way", ends_half_way);
    test("an_object_that_is_gone", object_gone);
    let silent = [NEEDS, &[Need::File("/dev/fuse")]].concat();
    suite.test("privileged_bound_behind_a_silent_file_server", &silent, silent_server);
    let erofs = [NEEDS, &[Need::Program("mkfs.erofs")]].concat();
    suite.test("privileged_bound_of_an_image", &erofs, of_an_image);
    killed::tests(suite);
    swapped::tests(suite);
}

/// Page frames of processes, and how many they would be of one copy.
#[track_caller]
fn copies(boxes: &Boxes, of: &[Running]) -> u64 {
    let all: Vec<_> = of.iter().map(|it| frames(it.pid(), &boxes.ground.name)).collect();
    let pages = all[0].len() as u64;
    // What was written to is each process's own.
    let (found, ideal) = distinct(&all);
    assert!(pages > 100 && ideal >= pages, "{pages} {ideal}");
    (found * 10 / ideal + 5) / 10
}

fn one_copy_and_back() {
    let boxes = Boxes::new(Layers::Two);
    let old = boxes.sleepers();
    assert_eq!(copies(&boxes, &old), 2);

    let plan = boxes.json(&["dedupe", "--live"]);
    let steps = plan["steps"].as_array().unwrap();
    let actions: Vec<&str> = steps.iter().map(|it| it["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["store", "bind", "bind", "bind", "bind"], "{plan}");
    assert_eq!(plan["saves"]["disk_bytes"], 0);
    assert!(plan["saves"]["memory_bytes"].as_u64() > Some(100 * 4096), "{}", plan["saves"]);
    assert!(boxes.json(&["dedupe"])["steps"].as_array().unwrap().is_empty(), "not without --live");

    let applied = boxes.json(&["dedupe", "--live", "--apply"]);
    assert_eq!((&applied["applied"], &applied["freed_bytes"]), (&4.into(), &0.into()));
    let pending = applied["pending_restart"].as_array().unwrap();
    let mut pids: Vec<u64> = pending.iter().map(|it| it["pid"].as_u64().unwrap()).collect();
    pids.sort_unstable();
    let mut expected: Vec<u64> = old.iter().map(|it| it.pid().into()).collect();
    expected.sort_unstable();
    assert_eq!(pids, expected, "{applied}");
    assert_eq!(boxes.bound(), [2, 2]);
    boxes.layers_are_as_before();

    // The old ones share nothing yet.
    let verified = boxes.run(&["verify"]);
    assert_eq!(verified.status, 10, "{}{}", verified.stdout, verified.stderr);
    assert!(verified.stdout.contains("pending restart"), "{}", verified.stdout);
    drop(old);
    let new = boxes.sleepers();
    assert_eq!(copies(&boxes, &new), 1);
    let verified = boxes.run(&["verify"]);
    assert_eq!(verified.status, 0, "{}{}", verified.stdout, verified.stderr);
    let words = "2 processes in 2 containers share one copy";
    let flat = verified.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(flat.contains(words) && flat.contains("under 2 of 2 names"), "{}", verified.stdout);

    assert!(boxes.json(&["dedupe", "--live"])["steps"].as_array().unwrap().is_empty());
    let gone = boxes.json(&["gc"]);
    assert_eq!(gone["kept"], 1, "{gone}");
    // Its package manager, or whoever replaces a name, is told.
    let refused = boxes.inside(0, &["mv", &boxes.at("ls"), "/tmp/ls"]).output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("busy"), "{refused:?}");

    let undone = boxes.json(&["undo"]);
    assert_eq!((&undone["state"], &undone["restored"]), (&"undone".into(), &4.into()));
    assert_eq!(boxes.bound(), [0, 0]);
    assert!(new.iter().all(|it| is_asleep(it.pid())), "what runs from it goes on");
    drop(new);
    assert_eq!(copies(&boxes, &boxes.sleepers()), 2);
    boxes.layers_are_as_before();
    assert_eq!(boxes.json(&["gc"])["kept"], 0);
    assert_eq!(boxes.run(&["verify"]).status, 0);
}

fn saved_plan() {
    let boxes = Boxes::new(Layers::Two);
    let plan = boxes.json(&["dedupe", "--live"]);
    let file = boxes.ground.at("plan.json");
    fs::write(&file, plan.to_string()).unwrap();
    let journal = boxes.journal();
    let apply = ["dedupe", "--apply", "--plan", file.to_str().unwrap(), "--journal"];
    let ran = crate::command::run(&[&apply[..], &[journal.to_str().unwrap()]].concat());
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert_eq!(boxes.bound(), [2, 2]);
    // One whose object holds something else is none of ours.
    let mut other = plan;
    other["steps"][1]["after"]["blake3"] = "0".repeat(64).into();
    fs::write(&file, other.to_string()).unwrap();
    let ran = crate::command::run(&[&apply[..], &[journal.to_str().unwrap()]].concat());
    assert_eq!(ran.status, 1, "{}", ran.stderr);
}

/// What was bound is gone with the old processes. That is no fault; it may be bound again.
fn started_anew() {
    let mut boxes = Boxes::new(Layers::Two);
    assert_eq!(boxes.json(&["dedupe", "--live", "--apply"])["applied"], 4);
    boxes.restart(0);
    assert_eq!(boxes.bound(), [0, 2]);
    let verified = boxes.run(&["verify"]);
    assert_eq!(verified.status, 0, "{}{}", verified.stdout, verified.stderr);
    assert!(verified.stdout.contains("started anew"), "{}", verified.stdout);
    assert_eq!(boxes.json(&["dedupe", "--live", "--apply"])["applied"], 2);
    assert_eq!(boxes.bound(), [2, 2]);
    for (applied, bound) in [(2, [0, 2]), (4, [0, 0])] {
        let undone = boxes.json(&["undo"]);
        assert_eq!((&undone["state"], &undone["restored"]), (&"undone".into(), &applied.into()));
        assert_eq!(boxes.bound(), bound);
    }
    boxes.layers_are_as_before();
}

fn ended() {
    let mut boxes = Boxes::new(Layers::Two);
    assert_eq!(boxes.json(&["dedupe", "--live", "--apply"])["applied"], 4);
    boxes.stop(0);
    let verified = boxes.run(&["verify"]);
    assert_eq!(verified.status, 0, "{}{}", verified.stdout, verified.stderr);
    // An engine takes the stack down with its container.
    boxes.ground.unmount(&boxes.roots[0]);
    let verified = boxes.run(&["verify"]);
    assert_eq!(verified.status, 0, "{}{}", verified.stdout, verified.stderr);
    let undone = boxes.json(&["undo"]);
    assert_eq!((&undone["state"], &undone["restored"]), (&"undone".into(), &4.into()), "{undone}");
    assert_eq!(boxes.bound_in(1), 0);
}

/// A run that was cut off, and its containers are gone: nothing is looked for in vain.
fn ends_half_way() {
    let mut boxes = Boxes::new(Layers::Two);
    killed::cut_off(&boxes);
    boxes.stop(0);
    boxes.ground.unmount(&boxes.roots[0]);
    boxes.stop(1);
    let recovered = boxes.json(&["recover"]);
    assert_eq!(recovered["runs"][0]["rolled_back"], 2, "{recovered}");
    assert_eq!(boxes.json(&["undo"])["state"], "undone");
    assert_eq!(boxes.json(&["gc"])["kept"], 0);
    boxes.layers_are_as_before();
}

/// What is mounted on a name is told to be ours by the object. Where nothing is mounted, none is
/// needed.
fn object_gone() {
    let mut boxes = Boxes::new(Layers::Two);
    assert_eq!(boxes.json(&["dedupe", "--live", "--apply"])["applied"], 4);
    let store = fs::read_dir(boxes.ground.at("store")).unwrap();
    store.for_each(|object| fs::remove_file(object.unwrap().path()).unwrap());
    assert_eq!(boxes.bound(), [2, 2], "its name is gone, not what is bound");
    boxes.restart(0);
    let undone = boxes.run(&["undo"]);
    assert_eq!(undone.status, 3, "{}{}", undone.stdout, undone.stderr);
    assert_eq!(boxes.bound(), [0, 2]);
    assert_eq!(boxes.json(&["history"])["runs"][0]["standing"], 2);
    boxes.restart(1);
    assert_eq!(boxes.json(&["undo"])["state"], "undone");
}

/// It is asked nothing, by no command: who asks it never ends.
fn silent_server() {
    let boxes = Boxes::new(Layers::Two);
    let run =
        |words: &[&str]| crate::hostile::finish(boxes.command(&[words, &["--json"]].concat()));
    let server = Server::silent_in(boxes.pid(0), "/bin");
    let applied = run(&["dedupe", "--live", "--apply"]);
    assert_eq!(applied.status, 3, "{}{}", applied.stdout, applied.stderr);
    assert!(applied.stdout.contains("a FUSE server"), "{}", applied.stdout);
    assert_eq!(boxes.bound(), [0, 2]);
    drop(server);
    assert_eq!(boxes.json(&["dedupe", "--live", "--apply"])["applied"], 2);
    let server = Server::silent_in(boxes.pid(0), "/bin");
    assert_eq!(run(&["verify"]).status, 0);
    let undone = run(&["undo"]);
    assert_eq!(undone.status, 3, "{}{}", undone.stdout, undone.stderr);
    assert!(undone.stdout.contains("a FUSE server"), "{}", undone.stdout);
    assert_eq!(boxes.bound(), [2, 2]);
    drop(server);
    for _ in 0..2 {
        assert_eq!(boxes.json(&["undo"])["state"], "undone");
    }
    assert_eq!(boxes.bound(), [0, 0]);
}

fn four_hundred_names() {
    let boxes = Boxes::with_names(Layers::Two, 400);
    let applied = boxes.json(&["dedupe", "--live", "--apply"]);
    assert_eq!(applied["applied"], 800, "{}", applied["left"]);
    assert_eq!(boxes.bound(), [400, 400]);
    let sleepers: Vec<Running> = [0, 1].map(|at| boxes.sleeper(at, "busybox-name-399")).into();
    let all: Vec<_> = sleepers.iter().map(|it| frames(it.pid(), "busybox-name-399")).collect();
    let (found, ideal) = distinct(&all);
    assert!(ideal > 100 && found < ideal * 3 / 2, "{found} {ideal}");
    boxes.layers_are_as_before();
    assert_eq!(boxes.json(&["undo"])["restored"], 800);
    assert_eq!(boxes.bound(), [0, 0]);
}

fn more_names() {
    let boxes = Boxes::with_names(Layers::Two, 1025);
    let plan = boxes.json(&["dedupe", "--live"]);
    assert!(plan["steps"].as_array().unwrap().is_empty());
    let skips = plan["skips"].as_array().unwrap();
    let many = skips.iter().filter(|skip| skip["reason"] == "many-names").count();
    assert_eq!(many, 2, "{skips:#?}");
}

/// Containers of one image share its files already; one of another image does not.
fn one_layer() {
    let boxes = Boxes::new(Layers::One);
    let plan = boxes.json(&["dedupe", "--live", "--apply"]);
    assert!(plan["steps"].as_array().unwrap().is_empty(), "{plan}");
    let told = |it: &serde_json::Value| {
        it["reason"] == "only-copy"
            && it["explanation"].as_str().unwrap().contains("one file of a layer")
    };
    assert!(plan["skips"].as_array().unwrap().iter().any(told), "{plan}");
    assert_eq!(copies(&boxes, &boxes.sleepers()), 1);
    // A copy of its own, in the upper directory.
    let program = boxes.at(&boxes.ground.name);
    done(&mut boxes.inside(0, &["cp", "-p", &program, "/tmp/copy"]));
    done(&mut boxes.inside(0, &["mv", "/tmp/copy", &program]));
    assert_eq!(copies(&boxes, &boxes.sleepers()), 2);
    let applied = boxes.json(&["dedupe", "--live", "--apply"]);
    assert_eq!(applied["applied"], 4, "{applied}");
    assert_eq!(copies(&boxes, &boxes.sleepers()), 1);
}

fn another_mount() {
    let boxes = Boxes::new(Layers::Two);
    assert_eq!(boxes.json(&["dedupe", "--live", "--apply"])["applied"], 4);
    let name = boxes.at("ls");
    let theirs = boxes.ground.at("image/one/bin/busybox-pause");
    let theirs = theirs.to_str().unwrap();
    done(&mut boxes.outside(0, &["mount", "--bind", theirs, &boxes.on_host(0, "ls")]));
    let undone = boxes.run(&["undo", "--json"]);
    assert_eq!(undone.status, 3, "{}", undone.stderr);
    let undone: serde_json::Value = serde_json::from_str(&undone.stdout).unwrap();
    let kept = undone["kept"].as_array().unwrap();
    assert!(kept[0]["cause"].as_str().unwrap().contains("something else is mounted"), "{kept:?}");
    assert_eq!((&undone["restored"], kept.len()), (&3.into(), 1));
    assert_eq!(boxes.bound(), [1, 0]);
    let seen = boxes.inside(0, &["cmp", &name, &boxes.at("busybox-pause")]).output().unwrap();
    assert!(seen.status.success(), "theirs is gone: {seen:?}");
    assert_eq!(boxes.json(&["gc"])["kept"], 1, "it is bound");
    done(&mut boxes.outside(0, &["umount", &boxes.on_host(0, "ls")]));
    assert_eq!(boxes.json(&["undo"])["state"], "undone");
    assert_eq!(boxes.bound(), [0, 0]);
}

/// A process of the container that went into a mount namespace of its own.
fn every_namespace() {
    let boxes = Boxes::new(Layers::Two);
    let more = boxes.ground.at("one").display().to_string();
    let program = boxes.at("busybox-pause");
    let mut apart =
        boxes.outside(0, &["unshare", "-m", "chroot", &more, &program, "sleep", "1000"]);
    let apart = crate::memory_ground::start(&mut apart);
    assert_eq!(boxes.json(&["dedupe", "--live", "--apply"])["applied"], 4);
    assert_eq!((boxes.bound(), boxes.bound_of(apart.pid())), ([2, 2], 2));
    assert_eq!(boxes.json(&["undo"])["restored"], 4);
    assert_eq!((boxes.bound(), boxes.bound_of(apart.pid())), ([0, 0], 0));
}

/// It could make the mount writable, and owns the store's files.
fn maps_root() {
    let boxes = Boxes::new(Layers::Two);
    let one = boxes.ground.at("one").display().to_string();
    let program = boxes.at("busybox-pause");
    let user = ["unshare", "-U", "-r", "-m", "chroot", &one, &program, "sleep", "1000"];
    let _user = crate::memory_ground::start(&mut boxes.outside(0, &user));
    let refused = boxes.run(&["dedupe", "--live", "--apply"]);
    assert_eq!(refused.status, 3, "{}{}", refused.stdout, refused.stderr);
    assert!(refused.stdout.contains("maps the host's root"), "{}", refused.stdout);
    assert_eq!(boxes.bound(), [0, 2]);
}

fn of_an_image() {
    let boxes = Boxes::new(Layers::Two);
    let _image = crate::rig::image::Below(boxes.ground.at("store"));
    let applied = boxes.json(&["dedupe", "--live", "--apply", "--store-format", "erofs"]);
    assert_eq!(applied["applied"], 4, "{applied}");
    assert_eq!(boxes.bound(), [2, 2]);
    assert_eq!(copies(&boxes, &boxes.sleepers()), 1);
    let sleepers = boxes.sleepers();
    let maps = fs::read_to_string(
        Path::new("/proc").join(sleepers[0].pid().to_string()).join("mountinfo"),
    );
    assert!(maps.unwrap().contains(" - erofs "));
    let verified = boxes.run(&["verify"]);
    assert_eq!(verified.status, 0, "{}{}", verified.stdout, verified.stderr);
    drop(sleepers);
    assert_eq!(boxes.json(&["undo"])["restored"], 4);
    assert_eq!(boxes.bound(), [0, 0]);
    boxes.layers_are_as_before();
}
