//! Configuration files of the host that say how containers are run: as they are, not
//! yet understood.

use super::HostPath;

/// A file and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFile {
    /// Where it lies on the host.
    pub path: HostPath,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// A container that LXC has a configuration for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LxcConfig {
    /// The container's name: that of the directory.
    pub name: String,
    /// `NAME/config`.
    pub file: ConfigFile,
    /// What it includes, and what that includes.
    pub included: Vec<ConfigFile>,
    /// The file of mounts that it names, in the format of fstab(5).
    pub fstab: Option<ConfigFile>,
}

/// An OCI bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OciBundle {
    /// Its root, as it was asked for.
    pub root: HostPath,
    /// `config.json`.
    pub file: ConfigFile,
}

/// What the host says about how containers are run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostConfig {
    /// systemd is the host's init: sd_booted(3).
    pub systemd: bool,
    /// Service units, of several with one name the one in force first: systemd.unit(5).
    pub units: Vec<ConfigFile>,
    /// Drop-ins of services, of several with one name in one directory the one in force first.
    pub drop_ins: Vec<ConfigFile>,
    /// `.nspawn` files that systemd-nspawn trusts, those of `/etc` first, then those
    /// beside the roots.
    pub nspawn: Vec<ConfigFile>,
    /// LXC's containers.
    pub lxc: Vec<LxcConfig>,
    /// OCI bundles of the roots.
    pub bundles: Vec<OciBundle>,
}
