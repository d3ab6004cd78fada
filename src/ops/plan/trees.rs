//! Directories that are the same in several roots, and may become links to one in the store.

use std::collections::{BTreeMap, HashSet};

use rayon::prelude::*;

use super::Planning;
use crate::analyze::inodes::Name;
use crate::analyze::plan::{self as planner, LoneTree, Refusal, SharedTree, TreeMember};
use crate::analyze::trees::{self, Member};
use crate::model::{
    Action, Bytes, DirId, EntryKind, FileId, Method, Plan, RootPath, Select, SkipReason,
};
use crate::scan::{below, candidate, packages};

/// Files of a tree that are looked for in package databases, beside the directory itself.
const ASKED: usize = 8;

impl Planning<'_> {
    /// The trees of the roots, where every file is compared.
    pub(super) fn trees(&self) -> Vec<SharedTree> {
        if !self.takes_trees() {
            return Vec::new();
        }
        let survey = self.survey;
        let inventories = &survey.inventories[..self.roots.len()];
        let found = trees::below_share(inventories, &survey.inodes, &survey.contents.content);
        let stored = |digest| self.store.objects.contains(&crate::model::ObjectName::tree(digest));
        let found = found.into_iter().filter(|((_, it), members)| members.len() > 1 || stored(*it));
        found.map(|((_, digest), members)| self.tree(digest, &members)).collect()
    }

    /// Directories that have a namesake in another root, and cannot be compared with it.
    pub(super) fn lone_trees(&self) -> Vec<LoneTree> {
        if !self.takes_trees() {
            return Vec::new();
        }
        let inventories = &self.survey.inventories[..self.roots.len()];
        let mut named: BTreeMap<&[u8], Vec<Member>> = BTreeMap::new();
        for (root, inventory) in inventories.iter().enumerate() {
            let Some(share) = trees::dir_at(inventory, trees::SHARED) else { continue };
            for (name, kind) in inventory.entries(share) {
                if let EntryKind::Dir(dir) = kind {
                    named.entry(name).or_default().push((root, dir));
                }
            }
        }
        let members = named.into_values().filter(|members| members.len() > 1).flatten();
        let lone = |(root, dir): Member| {
            let inventory = &inventories[root];
            let refusal = planner::is_beyond_compare(inventory, dir)
                .then(|| planner::misfit(inventory, dir))
                .flatten()?;
            Some(LoneTree { root, path: inventory.dir_path(dir), refusal })
        };
        members.filter_map(lone).collect()
    }

    fn takes_trees(&self) -> bool {
        let settings = &self.options.settings;
        settings.select == Select::All && settings.method == Method::Symlink
    }

    fn tree(&self, digest: crate::model::ContentId, members: &[Member]) -> SharedTree {
        let (root, dir) = members[0];
        let inventory = &self.survey.inventories[root];
        let files: Vec<FileId> = trees::files_below(inventory, dir).collect();
        let member = |&(root, dir): &Member| TreeMember { root, refusal: self.unfit(root, dir) };
        SharedTree {
            digest,
            path: inventory.dir_path(dir),
            size: self.allocated(self.distinct(root, &files)),
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
        let files: Vec<FileId> = trees::files_below(inventory, dir).collect();
        if files.len() as u64 > self.most_held {
            return Some(refused(too_many(files.len(), self.most_held)));
        }
        if let Some(manager) = self.owner(root, dir, &files) {
            return Some(refused(format!("{manager} owns it, {OWNED}")));
        }
        if let Some(refusal) = self.odd(root, dir) {
            return Some(refusal);
        }
        let all = files.iter().copied().collect();
        let unfit = files.iter().find_map(|file| Some((file, self.unfit_file(root, *file, &all)?)));
        let (file, why) = unfit?;
        // By its path from the tree.
        let path = inventory.file_path(*file).as_bytes().to_vec();
        let path = path.get(inventory.dir_path(dir).as_bytes().len() + 1..).unwrap_or_default();
        let path = RootPath::new(path);
        Some(refused(format!("{:?} in it {why}", path.as_path())))
    }

    /// Why something in it cannot become the store's.
    fn odd(&self, root: usize, dir: DirId) -> Option<Refusal> {
        let top = &self.survey.dirs[root];
        match candidate::file_system(top) {
            Ok(root_dir) => {
                let inventory = &self.survey.inventories[root];
                let below = below::below(top, inventory, dir, self.label());
                planner::odd(&below, root_dir.uid, self.options.settings.store_format)
            }
            Err(error) => {
                let cause = crate::scan::cause(&error);
                Some(refused(format!("its root could not be looked at: {cause}")))
            }
        }
    }

    fn unfit_file(&self, root: usize, file: FileId, all: &HashSet<FileId>) -> Option<&'static str> {
        let name = Name { root: root as u32, file };
        let inode = self.survey.inodes.inode(name);
        let inventory = &self.survey.inventories[root];
        let here = |it: &Name| it.root == name.root && all.contains(&it.file);
        let nlink = inventory.file(file).nlink;
        let names = || self.survey.inodes.names(inode).iter().filter(|it| here(it)).count();
        if self.survey.contents.elf[inode] {
            Some("is a program: these are shared one by one")
        } else if nlink > 1 && names() as u64 != u64::from(nlink) {
            Some("has another name elsewhere, which would keep its blocks")
        } else {
            None
        }
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
        let files: Vec<FileId> = trees::files_below(inventory, dir).collect();
        let inodes = self.distinct(root, &files).into_iter();
        self.allocated(inodes.filter(|inode| self.survey.same_blocks.of(*inode) == *inode))
    }

    fn distinct(&self, root: usize, files: &[FileId]) -> HashSet<usize> {
        let name = |file: &FileId| Name { root: root as u32, file: *file };
        files.iter().map(|file| self.survey.inodes.inode(name(file))).collect()
    }

    fn allocated(&self, inodes: impl IntoIterator<Item = usize>) -> Bytes {
        let meta = |inode| self.survey.inodes.meta(inode, &self.survey.inventories);
        inodes.into_iter().map(|inode| meta(inode).allocated).sum()
    }
}

fn too_many(files: usize, most: u64) -> String {
    format!(
        "each of its {files} files would be held open meanwhile, and no more than {most} may be: \
         `ulimit -Hn` raises that"
    )
}

fn refused(explanation: String) -> Refusal {
    Refusal { reason: SkipReason::Tree, explanation }
}

const OWNED: &str = "and could not write it in the store when it is upgraded; --method reflink \
     shares its blocks";
