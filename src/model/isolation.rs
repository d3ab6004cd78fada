//! What keeps a running container from the host and from its neighbours, and what does not.

use std::fmt;

use super::{Capabilities, ContainerKey, ContainerPath, HostPath, Runtime, UserNamespace};

/// Consecutive user ids of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdRange {
    /// The host's id of the container's root.
    pub first: u32,
    /// How many.
    pub count: u32,
}

/// How one mount is restricted: mount(8), options independent of the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MountFlags {
    /// `ro`.
    pub read_only: bool,
    /// `nosuid`.
    pub nosuid: bool,
    /// `nodev`.
    pub nodev: bool,
    /// `noexec`.
    pub noexec: bool,
    /// Its owners are others than on disk: mount_setattr(2), `MOUNT_ATTR_IDMAP`.
    pub idmapped: bool,
}

/// Who trusts whom. Containers of one domain can change each other's files anyhow.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TrustDomain {
    /// Its root is the host's root.
    Host,
    /// Its root is one of the host's plain users.
    Users(IdRange),
    /// Its root is a plain user of the host, who is chosen when it starts.
    Picked,
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => out.write_str("host"),
            Self::Picked => out.write_str("users:picked"),
            Self::Users(range) => write!(out, "users:{}+{}", range.first, range.count),
        }
    }
}

/// A way in which a container's root can write what the host shows it read-only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Escape {
    /// It takes the read-only flag off the mount: mount(2), mount_setattr(2).
    Remount,
    /// It opens the file by handle through a writable mount: open_by_handle_at(2).
    OpenByHandle,
    /// It leaves its root directory: it has no mount namespace of its own.
    LeaveChroot,
    /// It becomes a process of the host: ptrace(2).
    HostProcess,
    /// It changes the kernel, or memory.
    Kernel,
    /// It writes it where it is mounted once more, or the host's own directories.
    HostFiles,
    /// It writes the disk that it lies on.
    Disk,
}

/// What of the host is within a container's reach, whatever its capabilities are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exposure {
    /// It shares the host's mount namespace: a chroot(2) alone.
    pub host_mounts: bool,
    /// Its own mount namespace has more than its root: that was changed by chroot(2), not by
    /// pivot_root(2).
    pub above_root: bool,
    /// It sees the host's processes.
    pub host_processes: bool,
    /// Where it is shown, for writing, what nobody but the host is to write.
    pub host_files: Option<ContainerPath>,
    /// Which of the host's disks it may open for writing.
    pub disks: Disks,
}

/// Disks that a container may open for writing, by its control group or its configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Disks {
    /// None that matters.
    #[default]
    None,
    /// All, but it has no node of one: it needs one, or CAP_MKNOD.
    Unnamed,
    /// The one that the store lies on, or the host's system.
    Named,
}

impl Escape {
    /// The ways that are open to a root of the host's user namespace, by what it can come to
    /// have, and by what it shares with the host.
    pub fn open_to(capabilities: Capabilities, exposure: &Exposure) -> Vec<Self> {
        let may = |capability| capabilities.has(capability);
        let disk = match exposure.disks {
            Disks::None => false,
            Disks::Unnamed => may(Capabilities::MKNOD),
            Disks::Named => true,
        };
        let leaves = exposure.host_mounts || exposure.above_root;
        let ways = [
            (Self::Remount, may(Capabilities::SYS_ADMIN)),
            (Self::OpenByHandle, may(Capabilities::DAC_READ_SEARCH)),
            (Self::LeaveChroot, leaves && may(Capabilities::SYS_CHROOT)),
            (Self::HostProcess, exposure.host_processes && may(Capabilities::SYS_PTRACE)),
            (Self::Kernel, may(Capabilities::SYS_MODULE) || may(Capabilities::SYS_RAWIO)),
            (Self::HostFiles, exposure.host_files.is_some()),
            (Self::Disk, disk),
        ];
        ways.into_iter().filter(|(_, open)| *open).map(|(way, _)| way).collect()
    }

    /// It is by a mount that the administrator gave it for writing. Who has another way gets at
    /// every file of the host, what its neighbours run among them, store or not.
    pub fn is_given(self) -> bool {
        self == Self::HostFiles
    }

    /// How, in a few words, and what would close the way.
    pub fn explanation(self) -> (&'static str, &'static str) {
        match self {
            Self::Remount => (
                "CAP_SYS_ADMIN: it can remount what it is shown read-only, and write it",
                "run it in a user namespace of its own, or without CAP_SYS_ADMIN",
            ),
            Self::OpenByHandle => (
                "CAP_DAC_READ_SEARCH: it can open files of the store by handle through a writable mount",
                "run it in a user namespace of its own, or without CAP_DAC_READ_SEARCH",
            ),
            Self::LeaveChroot => (
                "its root was changed by chroot alone, and it has CAP_SYS_CHROOT: it can leave its root directory",
                "run it in a mount namespace of its own, by pivot_root, or without CAP_SYS_CHROOT",
            ),
            Self::HostProcess => (
                "CAP_SYS_PTRACE, and it sees the host's processes: it can become one of them",
                "run it in a process namespace of its own, or without CAP_SYS_PTRACE",
            ),
            Self::Kernel => (
                "CAP_SYS_MODULE or CAP_SYS_RAWIO: it can change the kernel",
                "run it without these capabilities",
            ),
            Self::HostFiles => (
                "the host's own files, or the store's, are mounted in it for writing",
                "mount them there read-only, or only what it needs of them",
            ),
            Self::Disk => (
                "its control group lets it open the disk of the store, or of the host, for writing",
                "allow it the devices that it needs, one by one, or run it without CAP_MKNOD",
            ),
        }
    }
}

/// One running container, and what holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Isolation {
    /// What makes it one container.
    pub key: ContainerKey,
    /// The runtime's name for it.
    pub name: String,
    /// What runs it.
    pub runtime: Runtime,
    /// Its root on the host's disk, where it can be found.
    pub root: Option<HostPath>,
    /// Its processes, by id on the host.
    pub pids: Vec<u32>,
    /// Whose user namespace its processes run in. The host's, as soon as one does.
    pub user_namespace: UserNamespace,
    /// The host's ids of its users; `None` in the host's user namespace.
    pub users: Option<IdRange>,
    /// What its processes can come to have, in the user namespace that they run in.
    pub capabilities: Capabilities,
    /// What of the host is within its reach.
    pub exposure: Exposure,
    /// Its root is mounted read-only, idmapped, ...
    pub root_mount: MountFlags,
    /// The name of the security module's profile, where it confines: AppArmor, SELinux.
    pub profile: Option<String>,
    /// It cannot gain privileges by execve(2): `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privileges: bool,
    /// Its system calls are filtered: seccomp(2).
    pub seccomp: bool,
    /// What it sees at the store's mount point.
    pub store: Option<StoreMount>,
}

/// What a container sees at the store's mount point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreMount {
    /// The file system's type.
    pub fs_type: String,
    /// The mount's restrictions.
    pub flags: MountFlags,
}

impl Isolation {
    /// The ways in which its root can write what it is shown read-only on a plain file
    /// system. In a user namespace of its own the flags of mounts that come from outside are
    /// locked (mount_namespaces(7)): then it writes only what it was given for that.
    pub fn escapes(&self) -> Vec<Escape> {
        let mut ways = Escape::open_to(self.capabilities, &self.exposure);
        if self.user_namespace == UserNamespace::Own {
            ways.retain(|way| *way == Escape::HostFiles);
        }
        ways
    }

    /// Its root can write a plain directory store that it is shown read-only.
    pub fn is_privileged(&self) -> bool {
        !self.escapes().is_empty()
    }

    /// Whom it belongs to.
    pub fn domain(&self) -> TrustDomain {
        match (self.user_namespace, self.users) {
            (UserNamespace::Own, Some(range)) if range.first != 0 => TrustDomain::Users(range),
            // A namespace that maps its root to the host's is the host's in all but name.
            _ => TrustDomain::Host,
        }
    }
}

#[cfg(test)]
impl Isolation {
    /// A container in the host's user namespace that may do nothing.
    pub(crate) fn sample() -> Self {
        Self {
            key: ContainerKey { mount_namespace: 1, root: super::InodeId { dev: 1, ino: 1 } },
            name: "web".to_owned(),
            runtime: Runtime::Oci,
            root: None,
            pids: vec![1],
            user_namespace: UserNamespace::Host,
            users: None,
            capabilities: Capabilities::default(),
            exposure: Exposure::default(),
            root_mount: MountFlags::default(),
            profile: None,
            no_new_privileges: false,
            seccomp: false,
            store: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_out_needs_its_capability() {
        let of = |capabilities, host_mounts, host_processes| {
            let exposure = Exposure { host_mounts, host_processes, ..Exposure::default() };
            Isolation { capabilities, exposure, ..Isolation::sample() }.escapes()
        };
        assert_eq!(of(Capabilities::default(), true, true), []);
        assert_eq!(of(Capabilities::SYS_ADMIN, false, false), [Escape::Remount]);
        assert_eq!(of(Capabilities::DAC_READ_SEARCH, false, false), [Escape::OpenByHandle]);
        assert_eq!(of(Capabilities::SYS_CHROOT, false, false), []);
        assert_eq!(of(Capabilities::SYS_CHROOT, true, false), [Escape::LeaveChroot]);
        assert_eq!(of(Capabilities::SYS_PTRACE, false, false), []);
        assert_eq!(of(Capabilities::SYS_PTRACE, false, true), [Escape::HostProcess]);
        assert_eq!(of(Capabilities::SYS_MODULE, false, false), [Escape::Kernel]);
        let with = |capabilities, exposure| Escape::open_to(capabilities, &exposure);
        let above = Exposure { above_root: true, ..Exposure::default() };
        assert_eq!(with(Capabilities::default(), above.clone()), []);
        assert_eq!(with(Capabilities::SYS_CHROOT, above), [Escape::LeaveChroot]);
        let disks = |disks| Exposure { disks, ..Exposure::default() };
        assert_eq!(with(Capabilities::MKNOD, disks(Disks::None)), []);
        assert_eq!(with(Capabilities::default(), disks(Disks::Unnamed)), []);
        assert_eq!(with(Capabilities::MKNOD, disks(Disks::Unnamed)), [Escape::Disk]);
        assert_eq!(with(Capabilities::default(), disks(Disks::Named)), [Escape::Disk]);
    }

    #[test]
    fn what_it_was_given_needs_no_capability() {
        let host_files = Some(ContainerPath("/host".into()));
        let exposure = Exposure { host_files, ..Exposure::default() };
        let given = Isolation { exposure, ..Isolation::sample() };
        assert_eq!(given.escapes(), [Escape::HostFiles]);
        let mapped = Isolation { user_namespace: UserNamespace::Own, ..given };
        assert_eq!(mapped.escapes(), [Escape::HostFiles]);
    }

    #[test]
    fn a_user_namespace_closes_all_of_them() {
        let users = IdRange { first: 100_000, count: 65_536 };
        let shut = Isolation {
            capabilities: Capabilities(u64::MAX),
            user_namespace: UserNamespace::Own,
            users: Some(users),
            exposure: Exposure { host_processes: true, ..Exposure::default() },
            ..Isolation::sample()
        };
        assert!(!shut.is_privileged());
        assert_eq!(shut.domain().to_string(), "users:100000+65536");
    }

    #[test]
    fn a_namespace_with_the_hosts_root_is_the_hosts() {
        let mapped = Isolation {
            user_namespace: UserNamespace::Own,
            users: Some(IdRange { first: 0, count: 1 }),
            ..Isolation::sample()
        };
        assert_eq!(mapped.domain(), TrustDomain::Host);
    }

    #[test]
    fn capabilities_have_names() {
        let set = Capabilities(1 << 21 | 1 << 40 | 1 << 63);
        let names: Vec<String> = set.names().collect();
        assert_eq!(names, ["CAP_SYS_ADMIN", "CAP_CHECKPOINT_RESTORE"]);
    }
}
