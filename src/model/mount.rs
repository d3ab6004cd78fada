//! How the store becomes visible in a container: values that say what would change.

use super::{ContainerPath, HostPath};

/// Whose means mount the store in a container (`--mounts`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MountMeans {
    /// A `.nspawn` file of ours: systemd.nspawn(5).
    Nspawn,
    /// A drop-in of ours for the unit that starts the container: systemd.unit(5).
    Unit,
    /// `lxc.mount.entry`: lxc.container.conf(5).
    Lxc,
    /// An entry of `mounts` in an OCI bundle's `config.json`.
    Oci,
    /// A mount on the host, at the mount point below the root.
    Host,
    /// Nobody's: the operator sees to it.
    None,
}

impl MountMeans {
    /// The name on the command line and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nspawn => "nspawn",
            Self::Unit => "unit",
            Self::Lxc => "lxc",
            Self::Oci => "oci",
            Self::Host => "host",
            Self::None => "none",
        }
    }
}

/// How the names of units begin that mount the image of a store when the host boots. They are
/// all containers' together that are shown it.
pub const STORE_UNIT: &str = "cbin-audit-store-";

/// One configuration file on the host, written whole or removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigChange {
    /// The file.
    pub file: HostPath,
    /// Its content when the plan was made; `None`: it did not exist.
    pub before: Option<Vec<u8>>,
    /// Its content afterwards; `None`: it is removed.
    pub after: Option<Vec<u8>>,
}

/// A directory of the host that a container sees read-only.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bind {
    /// The directory on the host.
    pub source: HostPath,
    /// Where the container sees it.
    pub target: ContainerPath,
}

/// What makes the store, and trees, visible in one root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountPlan {
    /// Whose means.
    pub means: MountMeans,
    /// Why these: what was found that runs the root.
    pub why: String,
    /// What is made visible.
    pub binds: Vec<Bind>,
    /// The files that make it so from the next start on.
    pub config: Vec<ConfigChange>,
    /// It is attached inside the running container, too.
    pub live: bool,
    /// The command that starts the root's container anew, with its mounts; `None`: nothing is
    /// known to run it.
    pub restart: Option<String>,
    /// Warnings and what remains for the operator to do, as sentences.
    pub advice: Vec<String>,
}

impl ConfigChange {
    /// It mounts a store for every root that uses it, and so goes with the last of them.
    pub fn is_of_store(file: &HostPath) -> bool {
        let name = file.0.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let unit = name.strip_suffix(".conf").and_then(|name| name.strip_prefix("50-"));
        let unit = unit.unwrap_or(name);
        unit.starts_with(STORE_UNIT) && unit.ends_with(".service")
    }
}
