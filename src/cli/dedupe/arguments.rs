//! What `dedupe` may be told.

use std::path::{Component, Path, PathBuf};

use cbin_audit::model::{self, MountMeans};
use clap::{Args, ValueEnum};

use crate::cli::report::Select;

/// What `dedupe` may be told.
#[derive(Debug, Clone, Args)]
pub(crate) struct Arguments {
    /// A container's `/`, or a directory that holds several; discovered when none is named
    #[arg(value_name = "ROOT", conflicts_with = "plan")]
    pub(crate) roots: Vec<PathBuf>,
    /// Carry the plan out; without, it is printed and nothing is changed
    #[arg(long)]
    pub(crate) apply: bool,
    /// Take the plan that `dedupe --json` saved in FILE; every step is checked again
    #[arg(long, value_name = "FILE", conflicts_with_all = ["select", "method", "store", "mount_point", "store_format", "mounts", "live", "applets", "include_setid", "trust_domain"])]
    pub(crate) plan: Option<PathBuf>,
    /// Which files are shared
    #[arg(long, value_name = "FILES", default_value = "multicall")]
    pub(crate) select: Select,
    /// How copies are made one
    #[arg(long, value_name = "METHOD", default_value = "symlink")]
    pub(crate) method: Method,
    /// The store of shared programs on the host
    #[arg(long, value_name = "DIR", default_value = "/home/cbin")]
    pub(crate) store: PathBuf,
    /// The store's path inside the containers
    #[arg(long, value_name = "DIR", default_value = "/cbin", value_parser = mount_point)]
    pub(crate) mount_point: PathBuf,
    /// What the store is
    #[arg(long, value_name = "FORMAT", default_value = "dir")]
    pub(crate) store_format: StoreFormat,
    /// How a container gets the read-only mount
    #[arg(long, value_name = "MEANS", default_value = "auto")]
    pub(crate) mounts: Mounts,
    /// Attach the store inside running containers, so that nothing has to be restarted first; in those
    /// of images, bind its objects over their programs until they restart
    #[arg(long)]
    pub(crate) live: bool,
    /// What becomes of the links of applets
    #[arg(long, value_name = "HOW", default_value = "auto")]
    pub(crate) applets: Applets,
    /// The directory of the journal
    #[arg(long, value_name = "DIR", default_value = "/var/lib/cbin-audit")]
    pub(crate) journal: PathBuf,
    /// Share set-id programs, too: they lose the bit
    #[arg(long)]
    pub(crate) include_setid: bool,
    /// Declare that the roots trust each other, under this name
    #[arg(long, value_name = "NAME")]
    pub(crate) trust_domain: Option<String>,
}

/// How copies are made one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Method {
    /// Links into the read-only store: disk and memory
    Symlink,
    /// Shared extents: disk alone; on btrfs and xfs
    Reflink,
    /// One inode under several names, inside a trust domain
    Hardlink,
}

impl From<Method> for model::Method {
    fn from(method: Method) -> Self {
        match method {
            Method::Symlink => Self::Symlink,
            Method::Reflink => Self::Reflink,
            Method::Hardlink => Self::Hardlink,
        }
    }
}

/// What the store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StoreFormat {
    /// A plain directory
    Dir,
    /// An EROFS image, which no container can write by its mount
    Erofs,
}

impl From<StoreFormat> for model::StoreFormat {
    fn from(format: StoreFormat) -> Self {
        match format {
            StoreFormat::Dir => Self::Dir,
            StoreFormat::Erofs => Self::Erofs,
        }
    }
}

/// What becomes of the links of applets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Applets {
    /// `chain` where a package database owns the program, otherwise `rewrite`
    Auto,
    /// Every link is re-pointed at the store
    Rewrite,
    /// The links stay; the program's own name leads to the store
    Chain,
    /// As `rewrite`, and the names that the program provides and the root lacks are added
    Complete,
}

impl From<Applets> for model::Applets {
    fn from(applets: Applets) -> Self {
        match applets {
            Applets::Auto => Self::Auto,
            Applets::Rewrite => Self::Rewrite,
            Applets::Chain => Self::Chain,
            Applets::Complete => Self::Complete,
        }
    }
}

/// How a container gets the read-only mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mounts {
    /// As each root is run
    Auto,
    /// By a `.nspawn` file of ours
    Nspawn,
    /// By a drop-in of ours for the unit
    Unit,
    /// By the configuration of LXC
    Lxc,
    /// By the bundle's config.json
    Oci,
    /// By a mount on the host, at the mount point below the root
    Host,
    /// You see to it
    None,
}

impl Mounts {
    /// `None`: as each root is run.
    pub(crate) fn means(self) -> Option<MountMeans> {
        match self {
            Self::Auto => None,
            Self::Nspawn => Some(MountMeans::Nspawn),
            Self::Unit => Some(MountMeans::Unit),
            Self::Lxc => Some(MountMeans::Lxc),
            Self::Oci => Some(MountMeans::Oci),
            Self::Host => Some(MountMeans::Host),
            Self::None => Some(MountMeans::None),
        }
    }
}

/// An absolute path of names, other than `/`.
fn mount_point(text: &str) -> Result<PathBuf, String> {
    let mut parts = Path::new(text).components();
    let named = parts.next() == Some(Component::RootDir)
        && parts.clone().next().is_some()
        && parts.all(|part| matches!(part, Component::Normal(_)));
    match named {
        true => Ok(Path::new(text).components().collect()),
        false => Err("an absolute path other than /, without .. in it".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_is_absolute_and_plain() {
        assert_eq!(mount_point("/opt//cbin/"), Ok(PathBuf::from("/opt/cbin")));
        for text in ["", "/", "cbin", "/a/../b", "//"] {
            assert!(mount_point(text).is_err(), "{text}");
        }
    }
}
