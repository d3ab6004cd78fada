//! Containers: processes with one mount namespace and one root directory.
//!
//! The control group gives a container its name, never its identity: two
//! systemd-nspawn containers may sit in one group called `/payload`.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use procfs::FromRead;
use procfs::process::Stat;

use crate::model::{ContainerKey, HostPath, InodeId, Runtime, UserNamespace};

use super::container_names::{self, Group};
use super::dir;
use super::mounts::{self, Mount};
use super::patience::Patience;
use super::proc::{
    ProcReader, Process, container_key, link, namespace, open_in, read_small, read_status,
};
use super::served;

/// `PROC_USER_INIT_INO`: the number of the initial user namespace, the same on every kernel.
const INITIAL_USER_NAMESPACE: u64 = 0xEFFF_FFFD;
const CAP_SYS_ADMIN: u64 = 1 << 21;

/// One container.
#[derive(Debug, Clone)]
pub struct Container {
    /// What makes it one container.
    pub key: ContainerKey,
    /// The runtime's name for it.
    pub name: String,
    /// What runs it.
    pub runtime: Runtime,
    /// Its root on the host's disk, where it can be found.
    pub root: Option<HostPath>,
    /// Whose user namespace its first process is in.
    pub user_namespace: UserNamespace,
    /// A process of it has CAP_SYS_ADMIN in the initial user namespace.
    pub privileged: bool,
    /// A further process may still turn out to be privileged.
    undecided: bool,
}

/// The containers seen so far.
#[derive(Debug)]
pub struct Containers<'a> {
    reader: &'a ProcReader,
    roots: &'a [(InodeId, HostPath)],
    host: Option<ContainerKey>,
    host_groups: Vec<Vec<Group>>,
    host_mounts: Vec<Mount>,
    places: HashMap<ContainerKey, u32>,
    host_place: Option<u32>,
    list: Vec<Container>,
}

impl<'a> Containers<'a> {
    /// None yet. `roots` are the roots that are known on disk.
    pub fn new(reader: &'a ProcReader, roots: &'a [(InodeId, HostPath)]) -> Self {
        // Init's root is the host's. Where even root may not look at init, the host is
        // what this program runs on.
        let dirs: Vec<_> = ["1", "self"].iter().filter_map(|name| reader.dir(name).ok()).collect();
        let groups = |dir| read_small(dir, "cgroup", 16 * 1024).unwrap_or_default();
        let table = reader.dir("self").and_then(|dir| read_small(&dir, "mountinfo", 4 << 20));
        Self {
            reader,
            roots,
            host: dirs.iter().find_map(|dir| container_key(dir).ok()),
            host_groups: dirs.iter().map(|dir| container_names::parse(&groups(dir))).collect(),
            host_mounts: mounts::parse(&table.unwrap_or_default()),
            places: HashMap::new(),
            host_place: None,
            list: Vec::new(),
        }
    }

    /// The number of the container that a process is in; `None` where it is the first
    /// of its container and ended before it could tell what that is.
    pub fn place(&mut self, process: &Process, patience: &mut Patience) -> Option<u32> {
        let place = match self.places.get(&process.container) {
            Some(&place) => place,
            None => {
                let place = self.open(process, patience)?;
                self.places.insert(process.container, place);
                place
            }
        };
        let container = &mut self.list[place as usize];
        if let Some(privilege) = container.undecided.then(|| Privilege::of(process)).flatten() {
            container.privileged |= privilege.effective;
            container.undecided = !container.privileged && privilege.reachable;
        }
        Some(place)
    }

    /// The containers, by number.
    pub fn into_list(self) -> Vec<Container> {
        self.list
    }

    fn open(&mut self, process: &Process, patience: &mut Patience) -> Option<u32> {
        let ancestry = Ancestry::of(self.reader, process);
        let host = self.is_host(process, &ancestry);
        if let Some(place) = self.host_place.filter(|_| host) {
            return Some(place);
        }
        let place = self.list.len() as u32;
        let container = if host {
            describe(process, Runtime::Host, "host".to_owned(), Some(Path::new("/").into()))
        } else {
            let root = self.root_on_host(process, patience);
            let (runtime, name) = self.name(process, &ancestry, root.as_ref());
            describe(process, runtime, name, root)
        };
        // Whoever can still be asked could be asked before, too.
        namespace(&process.dir, "ns/user").ok()?;
        self.host_place = self.host_place.or(host.then_some(place));
        self.list.push(container);
        Some(place)
    }

    /// A process with the host's root directory is the host's also in a mount namespace
    /// of its own: services with `PrivateTmp=`, the monitors of runtimes. A sandbox that
    /// shows the host's files is not.
    fn is_host(&self, process: &Process, ancestry: &Ancestry) -> bool {
        let Some(host) = self.host else { return false };
        process.container == host
            || process.container.root == host.root
                && ancestry.sandbox.is_none()
                && user_namespace(process) == UserNamespace::Host
    }

    fn name(
        &self,
        process: &Process,
        ancestry: &Ancestry,
        root: Option<&HostPath>,
    ) -> (Runtime, String) {
        let text = read_small(&process.dir, "cgroup", 16 * 1024).unwrap_or_default();
        let groups = container_names::parse(&text);
        if let Some(named) = container_names::by_pattern(&groups) {
            return named;
        }
        if let Some(named) = &ancestry.nspawn {
            return (Runtime::Nspawn, named.clone());
        }
        if let Some(pid) = ancestry.sandbox {
            return (Runtime::Bubblewrap, format!("bubblewrap-{pid}"));
        }
        let declared = declared_runtime(process);
        if let Some(name) = container_names::by_basename(&groups, &self.host_groups) {
            return (declared.unwrap_or(Runtime::Oci), name);
        }
        let name = root
            .and_then(|root| root.0.file_name())
            .map(|name| name.to_string_lossy().into_owned());
        (
            declared.unwrap_or(Runtime::Directory),
            name.unwrap_or_else(|| by_number(process.container.root)),
        )
    }

    /// Where a container's root lies on the host: the directory known by that
    /// inode, or a place that turns out to be that very inode.
    fn root_on_host(&self, process: &Process, patience: &mut Patience) -> Option<HostPath> {
        let inode = process.container.root;
        if let Some((_, path)) = self.roots.iter().find(|(known, _)| *known == inode) {
            return Some(path.clone());
        }
        // After chroot(2) the link tells; after pivot_root(2) it says `/`, and the mount table does.
        let linked = link(&process.dir, "root").ok();
        let linked = linked.map(|path| PathBuf::from(std::ffi::OsStr::from_bytes(&path)));
        let candidates = linked.into_iter().chain(self.mounted_at(process));
        let candidates: Vec<PathBuf> = candidates.collect();
        let found = patience
            .ask(move |_| candidates.into_iter().find(|path| inode_of(path) == Some(inode)));
        found.flatten().map(HostPath)
    }

    fn mounted_at(&self, process: &Process) -> Vec<PathBuf> {
        let Ok(table) = open_in(&process.dir, "mountinfo") else { return Vec::new() };
        let top = mounts::last(table, |mount| mount.point == Path::new("/"));
        top.map(|top| mounts::places_of(&top, &self.host_mounts)).unwrap_or_default()
    }
}

fn describe(
    process: &Process,
    runtime: Runtime,
    name: String,
    root: Option<HostPath>,
) -> Container {
    Container {
        key: process.container,
        name,
        runtime,
        root,
        user_namespace: user_namespace(process),
        privileged: false,
        undecided: true,
    }
}

fn by_number(root: InodeId) -> String {
    let (major, minor) = (rustix::fs::major(root.dev), rustix::fs::minor(root.dev));
    format!("root:{major}:{minor}:{}", root.ino)
}

fn inode_of(path: &Path) -> Option<InodeId> {
    served::open_path(path).ok().map(|opened| dir::inode_id(&opened.stat))
}

pub(super) fn user_namespace(process: &Process) -> UserNamespace {
    match namespace(&process.dir, "ns/user") {
        Ok(INITIAL_USER_NAMESPACE) => UserNamespace::Host,
        _ => UserNamespace::Own,
    }
}

/// The caller runs in the initial user namespace.
pub(super) fn own_user_namespace(host: &Path) -> bool {
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
    let dir = rustix::fs::open(host.join("proc/self"), flags, rustix::fs::Mode::empty());
    dir.and_then(|dir| namespace(&dir, "ns/user")) == Ok(INITIAL_USER_NAMESPACE)
}

/// `container=` in the environment that the runtime started the process with.
fn declared_runtime(process: &Process) -> Option<Runtime> {
    let environment = read_small(&process.dir, "environ", 64 * 1024).ok()?;
    let mut variables = environment.split(|&byte| byte == 0);
    match variables.find_map(|variable| variable.strip_prefix(b"container="))? {
        b"systemd-nspawn" => Some(Runtime::Nspawn),
        b"lxc" => Some(Runtime::Lxc),
        b"podman" => Some(Runtime::Podman),
        b"docker" => Some(Runtime::Docker),
        b"flatpak" => Some(Runtime::Bubblewrap),
        _ => None,
    }
}

/// What a process may do to the host.
struct Privilege {
    /// It has CAP_SYS_ADMIN in the initial user namespace.
    effective: bool,
    /// It, or a process it starts, can come to have it: the bounding set, which only
    /// ever shrinks, allows it.
    reachable: bool,
}

impl Privilege {
    /// `None` when the process has ended.
    fn of(process: &Process) -> Option<Self> {
        let status = read_status(&process.dir)?;
        let initial = user_namespace(process) == UserNamespace::Host;
        let has = |set: u64| initial && set & CAP_SYS_ADMIN != 0;
        Some(Self { effective: has(status.capeff), reachable: has(status.capbnd.unwrap_or(0)) })
    }
}

/// What the processes above the first of a container are.
#[derive(Debug, Default)]
struct Ancestry {
    /// The machine name of a systemd-nspawn.
    nspawn: Option<String>,
    /// The id of a bubblewrap.
    sandbox: Option<u32>,
}

impl Ancestry {
    /// Looks at the process itself and the three above it.
    fn of(reader: &ProcReader, process: &Process) -> Self {
        let mut ancestry = Self::default();
        let mut pid = process.pages.pid;
        for _ in 0..4 {
            let Ok(dir) = reader.dir(&pid.to_string()) else { break };
            let stat = read_small(&dir, "stat", 4096).unwrap_or_default();
            let Ok(stat) = Stat::from_read(stat.as_slice()) else { break };
            match stat.comm.as_str() {
                "systemd-nspawn" => {
                    let arguments = read_small(&dir, "cmdline", 64 * 1024).unwrap_or_default();
                    ancestry.nspawn = container_names::nspawn_machine(&arguments);
                    break;
                }
                "bwrap" => {
                    ancestry.sandbox = Some(pid);
                    break;
                }
                _ => pid = u32::try_from(stat.ppid).unwrap_or(0),
            }
        }
        ancestry
    }
}
