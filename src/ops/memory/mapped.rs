//! Who maps what was asked for.

use std::collections::HashMap;

use super::Interest;
use super::scan::Scanned;
use crate::analyze::ObjectFacts;
use crate::model::{ContentId, MappedBy, MappedObject};

/// The objects of interest. `places` has the place of each container in the report.
pub(super) fn mapped(
    scanned: &Scanned,
    facts: &[ObjectFacts],
    places: &[Option<u32>],
    interest: &Interest,
) -> Vec<MappedObject> {
    let mut holders: HashMap<ContentId, u64> = HashMap::new();
    for content in facts.iter().filter_map(|facts| facts.content) {
        *holders.entry(content).or_default() += 1;
    }
    let twice = |facts: &ObjectFacts| {
        facts.content.and_then(|content| holders.get(&content)).is_some_and(|&count| count > 1)
    };
    let objects = scanned.objects.objects.iter().zip(facts);
    let wanted =
        objects.filter(|(_, facts)| interest.includes(facts) || (interest.twice && twice(facts)));
    let mapped = wanted.map(|(object, facts)| MappedObject {
        content: facts.content,
        inodes: facts.inodes.clone(),
        deleted: facts.deleted,
        users: object.uses.iter().filter_map(|used| user(scanned, used.process, places)).collect(),
    });
    mapped.collect()
}

fn user(scanned: &Scanned, process: u32, places: &[Option<u32>]) -> Option<MappedBy> {
    let at = process as usize;
    let process = scanned.processes.get(at)?;
    let container = *scanned.objects.containers.get(at)? as usize;
    let container = places.get(container).copied().flatten();
    Some(MappedBy { pid: process.pid, comm: process.comm.clone(), container })
}

impl Interest {
    fn includes(&self, facts: &ObjectFacts) -> bool {
        facts.inodes.iter().any(|inode| self.inodes.contains(inode))
            || facts.content.is_some_and(|content| self.contents.contains(&content))
    }
}
