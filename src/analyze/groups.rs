//! Inodes that hold the same content, and what the copies cost on disk.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::held::Held;
use super::inodes::{Inodes, Name};
use super::paths::PathIds;
use crate::model::{
    Bytes, ContentId, ElfFacts, Extents, FileCopy, Group, GroupKind, Inventory, OtherNames,
    Program, RootId, RootPath, Select,
};

/// What reading found, for each inode.
#[derive(Debug, Default)]
pub struct Contents {
    /// The content, where it was read.
    pub content: Held,
    /// The file is ELF.
    pub elf: Vec<bool>,
    /// Where the blocks lie of files that share some.
    pub extents: HashMap<usize, Extents>,
    /// Contents that are in memory from two or more inodes.
    pub in_memory_twice: HashSet<ContentId>,
}

/// The inodes of one content, before it is known what that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Twins {
    /// The content.
    pub content: ContentId,
    /// The inodes that hold it, in order.
    pub inodes: Vec<usize>,
}

/// What the bytes of a content are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Description {
    /// What the ELF headers say.
    pub elf: Option<Box<ElfFacts>>,
    /// What a multi-call binary says of itself.
    pub program: Option<Program>,
}

/// Brings inodes of one content together: those that `select` asks for, two or
/// more of them. What is in memory twice is kept when it is alone, and multi-call
/// binaries are, too.
/// `counts` says which inodes belong to a root rather than to the host itself.
pub fn twins(contents: &Contents, select: Select, counts: impl Fn(usize) -> bool) -> Vec<Twins> {
    let asked = |inode| (select == Select::All || contents.elf[inode]) && counts(inode);
    let fewest = if select == Select::Multicall { 1 } else { 2 };
    let enough = |content: &ContentId, inodes: usize| {
        inodes >= fewest || contents.in_memory_twice.contains(content)
    };
    let found = contents.content.by_content(asked, enough).into_iter();
    found.map(|(content, inodes)| Twins { content, inodes }).collect()
}

/// Makes a group of twins.
pub fn group(
    twins: &Twins,
    description: Description,
    contents: &Contents,
    inodes: &Inodes,
    inventories: &[Inventory],
    directories: &PathIds,
) -> Group {
    let copies = copies(twins, inodes, inventories, directories);
    let disk = disk(&twins.inodes, contents, inodes, inventories);
    let program = description.program;
    let kind = match &program {
        Some(program) => GroupKind::Multicall(program.family),
        None if contents.elf[twins.inodes[0]] => GroupKind::Elf,
        None => GroupKind::File,
    };
    Group {
        content: twins.content,
        name: most_frequent_name(&copies),
        kind,
        version: program.as_ref().and_then(|program| program.version.clone()),
        elf: description.elf,
        applets: program.map(|program| program.applets).unwrap_or_default(),
        size: inodes.meta(twins.inodes[0], inventories).size,
        inodes: twins.inodes.len() as u64,
        physical_copies: disk.copies,
        wasted: disk.wasted,
        copies,
    }
}

/// Each inode once for every root that it has a name in; `inventories` are the roots' alone.
fn copies(
    twins: &Twins,
    inodes: &Inodes,
    inventories: &[Inventory],
    directories: &PathIds,
) -> Vec<FileCopy> {
    let held = || {
        let names = twins.inodes.iter().map(|&inode| inodes.names(inode));
        let by_root = names.flat_map(|names| names.chunk_by(|a, b| a.root == b.root));
        // The host's own names stand behind those of the roots.
        by_root.filter(|names| (names[0].root as usize) < inventories.len())
    };
    // There are as many copies as files, so that the room is worth a count.
    let mut copies: Vec<FileCopy> = Vec::with_capacity(held().count());
    let mut before = None;
    for names in held() {
        let inventory = &inventories[names[0].root as usize];
        let here = (names.len() == 1).then(|| Place::of(names[0], inventory, directories));
        // The copy before is that of another root, where it mostly lies at the same path.
        let same = copies.last().filter(|_| here.is_some() && here == before);
        let (path, links) = match same {
            Some(copy) => (copy.path.clone(), Vec::new()),
            None => paths(names, inventory),
        };
        before = here;
        let meta = inventory.file(names[0].file);
        copies.push(FileCopy {
            root: RootId(names[0].root),
            path,
            inode: meta.inode,
            nlink: meta.nlink,
            allocated: meta.allocated,
            others: (!links.is_empty())
                .then(|| Box::new(OtherNames { links, ..OtherNames::default() })),
        });
    }
    copies.sort_by(|a, b| (a.root, &a.path).cmp(&(b.root, &b.path)));
    copies
}

/// Where a file lies, whatever the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place<'a> {
    /// By [`PathIds`].
    directory: u32,
    name: &'a [u8],
}

impl<'a> Place<'a> {
    fn of(Name { root, file }: Name, inventory: &'a Inventory, directories: &PathIds) -> Self {
        let directory = directories.at(root, inventory.file_dir(file));
        Self { directory, name: inventory.file_name(file) }
    }
}

/// The first of an inode's paths in one root, and the others.
fn paths(names: &[Name], inventory: &Inventory) -> (RootPath, Vec<RootPath>) {
    let mut links: Vec<_> = names.iter().map(|name| inventory.file_path(name.file)).collect();
    links.sort();
    (links.remove(0), links)
}

fn most_frequent_name(copies: &[FileCopy]) -> String {
    let mut counts: BTreeMap<&[u8], usize> = BTreeMap::new();
    for copy in copies {
        *counts.entry(copy.path.file_name()).or_default() += 1;
    }
    let most = counts.into_iter().rev().max_by_key(|&(_, count)| count);
    most.map(|(name, _)| String::from_utf8_lossy(name).into_owned()).unwrap_or_default()
}

/// What the blocks of one content's inodes come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocks {
    /// All of them; those that several of the inodes share once.
    pub all: Bytes,
    /// Those of one copy, the largest.
    pub largest: Bytes,
}

/// The blocks of these inodes.
pub fn blocks(
    of: &[usize],
    contents: &Contents,
    inodes: &Inodes,
    inventories: &[Inventory],
) -> Blocks {
    let disk = disk(of, contents, inodes, inventories);
    Blocks { all: disk.all, largest: disk.largest }
}

/// What the inodes of one content take on disk.
struct Disk {
    copies: u64,
    all: Bytes,
    largest: Bytes,
    wasted: Bytes,
}

/// Blocks that several of the inodes share count once. One copy, the largest,
/// is what has to stay.
fn disk(of: &[usize], contents: &Contents, inodes: &Inodes, inventories: &[Inventory]) -> Disk {
    let mut seen: HashSet<&Extents> = HashSet::new();
    let mut sharing = Vec::new();
    let (mut copies, mut all, mut largest) = (0, Bytes(0), Bytes(0));
    for &inode in of {
        let allocated = inodes.meta(inode, inventories).allocated;
        largest = largest.max(allocated);
        match contents.extents.get(&inode) {
            Some(extents) if !seen.insert(extents) => continue,
            Some(extents) => sharing.push(extents),
            None => {}
        }
        all += allocated;
        copies += 1;
    }
    all = all.saturating_sub(overlap(&sharing));
    Disk { copies, all, largest, wasted: all.saturating_sub(largest) }
}

/// The bytes that files which are not one copy have in common all the same.
fn overlap(files: &[&Extents]) -> Bytes {
    let runs = || files.iter().flat_map(|file| file.runs.iter().map(move |run| (file.fs, run)));
    let mut spans: Vec<(u64, u64, u64)> = runs()
        .filter(|(_, run)| !run.flags.unplaced)
        .map(|(fs, run)| (fs, run.physical, run.physical.saturating_add(run.length)))
        .collect();
    spans.sort_unstable();
    let sum: u64 = spans.iter().map(|(_, start, end)| end - start).sum();
    Bytes(sum - union(&spans))
}

/// The length of the union of sorted spans.
fn union(spans: &[(u64, u64, u64)]) -> u64 {
    let (mut total, mut at) = (0, (0, 0));
    for &(fs, start, end) in spans {
        let from = if at.0 == fs { start.max(at.1) } else { start };
        total += end.saturating_sub(from);
        at = (fs, if at.0 == fs { end.max(at.1) } else { end });
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Extent, ExtentFlags, Listed};

    const ID: ContentId = ContentId([1; 32]);

    fn extents(runs: &[(u64, u64)]) -> Extents {
        let mut logical = 0;
        let found: Vec<Extent> = runs
            .iter()
            .map(|&(physical, length)| {
                let flags = ExtentFlags { shared: true, ..ExtentFlags::default() };
                logical += length;
                Extent { logical: logical - length, physical, length, flags }
            })
            .collect();
        Extents::new(1, logical, &found).expect("shared")
    }

    /// The group of three inodes of 8192 bytes, some of which share blocks.
    fn group_with(shared: &[(usize, Extents)]) -> Group {
        let inventories = [
            Inventory::sample(&[
                ("a", Listed::sample_file(1, 8192)),
                ("b", Listed::sample_file(2, 8192)),
            ]),
            Inventory::sample(&[("b", Listed::sample_file(3, 8192))]),
        ];
        let contents = Contents {
            content: [Some(ID); 3].into_iter().collect(),
            elf: vec![false; 3],
            extents: shared.iter().cloned().collect(),
            ..Contents::default()
        };
        let found = twins(&contents, Select::All, |_| true);
        assert_eq!(found.len(), 1);
        group_of(&found[0], &contents, &inventories)
    }

    fn group_of(twins: &Twins, contents: &Contents, inventories: &[Inventory]) -> Group {
        let (inodes, paths) = (Inodes::of(inventories), PathIds::of(inventories));
        group(twins, Description::default(), contents, &inodes, inventories, &paths)
    }

    #[test]
    fn every_copy_has_its_own_path() {
        let file = |ino| Listed::sample_file(ino, 8192);
        let inventories = [
            Inventory::sample(&[("a/x", file(1)), ("b/x", file(2)), ("c/y", file(3))]),
            Inventory::sample(&[("a/x", file(4)), ("b/y", file(5)), ("c/y", file(6))]),
            Inventory::sample(&[("a/x", file(7)), ("b/x", file(7)), ("d/y", file(8))]),
            Inventory::sample(&[("a/x", file(9))]),
        ];
        let contents = Contents {
            content: [Some(ID); 9].into_iter().collect(),
            elf: vec![false; 9],
            ..Contents::default()
        };
        let twins = twins(&contents, Select::All, |_| true);
        let found = group_of(&twins[0], &contents, &inventories);
        let told = |copy: &FileCopy| {
            let others = copy.others.iter().flat_map(|others| &others.links);
            let paths = [&copy.path].into_iter().chain(others);
            paths.map(|path| String::from_utf8_lossy(path.as_bytes()).into_owned()).collect()
        };
        let told: Vec<Vec<String>> = found.copies.iter().map(told).collect();
        let expected: [&[&str]; 9] = [
            &["a/x"],
            &["b/x"],
            &["c/y"],
            &["a/x"],
            &["b/y"],
            &["c/y"],
            &["a/x", "b/x"],
            &["d/y"],
            &["a/x"],
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn copies_cost_all_but_one() {
        let group = group_with(&[]);
        assert_eq!((group.inodes, group.physical_copies, group.wasted), (3, 3, Bytes(16384)));
        assert_eq!(group.name, "b");
    }

    #[test]
    fn reflinked_copies_count_once() {
        let shared = [(0, extents(&[(4096, 8192)])), (2, extents(&[(4096, 4096), (8192, 4096)]))];
        let group = group_with(&shared);
        assert_eq!((group.inodes, group.physical_copies, group.wasted), (3, 2, Bytes(8192)));
    }

    #[test]
    fn blocks_that_copies_have_partly_in_common_count_once() {
        let shared = [(0, extents(&[(4096, 8192)])), (1, extents(&[(4096, 4096), (90_112, 4096)]))];
        let group = group_with(&shared);
        assert_eq!((group.physical_copies, group.wasted), (3, Bytes(16384 - 4096)));
    }

    #[test]
    fn a_lone_inode_is_no_group_unless_it_is_a_multi_call_binary() {
        let lone = || Contents {
            content: [Some(ID)].into_iter().collect(),
            elf: vec![true],
            ..Contents::default()
        };
        let contents = lone();
        assert_eq!(twins(&contents, Select::Elf, |_| true), []);
        assert_eq!(twins(&contents, Select::Multicall, |_| true).len(), 1);
        assert_eq!(twins(&contents, Select::Multicall, |_| false), []);
        let running = Contents { in_memory_twice: HashSet::from([ID]), ..lone() };
        assert_eq!(twins(&running, Select::Elf, |_| true).len(), 1);
    }
}
