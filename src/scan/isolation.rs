//! What holds each running container: user namespace, capabilities, security module, mounts.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use procfs::process::Status;
use rustix::io::Errno;

use crate::model::{
    Capabilities, ContainerPath, Exposure, HostPath, IdRange, InodeId, Isolation, MountFlags,
    Runtime, StoreMount, UserNamespace,
};

use super::container_names;
use super::containers::{Container, Containers};
use super::devices::DeviceGroups;
use super::host_places::HostPlaces;
use super::mounts::{self, Mount};
use super::patience::Patience;
use super::proc::{ProcReader, Process, link, namespace, open_in, read_small, read_status};
use super::vma::VmaSource;

/// How long the file system of a container's root may keep silent.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is asked about containers.
#[derive(Debug, Clone)]
pub struct IsolationOptions {
    /// Where proc(5) is mounted.
    pub proc_root: PathBuf,
    /// Container roots that are known on disk.
    pub roots: Vec<(InodeId, HostPath)>,
    /// The store's path inside the containers.
    pub mount_point: ContainerPath,
    /// What no container is to write.
    pub guarded: HostPlaces,
}

/// The running containers, by name; and how many processes may not be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Isolations {
    /// The containers. The host itself is none of them.
    pub containers: Vec<Isolation>,
    /// Processes that may not be looked at.
    pub refused: u64,
}

/// Looks at every process, and tells the containers' isolation.
///
/// # Errors
///
/// When processes cannot be listed at all.
pub fn isolations(options: &IsolationOptions) -> Result<Isolations, Errno> {
    let page_size = rustix::param::page_size() as u64;
    let reader = ProcReader::open(&options.proc_root, page_size, VmaSource::Auto, false)?;
    let own = reader.dir("self").ok();
    let host = Host {
        mounts: own.as_ref().and_then(|dir| namespace(dir, "ns/mnt").ok()),
        processes: own.as_ref().and_then(|dir| namespace(dir, "ns/pid").ok()),
        devices: DeviceGroups::find(options.guarded.mounts()),
        guarded: &options.guarded,
    };
    let mut containers = Containers::new(&reader, &options.roots);
    let mut patience = Patience::new(PATIENCE);
    let mut facts: Vec<Facts> = Vec::new();
    let mut refused = 0;
    for pid in reader.pids()? {
        match reader.identify(pid) {
            Ok(process) => {
                let Some(place) = containers.place(&process, &mut patience) else { continue };
                let place = place as usize;
                facts.resize_with(facts.len().max(place + 1), Facts::default);
                facts[place].add(&process, &host, &options.mount_point);
            }
            Err(Errno::ACCESS | Errno::PERM) => refused += 1,
            // It has ended.
            Err(_) => {}
        }
    }
    let found = containers.into_list().into_iter().zip(facts);
    let others = found.filter(|(container, _)| container.runtime != Runtime::Host);
    let mut containers: Vec<Isolation> =
        others.map(|(container, facts)| facts.of(container)).collect();
    containers.sort_by(|a, b| (&a.name, &a.root, a.key).cmp(&(&b.name, &b.root, b.key)));
    Ok(Isolations { containers, refused })
}

/// The host: the namespaces where this program runs, and what is its own.
struct Host<'a> {
    mounts: Option<u64>,
    processes: Option<u64>,
    devices: DeviceGroups,
    guarded: &'a HostPlaces,
}

/// What the processes of one container have in common, or one of them allows.
#[derive(Debug, Default)]
struct Facts {
    pids: Vec<u32>,
    /// Processes in the initial user namespace.
    initial: Reach,
    /// Processes in others.
    own: Reach,
    users: Option<IdRange>,
    exposure: Exposure,
    root_mount: MountFlags,
    profile: Option<String>,
    store: Option<StoreMount>,
}

/// What processes of one kind of user namespace can come to have.
#[derive(Debug, Default)]
struct Reach {
    processes: u64,
    capabilities: Capabilities,
    /// Some process is without the restriction.
    may_gain: bool,
    unfiltered: bool,
}

impl Facts {
    fn add(&mut self, process: &Process, host: &Host<'_>, mount_point: &ContainerPath) {
        let dir = &process.dir;
        let first = self.pids.is_empty();
        self.pids.push(process.pages.pid);
        let status = read_status(dir);
        let mapped = super::containers::user_namespace(process) == UserNamespace::Own;
        if mapped {
            self.own.add(status.as_ref());
            self.users = self.users.or_else(|| users(dir));
        } else {
            self.initial.add(status.as_ref());
        }
        self.exposure.host_processes |=
            namespace(dir, "ns/pid").ok().is_some_and(|it| Some(it) == host.processes);
        if first {
            self.exposure.host_mounts = Some(process.container.mount_namespace) == host.mounts;
            self.exposure.above_root = link(dir, "root").is_ok_and(|path| path != b"/");
            let groups = read_small(dir, "cgroup", 16 * 1024).unwrap_or_default();
            let groups = container_names::parse(&groups);
            self.exposure.disks = host.devices.disks(&groups, host.guarded);
            self.profile = profile(dir);
            self.mounts(dir, mount_point, host.guarded, mapped);
        }
    }

    fn mounts(
        &mut self,
        dir: &OwnedFd,
        mount_point: &ContainerPath,
        guarded: &HostPlaces,
        mapped: bool,
    ) {
        // One that has ended has nothing any more.
        let Ok(table) = open_in(dir, "mountinfo") else { return };
        let read = mounts::each(table, |mount| {
            if mount.point == Path::new("/") {
                self.root_mount = mount.flags;
            }
            if mount.point == mount_point.0 {
                self.store = Some(store_mount(&mount));
            }
            if self.exposure.host_files.is_none() && guarded.are_shown_by(&mount, mapped) {
                self.exposure.host_files = Some(ContainerPath(mount.point));
            }
        });
        // What was not seen to its end may have anything.
        if read.is_err() && self.exposure.host_files.is_none() {
            self.exposure.host_files = Some(ContainerPath("/".into()));
        }
    }

    fn of(self, container: Container) -> Isolation {
        let host = self.initial.processes > 0;
        let reach = if host { &self.initial } else { &self.own };
        Isolation {
            key: container.key,
            name: container.name,
            runtime: container.runtime,
            root: container.root,
            user_namespace: if host { UserNamespace::Host } else { UserNamespace::Own },
            users: if host { None } else { self.users },
            capabilities: reach.capabilities,
            exposure: self.exposure,
            root_mount: self.root_mount,
            profile: self.profile,
            no_new_privileges: !reach.may_gain,
            seccomp: !reach.unfiltered,
            store: self.store,
            pids: self.pids,
        }
    }
}

impl Reach {
    /// One that has ended can come to nothing any more, but was as free as any.
    fn add(&mut self, status: Option<&Status>) {
        let locked = status.is_some_and(|status| status.nonewprivs == Some(1));
        // execve(2) brings back whatever the bounding set allows, unless it is barred.
        let set = status.and_then(|it| if locked { Some(it.capprm) } else { it.capbnd });
        self.processes += 1;
        self.capabilities = self.capabilities.union(Capabilities(set.unwrap_or(0)));
        self.may_gain |= !locked;
        self.unfiltered |= status.and_then(|status| status.seccomp) != Some(2);
    }
}

fn store_mount(mount: &Mount) -> StoreMount {
    let fs_type = String::from_utf8_lossy(&mount.fs_type).into_owned();
    StoreMount { fs_type, flags: mount.flags }
}

/// The host's ids of a container's users: the line of `uid_map` that has its root, as
/// user_namespaces(7) describes it.
fn users(dir: &OwnedFd) -> Option<IdRange> {
    root_range(&read_small(dir, "uid_map", 16 * 1024).ok()?)
}

fn root_range(map: &[u8]) -> Option<IdRange> {
    let map = std::str::from_utf8(map).ok()?;
    let line = |line: &str| -> Option<(u32, IdRange)> {
        let mut numbers = line.split_ascii_whitespace().map(|number| number.parse().ok());
        let (inside, first, count) = (numbers.next()??, numbers.next()??, numbers.next()??);
        Some((inside, IdRange { first, count }))
    };
    let lines = map.lines().filter_map(line);
    lines.min_by_key(|(inside, _)| *inside).map(|(_, range)| range)
}

/// The profile that confines a process: `docker-default (enforce)` under AppArmor, a
/// label under SELinux.
fn profile(dir: &OwnedFd) -> Option<String> {
    let current = read_small(dir, "attr/current", 4096).ok()?;
    confining(&current)
}

fn confining(current: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(current);
    let name = text.trim_end_matches(['\0', '\n']);
    (!name.is_empty() && name != "unconfined" && name != "kernel").then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_users_are_those_of_the_containers_root() {
        let range = |first, count| Some(IdRange { first, count });
        assert_eq!(root_range(b"         0     100000      65536\n"), range(100_000, 65_536));
        assert_eq!(root_range(b"1000 1000 1\n0 100000 1000\n"), range(100_000, 1000));
        assert_eq!(root_range(b"0 0 4294967295\n"), range(0, u32::MAX));
        assert_eq!(root_range(b""), None);
        assert_eq!(root_range(b"0 x 1\n"), None);
    }

    #[test]
    fn what_cannot_gain_privileges_has_what_it_has() {
        let mut reach = Reach::default();
        let mut status = procfs::process::Process::myself().unwrap().status().unwrap();
        (status.capprm, status.capbnd) = (1, Some(0x1ff_ffff_ffff));
        (status.nonewprivs, status.seccomp) = (Some(1), Some(2));
        reach.add(Some(&status));
        assert_eq!(reach.capabilities, Capabilities(1));
        assert!(!reach.may_gain && !reach.unfiltered);
        (status.capbnd, status.nonewprivs) = (Some(0x20_0000), Some(0));
        reach.add(Some(&status));
        assert_eq!(reach.capabilities, Capabilities(0x20_0001));
        assert!(reach.may_gain);
    }

    #[test]
    fn an_unconfined_process_has_no_profile() {
        for none in [&b""[..], b"unconfined\n", b"kernel\0", b"\0"] {
            assert_eq!(confining(none), None);
        }
        let docker = confining(b"docker-default (enforce)\n");
        assert_eq!(docker.as_deref(), Some("docker-default (enforce)"));
    }
}
