//! Running containers whose roots are stacks of layers: no layer is changed, but objects may be
//! bound over names.

use std::collections::HashMap;
use std::path::Path;

use super::Planning;
use crate::exec::live;
use crate::model::{
    ContainerPath, ContentId, FileId, InodeId, Method, ObjectName, PlanSettings, Root, RootPath,
};
use crate::scan::running::View;
use crate::scan::{self, Stack, mount_namespaces};

/// The stacks among the roots.
#[derive(Debug, Default)]
pub(super) struct Stacks {
    all: HashMap<InodeId, Seen>,
    /// The objects that are in the store, and the inodes that each has.
    objects: Vec<(ObjectName, Vec<InodeId>)>,
}

/// A stack, and what its containers see.
#[derive(Debug)]
struct Seen {
    stack: Stack,
    views: Vec<View>,
}

impl Stacks {
    /// Finds them where containers are changed while they run, and adds them to the roots.
    pub(super) fn find(settings: &PlanSettings, found: &mut Vec<Root>) -> Self {
        if !settings.live || settings.method != Method::Symlink {
            return Self::default();
        }
        let mut all = HashMap::new();
        for stack in scan::stacks(found, Path::new("/")) {
            let inode = stack.root.inode;
            match found.iter_mut().find(|root| root.inode == inode) {
                Some(root) => *root = stack.root.clone(),
                None => found.push(stack.root.clone()),
            }
            // One that cannot be asked has nothing bound: that is looked at again.
            let namespaces = mount_namespaces(Path::new("/proc"), inode).unwrap_or_default();
            let views = namespaces.iter().filter_map(|it| View::of(it.pid).ok()).collect();
            all.insert(inode, Seen { stack, views });
        }
        Self { all, objects: Vec::new() }
    }

    /// Learns which inodes the objects of the store have.
    pub(super) fn stored<'a>(
        mut self,
        store: &Path,
        objects: impl Iterator<Item = &'a ObjectName>,
    ) -> Self {
        if !self.all.is_empty() {
            self.objects = objects.map(|name| (name.clone(), live::objects(store, name))).collect();
        }
        self
    }
}

impl Planning<'_> {
    /// A root is a stack that containers run from.
    pub(super) fn is_stack(&self, root: usize) -> bool {
        self.stack(root).is_some()
    }

    fn stack(&self, root: usize) -> Option<&Seen> {
        self.stacks.all.get(&self.roots[root].inode)
    }

    /// The inode that the pages of a file are of.
    pub(super) fn pages(&self, root: usize, file: FileId) -> InodeId {
        let inventory = &self.survey.inventories[root];
        let path = || inventory.file_path(file);
        let shown = self.stack(root).and_then(|seen| seen.stack.shown(&path()));
        shown.unwrap_or(inventory.file(file).inode)
    }

    /// Without the names that an object of this content is bound over.
    pub(super) fn unbound(&self, root: usize, content: ContentId, files: &mut Vec<FileId>) {
        let Some(seen) = self.stack(root) else { return };
        let objects: Vec<InodeId> = self
            .stacks
            .objects
            .iter()
            .filter(|(name, _)| name.fits(content))
            .flat_map(|(_, inodes)| inodes.iter().copied())
            .collect();
        let inventory = &self.survey.inventories[root];
        files.retain(|file| !seen.has_one_of(&objects, &inventory.file_path(*file)));
    }
}

impl Seen {
    /// Every process of it sees one of these inodes under a name.
    fn has_one_of(&self, inodes: &[InodeId], path: &RootPath) -> bool {
        let path = ContainerPath(Path::new("/").join(path.as_path()));
        let is_one = |view: &View| view.at(&path).is_ok_and(|inode| inodes.contains(&inode));
        !inodes.is_empty() && !self.views.is_empty() && self.views.iter().all(is_one)
    }
}
