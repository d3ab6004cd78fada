//! A plan: what a run would change, as a value. Printing, applying, undoing and the
//! JSON consume the same one; nothing is decided again while it is carried out.

use super::{
    Bytes, ContainerPath, ContentId, HostPath, MountPlan, Notices, ObjectName, PlanSettings,
    RootId, RootPath, RootState, Runtime, SkipReason,
};

/// A regular file as it was when the plan was made: what must still be there.
///
/// Neither `st_dev` (btrfs numbers it anew at each mount) nor `st_ctime` (an exchange
/// moves it) is a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileState {
    /// `st_ino`.
    pub ino: u64,
    /// `st_size`.
    pub size: Bytes,
    /// `st_mtime` in nanoseconds since the epoch.
    pub mtime: i64,
    /// `st_mode`.
    pub mode: u32,
    /// Its content.
    pub content: ContentId,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A new inode in the store, copied from the root's file `source` while it is hashed.
    Store {
        /// Where the bytes come from.
        source: RootPath,
        /// What they must be.
        content: ContentId,
        /// How many.
        size: Bytes,
    },
    /// The store, or a tree, becomes visible in the root.
    Mount(MountPlan),
    /// A regular file becomes a link to the object.
    Replace {
        /// The entry.
        path: RootPath,
        /// What it is.
        before: FileState,
        /// The link's target, as the container sees it.
        target: ContainerPath,
    },
    /// A symbolic link is re-pointed at the object.
    Relink {
        /// The entry.
        path: RootPath,
        /// Its target, exactly.
        before: Vec<u8>,
        /// The new target, as the container sees it.
        target: ContainerPath,
    },
    /// A name that the program provides and the root lacks is added.
    Link {
        /// The entry, absent now.
        path: RootPath,
        /// The link's target, as the container sees it.
        target: ContainerPath,
    },
    /// A regular file becomes another name of the file `of` in the root `of_root`.
    Hardlink {
        /// The entry.
        path: RootPath,
        /// What it is.
        before: FileState,
        /// The root of the file that stays.
        of_root: RootId,
        /// The file that stays.
        of: RootPath,
        /// What that is.
        of_state: FileState,
        /// How many names that has, all of them in roots of the plan.
        of_names: u32,
    },
    /// A regular file shares the extents of the file `of` in the root `of_root`.
    Reflink {
        /// The entry.
        path: RootPath,
        /// What it is.
        before: FileState,
        /// The root of the file whose extents stay.
        of_root: RootId,
        /// That file.
        of: RootPath,
        /// What that is.
        of_state: FileState,
    },
    /// The object is bound over the name in the running container, until that ends. Nothing on
    /// disk changes.
    Bind {
        /// The name.
        path: RootPath,
        /// The file that it leads to, as the container sees it.
        before: FileState,
    },
    /// A directory that is the same elsewhere becomes a link to the one in the store, which the
    /// container sees through the store's read-only mount.
    RemoveTree {
        /// The directory.
        path: RootPath,
        /// What it holds, as `Tree::digest`.
        digest: ContentId,
        /// Names of regular files below it.
        files: u64,
        /// The link's target, as the container sees it.
        target: ContainerPath,
    },
}

impl Action {
    /// The name in tables and JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Store { .. } => "store",
            Self::Mount(_) => "mount",
            Self::Replace { .. } => "replace",
            Self::Relink { .. } => "relink",
            Self::Link { .. } => "link",
            Self::Hardlink { .. } => "hardlink",
            Self::Reflink { .. } => "reflink",
            Self::Bind { .. } => "bind",
            Self::RemoveTree { .. } => "remove_tree",
        }
    }
}

/// One change, in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its number; steps are carried out in this order.
    pub seq: u32,
    /// Whose entry it is, or whose file the object is copied from.
    pub root: RootId,
    /// What is done.
    pub action: Action,
    /// The object in the store that it makes, or leads to.
    pub object: Option<ObjectName>,
}

/// A root that a plan speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedRoot {
    /// Its number in this plan.
    pub id: RootId,
    /// Where it lies on the host.
    pub path: HostPath,
    /// `st_ino` of the directory: what is changed must still be it.
    pub ino: u64,
    /// Its container's name.
    pub name: String,
    /// Whose root it is.
    pub runtime: Runtime,
    /// Whether it runs.
    pub state: RootState,
}

/// An entry, or a whole root, that is left as it is, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Skip {
    /// Whose entry.
    pub root: RootId,
    /// The entry; empty for the whole root.
    pub path: RootPath,
    /// A word for it.
    pub reason: SkipReason,
    /// A sentence that says why, and what would change it.
    pub explanation: String,
}

/// What a plan saves: a forecast, measured again after the change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Saves {
    /// Disk blocks that are freed, less those of new objects.
    pub disk: Bytes,
    /// Resident pages that are freed once the old processes have ended.
    pub memory: Bytes,
}

/// What a run would change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What was asked for.
    pub settings: PlanSettings,
    /// The roots that steps and skips refer to.
    pub roots: Vec<PlannedRoot>,
    /// The changes, in order.
    pub steps: Vec<Step>,
    /// What is left as it is, and why.
    pub skips: Vec<Skip>,
    /// The forecast.
    pub saves: Saves,
    /// What could not be read, or was left out.
    pub notices: Notices,
}
