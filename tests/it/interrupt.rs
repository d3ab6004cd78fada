//! Ctrl-C while roots are changed: what was begun is ended, the rest is left, the status is 5, and
//! the journal tells the next command where it was.

use std::fs;
use std::path::Path;

use crate::command::{cbin_audit, run};
use crate::rig::call::Kind;
use crate::rig::image::scratch;
use crate::rig::supervise::{Answer, supervise};
use crate::snapshot::Snapshot;
use crate::suite::{Need, Suite};
use crate::world::{Entry, lay, program};

pub fn tests(suite: &mut Suite) {
    suite.test("privileged_interrupt_leaves_a_journal_that_recovers", &[Need::Root], interrupt);
}

/// More files than two workers change at once: each has a batch of 256.
const FILES: usize = 1500;

fn lay_root(root: &Path) {
    let Entry::File(bytes, mode) = program(&[0x90; 20_000]) else { panic!("a program is a file") };
    for number in 0..FILES {
        lay(root, format!("bin/tool{number}").as_bytes(), Entry::File(bytes.clone(), mode));
    }
}

fn links(root: &Path) -> usize {
    let entries = fs::read_dir(root.join("bin")).unwrap();
    entries.filter(|entry| entry.as_ref().unwrap().path().is_symlink()).count()
}

fn interrupt() {
    let dir = scratch();
    let at = |name: &str| dir.path().join(name);
    let root = at("root");
    lay_root(&root);
    let before = Snapshot::of(&root);
    let journal = at("journal");
    let journal = journal.to_str().unwrap();
    let mut command = cbin_audit();
    command.args(["--threads", "2", "dedupe", "--apply", "--select", "elf", "--mounts", "none"]);
    command.args(["--journal", journal]).arg("--store").arg(at("store")).arg(&root);
    let mut sent = false;
    let ended = supervise(&command, |call| {
        if call.kind == Kind::Exchange && !sent {
            sent = true;
            let pid = rustix::process::Pid::from_raw(call.pid as i32).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        }
        Answer::Happen
    });
    assert_eq!(ended.status, Some(5), "{}", ended.stderr);
    assert!(ended.stderr.contains("cbin-audit recover"), "{}", ended.stderr);
    let changed = links(&root);
    assert!(changed > 0 && changed < FILES, "{changed} of {FILES} were changed");
    let history = run(&["history", "--journal", journal]);
    assert!(history.stdout.contains("run 1: unfinished"), "{}", history.stdout);
    assert_eq!(run(&["recover", "--journal", journal]).status, 0);
    assert_eq!(links(&root), changed, "what was ended stays");
    let history = run(&["history", "--journal", journal]);
    assert!(history.stdout.contains("run 1: applied in part"), "{}", history.stdout);
    assert_eq!(run(&["undo", "--journal", journal]).status, 0);
    assert_eq!(before.differences(&Snapshot::of(&root)), Vec::<String>::new());
}
