//! What a plan saves in memory: a forecast, from the pages that processes have now.

use std::collections::HashSet;

use crate::analyze::plan::{Freed, Sharable};
use crate::model::{
    Action, Bytes, ContentId, HostPath, InodeId, Method, Plan, Progress, Root, RootState,
};
use crate::ops::memory::{MemoryOptions, memory};
use crate::ops::survey::Survey;
use crate::scan;

/// Pages of the contents that become links, beyond those that one inode of each would need.
/// Nothing where no container runs from the roots that change, or where it cannot be seen.
pub(super) fn forecast(
    survey: &Survey,
    roots: &[Root],
    plan: &Plan,
    shared: &HashSet<ContentId>,
    progress: &dyn Progress,
) -> Bytes {
    let running = running(roots, plan);
    if running.is_empty() || plan.settings.method == Method::Reflink {
        return Bytes(0);
    }
    let page_size = scan::host().page_size;
    let options = MemoryOptions {
        threads: rayon::current_num_threads(),
        known: survey.known(),
        roots: running,
        only_roots: true,
        processes: false,
        ..MemoryOptions::new(page_size)
    };
    let Ok(found) = memory(&options, progress) else { return Bytes(0) };
    let binaries = found.binaries.iter();
    let ours = binaries.filter(|it| it.content.is_some_and(|content| shared.contains(&content)));
    ours.map(|binary| binary.file.wasted().bytes(page_size)).sum()
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
