//! Killed while several workers have batches under way: what each of them had begun is ended.

#![expect(clippy::print_stderr, reason = "how much was tried is a part of the answer")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::command::cbin_audit;
use crate::rig::call::{Call, Kind};
use crate::rig::image::scratch;
use crate::rig::scene::{NEEDS, Scene, age, run};
use crate::rig::supervise::{Answer, supervise};
use crate::suite::Suite;
use crate::world::program;

/// More than two batches hold open, in both containers or in the one that is changed.
const PROGRAMS: usize = 300;
const OF_ONE: usize = 540;

/// Kills at even distances.
const KILLS: usize = 10;

pub fn tests(suite: &mut Suite) {
    suite.test("privileged_crash_batches_apply", NEEDS, || killed(PROGRAMS, apply, |_| {}));
    suite.test("privileged_crash_batches_undo", NEEDS, || {
        killed(PROGRAMS, undo, |scene| drop(run(&mut apply(scene)).unwrap()));
    });
    suite.test("privileged_crash_batches_of_hardlinks", NEEDS, || killed(OF_ONE, hardlink, |_| {}));
}

fn lay(base: &Path, programs: usize) -> Scene {
    let scene = Scene::lay_small(base);
    for root in scene.roots() {
        for number in 0..programs {
            let text = format!("program {number}");
            crate::world! { root, format!("opt/{}/{number}", number % 3).as_bytes() => program(text.as_bytes()) }
        }
        age(&root);
    }
    // By their times it is seen whether programs are one file with those of the other container.
    for number in 0..programs {
        let program = scene.roots()[1].join(format!("opt/{}/{number}", number % 3));
        let then = std::time::UNIX_EPOCH + std::time::Duration::new(900_000_000, 77);
        let times = fs::FileTimes::new().set_modified(then);
        fs::File::open(program).unwrap().set_times(times).unwrap();
    }
    scene
}

fn dedupe(scene: &Scene, options: &[&str]) -> Command {
    let mut command = cbin_audit();
    command.args(["dedupe", "--apply", "--select", "elf", "--mounts", "none"]);
    command.args(["--threads", "4"]).args(options).args(scene.roots());
    command.arg("--store").arg(scene.store()).arg("--journal").arg(scene.journal());
    command
}

fn apply(scene: &Scene) -> Command {
    dedupe(scene, &[])
}

fn hardlink(scene: &Scene) -> Command {
    dedupe(scene, &["--method", "hardlink", "--trust-domain", "mine"])
}

fn undo(scene: &Scene) -> Command {
    let mut command = cbin_audit();
    command.args(["undo", "--threads", "4", "--journal"]).arg(scene.journal());
    command
}

/// Changes an entry of a container.
fn is_entry(call: &Call) -> bool {
    let names = [Some(&call.path), call.other.as_ref()].into_iter().flatten();
    call.kind != Kind::Flush
        && names.into_iter().any(|name| name.to_string_lossy().contains("/.cbin-audit-"))
}

/// Batches that the journal knows to be begun, and not to be ended.
fn open_batches(scene: &Scene) -> usize {
    let text = fs::read_to_string(scene.journal().join("runs/000001.journal")).unwrap();
    let undone = text.find("{\"undo_begin\"").unwrap_or(0);
    let of = |kind: &str| text[undone..].matches(kind).count();
    let begun = if undone == 0 { of("{\"intents\"") } else { of("{\"undoing\"") };
    begun.saturating_sub(of("{\"ended\""))
}

fn killed(programs: usize, command: fn(&Scene) -> Command, prepare: fn(&Scene)) {
    let (mut several, mut workers) = (0, BTreeSet::new());
    let calls = {
        let dir = scratch();
        let scene = lay(&dir.path().join("scene"), programs);
        prepare(&scene);
        let ended = supervise(&command(&scene), |_| Answer::Happen);
        assert_eq!(ended.status, Some(0), "{}", ended.stderr);
        ended.calls.iter().filter(|call| is_entry(call)).count()
    };
    for kill in 0..KILLS {
        let dir = scratch();
        let scene = lay(&dir.path().join("scene"), programs);
        let before = scene.snapshot();
        prepare(&scene);
        let (at, mut seen) = (1 + calls * kill / KILLS, 0);
        let ended = supervise(&command(&scene), |call| {
            if is_entry(call) {
                workers.insert((kill, call.pid));
                seen += 1;
            }
            if seen == at { Answer::Kill } else { Answer::Happen }
        });
        assert!(ended.is_killed(), "{kill}: {ended:?}");
        several += usize::from(open_batches(&scene) > 1);
        let recovered = scene.recovers(&before).and_then(|()| scene.directories_are_old());
        recovered.unwrap_or_else(|error| panic!("kill {kill}, entry {at} of {calls}: {error}"));
    }
    eprintln!("{KILLS} kills of {calls} calls: {several} with several batches under way");
    assert!(several >= KILLS / 3, "{several} of {KILLS}");
    let many = (0..KILLS).filter(|kill| workers.iter().filter(|it| it.0 == *kill).count() > 1);
    assert!(many.count() >= KILLS / 3, "{workers:?}");
}
