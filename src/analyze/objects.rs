//! Page-cache objects, found by the frames that processes have in common.
//!
//! No device and inode number that user space can read tells which pages are
//! one: overlayfs shows two for one object, btrfs snapshots and a copy-up one for
//! two. What maps shows is the first guess here, and the frames decide:
//! views of which one page lies in one frame are views of one object.

use std::collections::{BTreeMap, HashMap};

use crate::model::{FileKey, PageSet, ProcessPages, Run};

use super::frames::{FrameTable, Vote};

/// A set of pages that many processes have alike, by its place in [`PageSets`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetId(u32);

/// Each distinct set of pages once: a thousand shells map the same few.
#[derive(Debug, Default)]
pub struct PageSets {
    sets: Vec<PageSet>,
    places: HashMap<PageSet, SetId>,
}

impl PageSets {
    fn intern(&mut self, set: PageSet) -> SetId {
        if let Some(&id) = self.places.get(&set) {
            return id;
        }
        let id = SetId(self.sets.len() as u32);
        self.sets.push(set.clone());
        self.places.insert(set, id);
        id
    }

    /// The set.
    pub fn get(&self, id: SetId) -> &PageSet {
        &self.sets[id.0 as usize]
    }
}

/// One process's pages of one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Use {
    /// The process's place in [`Objects::containers`].
    pub process: u32,
    /// Pages in mappings that are `x`.
    pub executable: SetId,
    /// Pages in its other mappings.
    pub other: SetId,
}

/// The sight of a file: something to be held, so that it can be read later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sighting {
    /// Its number; a file that was not seen before has the next one, from 0 on.
    pub number: u32,
    /// Where it was seen, in [`ProcessPages::mappings`].
    pub mapping: u32,
}

/// One view of an object: frames that belong together.
#[derive(Debug)]
struct View {
    frames: FrameTable,
    uses: Vec<Use>,
    /// A view found to be of the same object; itself when none was.
    same_as: u32,
}

/// Takes in processes one by one.
#[derive(Debug, Default)]
pub struct Collector {
    views: Vec<View>,
    by_key: HashMap<FileKey, Vec<u32>>,
    recent: HashMap<FileKey, Recent>,
    order: Vec<u32>,
    sets: PageSets,
    containers: Vec<u32>,
}

/// One page-cache object.
#[derive(Debug)]
pub struct Object {
    /// The sightings that turned out to be this object.
    pub sightings: Vec<u32>,
    /// Who maps it, by process; each process once.
    pub uses: Vec<Use>,
}

impl Object {
    /// Its pages that somebody maps.
    pub fn mapped(&self, sets: &PageSets) -> PageSet {
        let mut used: Vec<SetId> =
            self.uses.iter().flat_map(|it| [it.executable, it.other]).collect();
        used.sort_unstable();
        used.dedup();
        used.into_iter().fold(PageSet::default(), |all, set| all.union(sets.get(set)))
    }
}

/// What the processes map.
#[derive(Debug)]
pub struct Objects {
    /// The objects.
    pub objects: Vec<Object>,
    /// The sets that uses refer to.
    pub sets: PageSets,
    /// The container of each process, in the order they were taken in.
    pub containers: Vec<u32>,
}

impl Collector {
    /// Takes in a process of a container. Tells `seen` of each file that it maps.
    pub fn add(&mut self, pages: &ProcessPages, container: u32, mut seen: impl FnMut(Sighting)) {
        let process = self.containers.len() as u32;
        self.containers.push(container);
        let key = |index: &u32| pages.mappings[*index as usize].key;
        let mut order = std::mem::take(&mut self.order);
        order.clear();
        order.extend(0..pages.mappings.len() as u32);
        order.sort_by_key(key);
        for members in order.chunk_by(|a, b| key(a) == key(b)) {
            self.add_file(process, pages, members, &mut seen);
        }
        self.order = order;
    }

    /// Takes in the mappings of one key.
    fn add_file(
        &mut self,
        process: u32,
        pages: &ProcessPages,
        members: &[u32],
        seen: &mut impl FnMut(Sighting),
    ) {
        let key = pages.mappings[members[0] as usize].key;
        if let Some(last) = self.recent.get(&key).filter(|last| last.is_like(pages, members)) {
            self.views[last.view as usize].uses.push(Use { process, ..last.used });
            return seen(Sighting { number: last.view, mapping: members[0] });
        }
        let units = units(pages, members);
        let whole = units.len() == 1;
        for unit in units {
            let view = self.place(pages, &unit);
            let mapping = unit.members[0];
            let executable = self.sets.intern(unit.executable);
            let other = self.sets.intern(unit.other);
            let used = Use { process, executable, other };
            self.views[view as usize].uses.push(used);
            if whole {
                self.recent.insert(key, Recent::new(pages, members, view, used));
            }
            seen(Sighting { number: view, mapping });
        }
    }

    /// The view that a unit belongs to; a new one where its frames fit none.
    fn place(&mut self, pages: &ProcessPages, unit: &Unit) -> u32 {
        let candidates = self.by_key.get(&unit.key).map(Vec::as_slice).unwrap_or_default();
        let empty = unit.executable.is_empty() && unit.other.is_empty();
        let mut matching = candidates.iter().copied().filter(|&view| {
            empty || self.views[view as usize].frames.vote(unit.runs(pages)) == Vote::Same
        });
        let Some(first) = matching.next() else { return self.open_view(pages, unit) };
        let others: Vec<u32> = if empty { Vec::new() } else { matching.collect() };
        others.into_iter().for_each(|other| self.join(first, other));
        self.views[first as usize].frames.absorb(unit.runs(pages));
        first
    }

    fn open_view(&mut self, pages: &ProcessPages, unit: &Unit) -> u32 {
        let number = self.views.len() as u32;
        let mut frames = FrameTable::default();
        frames.absorb(unit.runs(pages));
        self.views.push(View { frames, uses: Vec::new(), same_as: number });
        self.by_key.entry(unit.key).or_default().push(number);
        number
    }

    fn join(&mut self, a: u32, b: u32) {
        let (a, b) = (self.find(a), self.find(b));
        self.views[a.max(b) as usize].same_as = a.min(b);
    }

    fn find(&self, mut view: u32) -> u32 {
        while self.views[view as usize].same_as != view {
            view = self.views[view as usize].same_as;
        }
        view
    }

    /// Decides which views are one object.
    pub fn finish(mut self) -> Objects {
        self.join_by_frame();
        self.join_by_key();
        let mut members: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for view in 0..self.views.len() as u32 {
            members.entry(self.find(view)).or_default().push(view);
        }
        let Self { mut views, mut sets, containers, .. } = self;
        let objects = members.into_values().map(|sightings| {
            let lists =
                sightings.iter().map(|&view| std::mem::take(&mut views[view as usize].uses));
            let uses = one_per_process(lists.flatten().collect(), &mut sets);
            Object { sightings, uses }
        });
        let objects = objects.collect();
        Objects { objects, sets, containers }
    }

    /// Joins views that have a page in the same frame, whatever their keys are:
    /// overlays of one lower file, a snapshot mounted twice.
    fn join_by_frame(&mut self) {
        let mut spans: Vec<(u64, u64, u64, u32)> = Vec::new();
        for (number, view) in self.views.iter().enumerate() {
            let runs = view.frames.runs().into_iter().filter(|run| run.pfn != 0);
            spans.extend(runs.map(|run| {
                // One frame holds one page of one file: equal frames at different pages
                // are a frame that was freed and used again meanwhile.
                let diagonal = run.pfn.wrapping_sub(run.page);
                (diagonal, run.pfn, run.pfn + u64::from(run.len), number as u32)
            }));
        }
        spans.sort_unstable();
        let mut last: Option<(u64, u64, u32)> = None;
        for (diagonal, start, end, view) in spans {
            match last {
                Some((line, reach, other)) if line == diagonal && start < reach => {
                    self.join(other, view);
                    last = Some((line, reach.max(end), view));
                }
                _ => last = Some((diagonal, end, view)),
            }
        }
    }

    /// Joins views of one key that no page contradicts: parts of one file that
    /// no two processes have in common.
    fn join_by_key(&mut self) {
        let keys: Vec<Vec<u32>> = self.by_key.values().filter(|v| v.len() > 1).cloned().collect();
        for views in keys {
            let mut parts: BTreeMap<u32, FrameTable> = BTreeMap::new();
            for view in views {
                let runs = self.views[view as usize].frames.runs();
                parts.entry(self.find(view)).or_default().absorb(&runs);
            }
            let mut settled: Vec<(u32, FrameTable)> = Vec::new();
            for (view, frames) in parts {
                let runs = frames.runs();
                let fits = |part: &&mut (u32, FrameTable)| part.1.vote(&runs) != Vote::Different;
                match settled.iter_mut().find(fits) {
                    Some((first, whole)) => {
                        whole.absorb(&runs);
                        let first = *first;
                        self.join(first, view);
                    }
                    None => settled.push((view, frames)),
                }
            }
        }
    }
}

/// A process that maps an object under two keys has two uses: made one.
fn one_per_process(mut uses: Vec<Use>, sets: &mut PageSets) -> Vec<Use> {
    uses.sort_unstable();
    let mut single: Vec<Use> = Vec::with_capacity(uses.len());
    for next in uses {
        match single.last_mut() {
            Some(last) if last.process == next.process => {
                let executable = sets.get(last.executable).union(sets.get(next.executable));
                let other = sets.get(last.other).union(sets.get(next.other));
                last.executable = sets.intern(executable);
                last.other = sets.intern(other);
            }
            _ => single.push(next),
        }
    }
    single
}

/// The mappings of one process that show one file.
struct Unit {
    key: FileKey,
    members: Vec<u32>,
    executable: PageSet,
    other: PageSet,
}

impl Unit {
    fn new(pages: &ProcessPages, members: Vec<u32>) -> Self {
        let (mut executable, mut other) = (PageSet::default(), PageSet::default());
        for mapping in members.iter().map(|&index| &pages.mappings[index as usize]) {
            let set = if mapping.executable { &mut executable } else { &mut other };
            let ranges = pages.runs_of(mapping).iter();
            ranges.for_each(|run| set.insert(run.page..run.page + u64::from(run.len)));
        }
        let key = pages.mappings[members[0] as usize].key;
        Self { key, members, executable, other }
    }

    fn runs<'a>(&'a self, pages: &'a ProcessPages) -> impl Iterator<Item = &'a Run> {
        let mappings = self.members.iter().map(|&index| &pages.mappings[index as usize]);
        mappings.flat_map(|mapping| pages.runs_of(mapping))
    }

    /// One page of the key lies in two frames: the key names two files here.
    fn contradicts_itself(&self, pages: &ProcessPages) -> bool {
        let runs: u64 = self.runs(pages).map(|run| u64::from(run.len)).sum();
        if self.executable.union(&self.other).len().0 == runs {
            return false;
        }
        let mut frames = FrameTable::default();
        self.members.iter().map(|&index| &pages.mappings[index as usize]).any(|mapping| {
            let runs = pages.runs_of(mapping);
            let vote = frames.vote(runs);
            frames.absorb(runs);
            vote == Vote::Different
        })
    }
}

/// The mappings of one key together; one by one where the key names two files.
fn units(pages: &ProcessPages, members: &[u32]) -> Vec<Unit> {
    let unit = Unit::new(pages, members.to_vec());
    if unit.contradicts_itself(pages) {
        return members.iter().map(|&index| Unit::new(pages, vec![index])).collect();
    }
    vec![unit]
}

/// What the last process with a key had of it, and what came of that: a thousand shells
/// have the same pages, and need not be placed a thousand times.
#[derive(Debug)]
struct Recent {
    pages: Vec<(bool, Run)>,
    view: u32,
    used: Use,
}

impl Recent {
    fn new(pages: &ProcessPages, members: &[u32], view: u32, used: Use) -> Self {
        Self { pages: pages_of(pages, members).collect(), view, used }
    }

    fn is_like(&self, pages: &ProcessPages, members: &[u32]) -> bool {
        pages_of(pages, members).eq(self.pages.iter().copied())
    }
}

/// The pages of some mappings, and whether they are mapped `x`.
fn pages_of(pages: &ProcessPages, members: &[u32]) -> impl Iterator<Item = (bool, Run)> {
    let mappings = members.iter().map(|&index| &pages.mappings[index as usize]);
    mappings.flat_map(|one| pages.runs_of(one).iter().map(|run| (one.executable, *run)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Mapping;

    /// A process with one mapping per tuple: inode, executable, first page, frame, pages.
    fn process(mappings: &[(u64, bool, u64, u64, u32)]) -> ProcessPages {
        let mut pages = ProcessPages::default();
        for (index, &(ino, executable, page, pfn, len)) in mappings.iter().enumerate() {
            let index = index as u32;
            pages.runs.push(Run { page, pfn, len });
            pages.mappings.push(Mapping {
                key: FileKey { dev: 1, ino },
                address: 0..0,
                executable,
                runs: index..index + 1,
            });
        }
        pages
    }

    fn collect(processes: &[&[(u64, bool, u64, u64, u32)]]) -> Objects {
        let mut collector = Collector::default();
        for mappings in processes {
            collector.add(&process(mappings), 0, |_| ());
        }
        collector.finish()
    }

    #[test]
    fn one_inode_is_one_object() {
        let objects = collect(&[&[(1, true, 0, 100, 8)], &[(1, true, 4, 104, 8)]]);
        assert_eq!(objects.objects.len(), 1);
        assert_eq!(objects.objects[0].uses.len(), 2);
    }

    #[test]
    fn a_key_may_name_two_objects() {
        // btrfs snapshots, copy-up on overlayfs.
        let objects = collect(&[&[(1, true, 0, 100, 8)], &[(1, true, 0, 200, 8)]]);
        assert_eq!(objects.objects.len(), 2);
    }

    #[test]
    fn what_is_like_the_last_one_goes_where_that_went() {
        let (a, b) = ((1, true, 0, 100, 8), (1, true, 0, 200, 8));
        let objects = collect(&[&[a], &[a], &[b], &[b], &[a], &[(1, false, 0, 100, 8)]]);
        let uses = |at: usize| -> Vec<_> {
            let uses = objects.objects[at].uses.iter();
            uses.map(|one| (one.process, objects.sets.get(one.executable).len().0)).collect()
        };
        assert_eq!(uses(0), [(0, 8), (1, 8), (4, 8), (5, 0)]);
        assert_eq!(uses(1), [(2, 8), (3, 8)]);
    }

    #[test]
    fn two_keys_may_name_one_object() {
        // Overlays of one lower directory.
        let objects = collect(&[
            &[(1, true, 0, 100, 8)],
            &[(2, true, 2, 102, 2)],
            &[(3, true, 7, 107, 1), (4, true, 7, 108, 1)],
        ]);
        assert_eq!(objects.objects.len(), 2);
        assert_eq!(objects.objects[0].sightings, [0, 1, 2]);
    }

    #[test]
    fn one_process_may_map_both() {
        let objects = collect(&[&[(1, true, 0, 100, 8), (1, true, 0, 200, 8)]]);
        assert_eq!(objects.objects.len(), 2);
        let objects = collect(&[&[(1, true, 0, 100, 8), (2, false, 0, 100, 9)]]);
        assert_eq!(objects.objects.len(), 1);
        assert_eq!(objects.objects[0].uses.len(), 1);
        let used = objects.objects[0].uses[0];
        assert_eq!(objects.sets.get(used.other), &[0..9].into_iter().collect());
    }

    #[test]
    fn a_page_in_two_segments_is_no_contradiction() {
        let objects = collect(&[&[(1, false, 0, 100, 4), (1, true, 3, 103, 4)]]);
        assert_eq!(objects.objects.len(), 1);
    }

    #[test]
    fn parts_are_joined_by_what_spans_them() {
        // Two files of one key; the third process shows which parts belong together.
        let objects = collect(&[
            &[(1, true, 0, 100, 4)],
            &[(1, true, 20, 220, 4)],
            &[(1, true, 0, 200, 24)],
            &[(1, true, 0, 100, 24)],
        ]);
        let users =
            |object: &Object| -> Vec<u32> { object.uses.iter().map(|u| u.process).collect() };
        let users: Vec<_> = objects.objects.iter().map(users).collect();
        assert_eq!(users, [vec![0, 3], vec![1, 2]]);
    }

    #[test]
    fn parts_that_nothing_contradicts_are_one() {
        let objects = collect(&[&[(1, true, 0, 100, 4)], &[(1, true, 20, 300, 4)]]);
        assert_eq!(objects.objects.len(), 1);
    }

    #[test]
    fn a_frame_used_again_for_another_page_joins_nothing() {
        let objects = collect(&[&[(1, true, 0, 100, 4)], &[(2, true, 9, 100, 4)]]);
        assert_eq!(objects.objects.len(), 2);
    }

    #[test]
    fn hidden_frames_leave_the_key() {
        let objects = collect(&[
            &[(1, true, 0, 0, 4)],
            &[(1, true, 2, 0, 4)],
            &[(2, true, 0, 0, 4)],
            &[(1, true, 50, 0, 4)],
        ]);
        assert_eq!(objects.objects.len(), 2);
    }

    #[test]
    fn a_file_of_which_nothing_is_present_is_seen_once() {
        let mut collector = Collector::default();
        let nothing = process(&[(1, true, 0, 5, 0)]);
        let mut numbers = Vec::new();
        (0..2).for_each(|_| collector.add(&nothing, 0, |seen| numbers.push(seen.number)));
        assert_eq!(numbers, [0, 0]);
        assert_eq!(collector.finish().objects.len(), 1);
    }
}
