//! Directories that are the same in several roots, and may become links to one in the store.

use std::collections::HashSet;

use rayon::prelude::*;

use super::Planning;
use crate::analyze::inodes::Name;
use crate::analyze::plan::{self as planner, Refusal, SharedTree, TreeMember};
use crate::analyze::trees::{self, Member};
use crate::model::{
    Action, Bytes, DirId, FileId, Method, Plan, RootPath, Select, SkipReason, StoreFormat,
};
use crate::scan::packages;

/// Files of a tree that are looked for in package databases, beside the directory itself.
const ASKED: usize = 8;

impl Planning<'_> {
    /// The trees of the roots, where every file is compared.
    pub(super) fn trees(&self) -> Vec<SharedTree> {
        let settings = &self.options.settings;
        if settings.select != Select::All || settings.method != Method::Symlink {
            return Vec::new();
        }
        let survey = self.survey;
        let inventories = &survey.inventories[..self.roots.len()];
        let found = trees::below_share(inventories, &survey.inodes, &survey.contents.content);
        let stored = |digest| self.store.objects.contains(&crate::model::ObjectName::tree(digest));
        let found = found.into_iter().filter(|((_, it), members)| members.len() > 1 || stored(*it));
        found.map(|((_, digest), members)| self.tree(digest, &members)).collect()
    }

    fn tree(&self, digest: crate::model::ContentId, members: &[Member]) -> SharedTree {
        let (root, dir) = members[0];
        let inventory = &self.survey.inventories[root];
        let files: Vec<FileId> = trees::files_below(inventory, dir).collect();
        let member = |&(root, dir): &Member| TreeMember { root, refusal: self.unfit(root, dir) };
        SharedTree {
            digest,
            path: inventory.dir_path(dir),
            size: files.iter().map(|file| inventory.file(*file).size).sum(),
            files: files.len() as u64,
            members: members.par_iter().map(member).collect(),
        }
    }

    /// Why a tree stays as it is.
    fn unfit(&self, root: usize, dir: DirId) -> Option<Refusal> {
        let inventory = &self.survey.inventories[root];
        if let Some(refusal) = planner::misfit(inventory, dir) {
            return Some(refusal);
        }
        if self.options.settings.store_format == StoreFormat::Erofs {
            return Some(refused(IMAGE.to_owned()));
        }
        let files: Vec<FileId> = trees::files_below(inventory, dir).collect();
        if let Some(manager) = self.owner(root, dir, &files) {
            return Some(refused(format!("{manager} owns it, {OWNED}")));
        }
        let all = files.iter().copied().collect();
        files.iter().find_map(|file| self.unfit_file(root, *file, &all))
    }

    fn unfit_file(&self, root: usize, file: FileId, all: &HashSet<FileId>) -> Option<Refusal> {
        let name = Name { root: root as u32, file };
        let inode = self.survey.inodes.inode(name);
        let traits = self.traits(root, file);
        let here = |it: &Name| it.root == name.root && all.contains(&it.file);
        let nlink = self.survey.inventories[root].file(file).nlink;
        let why = if let Some(cause) = traits.unreadable {
            format!("a file in it could not be looked at: {cause}")
        } else if traits.immutable || traits.append_only {
            "a file in it is immutable or append-only: chattr -i -a would allow it".to_owned()
        } else if traits.capabilities || !traits.xattrs.is_empty() {
            "a file in it has extended attributes, which the store's would not have".to_owned()
        } else if self.survey.contents.elf[inode] {
            "a tree that holds programs: these are shared one by one".to_owned()
        } else if nlink > 1
            && self.survey.inodes.names(inode).iter().filter(|it| here(it)).count() as u64
                != u64::from(nlink)
        {
            "a file in it has another name elsewhere, which would keep its blocks".to_owned()
        } else {
            return None;
        };
        Some(refused(why))
    }

    fn owner(&self, root: usize, dir: DirId, files: &[FileId]) -> Option<&'static str> {
        let inventory = &self.survey.inventories[root];
        let asked = files.iter().step_by((files.len() / ASKED).max(1)).take(ASKED);
        let mut paths: Vec<RootPath> = asked.map(|file| inventory.file_path(*file)).collect();
        paths.push(inventory.dir_path(dir));
        packages::owners(&self.survey.dirs[root], inventory, &paths).into_iter().flatten().next()
    }

    /// The blocks that trees give back, less those of new ones in the store.
    pub(super) fn saved_by_trees(&self, plan: &Plan) -> Bytes {
        let (mut freed, mut stored) = (Bytes(0), Bytes(0));
        for step in &plan.steps {
            let root = step.root.0 as usize;
            match &step.action {
                Action::RemoveTree { path, .. } => freed += self.blocks(root, path),
                Action::Store { source, .. }
                    if step.object.as_ref().is_some_and(|it| it.is_tree()) =>
                {
                    stored += self.blocks(root, source);
                }
                _ => {}
            }
        }
        freed.saturating_sub(stored)
    }

    /// Blocks that a tree has for itself, each inode once.
    fn blocks(&self, root: usize, path: &RootPath) -> Bytes {
        let inventory = &self.survey.inventories[root];
        let Some(dir) = trees::dir_at(inventory, path.as_bytes()) else { return Bytes(0) };
        let inode = |file| self.survey.inodes.inode(Name { root: root as u32, file });
        let inodes: HashSet<usize> = trees::files_below(inventory, dir).map(inode).collect();
        let own = inodes.into_iter().filter(|inode| self.survey.same_blocks[*inode] == *inode);
        own.map(|inode| self.survey.inodes.meta(inode, &self.survey.inventories).allocated).sum()
    }
}

fn refused(explanation: String) -> Refusal {
    Refusal { reason: SkipReason::Tree, explanation }
}

const IMAGE: &str = "an EROFS store holds programs alone: --store-format dir shares trees, too";
const OWNED: &str = "and could not write it in the store when it is upgraded; --method reflink \
     shares its blocks";
