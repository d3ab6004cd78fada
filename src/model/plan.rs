//! A plan: what a run would change, as a value. Printing, applying, undoing and the
//! JSON consume the same one; nothing is decided again while it is carried out.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    Bytes, ContainerPath, ContentId, HostPath, MountPlan, Notices, RootId, RootPath, RootState,
    Runtime, Select, SkipReason,
};

/// How copies are made one (`--method`).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// A link into the read-only store: disk and memory.
    #[default]
    Symlink,
    /// Shared extents: disk alone; the entries stay as they are.
    Reflink,
    /// One inode under several names, inside a trust domain.
    Hardlink,
}

impl Method {
    /// The name on the command line and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Symlink => "symlink",
            Self::Reflink => "reflink",
            Self::Hardlink => "hardlink",
        }
    }
}

/// What becomes of applet links (`--applets`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Applets {
    /// `Chain` where a package database owns the binary, otherwise `Rewrite`.
    #[default]
    Auto,
    /// Every applet link is re-pointed at the store.
    Rewrite,
    /// The links stay; the binary's own name leads to the store.
    Chain,
    /// `Rewrite`, and the names that the binary provides and the root lacks are added.
    Complete,
}

impl Applets {
    /// The name on the command line and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Rewrite => "rewrite",
            Self::Chain => "chain",
            Self::Complete => "complete",
        }
    }
}

/// What the store is (`--store-format`).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum StoreFormat {
    /// A plain directory.
    #[default]
    Dir,
    /// Generations of an EROFS image, which no container can write by its mount.
    Erofs,
}

impl StoreFormat {
    /// The name on the command line and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dir => "dir",
            Self::Erofs => "erofs",
        }
    }
}

impl StoreFormat {
    /// What an image store shows, below its directory.
    pub const VIEW: &str = ".view";
    /// The link to the image that is mounted where the view leads, beside it.
    pub const IMAGE: &str = ".view.erofs";

    /// The directory of the host that containers are shown of a store.
    pub fn shown(self, store: &HostPath) -> HostPath {
        match self {
            Self::Dir => store.clone(),
            Self::Erofs => HostPath(store.0.join(Self::VIEW)),
        }
    }
}

/// An object's file name in the store: `<family>-<arch>-<first 12 hex digits of the content>`.
///
/// The family's prefix keeps the dispatch of multi-call programs working, and the
/// hash keeps a container from claiming a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(String);

/// How the names of directories begin; no architecture follows.
const TREE: &str = "tree-";

impl ObjectName {
    /// The name of a content. `family` begins the name: `busybox`, `dropbear`, ..., or a file name.
    pub fn new(family: &str, arch: &str, content: ContentId) -> Self {
        let plain = |text: &str| -> String {
            let kept = |c: &char| c.is_ascii_alphanumeric() || "._+-".contains(*c);
            text.chars().filter(kept).skip_while(|c| *c == '.').take(64).collect()
        };
        let hash = content.to_string();
        Self(format!("{}-{}-{}", plain(family), plain(arch), &hash[..12]))
    }

    /// The name of a directory, whose content is its [`TreeHasher`](super::TreeHasher)'s.
    pub fn tree(digest: ContentId) -> Self {
        Self(format!("{TREE}{}", &digest.to_string()[..12]))
    }

    /// It is a directory's.
    pub fn is_tree(&self) -> bool {
        self.0.strip_prefix(TREE).is_some_and(|hash| hash.len() == 12)
    }

    /// Takes a name that a journal, a plan or a directory holds; `None` where it is none of ours.
    pub fn parse(name: &str) -> Option<Self> {
        let (_, hash) = name.rsplit_once('-')?;
        let is_hash = hash.len() == 12 && hash.bytes().all(|b| b"0123456789abcdef".contains(&b));
        let plain = |c: char| c.is_ascii_alphanumeric() || "._+-".contains(c);
        (is_hash && !name.starts_with('.') && name.chars().all(plain))
            .then(|| Self(name.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The content may be the one that the name was made of.
    pub fn fits(&self, content: ContentId) -> bool {
        self.0.rsplit_once('-').is_some_and(|(_, hash)| content.to_string().starts_with(hash))
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

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

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanSettings {
    /// Which files.
    pub select: Select,
    /// How.
    pub method: Method,
    /// The store on the host.
    pub store: HostPath,
    /// What it is.
    pub store_format: StoreFormat,
    /// The store's path inside the containers.
    pub mount_point: ContainerPath,
    /// What becomes of applet links.
    pub applets: Applets,
    /// Running containers get the mount at once.
    pub live: bool,
    /// Set-id files too.
    pub include_setid: bool,
    /// The domain that the roots are declared to form.
    pub trust_domain: Option<String>,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_objects_name_keeps_the_family_and_the_hash() {
        let content = ContentId([0xab; 32]);
        let name = ObjectName::new("busybox", "x86_64", content);
        assert_eq!(name.as_str(), "busybox-x86_64-abababababab");
        assert!(name.fits(content));
        assert!(!name.fits(ContentId([1; 32])));
        assert!(!name.is_tree());
        assert_eq!(ObjectName::parse(name.as_str()), Some(name));
        let tree = ObjectName::tree(content);
        assert_eq!(tree.as_str(), "tree-abababababab");
        assert!(tree.is_tree() && tree.fits(content));
        assert!(!ObjectName::new("tree", "x86_64", content).is_tree());
        assert_eq!(ObjectName::parse(tree.as_str()), Some(tree));
    }

    #[test]
    fn a_hostile_name_leaves_the_store_alone() {
        let name = ObjectName::new("../../etc/\u{1b}[2Jx", "x", ContentId([0; 32]));
        assert_eq!(name.as_str(), "etc2Jx-x-000000000000");
        for bad in ["", "x", "../x-000000000000", ".x-000000000000", "a/b-000000000000", "x-00"] {
            assert_eq!(ObjectName::parse(bad), None, "{bad}");
        }
    }
}
