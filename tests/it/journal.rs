//! Journals of every version that was ever released are read for ever: what they say is what undo
//! needs.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use cbin_audit::exec::journal::{self, Entry, PlacedEntry, Reading, Run};
use cbin_audit::model::{Before, Intent, Outcome, RootId, RunId, RunState};

use crate::command::run;
use crate::packages::testdata;
use crate::rig::supervise::succeed;
use crate::suite::Suite;

pub fn tests(suite: &mut Suite) {
    suite.test("journal_of_version_1_has_every_record", &[], every_record);
    suite.test("journal_of_version_1_is_read", &[], version_1);
    suite.test("journal_of_version_1_is_read_in_part", &[], in_part);
    suite.test("journal_of_version_1_is_listed", &[], listed);
}

fn at() -> PathBuf {
    testdata().join("journal/v1")
}

/// If one is missing here, nothing shows that it can still be read.
fn every_record() {
    const RECORDS: [&str; 12] = [
        "attach",
        "begin",
        "config",
        "directories",
        "end",
        "ended",
        "host_link",
        "intents",
        "objects",
        "tree",
        "undo_begin",
        "undoing",
    ];
    let text = fs::read_to_string(at().join("runs/000001.journal")).unwrap();
    let names: BTreeSet<String> = text
        .lines()
        .map(|line| {
            let record: serde_json::Value = serde_json::from_str(&line[9..]).unwrap();
            record.as_object().unwrap().keys().next().unwrap().clone()
        })
        .collect();
    assert_eq!(names.iter().map(String::as_str).collect::<Vec<_>>(), RECORDS);
}

fn read(run: u64) -> (Run, u64) {
    match journal::read(&at(), RunId(run)).unwrap() {
        Reading::Run { run, length } => (*run, length),
        Reading::Empty => panic!("run {run} is empty"),
    }
}

fn version_1() {
    let (run, _) = read(1);
    assert_eq!((run.begin.version, run.begin.time_seconds), (1, 1_700_000_000));
    assert_eq!(run.state, RunState::PartlyUndone);
    assert_eq!(run.undo, Some(Some(RootId(0))));
    assert_eq!(run.begin.roots[1].path.0, PathBuf::from("/srv/db"));
    assert_eq!(run.host_link.as_ref().unwrap().1, b"home/cbin");
    let outcomes: Vec<_> = run.entries.values().map(|entry| entry.outcome.unwrap()).collect();
    let expected = [Outcome::Undone, Outcome::Done, Outcome::Superseded, Outcome::RolledBack];
    assert_eq!(outcomes, expected);
    assert_eq!(run.refused[&9], "it changed after planning; run dedupe again");
    let file = &run.entries[&3].intent;
    assert_eq!(file.path.as_bytes(), b"bin/\xff\n");
    let Before::File { ino: 12, nlink: 2, content, metadata, .. } = &file.before else {
        panic!("{file:?}")
    };
    assert_eq!((metadata.mode, metadata.mtime), (0o100_755, -1));
    assert_eq!(metadata.xattrs, [(b"user.note".to_vec(), vec![0xff, 0])]);
    assert!(file.object.as_ref().unwrap().fits(*content));
    assert!(
        matches!(&run.entries[&4].intent.before, Before::Link { target, .. } if target == b"busybox")
    );
    assert_eq!(run.entries[&5].intent.before, Before::Absent);
    assert!(matches!(run.entries[&6].intent.before, Before::Tree { .. }));
    assert_eq!(run.trees[&6].len(), 1);
    let directory = run.directories.values().next().unwrap();
    assert_eq!((directory.before, directory.after), (-5, 7));
    assert_eq!(run.configs[0].after.as_deref(), Some(b"[Files]\n".as_slice()));
    assert!(run.attaches[0].made && !run.attaches[0].mounted);
}

/// The second was cut off in the middle of a line: that is none.
/// What is read alone is what is read with all the rest.
fn in_part() {
    for id in [1, 2] {
        let placed = journal::placed(&at(), RunId(id)).unwrap().unwrap();
        let (run, _) = read(id);
        let entries: Vec<_> = run
            .entries
            .into_iter()
            .map(|(step, Entry { intent: Intent { root, path, .. }, outcome, .. })| {
                (step, PlacedEntry { root, path, outcome })
            })
            .collect();
        assert!(!entries.is_empty());
        assert_eq!(placed.entries.into_iter().collect::<Vec<_>>(), entries);
        assert_eq!((placed.begin, placed.objects), (run.begin, run.objects));
        assert_eq!((placed.undo, placed.state), (run.undo.is_some(), run.state));
    }
}

fn listed() {
    let (run, length) = read(2);
    assert_eq!(run.state, RunState::Unfinished);
    assert!(length < fs::metadata(at().join("runs/000002.journal")).unwrap().len());
    let copy = tempfile::tempdir().unwrap();
    succeed(Command::new("cp").arg("-rT").arg(at()).arg(copy.path()));
    let history = run_history(copy.path().to_str().unwrap());
    assert!(history.contains("run 1: undone in part"), "{history}");
    assert!(history.contains("run 2: unfinished"), "{history}");
}

fn run_history(journal: &str) -> String {
    let ran = run(&["history", "--journal", journal]);
    assert_eq!(ran.status, 0, "{ran:?}");
    ran.stdout
}
