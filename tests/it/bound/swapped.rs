//! Containers that put something else in a name's place, before it is held and after: nothing is
//! bound over that, and nothing of ours is left under another name.

use std::process::Child;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::boxes::{Boxes, Layers, NEEDS};
use crate::memory_ground::done;
use crate::rig::call::Kind;
use crate::rig::supervise::{Answer, supervise};
use crate::suite::Suite;

pub fn tests(suite: &mut Suite) {
    for (name, script, left) in SWAPS {
        for late in [false, true] {
            let moment = if late { "late" } else { "early" };
            let name = format!("privileged_bound_swapped_{moment}_for_{name}");
            suite.test(&name, NEEDS, move || swapped(script, left, late));
        }
    }
    suite.test("privileged_bound_swapped_late_is_a_directory", NEEDS, directory_swapped);
    suite.test("privileged_bound_a_directory_that_is_renamed", NEEDS, directory_renamed);
}

/// By what, how, and what then must be there.
const SWAPS: [(&str, &str, &str); 6] = [
    ("a_link", "rm ls; ln -s /etc/shadow ls", "readlink bin/ls"),
    ("a_fifo", "rm ls; mkfifo ls", "test -p bin/ls"),
    ("another_file", "rm ls; echo other > ls", "grep other bin/ls"),
    ("a_directory", "rm ls; mkdir ls", "test -d bin/ls"),
    ("nothing", "mv ls ls-moved", "test ! -e bin/ls && test -f bin/ls-moved"),
    ("what_was_written", "echo more >> ls", "tail -n 1 bin/ls | grep -a more"),
];

const A_WHILE: Duration = Duration::from_millis(500);

/// `late`: after the file was held and read, before anything is bound over it.
fn swapped(script: &str, left: &str, late: bool) {
    let boxes = Boxes::new(Layers::Two);
    let script = format!("cd /bin && {script}");
    let left = format!("cd {} && {left}", boxes.roots[0].display());
    let is_left = || boxes.outside(0, &["sh", "-c", &left]).output().unwrap().status.success();
    let mut swapped: Option<Child> = None;
    let ended = supervise(&boxes.command(&["dedupe", "--live", "--apply"]), |call| {
        let first = call.kind == Kind::Mount;
        let this =
            first && call.path.ends_with("bin/ls") && call.path.to_string_lossy().contains("one");
        if swapped.is_none() && (if late { this } else { first }) {
            let mut child = boxes.inside(0, &["sh", "-c", &script]).spawn().unwrap();
            // Who opens it for writing waits until it is given up.
            let begin = Instant::now();
            while child.try_wait().unwrap().is_none() && begin.elapsed() < A_WHILE {
                std::thread::sleep(Duration::from_millis(2));
            }
            swapped = Some(child);
        }
        Answer::Happen
    });
    assert!(swapped.expect("it was bound").wait().unwrap().success());
    assert_eq!(ended.status, Some(3), "{}", ended.stderr);
    assert!(is_left(), "what it put there is gone");
    // The other name of it, and both of the other container.
    assert_eq!(boxes.bound(), [1, 2]);
    let history: Value = boxes.json(&["history"]);
    assert_eq!(history["runs"][0]["standing"], 3, "{history}");
    assert_eq!(boxes.json(&["undo"])["state"], "undone");
    assert_eq!(boxes.bound(), [0, 0]);
    assert!(is_left());
}

/// Another name of the program, in a directory of the container's own: of what is a layer's only a
/// copy can be renamed.
fn with_a_directory(boxes: &Boxes) {
    done(&mut boxes.inside(0, &["mkdir", "/app"]));
    let program = boxes.at(&boxes.ground.name);
    done(&mut boxes.inside(0, &["cp", "-p", &program, "/app/busybox-app"]));
}

/// What is bound is not where the name leads by now, and goes at once.
fn directory_swapped() {
    let boxes = Boxes::new(Layers::Two);
    with_a_directory(&boxes);
    let ended = supervise(&boxes.command(&["dedupe", "--live", "--apply"]), |call| {
        if call.kind == Kind::Mount && call.path.ends_with("app/busybox-app") {
            let script = "mv /app /elsewhere; ln -s elsewhere /app";
            done(&mut boxes.inside(0, &["sh", "-c", script]));
        }
        Answer::Happen
    });
    assert_eq!(ended.status, Some(3), "{}", ended.stderr);
    assert_eq!(boxes.bound(), [2, 2]);
    assert_eq!(boxes.json(&["undo"])["restored"], 4);
    assert_eq!(boxes.bound(), [0, 0]);
}

/// It takes what is bound with it. That is not ours to look for: it is told.
fn directory_renamed() {
    let boxes = Boxes::new(Layers::Two);
    with_a_directory(&boxes);
    assert_eq!(boxes.json(&["dedupe", "--live", "--apply"])["applied"], 5);
    done(&mut boxes.inside(0, &["mv", "/app", "/moved"]));
    let undone = boxes.run(&["undo"]);
    assert_eq!(undone.status, 3, "{}", undone.stdout);
    assert!(undone.stdout.contains("was renamed in the container"), "{}", undone.stdout);
    assert_eq!(boxes.bound(), [1, 0]);
    done(&mut boxes.inside(0, &["mv", "/moved", "/app"]));
    assert_eq!(boxes.json(&["undo"])["state"], "undone");
    assert_eq!(boxes.bound(), [0, 0]);
}
