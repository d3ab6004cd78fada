//! Container roots.

use super::{HostPath, InodeId};

/// A root's place in the report's list of roots.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct RootId(pub u32);

/// What runs a root, or keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Runtime {
    /// The host itself.
    Host,
    /// A plain directory: chroots, and roots named on the command line.
    Directory,
    /// systemd-nspawn, machinectl.
    Nspawn,
    /// LXC and Incus.
    Lxc,
    /// A bundle run by runc, crun or another OCI runtime.
    Oci,
    /// Docker.
    Docker,
    /// Podman and CRI-O.
    Podman,
    /// containerd.
    Containerd,
    /// bubblewrap, Flatpak.
    Bubblewrap,
}

impl Runtime {
    /// The name in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Directory => "directory",
            Self::Nspawn => "nspawn",
            Self::Lxc => "lxc",
            Self::Oci => "oci",
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Containerd => "containerd",
            Self::Bubblewrap => "bubblewrap",
        }
    }
}

/// Whether a container runs from a root now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RootState {
    /// A process has it as its `/`.
    Running,
    /// Every process could be asked, and none has it.
    Stopped,
    /// Processes could not be asked.
    Unknown,
}

impl RootState {
    /// The name in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Unknown => "unknown",
        }
    }
}

/// A directory that is, or may become, a container's `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// Where it lies on the host.
    pub path: HostPath,
    /// The directory itself, as it was when the root was found: what is walked must
    /// still be it, and the walk of a root around it ends there.
    pub inode: InodeId,
    /// The container's name where the runtime's store tells it, otherwise the directory's.
    pub name: String,
    /// Whose root it is.
    pub runtime: Runtime,
    /// Whether it runs.
    pub state: RootState,
    /// One layer of a stacked root file system (overlay), not a whole one.
    pub layer: bool,
}
