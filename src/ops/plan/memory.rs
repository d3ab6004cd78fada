//! What a plan saves in memory: a forecast, from the pages that processes have now.

use std::collections::HashSet;

use crate::analyze::plan::{Freed, Sharable};
use crate::model::{
    Action, Bytes, ContentId, HostPath, InodeId, MemoryReport, Method, Notice, Notices, Plan,
    Progress, Root, RootState,
};
use crate::ops::memory::{MemoryError, MemoryOptions, memory};
use crate::ops::survey::Survey;
use crate::scan;

/// What the containers have in memory that run from the roots that change; `None` where there
/// are none.
pub(super) fn live(
    survey: &Survey,
    roots: &[Root],
    plan: &Plan,
    progress: &dyn Progress,
) -> Option<Result<MemoryReport, MemoryError>> {
    let running = running(roots, plan);
    if running.is_empty() || plan.settings.method == Method::Reflink {
        return None;
    }
    let options = MemoryOptions {
        threads: rayon::current_num_threads(),
        known: survey.known(),
        roots: running,
        only_roots: true,
        processes: false,
        ..MemoryOptions::new(scan::host().page_size)
    };
    Some(memory(&options, progress))
}

/// Pages of the contents that become links, beyond those that one inode of each would need.
/// Where the live view cannot be had, none are known, and that is told.
pub(super) fn forecast(
    live: Result<MemoryReport, MemoryError>,
    shared: &HashSet<ContentId>,
    notices: &mut Notices,
) -> Bytes {
    let found = match live {
        Ok(found) => found,
        Err(error) => {
            let cause = format!("{error}: what is saved in memory is not known, and not counted");
            notices.push(Notice::partial("/proc", "forecast", cause));
            return Bytes(0);
        }
    };
    let binaries = found.binaries.iter();
    let ours = binaries.filter(|it| it.content.is_some_and(|content| shared.contains(&content)));
    ours.map(|binary| binary.file.wasted().bytes(scan::host().page_size)).sum()
}

/// The contents whose inodes become one.
pub(super) fn shared(freed: &[Freed], contents: &[Sharable]) -> HashSet<ContentId> {
    freed.iter().filter_map(|freed| Some(contents.get(freed.content)?.content)).collect()
}

/// The roots that change, and that containers run from.
fn running(roots: &[Root], plan: &Plan) -> Vec<(InodeId, HostPath)> {
    let entries = plan.steps.iter().filter(|step| !matches!(step.action, Action::Store { .. }));
    let changed: HashSet<u32> = entries.map(|step| step.root.0).collect();
    let runs = |(at, root): &(usize, &Root)| {
        root.state == RootState::Running && changed.contains(&(*at as u32))
    };
    let running = roots.iter().enumerate().filter(runs);
    running.map(|(_, root)| (root.inode, root.path.clone())).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_live_view_that_cannot_be_had_is_told() {
        let source = std::io::Error::from(rustix::io::Errno::ACCESS);
        let error = MemoryError::Processes { path: "/proc".into(), source };
        let mut notices = Notices::default();
        assert_eq!(forecast(Err(error), &HashSet::new(), &mut notices), Bytes(0));
        assert!(!notices.complete());
        assert!(notices.iter().next().unwrap().cause.contains("in memory"));
    }
}
