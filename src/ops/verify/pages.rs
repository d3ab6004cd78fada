//! Whether running containers really share the pages of an object.

use std::collections::BTreeMap;

use crate::exec::live::objects;
use crate::model::{
    BinaryMemory, Check, ContentId, FileStamp, HostPath, InodeId, Isolation, MappedBy,
    MappedObject, MemoryMethod, MemoryReport, ObjectName, Progress, Verified,
};
use crate::ops::memory::{MemoryOptions, memory};
use crate::scan::host;

use super::objects::Store;
use super::shared::SharedFile;
use super::{Looked, VerifyError};

/// One file that containers are to run, all of them.
struct Wanted<'a> {
    path: HostPath,
    content: ContentId,
    stamp: FileStamp,
    /// The inodes under which containers are shown it.
    shown: Vec<InodeId>,
    /// The roots that are to run it, where not all of them are.
    roots: Option<&'a [InodeId]>,
}

impl<'a> Wanted<'a> {
    fn object(store: &Store, (name, content, stamp): &(ObjectName, ContentId, FileStamp)) -> Self {
        let path = HostPath::from(store.path.0.join(name.as_str()));
        let shown = objects(&store.path.0, name);
        Self { path, content: *content, stamp: *stamp, shown, roots: None }
    }

    fn shared(file: &'a SharedFile) -> Self {
        let (path, content, stamp) = (file.path.clone(), file.content, file.stamp);
        Self { path, content, stamp, shown: vec![stamp.inode], roots: Some(&file.roots) }
    }

    /// A copy that is not it, in memory alone where another may lie beside a shared one.
    fn is_old(&self, copy: &MappedObject) -> bool {
        copy.content == Some(self.content)
            && (self.roots.is_none() || copy.deleted)
            && !copy.inodes.iter().any(|inode| self.shown.contains(inode))
    }

    fn is_for(&self, container: &Isolation) -> bool {
        self.roots.is_none_or(|roots| roots.contains(&container.key.root))
    }
}

/// Compares what the containers run with the objects, and with the files that they have names of,
/// page frame by page frame.
pub(super) fn check(
    running: &[Isolation],
    (stores, shared): (&[Store], &[SharedFile]),
    roots: &[Looked],
    progress: &dyn Progress,
    found: &mut Verified,
) -> Result<(), VerifyError> {
    let mut wanted: Vec<Wanted<'_>> = shared.iter().map(Wanted::shared).collect();
    for store in stores {
        wanted.extend(store.objects.iter().map(|object| Wanted::object(store, object)));
    }
    let mut options = MemoryOptions::new(host().page_size);
    options.known = wanted.iter().map(|it| (it.stamp, it.content)).collect();
    options.interest.contents = wanted.iter().map(|it| it.content).collect();
    options.roots = roots.iter().map(|root| (root.inode, root.standing.path.clone())).collect();
    let report = memory(&options, progress)?;
    for wanted in &wanted {
        let old = report.mapped.iter().filter(|copy| wanted.is_old(copy));
        let running: Vec<_> = running.iter().filter(|it| wanted.is_for(it)).collect();
        let pending = pending(old, &running);
        let row = report.binaries.iter().find(|row| row.content == Some(wanted.content));
        let check = judge(row, &pending, &report);
        found.checks.extend(check.map(|check| check.at(wanted.path.as_bytes())));
    }
    found.notices.extend(report.notices);
    Ok(())
}

/// Processes that map a copy of their own, by the name of their container.
fn pending<'a>(
    copies: impl Iterator<Item = &'a MappedObject>,
    running: &[&'a Isolation],
) -> BTreeMap<&'a str, Vec<&'a MappedBy>> {
    let mut pending: BTreeMap<&str, Vec<&MappedBy>> = BTreeMap::new();
    for user in copies.flat_map(|copy| &copy.users) {
        if let Some(container) = running.iter().find(|it| it.pids.contains(&user.pid)) {
            pending.entry(&container.name).or_default().push(user);
        }
    }
    pending
}

fn judge(
    row: Option<&BinaryMemory>,
    pending: &BTreeMap<&str, Vec<&MappedBy>>,
    report: &MemoryReport,
) -> Option<Check> {
    let estimate = match report.method {
        MemoryMethod::Pfn => "",
        MemoryMethod::Inferred => " (an estimate: page frames are shown to root alone)",
    };
    if !pending.is_empty() {
        let each = pending.iter().map(|(container, users)| {
            let users: Vec<String> =
                users.iter().map(|user| format!("{} {}", user.pid, user.comm)).collect();
            format!("{container}: {}", users.join(", "))
        });
        let each: Vec<String> = each.collect();
        let detail = format!(
            "pending restart: these processes still run a copy of their own, {}; restart them{estimate}",
            each.join("; ")
        );
        let pids = pending.values().flatten().map(|user| user.pid).collect();
        return Some(Check { pids, ..Check::bad("pending_restart", detail) });
    }
    let row = row?;
    let pages = row.text.resident.0;
    let who = format!("{} processes in {} containers", row.processes, row.containers);
    let detail = match row.file.wasted().0 {
        0 => format!("{who} share one copy, {pages} text pages{estimate}"),
        wasted => {
            format!("{who}, {pages} text pages; {wasted} more are held by other copies{estimate}")
        }
    };
    Some(Check::good("pages", detail))
}
