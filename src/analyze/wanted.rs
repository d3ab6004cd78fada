//! Which files have to be read to answer the question, and how far.

use std::collections::HashMap;

use super::inodes::Inodes;
use crate::model::{Bytes, FileMeta, Inventory, Select};

/// What has to be known of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
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
/// the same size could hold it too, and where `in_tree` says that a tree depends on it.
pub fn needs(
    inodes: &Inodes,
    inventories: &[Inventory],
    select: Select,
    in_tree: &[bool],
) -> Vec<Need> {
    let metas: Vec<&FileMeta> = (0..inodes.len()).map(|at| inodes.meta(at, inventories)).collect();
    let twins = sizes(&metas);
    let need = |(at, meta): (usize, &&FileMeta)| {
        let alone = twins[&meta.size] < 2;
        match select {
            _ if in_tree[at] => Need::Content,
            Select::Multicall if may_be_program(meta, inodes, at, inventories) => Need::ProgramContent,
            Select::Elf if !alone => Need::ElfContent,
            Select::All if !alone => Need::Content,
            _ => Need::Kind,
        }
    };
    metas.iter().enumerate().map(need).collect()
}

fn sizes(metas: &[&FileMeta]) -> HashMap<Bytes, u32> {
    let mut twins = HashMap::new();
    for meta in metas {
        *twins.entry(meta.size).or_default() += 1;
    }
    twins
}

/// Programs are executable; the library that holds busybox's text need not be.
fn may_be_program(meta: &FileMeta, inodes: &Inodes, at: usize, inventories: &[Inventory]) -> bool {
    let first = inodes.names(at)[0];
    let name = inventories[first.root as usize].file_name(first.file);
    meta.size >= SMALLEST_PROGRAM && (meta.mode & 0o111 != 0 || name.starts_with(b"libbusybox"))
}
