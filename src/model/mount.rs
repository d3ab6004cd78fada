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
