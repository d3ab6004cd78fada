//! What a plan is asked for: which files, how, and through which store.

use serde::{Deserialize, Serialize};

use super::{ContainerPath, HostPath, Select};

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
