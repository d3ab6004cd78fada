#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::Value;

use super::*;
use crate::model::{
    Applied, Bytes, Changed, HostPath, PendingRestart, RootId, RootPath, RunId, RunState,
};
use crate::render::json::{
    AppliedDocument, GC_SCHEMA, HISTORY_SCHEMA, PLAN_SCHEMA, RECOVER_SCHEMA, UNDO_SCHEMA, write,
};
use crate::render::sample;

fn errors(schema: &str, document: &Value) -> Vec<String> {
    let schema: Value = serde_json::from_str(schema).unwrap();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    validator.iter_errors(document).map(|error| error.to_string()).collect()
}

/// The document is valid, and the schema misses every field of it that is gone, in `rows`, too.
fn check(schema: &str, document: &impl Serialize, rows: &[&str]) {
    let mut bytes = Vec::new();
    write(&mut bytes, document).unwrap();
    let whole: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(errors(schema, &whole), Vec::<String>::new(), "{whole:#}");
    for place in [""].iter().chain(rows) {
        let fields = whole.pointer(place).unwrap().as_object().unwrap();
        for key in fields.keys().filter(|key| !key.ends_with("_base64")) {
            let mut without = whole.clone();
            without.pointer_mut(place).unwrap().as_object_mut().unwrap().remove(key);
            assert_ne!(errors(schema, &without), Vec::<String>::new(), "{place}/{key}");
        }
    }
}

fn strange() -> HostPath {
    HostPath::from(std::path::Path::new(std::ffi::OsStr::new("/srv/a")).join(odd()))
}

fn odd() -> std::ffi::OsString {
    std::os::unix::ffi::OsStringExt::from_vec(b"\xff\n".to_vec())
}

fn recovered() -> Recovered {
    let changed =
        |step, outcome| Changed { step, outcome, cause: Some("why".to_owned()), freed: Bytes(0) };
    let entries = vec![changed(0, Outcome::Done), changed(1, Outcome::Parked)];
    Recovered { run: RunId(1), state: RunState::Unfinished, entries }
}

fn left() -> Left {
    Left {
        step: 3,
        root: RootId(0),
        path: RootPath::new(b"bin/\xff".to_vec()),
        on_host: strange(),
        cause: "it changed".to_owned(),
    }
}

#[test]
fn history() {
    let summary = RunSummary {
        run: RunId(2),
        time_seconds: 5,
        state: Some(RunState::PartlyUndone),
        store: strange(),
        steps: 9,
        standing: 4,
        undone: 5,
        roots: vec![strange(), HostPath::from("/srv/b")],
        damage: None,
    };
    let damage = Some("line 3".to_owned());
    let damaged = RunSummary { state: None, damage, ..summary.clone() };
    let (runs, host) = ([summary, damaged], sample::host());
    check(HISTORY_SCHEMA, &HistoryDocument::new(&runs, &host), &["/runs/0", "/runs/1"]);
}

#[test]
fn undo() {
    let undone = Undone {
        run: RunId(2),
        state: RunState::Undone,
        restored: 7,
        kept: vec![left()],
        surroundings: vec![(strange(), "busy".to_owned())],
        recovered: vec![recovered()],
    };
    let host = sample::host();
    let rows = ["/kept/0", "/not_put_back/0", "/recovered/0"];
    check(UNDO_SCHEMA, &UndoneDocument::new(&undone, &host), &rows);
}

#[test]
fn recover() {
    let (runs, host) = ([recovered()], sample::host());
    check(RECOVER_SCHEMA, &RecoveredDocument::new(&runs, &host), &["/runs/0"]);
}

#[test]
fn gc() {
    let collected = Collected { removed: vec![(strange(), Bytes(4096))], kept: 1 };
    let host = sample::host();
    check(GC_SCHEMA, &CollectedDocument::new(&collected, &host), &["/removed/0"]);
}

#[test]
fn applied() {
    let pending =
        PendingRestart { pid: 7, comm: "sh".to_owned(), root: RootId(0), path: strange() };
    let applied = Applied {
        run: Some(RunId(1)),
        state: RunState::Partial,
        changed: 2,
        left: vec![left()],
        advice: vec!["reload".to_owned()],
        pending_restart: vec![pending],
        freed: Bytes(1),
        stored: Bytes(2),
        recovered: vec![recovered()],
    };
    let (plan, host) = (sample::plan(), sample::host());
    let document = AppliedDocument::new(&plan, &applied, &host);
    let mut bytes = Vec::new();
    write(&mut bytes, &document).unwrap();
    let whole: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(errors(PLAN_SCHEMA, &whole), Vec::<String>::new(), "{whole:#}");
    let fields = ["applied", "state", "left", "freed_bytes", "pending_restart", "recovered"];
    for field in fields {
        let mut without = whole.clone();
        without.as_object_mut().unwrap().remove(field);
        assert_ne!(errors(PLAN_SCHEMA, &without), Vec::<String>::new(), "{field}");
    }
    for (row, field) in [("/pending_restart/0", "pid"), ("/left/0", "cause")] {
        let mut without = whole.clone();
        without.pointer_mut(row).unwrap().as_object_mut().unwrap().remove(field);
        assert_ne!(errors(PLAN_SCHEMA, &without), Vec::<String>::new(), "{row}/{field}");
    }
}
