//! The names that lead to multi-call binaries, root by root.

use std::collections::{BTreeSet, HashSet};

use rayon::prelude::*;

use super::survey::Survey;
use crate::analyze::groups::Twins;
use crate::analyze::links::{self, RootLinks};
use crate::model::{FileCopy, FileId, Group, GroupKind, OtherNames, RootPath};

/// Fills in the links of every multi-call binary, and returns each root's dangling ones.
pub(super) fn add_links(
    survey: &Survey,
    roots: usize,
    twins: &[Twins],
    groups: &mut [Group],
) -> Vec<Vec<RootPath>> {
    let wanted = wanted(survey, roots, twins, groups);
    let wrappers = wrappers(survey, roots);
    let applets: HashSet<&[u8]> =
        groups.iter().flat_map(|group| group.applets.iter().map(String::as_bytes)).collect();
    let mut found: Vec<RootLinks> = (0..roots)
        .into_par_iter()
        .map(|at| links::links_of(&survey.inventories[at], &wanted[at], &wrappers[at], &applets))
        .collect();
    for group in groups {
        if let GroupKind::Multicall(family) = group.kind {
            group
                .copies
                .iter_mut()
                .for_each(|copy| take_names(copy, &mut found, family.file_prefix()));
            name_applets(group, family.file_prefix());
        }
    }
    found.into_iter().map(|links| links.dangling).collect()
}

/// In each root, the files that are multi-call binaries.
fn wanted(
    survey: &Survey,
    roots: usize,
    twins: &[Twins],
    groups: &[Group],
) -> Vec<HashSet<FileId>> {
    let mut wanted = vec![HashSet::new(); roots];
    let programs = groups.iter().zip(twins).filter(|(group, _)| is_program(group));
    for &inode in programs.flat_map(|(_, twins)| &twins.inodes) {
        for name in survey.inodes.names(inode) {
            if let Some(files) = wanted.get_mut(name.root as usize) {
                files.insert(name.file);
            }
        }
    }
    wanted
}

fn is_program(group: &Group) -> bool {
    matches!(group.kind, GroupKind::Multicall(_))
}

/// In each root, the scripts that do nothing but name an interpreter.
fn wrappers(survey: &Survey, roots: usize) -> Vec<Vec<(FileId, Vec<u8>)>> {
    let mut wrappers = vec![Vec::new(); roots];
    for (&inode, script) in &survey.scripts {
        let Some(interpreter) = links::parse_wrapper(script) else { continue };
        for name in survey.inodes.names(inode) {
            if let Some(scripts) = wrappers.get_mut(name.root as usize) {
                scripts.push((name.file, interpreter.to_vec()));
            }
        }
    }
    wrappers.iter_mut().for_each(|scripts| scripts.sort());
    wrappers
}

/// Gives a copy every name that leads to it. Of hard links the one that carries
/// the family's name is the program's own.
fn take_names(copy: &mut FileCopy, found: &mut [RootLinks], prefix: &str) {
    let Some(names) = found[copy.root.0 as usize].names.remove(&copy.inode) else { return };
    let own = copy.links().iter().find(|path| path.file_name().starts_with(prefix.as_bytes()));
    if let Some(own) = own.filter(|_| !copy.path.file_name().starts_with(prefix.as_bytes())) {
        copy.path = own.clone();
    }
    let mut links = names.links;
    links.push(names.path);
    links.retain(|path| *path != copy.path);
    links.sort();
    copy.others = Some(Box::new(OtherNames { links, ..OtherNames::default() }));
}

/// What the group answers to, and which links ask for something else. Where the
/// program's bytes do not tell (uutils), its links do.
fn name_applets(group: &mut Group, prefix: &str) {
    let dispatches = |path: &RootPath| path.file_name().starts_with(prefix.as_bytes());
    if group.applets.is_empty() {
        let links = group.copies.iter().flat_map(|copy| copy.links());
        let names = links.filter(|path| !dispatches(path));
        let names: BTreeSet<String> =
            names.map(|path| String::from_utf8_lossy(path.file_name()).into_owned()).collect();
        group.applets = names.into_iter().collect();
    }
    let known: HashSet<&[u8]> = group.applets.iter().map(String::as_bytes).collect();
    for others in group.copies.iter_mut().filter_map(|copy| copy.others.as_mut()) {
        let unknown = |path: &&RootPath| !dispatches(path) && !known.contains(path.file_name());
        others.unknown_applets = others.links.iter().filter(unknown).cloned().collect();
    }
    if let Some(named) = group.copies.iter().find(|copy| dispatches(&copy.path)) {
        group.name = String::from_utf8_lossy(named.path.file_name()).into_owned();
    }
}
