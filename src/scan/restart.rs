//! Processes that still run from what a run displaced.
//!
//! What is displaced gets a temporary name that tells the run and the step, and keeps it in
//! the kernel's tables when it is removed: `/proc/PID/maps` shows
//! `/bin/.cbin-audit-1-5 (deleted)` until the last process of it has ended.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::os::fd::AsFd as _;
use std::path::Path;

use memchr::memmem;
use rustix::fs::{CWD, Mode, OFlags, openat};

use super::dir;
use crate::model::InodeId;

/// A process, and the step that displaced what it runs from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OldProcess {
    /// Its number.
    pub pid: u32,
    /// Its name, as it calls itself.
    pub comm: String,
    /// The step.
    pub step: u32,
}

/// The processes that map a file with a name that begins with `prefix` and ends with a
/// step's number; each once for each step. What cannot be read is left out.
pub fn old_processes(proc: &Path, prefix: &str) -> Vec<OldProcess> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(proc) else { return found };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(maps) = fs::read(entry.path().join("maps")) else { continue };
        for step in steps(&maps, prefix) {
            let comm = fs::read(entry.path().join("comm")).unwrap_or_default();
            let comm = String::from_utf8_lossy(&comm).trim_end().to_owned();
            found.push(OldProcess { pid, comm, step });
        }
    }
    found.sort();
    found
}

/// The processes with this root that still run from one of these files, each with its step: what
/// hides them is another inode. What cannot be read is left out.
pub fn running_from(proc: &Path, root: InodeId, files: &HashMap<InodeId, u32>) -> Vec<OldProcess> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(proc) else { return found };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        if inode(&entry.path().join("root")) != Some(root) {
            continue;
        }
        let mapped = fs::read_dir(entry.path().join("map_files")).into_iter().flatten().flatten();
        let mapped = mapped.map(|mapping| mapping.path()).chain([entry.path().join("exe")]);
        let steps: BTreeSet<u32> =
            mapped.filter_map(|path| files.get(&inode(&path)?).copied()).collect();
        let comm = fs::read(entry.path().join("comm")).unwrap_or_default();
        let comm = String::from_utf8_lossy(&comm).trim_end().to_owned();
        found.extend(steps.into_iter().map(|step| OldProcess { pid, comm: comm.clone(), step }));
    }
    found.sort();
    found
}

/// Of what a link of `/proc` leads to, without a word to its file system.
fn inode(link: &Path) -> Option<InodeId> {
    let fd = openat(CWD, link, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    dir::stat_fd(fd.as_fd()).ok().map(|stat| dir::inode_id(&stat))
}

fn steps(maps: &[u8], prefix: &str) -> Vec<u32> {
    let needle = format!("/{prefix}");
    let mut steps: Vec<u32> = memmem::find_iter(maps, needle.as_bytes())
        .filter_map(|at| {
            let rest = maps.get(at + needle.len()..)?;
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            std::str::from_utf8(rest.get(..digits)?).ok()?.parse().ok()
        })
        .collect();
    steps.sort_unstable();
    steps.dedup();
    steps
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn the_name_of_what_was_displaced_tells_the_step() {
        let dir = tempfile::tempdir().unwrap();
        let process = dir.path().join("42");
        fs::create_dir(&process).unwrap();
        let line = "00400000-00500000 r-xp 00000000 00:2a 77 /bin/.cbin-audit-1-5 (deleted)\n";
        fs::write(process.join("maps"), line.repeat(2)).unwrap();
        fs::write(process.join("comm"), "httpd\n").unwrap();
        let found = old_processes(dir.path(), ".cbin-audit-1-");
        assert_eq!(found, [OldProcess { pid: 42, comm: "httpd".to_owned(), step: 5 }]);
        assert!(old_processes(dir.path(), ".cbin-audit-11-").is_empty());
    }
}
