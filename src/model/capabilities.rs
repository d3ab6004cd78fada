//! Sets of capabilities(7), and their names.

/// A set of capabilities(7), as `/proc/PID/status` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities(pub u64);

/// The capabilities by number, without their common `CAP_`: `<linux/capability.h>`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

impl Capabilities {
    /// Opens any file by handle, past the mount that shows it: open_by_handle_at(2).
    pub const DAC_READ_SEARCH: Self = Self(1 << 2);
    /// Loads code into the kernel.
    pub const SYS_MODULE: Self = Self(1 << 16);
    /// Reads and writes memory and ports.
    pub const SYS_RAWIO: Self = Self(1 << 17);
    /// Leaves a chroot(2) by another one.
    pub const SYS_CHROOT: Self = Self(1 << 18);
    /// Becomes any process that it sees.
    pub const SYS_PTRACE: Self = Self(1 << 19);
    /// Mounts, and takes the read-only flag off a mount.
    pub const SYS_ADMIN: Self = Self(1 << 21);
    /// Makes device nodes.
    pub const MKNOD: Self = Self(1 << 27);
    /// Holds a file against writers that it does not own.
    pub const LEASE: Self = Self(1 << 28);

    /// All of them, those of newer kernels too.
    pub const ALL: Self = Self(u64::MAX);

    /// The one of this name, as in `CAP_SYS_ADMIN` or LXC's `sys_admin`.
    pub fn named(name: &str) -> Option<Self> {
        let name = name.to_ascii_uppercase();
        let name = name.strip_prefix("CAP_").unwrap_or(&name);
        NAMES.iter().position(|known| *known == name).map(|number| Self(1 << number))
    }

    /// Every one of `others` is in it.
    pub fn has(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// Both sets.
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those of this set that are not in `others`.
    pub fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// The names of those that this program knows: `CAP_SYS_ADMIN`, ...
    pub fn names(self) -> impl Iterator<Item = String> + Clone {
        let held = move |number: usize| self.0 & (1 << number) != 0;
        (0..NAMES.len()).filter(move |&number| held(number)).map(name_of)
    }
}

fn name_of(number: usize) -> String {
    format!("CAP_{}", NAMES[number])
}
