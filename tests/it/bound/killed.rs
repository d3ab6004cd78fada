//! Killed before each changing system call: the containers' programs run, `recover` ends what was
//! cut off by looking, and `undo` leaves nothing bound.

#![expect(clippy::print_stderr, reason = "how much was tried is a part of the answer")]

use std::fs;

use super::boxes::{Boxes, Layers, NEEDS};
use crate::rig::call::{Call, Kind};
use crate::rig::supervise::{Answer, Ended, supervise};
use crate::suite::Suite;

pub fn tests(suite: &mut Suite) {
    let mut test =
        |name: &str, run: fn()| suite.test(&format!("privileged_bound_killed_{name}"), NEEDS, run);
    test("apply", || at_each_call(&APPLY, |_| {}));
    test("undo", || at_each_call(&["undo"], |boxes| drop(boxes.json(&APPLY))));
    test("recover", || at_each_call(&["recover"], cut_off));
    test("undo_of_the_recovered", || at_each_call(&["recover"], undo_cut_off));
    test("unannounced_is_red", unannounced_is_red);
}

const APPLY: [&str; 3] = ["dedupe", "--live", "--apply"];

/// One of two names of each container is bound over.
pub fn cut_off(boxes: &Boxes) {
    let _ended = killed_at_mount(boxes, &APPLY, 3);
    assert_eq!(boxes.bound(), [2, 1]);
}

fn undo_cut_off(boxes: &Boxes) {
    boxes.json(&APPLY);
    let _ended = killed_at_mount(boxes, &["undo"], 1);
    assert_eq!(boxes.bound().iter().sum::<usize>(), 3);
}

/// Before the mount, or the unmount, that follows so many.
fn killed_at_mount(boxes: &Boxes, words: &[&str], after: usize) -> Ended {
    let mut mounts = 0;
    let ended = supervise(&boxes.command(words), |call| {
        let is_one = call.kind == Kind::Mount && is_in_a_container(call);
        mounts += usize::from(is_one);
        if is_one && mounts > after { Answer::Kill } else { Answer::Happen }
    });
    assert!(ended.is_killed(), "{ended:?}");
    ended
}

/// move_mount(2) onto a name, or umount2(2) of a descriptor; no mount_setattr(2) before.
fn is_in_a_container(call: &Call) -> bool {
    let is_name = call.path.parent().is_some_and(|dir| dir.ends_with("bin"));
    let descriptor = call.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    is_name || !descriptor.is_empty() && descriptor.bytes().all(|byte| byte.is_ascii_digit())
}

fn at_each_call(words: &[&str], prepare: fn(&Boxes)) {
    let boxes = Boxes::new(Layers::Two);
    prepare(&boxes);
    let whole = supervise(&boxes.command(words), |_| Answer::Happen);
    assert_eq!(whole.status, Some(0), "{}", whole.stderr);
    let calls = whole.calls.len();
    assert!(calls > 3, "{:?}", whole.calls);
    all_goes(&boxes).unwrap();
    let mut broken = Vec::new();
    for at in 0..calls {
        boxes.forget();
        prepare(&boxes);
        let kill = |call: &Call| if call.index == at { Answer::Kill } else { Answer::Happen };
        let ended = supervise(&boxes.command(words), kill);
        assert!(ended.is_killed(), "{at} of {calls}: {ended:?}");
        let whole = boxes.programs_run().and_then(|()| all_goes(&boxes));
        broken.extend(whole.err().map(|why| format!("killed before {}: {why}", ended.calls[at])));
    }
    eprintln!("killed before each of {calls} calls");
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// What stands is what is bound, no more and no less; and it goes.
fn all_goes(boxes: &Boxes) -> Result<(), String> {
    let recovered = boxes.run(&["recover"]);
    if recovered.status != 0 {
        return Err(format!("recover: {}{}", recovered.stdout, recovered.stderr));
    }
    let history = boxes.json(&["history"]);
    let runs = history["runs"].as_array().unwrap();
    let stands: u64 = runs.iter().map(|run| run["standing"].as_u64().unwrap()).sum();
    let bound: usize = boxes.bound().iter().sum();
    if stands != bound as u64 || runs.iter().any(|run| run["state"] == "unfinished") {
        return Err(format!("{bound} are bound, and {history}"));
    }
    if stands > 0 {
        let undone = boxes.run(&["undo"]);
        if undone.status != 0 {
            return Err(format!("undo: {}{}", undone.stdout, undone.stderr));
        }
    }
    match (boxes.bound(), boxes.layers_changed()) {
        ([0, 0], changed) if changed.is_empty() => boxes.programs_run(),
        (bound, changed) => Err(format!("{bound:?} are still bound; {changed:?}")),
    }
}

/// A run whose journal says nothing of what it was about to bind: that stays.
fn unannounced_is_red() {
    let boxes = Boxes::new(Layers::Two);
    cut_off(&boxes);
    for run in fs::read_dir(boxes.journal().join("runs")).unwrap() {
        let run = run.unwrap().path();
        let records = fs::read_to_string(&run).unwrap();
        let kept: Vec<&str> = records.lines().filter(|line| !line.contains("intents")).collect();
        assert!(kept.len() < records.lines().count(), "{records}");
        fs::write(&run, kept.join("\n") + "\n").unwrap();
    }
    all_goes(&boxes).expect_err("what was bound is left behind, and nobody noticed");
}
