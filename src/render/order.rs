//! The order in which a report's rows are shown.

use std::cmp::Reverse;
use std::collections::HashMap;

use crate::model::{BinaryMemory, ContentId, Group, Pages, Report, Tree};

/// What comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sort {
    /// The most wasted disk blocks.
    #[default]
    Disk,
    /// The most wasted pages of memory, then of disk.
    Memory,
    /// The most inodes.
    Copies,
    /// The first in byte order.
    Name,
}

/// Orders groups and trees; what is equal stands by content, so that the order is always the same.
pub fn sort(report: &mut Report, by: Sort) {
    let memory: HashMap<ContentId, Pages> = by_content(report)
        .into_iter()
        .map(|(content, binary)| (content, binary.file.wasted()))
        .collect();
    sort_groups(&mut report.groups, &memory, by);
    sort_trees(&mut report.trees, by);
}

fn sort_groups(groups: &mut [Group], memory: &HashMap<ContentId, Pages>, by: Sort) {
    let pages = |group: &Group| memory.get(&group.content).copied().unwrap_or_default();
    let disk = |group: &Group| (Reverse(group.wasted), group.content);
    match by {
        Sort::Disk => groups.sort_by_cached_key(disk),
        Sort::Memory => groups.sort_by_cached_key(|group| (Reverse(pages(group)), disk(group))),
        Sort::Copies => groups.sort_by_cached_key(|group| (Reverse(group.inodes), disk(group))),
        Sort::Name => groups.sort_by(|a, b| {
            (&a.name, &a.version, a.content).cmp(&(&b.name, &b.version, b.content))
        }),
    }
}

/// A tree has no memory of its own: by memory it stands as by disk.
fn sort_trees(trees: &mut [Tree], by: Sort) {
    trees.sort_by(|a, b| {
        let disk = || (Reverse(a.wasted), &a.path).cmp(&(Reverse(b.wasted), &b.path));
        match by {
            Sort::Disk | Sort::Memory => disk(),
            Sort::Copies => b.roots.len().cmp(&a.roots.len()).then_with(disk),
            Sort::Name => a.path.cmp(&b.path),
        }
    });
}

/// What is in memory of each content.
pub(super) fn by_content(report: &Report) -> HashMap<ContentId, &BinaryMemory> {
    let binaries = report.memory.iter().flat_map(|memory| &memory.binaries);
    binaries.filter_map(|binary| Some((binary.content?, binary))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Bytes, PageCounts};
    use crate::render::sample;

    fn order(by: Sort) -> Vec<String> {
        let mut report = sample::with_memory();
        let group = |name: &str, content: u8, wasted: u64, inodes: u64| Group {
            name: name.to_owned(),
            content: ContentId([content; 32]),
            wasted: Bytes(wasted),
            inodes,
            ..sample::busybox()
        };
        report.groups = vec![group("c", 1, 10, 2), group("a", 2, 30, 3), group("b", 3, 20, 9)];
        let memory = report.memory.as_mut().expect("the sample has a memory part");
        memory.binaries[0].content = Some(ContentId([1; 32]));
        memory.binaries[0].file =
            PageCounts { mapped: Pages(9), resident: Pages(9), ideal: Pages(1) };
        sort(&mut report, by);
        report.groups.into_iter().map(|group| group.name).collect()
    }

    #[test]
    fn each_order_has_its_own_first() {
        assert_eq!(order(Sort::Disk), ["a", "b", "c"]);
        assert_eq!(order(Sort::Memory), ["c", "a", "b"]);
        assert_eq!(order(Sort::Copies), ["b", "a", "c"]);
        assert_eq!(order(Sort::Name), ["a", "b", "c"]);
    }
}
