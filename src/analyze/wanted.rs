//! Which files have to be read to answer the question, and how far.

use std::collections::HashMap;

use rayon::prelude::*;

use super::inodes::Inodes;
use crate::model::{Bytes, FileMeta, Inventory, Select};

/// What has to be known of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing: it is the host's own, and no tree depends on it; or it is no program, where
    /// programs alone are asked for.
    Nothing,
    /// What kind of file it is.
    Kind,
    /// Its content, if it is ELF.
    ElfContent,
    /// Its content, if it may be a multi-call binary.
    ProgramContent,
    /// Its content, whatever it is.
    Content,
}

/// Smaller than any multi-call binary: two pages of code and what surrounds them.
const SMALLEST_PROGRAM: Bytes = Bytes(16 * 1024);

/// For each inode, what has to be known. Content matters where another inode of
/// the same size could hold it too, and where `in_tree` says that a tree
/// depends on it. Only the first `roots` of the inventories are compared file by file.
pub fn needs(
    inodes: &Inodes,
    inventories: &[Inventory],
    roots: usize,
    select: Select,
    in_tree: &[bool],
) -> Vec<Need> {
    let meta = |at: usize| inodes.meta(at, inventories);
    let compared = |at: usize| (inodes.names(at)[0].root as usize) < roots;
    let twins = match select {
        // Programs are told one by one, twin or not.
        Select::Multicall => HashMap::new(),
        Select::Elf | Select::All => {
            sizes((0..inodes.len()).filter(|&at| compared(at)).map(|at| meta(at).size))
        }
    };
    let need = |at: usize| {
        let meta = meta(at);
        let alone = || twins.get(&meta.size).is_none_or(|&count| count < 2);
        match select {
            _ if in_tree[at] => Need::Content,
            _ if !compared(at) => Need::Nothing,
            Select::Multicall if !is_executable(&meta, inodes, at, inventories) => Need::Nothing,
            Select::Multicall if meta.size >= SMALLEST_PROGRAM => Need::ProgramContent,
            Select::Elf if !alone() => Need::ElfContent,
            Select::All if !alone() => Need::Content,
            _ => Need::Kind,
        }
    };
    (0..inodes.len()).into_par_iter().map(need).collect()
}

fn sizes(sizes: impl Iterator<Item = Bytes>) -> HashMap<Bytes, u32> {
    let mut twins = HashMap::new();
    for size in sizes {
        *twins.entry(size).or_default() += 1;
    }
    twins
}

/// Programs are executable; the library that holds busybox's text need not be.
fn is_executable(meta: &FileMeta, inodes: &Inodes, at: usize, inventories: &[Inventory]) -> bool {
    let first = inodes.names(at)[0];
    let name = || inventories[first.root as usize].file_name(first.file);
    meta.mode & 0o111 != 0 || name().starts_with(b"libbusybox")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Listed;

    fn needs_of(select: Select, in_tree: [bool; 3]) -> Vec<Need> {
        let inventories = [
            Inventory::sample(&[
                ("a", Listed::sample_file(1, 50)),
                ("b", Listed::sample_file(2, 60)),
            ]),
            Inventory::sample(&[("a", Listed::sample_file(3, 50))]),
        ];
        needs(&Inodes::of(&inventories), &inventories, 2, select, &in_tree)
    }

    #[test]
    fn a_size_of_its_own_is_not_read() {
        let expected = [Need::Content, Need::Kind, Need::Content];
        assert_eq!(needs_of(Select::All, [false; 3]), expected);
    }

    #[test]
    fn a_tree_wants_the_content_of_all_its_files() {
        let expected = [Need::ElfContent, Need::Content, Need::ElfContent];
        assert_eq!(needs_of(Select::Elf, [false, true, false]), expected);
    }

    #[test]
    fn only_programs_are_looked_into_for_multi_call_binaries() {
        assert_eq!(needs_of(Select::Multicall, [false; 3]), [Need::Nothing; 3]);
    }

    #[test]
    fn the_hosts_own_files_are_not_compared_one_by_one() {
        let inventories = [
            Inventory::sample(&[("a", Listed::sample_file(1, 50))]),
            Inventory::sample(&[("a", Listed::sample_file(2, 50))]),
        ];
        let found = needs(&Inodes::of(&inventories), &inventories, 1, Select::All, &[false; 2]);
        assert_eq!(found, [Need::Kind, Need::Nothing]);
    }
}
