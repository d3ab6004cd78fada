//! What a plan is made from: the roots, whose they are, and what they hold.

use std::collections::{BTreeSet, HashSet};

use super::{LoneTree, Refusal, Sharable, SharedTree, Tenant};
use crate::model::{
    Escape, FileId, Inventory, MountPlan, ObjectName, PlanSettings, PlannedRoot, StoreFormat,
    TrustDomain,
};

/// Everything that a plan is made from.
#[derive(Debug, Clone, Copy)]
pub struct World<'a> {
    /// What was asked for.
    pub settings: &'a PlanSettings,
    /// The roots, by number.
    pub roots: &'a [Ground<'a>],
    /// The contents.
    pub contents: &'a [Sharable],
    /// The directories that are the same in several roots.
    pub trees: &'a [SharedTree],
    /// Those that cannot be compared.
    pub lone_trees: &'a [LoneTree],
    /// The objects that the store has already.
    pub stored: &'a BTreeSet<ObjectName>,
    /// The roots that earlier runs left in it.
    pub tenants: &'a [Tenant],
}

/// One root, as the planner sees it.
#[derive(Debug, Clone)]
pub struct Ground<'a> {
    /// The root.
    pub root: PlannedRoot,
    /// What it holds.
    pub inventory: &'a Inventory,
    /// Why the whole root is left as it is.
    pub refusal: Option<Refusal>,
    /// What makes the store visible in it; `None` where nothing has to be.
    pub mount: Option<MountPlan>,
    /// It is a running container's stack of layers: objects are bound over its names.
    pub stack: bool,
    /// The file system it lies on, where that can share extents between files.
    pub sharing: Option<u64>,
    /// Who it is to the others.
    pub member: Member,
    /// Files that it does not start without.
    pub critical: HashSet<FileId>,
}

/// Whose a root is, and what it can do to the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Those that trust it.
    pub domain: TrustDomain,
    /// What its root can write of a store that it is shown read-only.
    pub writes: Writes,
}

/// What a root can write that it is shown read-only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Writes {
    /// Nothing.
    Nothing,
    /// A plain directory. One that gets at any file of the host is in no need of the store, to
    /// write what its neighbours run.
    Directory,
    /// The file of an image as well: it was given what that lies in.
    Image,
}

impl Writes {
    /// By the ways that are open.
    pub fn by(ways: &[Escape]) -> Self {
        match ways {
            [] => Self::Nothing,
            ways if ways.iter().any(|way| way.is_given()) => Self::Image,
            _ => Self::Directory,
        }
    }

    /// A store of this format.
    pub fn reach(self, format: StoreFormat) -> bool {
        match format {
            StoreFormat::Dir => self >= Self::Directory,
            StoreFormat::Erofs => self >= Self::Image,
        }
    }
}
