//! Which disks a control group lets its processes open: the devices controller of the first
//! version (Documentation/admin-guide/cgroup-v1/devices.rst), and programs of type
//! `BPF_CGROUP_DEVICE` of the second.

use std::path::{Path, PathBuf};

use super::container_names::Group;
use super::host_places::HostPlaces;
use super::mounts::Mount;
use crate::model::Disks;
use crate::sys;

/// Where the hierarchies are that say it.
#[derive(Debug, Clone, Default)]
pub(super) struct DeviceGroups {
    /// Of the first version.
    listed: Option<Hierarchy>,
    /// Of the second.
    filtered: Option<Hierarchy>,
}

#[derive(Debug, Clone)]
struct Hierarchy {
    point: PathBuf,
    root: PathBuf,
}

impl DeviceGroups {
    /// Finds them among the host's mounts.
    pub(super) fn find(mounts: &[Mount]) -> Self {
        let of = |mount: &Mount| Hierarchy { point: mount.point.clone(), root: mount.root.clone() };
        let listed = mounts
            .iter()
            .filter(|mount| mount.fs_type == b"cgroup")
            .find(|mount| mount.file_system_options().any(|option| option == b"devices"));
        let filtered = mounts.iter().find(|mount| mount.fs_type == b"cgroup2");
        Self { listed: listed.map(of), filtered: filtered.map(of) }
    }

    /// The disks that the groups of a process let it write. What a program of the second
    /// version allows cannot be read: one that is there is taken at its word, and no program
    /// allows all.
    pub(super) fn disks(&self, groups: &[Group], places: &HostPlaces) -> Disks {
        let dir = |hierarchy: &Option<Hierarchy>, controller: &str| {
            let group = groups.iter().find(|group| group.is_of(controller))?;
            hierarchy.as_ref()?.dir(group)
        };
        let filters = dir(&self.filtered, "").and_then(|dir| sys::device_filters(&dir).ok());
        if filters.is_some_and(|count| count > 0) {
            return Disks::None;
        }
        match dir(&self.listed, "devices") {
            Some(dir) => match std::fs::read_to_string(dir.join("devices.list")) {
                Ok(list) => listed(&list, places),
                Err(_) => Disks::Unnamed,
            },
            None => Disks::Unnamed,
        }
    }
}

impl Hierarchy {
    /// A group's directory, as the host has it.
    fn dir(&self, group: &Group) -> Option<PathBuf> {
        Some(self.point.join(Path::new(group.path()).strip_prefix(&self.root).ok()?))
    }
}

/// `b 8:0 rwm`, `a *:* rwm`
fn listed(list: &str, places: &HostPlaces) -> Disks {
    list.lines().map(|line| rule(line, places)).max().unwrap_or_default()
}

fn rule(line: &str, places: &HostPlaces) -> Disks {
    let mut fields = line.split_ascii_whitespace();
    let (kind, numbers, access) = (fields.next(), fields.next(), fields.next());
    let (Some("a" | "b"), Some((major, minor))) = (kind, numbers.and_then(|it| it.split_once(':')))
    else {
        return Disks::None;
    };
    let (major, minor) = (major.parse().ok(), minor.parse().ok());
    match access.is_some_and(|access| access.contains('w')) && places.are_on_disk((major, minor)) {
        false => Disks::None,
        true if major.is_none() => Disks::Unnamed,
        true => Disks::Named,
    }
}
