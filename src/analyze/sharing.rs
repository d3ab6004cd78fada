//! Which pages of programs are shared, private and held twice.
//!
//! For one content: *resident* counts the distinct physical pages mapped, *ideal*
//! the distinct pages of the file among them. The difference is waste: what one
//! inode, mapped by everybody, would give back.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use crate::model::{
    BinaryMemory, Bytes, ContentId, InodeId, MemoryTotals, Overlap, PageCounts, PageSet, Pages,
};

use super::objects::{Object, Objects, PageSets, SetId, Use};

/// What was found out about one object's file.
#[derive(Debug, Clone, Default)]
pub struct ObjectFacts {
    /// Its content, where it was asked for.
    pub content: Option<ContentId>,
    /// Its build-id.
    pub build_id: Option<Vec<u8>>,
    /// The name that most processes see.
    pub name: String,
    /// A multi-call binary's version.
    pub version: Option<String>,
    /// The inodes by which it was seen.
    pub inodes: Vec<InodeId>,
    /// The pages of its executable segments; `None` where they are not known, and
    /// every page that is mapped `x` counts as text.
    pub text: Option<Vec<Range<u64>>>,
    /// Its pages in the page cache; what is mapped need not be among them.
    pub cached: PageSet,
    /// It has been deleted or replaced.
    pub deleted: bool,
}

/// The text pages of one process: each is exactly one of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProcessText {
    /// All of them.
    pub text: Pages,
    /// Mapped by no other process.
    pub private: Pages,
    /// Mapped by other processes of its container only.
    pub container: Pages,
    /// Mapped by another container too.
    pub shared: Pages,
}

/// The text pages of one container: `shared` and `private` add up to `text`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ContainerText {
    /// Distinct physical pages.
    pub text: Pages,
    /// Mapped by another container too.
    pub shared: Pages,
    /// Mapped by this container alone.
    pub private: Pages,
    /// Held by another object with the same content too.
    pub duplicated: Pages,
}

/// The account of what processes map.
#[derive(Debug, Default)]
pub struct Account {
    /// Per content, most waste first.
    pub binaries: Vec<BinaryMemory>,
    /// Per process, in the order they were taken in.
    pub processes: Vec<ProcessText>,
    /// Per container, by its number.
    pub containers: Vec<ContainerText>,
    /// All contents together.
    pub totals: MemoryTotals,
}

/// Adds up what the processes map. `facts` has an entry for each object, in
/// order. `shown` has one for each container: what none of those maps that are to
/// be shown is left out of the binaries and the totals.
pub fn account(
    objects: &Objects,
    facts: &[ObjectFacts],
    shown: &[bool],
    page_size: Bytes,
) -> Account {
    let mut account = Account {
        processes: vec![ProcessText::default(); objects.containers.len()],
        containers: vec![ContainerText::default(); shown.len()],
        ..Account::default()
    };
    for members in by_content(facts) {
        let views: Vec<ObjectView> = members
            .iter()
            .map(|&at| ObjectView::new(&objects.objects[at], &facts[at], objects))
            .collect();
        for view in &views {
            view.tell_processes(&mut account.processes);
        }
        tell_containers(&views, &mut account.containers);
        let mut users = views.iter().flat_map(|view| view.container_text.keys());
        if users.any(|&container| shown[container as usize]) {
            account.binaries.push(binary(&views));
        }
    }
    account.binaries.sort_by_key(order);
    account.totals = totals(&account.binaries, page_size);
    account
}

/// Objects with one content together; those whose content is not known, alone.
fn by_content(facts: &[ObjectFacts]) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut places: HashMap<ContentId, usize> = HashMap::new();
    for (at, fact) in facts.iter().enumerate() {
        let place = fact.content.map(|content| *places.entry(content).or_insert(groups.len()));
        match place.and_then(|place| groups.get_mut(place)) {
            Some(group) => group.push(at),
            None => groups.push(vec![at]),
        }
    }
    groups
}

/// Most waste first, then the largest, then by name: the same for every run.
fn order(binary: &BinaryMemory) -> impl Ord + use<> {
    let pages = (binary.file.wasted(), binary.file.resident, binary.cached);
    (std::cmp::Reverse(pages), binary.name.clone(), binary.content, binary.build_id.clone())
}

fn totals(binaries: &[BinaryMemory], page_size: Bytes) -> MemoryTotals {
    let wasted: Pages = binaries.iter().map(|binary| binary.file.wasted()).sum();
    MemoryTotals {
        resident: binaries.iter().map(|binary| binary.file.resident).sum(),
        ideal: binaries.iter().map(|binary| binary.file.ideal).sum(),
        wasted,
        wasted_bytes: wasted.bytes(page_size),
        ..MemoryTotals::default()
    }
}

/// One object, with what its uses come to.
struct ObjectView<'a> {
    facts: &'a ObjectFacts,
    uses: Vec<(&'a Use, u32)>,
    /// Text of each distinct set of executable pages.
    text: HashMap<SetId, PageSet>,
    /// By process: mapped at all, mapped by two.
    processes: Overlap,
    /// By container: mapped at all, mapped by two.
    containers: Overlap,
    /// The text that each container maps.
    container_text: BTreeMap<u32, PageSet>,
    mapped: Pages,
    text_mapped: Pages,
}

impl<'a> ObjectView<'a> {
    fn new(object: &'a Object, facts: &'a ObjectFacts, objects: &'a Objects) -> Self {
        let container = |used: &Use| objects.containers[used.process as usize];
        let mut view = Self {
            facts,
            uses: object.uses.iter().map(|used| (used, container(used))).collect(),
            text: HashMap::new(),
            processes: Overlap::default(),
            containers: Overlap::default(),
            container_text: BTreeMap::new(),
            mapped: Pages(0),
            text_mapped: Pages(0),
        };
        view.add_up(&objects.sets);
        view
    }

    /// Processes that map the same pages are added up together: of a thousand
    /// shells few differ.
    fn add_up(&mut self, sets: &PageSets) {
        let mut alike: BTreeMap<(u32, SetId, SetId), u64> = BTreeMap::new();
        for (used, container) in &self.uses {
            *alike.entry((*container, used.executable, used.other)).or_default() += 1;
        }
        let mut by_container: BTreeMap<u32, PageSet> = BTreeMap::new();
        for ((container, executable, other), count) in alike {
            let (executable_set, other_set) = (sets.get(executable), sets.get(other));
            let all = executable_set.union(other_set);
            let text =
                self.text.entry(executable).or_insert_with(|| text_of(executable_set, self.facts));
            self.mapped += Pages((executable_set.len() + other_set.len()).0 * count);
            self.text_mapped += Pages(text.len().0 * count);
            let here = self.container_text.entry(container).or_default();
            *here = here.union(text);
            // To be mapped by more than two is the same as by two.
            (0..count.min(2)).for_each(|_| self.processes.add(&all));
            let here = by_container.entry(container).or_default();
            *here = here.union(&all);
        }
        by_container.values().for_each(|set| self.containers.add(set));
    }

    /// The distinct physical pages of it that are mapped.
    fn resident(&self) -> &PageSet {
        &self.processes.once
    }

    /// The distinct physical pages of text.
    fn text_resident(&self) -> PageSet {
        self.text.values().fold(PageSet::default(), |all, set| all.union(set))
    }

    /// In the page cache. What is mapped is in it, whatever mincore(2) was
    /// allowed to say and whatever came in since.
    fn cached(&self) -> PageSet {
        self.facts.cached.union(self.resident())
    }

    fn tell_processes(&self, processes: &mut [ProcessText]) {
        let mut counted: HashMap<SetId, ProcessText> = HashMap::new();
        for (used, _) in &self.uses {
            let text = counted.entry(used.executable).or_insert_with(|| self.split(used));
            let process = &mut processes[used.process as usize];
            process.text += text.text;
            process.private += text.private;
            process.container += text.container;
            process.shared += text.shared;
        }
    }

    /// The text of one use, split by who else maps it.
    fn split(&self, used: &Use) -> ProcessText {
        let Some(set) = self.text.get(&used.executable) else { return ProcessText::default() };
        let text = set.len();
        let shared = set.intersection(&self.containers.twice).len();
        let private = set.difference(&self.processes.twice).len();
        let container = text.saturating_sub(shared + private);
        ProcessText { text, private, container, shared }
    }
}

/// The part of the pages mapped `x` that lies in executable segments. Mapped `x`
/// beyond them is what an old personality makes of data, or no program at all.
fn text_of(executable: &PageSet, facts: &ObjectFacts) -> PageSet {
    match &facts.text {
        Some(segments) => executable.intersection(&segments.iter().cloned().collect()),
        None => executable.clone(),
    }
}

fn tell_containers(views: &[ObjectView<'_>], containers: &mut [ContainerText]) {
    let mut copies = Overlap::default();
    views.iter().for_each(|view| copies.add(view.resident()));
    for view in views {
        for (&container, text) in &view.container_text {
            let shared = text.intersection(&view.containers.twice).len();
            let account = &mut containers[container as usize];
            account.text += text.len();
            account.shared += shared;
            account.private += text.len().saturating_sub(shared);
            account.duplicated += text.intersection(&copies.twice).len();
        }
    }
}

fn binary(views: &[ObjectView<'_>]) -> BinaryMemory {
    let text: Vec<PageSet> = views.iter().map(ObjectView::text_resident).collect();
    let cached: Vec<PageSet> = views.iter().map(ObjectView::cached).collect();
    let uses = || views.iter().flat_map(|view| &view.uses);
    let outdated = views.iter().filter(|view| view.facts.deleted).flat_map(|view| &view.uses);
    let inodes: BTreeSet<InodeId> = views.iter().flat_map(|v| v.facts.inodes.clone()).collect();
    BinaryMemory {
        content: views.iter().find_map(|view| view.facts.content),
        build_id: views.iter().find_map(|view| view.facts.build_id.clone()),
        name: most_used_name(views),
        version: views.iter().find_map(|view| view.facts.version.clone()),
        inodes: (inodes.len() as u64).max(1),
        objects: views.len() as u64,
        processes: distinct(uses().map(|(used, _)| used.process)),
        containers: distinct(uses().map(|(_, container)| *container)),
        file: PageCounts {
            mapped: views.iter().map(|view| view.mapped).sum(),
            resident: views.iter().map(|view| view.resident().len()).sum(),
            ideal: union(views.iter().map(ObjectView::resident)).len(),
        },
        text: PageCounts {
            mapped: views.iter().map(|view| view.text_mapped).sum(),
            resident: text.iter().map(PageSet::len).sum(),
            ideal: union(text.iter()).len(),
        },
        cached: cached.iter().map(PageSet::len).sum(),
        cached_wasted: cached
            .iter()
            .map(PageSet::len)
            .sum::<Pages>()
            .saturating_sub(union(cached.iter()).len()),
        pending_restart: distinct(outdated.map(|(used, _)| used.process)),
    }
}

fn union<'a>(sets: impl Iterator<Item = &'a PageSet>) -> PageSet {
    sets.fold(PageSet::default(), |all, set| all.union(set))
}

fn distinct(numbers: impl Iterator<Item = u32>) -> u64 {
    let mut numbers: Vec<u32> = numbers.collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers.len() as u64
}

fn most_used_name(views: &[ObjectView<'_>]) -> String {
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    for view in views {
        *names.entry(&view.facts.name).or_default() += view.uses.len();
    }
    // The first in byte order among equals.
    let best = names.iter().rev().max_by_key(|(_, uses)| **uses);
    best.map(|(name, _)| (*name).to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::objects::Collector;
    use super::*;
    use crate::model::{FileKey, Mapping, ProcessPages, Run};

    /// (inode, executable, first page, first frame, pages)
    type Map = (u64, bool, u64, u64, u32);

    fn collect(processes: &[(u32, &[Map])]) -> Objects {
        let mut collector = Collector::default();
        for (container, mappings) in processes {
            let mut pages = ProcessPages::default();
            for (index, &(ino, executable, page, pfn, len)) in mappings.iter().enumerate() {
                let runs = index as u32..index as u32 + 1;
                let key = FileKey { dev: 1, ino };
                pages.runs.push(Run { page, pfn, len });
                pages.mappings.push(Mapping { key, address: 0..0, executable, runs });
            }
            collector.add(&pages, *container, |_| ());
        }
        collector.finish()
    }

    fn same_content(count: usize) -> Vec<ObjectFacts> {
        let content = Some(ContentId([7; 32]));
        (0..count).map(|_| ObjectFacts { content, ..ObjectFacts::default() }).collect()
    }

    /// Two containers with a copy each, and a third that shares the first's.
    fn world() -> Objects {
        collect(&[
            (0, &[(1, true, 0, 100, 10), (1, false, 10, 110, 5)]),
            (0, &[(1, true, 0, 100, 8)]),
            (1, &[(2, true, 2, 202, 10)]),
            (2, &[(1, true, 0, 100, 1)]),
        ])
    }

    #[test]
    fn waste_is_what_one_copy_would_spare() {
        let objects = world();
        assert_eq!(objects.objects.len(), 2);
        let account = account(&objects, &same_content(2), &[true; 3], Bytes(4096));
        let [binary] = account.binaries.as_slice() else { panic!("{account:?}") };
        let pages = |mapped, resident, ideal| PageCounts {
            mapped: Pages(mapped),
            resident: Pages(resident),
            ideal: Pages(ideal),
        };
        assert_eq!(binary.file, pages(15 + 8 + 10 + 1, 15 + 10, 15));
        assert_eq!(binary.text, pages(10 + 8 + 10 + 1, 10 + 10, 12));
        assert_eq!((binary.objects, binary.processes, binary.containers), (2, 4, 3));
        assert_eq!(account.totals.wasted, Pages(10));
        assert_eq!(account.totals.wasted_bytes, Bytes(40960));
    }

    #[test]
    fn every_text_page_of_a_process_is_one_of_three() {
        let account = account(&world(), &same_content(2), &[true; 3], Bytes(4096));
        let of = |text, private, container, shared| ProcessText {
            text: Pages(text),
            private: Pages(private),
            container: Pages(container),
            shared: Pages(shared),
        };
        assert_eq!(
            account.processes,
            [of(10, 2, 7, 1), of(8, 0, 7, 1), of(10, 10, 0, 0), of(1, 0, 0, 1)]
        );
    }

    #[test]
    fn containers_add_up() {
        let account = account(&world(), &same_content(2), &[true; 3], Bytes(4096));
        let of = |text, shared, private, duplicated| ContainerText {
            text: Pages(text),
            shared: Pages(shared),
            private: Pages(private),
            duplicated: Pages(duplicated),
        };
        // The second container's pages 2 to 11 are held by the first's object too: its
        // text up to page 9, and its read-only data beyond.
        assert_eq!(account.containers, [of(10, 1, 9, 8), of(10, 0, 10, 10), of(1, 1, 0, 0)]);
    }

    #[test]
    fn contents_that_are_not_known_waste_nothing() {
        let account = account(&world(), &vec![ObjectFacts::default(); 2], &[true; 3], Bytes(4096));
        assert_eq!(account.binaries.len(), 2);
        assert_eq!(account.totals.wasted, Pages(0));
    }

    #[test]
    fn what_no_shown_container_maps_is_left_out() {
        let objects = collect(&[(0, &[(1, true, 0, 100, 10)]), (1, &[(2, true, 0, 200, 10)])]);
        let facts = vec![ObjectFacts::default(); 2];
        let account = account(&objects, &facts, &[false, true], Bytes(4096));
        assert_eq!(account.binaries.len(), 1);
        assert_eq!(account.totals.resident, Pages(10));
        assert_eq!(account.containers[0].text, Pages(10));
    }

    #[test]
    fn text_is_what_lies_in_executable_segments() {
        let objects = collect(&[(0, &[(1, true, 0, 100, 10)])]);
        let facts = ObjectFacts { text: Some(vec![2..5]), ..ObjectFacts::default() };
        let account = account(&objects, &[facts], &[true], Bytes(4096));
        assert_eq!(account.processes[0].text, Pages(3));
        assert_eq!(account.binaries[0].file.resident, Pages(10));
    }

    #[test]
    fn the_cache_holds_what_is_mapped_and_more() {
        let objects = collect(&[(0, &[(1, true, 0, 100, 10)]), (1, &[(2, true, 0, 200, 10)])]);
        let mut facts = same_content(2);
        facts[0].cached = [0..30].into_iter().collect();
        facts[1].cached = [5..6, 20..25].into_iter().collect();
        facts[1].deleted = true;
        let binary = &account(&objects, &facts, &[true; 2], Bytes(4096)).binaries[0];
        assert_eq!(binary.cached, Pages(30 + 15));
        assert_eq!(binary.cached_wasted, Pages(15));
        assert_eq!(binary.pending_restart, 1);
    }
}
