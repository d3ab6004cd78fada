//! What must not pass: the same change, made without care. If these are green, the tests are
//! blind.

use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::path::Path;
use std::process::Command;

use rustix::io::Errno;

use super::call::{Call, Kind};
use super::scene::Scene;
use super::supervise::Answer;

/// What is done by hand: the program is moved into the store, and a link leads there.
pub fn by_hand(scene: &Scene) -> Command {
    const SCRIPT: &str = r#"
        mkdir "$1"; store=$1; shift
        for root; do
            mv "$root/bin/busybox" "$store/busybox"
            ln -s /cbin/busybox "$root/bin/busybox"
        done; sync"#;
    let mut command = Command::new("sh");
    command.args(["-c", SCRIPT, "sh"]).arg(scene.store()).args(scene.roots());
    command
}

/// One step by names alone: each call resolves them anew, and nothing is looked at twice.
pub fn step(entry: &Path, temporary: &Path, planned: &str, target: &str) {
    if fs::read_to_string(entry).is_ok_and(|found| found == planned) {
        let _taken = symlink(target, temporary);
        let _dangling = chown(temporary, Some(100_000), Some(100_000));
        let _gone = fs::rename(temporary, entry);
    }
}

/// The same for a directory, with both temporary names.
pub fn tree_step(entry: &Path, temporary: &Path, planned: &str, target: &str) {
    if fs::read_to_string(entry.join("zone")).is_ok_and(|found| found == planned) {
        let scrap = temporary.with_file_name(".cbin-audit-1-0-scrap");
        let _moved = fs::rename(entry, temporary);
        let _linked = symlink(target, entry);
        let _moved = fs::rename(temporary, &scrap);
        // So that all of it can be removed.
        for below in ["zone", "sub"] {
            let _followed = chown(scrap.join(below), Some(100_000), Some(100_000));
        }
        let _gone = fs::remove_dir_all(&scrap).or_else(|_| fs::remove_file(&scrap));
    }
}

/// The same for a file that is to become a name of another container's.
pub fn hardlink_step(entry: &Path, temporary: &Path, planned: &str, twin: &str) {
    let is_planned = |file: &Path| fs::read_to_string(file).is_ok_and(|found| found == planned);
    if is_planned(entry) && is_planned(Path::new(twin)) {
        let _taken = fs::hard_link(twin, temporary);
        if is_planned(temporary) {
            let _gone = fs::rename(temporary, entry);
        }
    }
}

/// A build that never flushes, on a file system that cannot clone: a clone needs no flush.
pub fn without_flush(call: &Call) -> Answer {
    match call.kind {
        Kind::Flush => Answer::Pretend,
        Kind::Clone => Answer::Fail(Errno::OPNOTSUPP),
        _ => Answer::Happen,
    }
}

/// A build that flushes all but the store.
pub fn without_flush_of(store: &Path, call: &Call) -> Answer {
    // An object that has no name yet is `STORE/#INODE (deleted)`.
    match without_flush(call) {
        Answer::Pretend if !call.is_below(store) => Answer::Happen,
        answer => answer,
    }
}

/// The first half of an exchange by a build that knows none: the name is moved away.
pub fn begin_without_exchange(call: &Call) {
    assert_eq!(call.kind, Kind::Exchange);
    let name = call.other.as_deref().unwrap();
    fs::rename(name, name.with_extension("displaced")).unwrap();
}
