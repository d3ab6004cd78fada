//! What this host and its containers allow.

use super::{Bytes, Capabilities, HostPath, Isolation, MountFlags, Notices, Root};

/// One thing that may be possible here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ability {
    /// A word for it, stable for scripts: `openat2`, `exchange`, ...
    pub what: &'static str,
    /// Whether it is; `None` where it shows only when it is tried.
    pub allowed: Option<bool>,
    /// What it is needed for.
    pub purpose: &'static str,
    /// Why not.
    pub why: Option<String>,
    /// What would change it.
    pub change: Option<String>,
}

impl Ability {
    /// It is possible.
    pub fn yes(what: &'static str, purpose: &'static str) -> Self {
        Self { what, allowed: Some(true), purpose, why: None, change: None }
    }

    /// It is not, and what would change it.
    pub fn no(
        what: &'static str,
        purpose: &'static str,
        why: impl Into<String>,
        change: impl Into<String>,
    ) -> Self {
        let (why, change) = (Some(why.into()), Some(change.into()));
        Self { what, allowed: Some(false), purpose, why, change }
    }

    /// It shows when it is tried.
    pub fn unknown(self) -> Self {
        Self { allowed: None, ..self }
    }

    /// `otherwise` unless it is possible.
    pub fn yes_if(possible: bool, otherwise: Self) -> Self {
        if possible { Self::yes(otherwise.what, otherwise.purpose) } else { otherwise }
    }
}

/// What the kernel offers, and what this process may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// openat2(2), Linux 5.6.
    pub openat2: bool,
    /// `PROCMAP_QUERY`, Linux 6.11.
    pub procmap_query: bool,
    /// open_tree(2) and move_mount(2), Linux 5.2.
    pub open_tree: bool,
    /// mount_setattr(2), Linux 5.12.
    pub mount_setattr: bool,
    /// EROFS is registered with the kernel.
    pub erofs: bool,
    /// EROFS is a module that can be loaded.
    pub erofs_module: bool,
    /// `mkfs.erofs` is installed.
    pub mkfs_erofs: bool,
    /// There are loop devices.
    pub loop_devices: bool,
    /// The effective user is root.
    pub root: bool,
    /// The effective capabilities.
    pub capabilities: Capabilities,
    /// This process is in the initial user namespace.
    pub initial_namespace: bool,
}

/// The file system that a directory lies on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSystem {
    /// `ext4`, `btrfs`, ...
    pub kind: String,
    /// How the mount is restricted; read-only also where the file system itself is.
    pub flags: MountFlags,
    /// The quotas in force.
    pub quota: Option<String>,
}

/// The place of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorePlace {
    /// Where.
    pub path: HostPath,
    /// It is there already.
    pub exists: bool,
    /// The file system that it lies on, or would.
    pub file_system: Option<FileSystem>,
    /// Free to root.
    pub free: Bytes,
    /// What it allows.
    pub abilities: Vec<Ability>,
}

/// A root, and what its file system allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootPlace {
    /// The root.
    pub root: Root,
    /// The file system that it lies on, where it can be told.
    pub file_system: Option<FileSystem>,
    /// What it allows.
    pub abilities: Vec<Ability>,
}

/// A running container, and what it allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerPlace {
    /// What holds it.
    pub isolation: Isolation,
    /// What it allows.
    pub abilities: Vec<Ability>,
}

/// What this host and its containers allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doctor {
    /// The kernel, and this process.
    pub host: Vec<Ability>,
    /// The store's place.
    pub store: StorePlace,
    /// The roots.
    pub roots: Vec<RootPlace>,
    /// The running containers.
    pub containers: Vec<ContainerPlace>,
    /// What could not be looked at.
    pub notices: Notices,
}
