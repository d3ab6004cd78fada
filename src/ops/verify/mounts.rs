//! Whether containers see the store where their links lead.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use crate::exec::generations::mounts;
use crate::exec::journal::Config;
use crate::exec::live::objects as inodes_of;
use crate::model::{
    Check, ContainerPath, HostPath, InodeId, Isolation, ObjectName, RootPath, StoreFormat,
};
use crate::scan::running::View;

use super::Looked;

/// Checks what one root must see.
pub(super) fn check(root: &Looked, running: &[Isolation], checks: &mut Vec<Check>) {
    let standing = &root.standing;
    let about = |check: Check| check.in_root(&standing.path);
    checks.extend(standing.configs.iter().map(config).map(about));
    checks.extend(bound(root, running).into_iter().map(about));
    if standing.made.is_empty() {
        return;
    }
    let mine: Vec<&Isolation> = running.iter().filter(|it| it.key.root == root.inode).collect();
    for bind in &standing.binds {
        checks.extend(mine.iter().map(|container| about(in_container(container, bind))));
        if mine.is_empty() && standing.configs.iter().any(is_mount_unit) {
            checks.push(about(on_host(&standing.path, bind)));
        }
    }
    for container in mine {
        checks.extend(objects(container, root).map(about));
    }
}

/// Whether containers see the objects that were bound over their names. One that has been started
/// anew since is as it was: that is no fault.
fn bound(root: &Looked, running: &[Isolation]) -> Vec<Check> {
    let standing = &root.standing;
    if standing.bound.is_empty() {
        return Vec::new();
    }
    let inodes: HashMap<_, _> = standing
        .bound
        .iter()
        .map(|(_, store, object)| ((store, object), inodes_of(&store.0, object)))
        .collect();
    let mine: Vec<&Isolation> = running.iter().filter(|it| it.key.root == root.inode).collect();
    if mine.is_empty() {
        return vec![Check::good("bound", ENDED)];
    }
    let check = |container: &&Isolation| {
        let name = &container.name;
        let views = container.pids.iter().filter_map(|pid| View::of(*pid).ok());
        let Some(view) = views.into_iter().next() else { return Check::good("bound", ENDED) };
        let is_there = |(path, store, object): &&(RootPath, HostPath, ObjectName)| {
            let seen = view.at(&ContainerPath(Path::new("/").join(path.as_path())));
            seen.is_ok_and(|seen| inodes[&(store, object)].contains(&seen))
        };
        let many = standing.bound.len();
        match standing.bound.iter().filter(is_there).count() {
            0 => Check::good("bound", format!("{name}: {RESTARTED}")),
            there => Check::good(
                "bound",
                format!(
                    "{name} sees objects of the store under {there} of {many} names, until it restarts"
                ),
            ),
        }
    };
    mine.iter().map(check).collect()
}

const ENDED: &str = "its container does not run: what was bound over its names is gone with it";
const RESTARTED: &str = "it has been started anew since objects were bound over its names, and is as it was: dedupe \
     --apply --live binds them again";

/// systemd.mount(5): the host itself mounts it.
fn is_mount_unit(config: &Config) -> bool {
    config.file.0.extension() == Some(OsStr::new("mount"))
}

/// The configuration file is still what the run wrote.
fn config(config: &Config) -> Check {
    let found = std::fs::read(&config.file.0).ok();
    let check = match (found == config.after, config.after.is_some()) {
        (true, _) => Check::good("config", "it is as it was written"),
        (false, true) => Check::bad(
            "config",
            "it is not what the run wrote: the store may be missing from the next start on; undo, and dedupe again",
        ),
        (false, false) => Check::bad("config", "it is there again; the run had removed it"),
    };
    check.at(config.file.as_bytes())
}

/// By device and inode, through a process of the container.
fn in_container(container: &Isolation, (point, source): &(ContainerPath, HostPath)) -> Check {
    let (name, at) = (&container.name, point.0.display());
    let at_point = |pid: &u32| View::of(*pid)?.at(point);
    let seen = container.pids.iter().find_map(|pid| at_point(pid).ok());
    if !seen.is_some_and(|seen| inodes(source).contains(&seen)) {
        let what = if seen.is_some() { "something else is" } else { "nothing is" };
        return bad(container, &format!("{name}: {what} at {at} than the host's {:?}", source.0));
    }
    match &container.store {
        Some(mount) if mount.flags.noexec => {
            bad(container, &format!("{name}: {at} is mounted noexec"))
        }
        Some(mount) if !mount.flags.read_only => Check {
            pids: container.pids.clone(),
            ..Check::bad("mount", format!("{name}: {at} can be written there: mount it read-only"))
        },
        _ => Check::good("mount", format!("{name} sees the host's {:?} at {at}", source.0)),
    }
}

fn bad(container: &Isolation, why: &str) -> Check {
    let detail = format!(
        "{why}: programs that links of the run lead to cannot be started; dedupe --apply --live, or restart it with the mount"
    );
    Check { pids: container.pids.clone(), ..Check::bad("mount", detail) }
}

/// Objects that the container does not see: it may have been shown the store before they came.
fn objects(container: &Isolation, root: &Looked) -> Option<Check> {
    let view = View::of(*container.pids.first()?).ok()?;
    let targets: BTreeSet<&[u8]> =
        root.standing.made.iter().map(|made| made.target.as_slice()).collect();
    let missing = targets.into_iter().find(|target| {
        let target = ContainerPath(PathBuf::from(OsStr::from_bytes(target)));
        view.at(&target).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    })?;
    let why = format!("{}: {:?} is not there", container.name, OsStr::from_bytes(missing));
    Some(bad(container, &why))
}

fn on_host(root: &HostPath, (point, source): &(ContainerPath, HostPath)) -> Check {
    let place = root.0.join(point.0.strip_prefix("/").unwrap_or(Path::new("")));
    match inode_at(&place, AtFlags::SYMLINK_NOFOLLOW) {
        Some(seen) if inodes(source).contains(&seen) => {
            Check::good("mount", "the host mounts the store there")
        }
        _ => Check::bad("mount", format!("the store is not mounted at {place:?}: dedupe again")),
    }
}

/// What a container may see of a directory: itself; of an image store, any generation.
fn inodes(source: &HostPath) -> Vec<InodeId> {
    let mut all: Vec<InodeId> = inode_at(&source.0, AtFlags::empty()).into_iter().collect();
    if source.0.file_name() == Some(OsStr::new(StoreFormat::VIEW))
        && let Some(store) = source.0.parent()
    {
        let older = mounts(store).into_iter();
        all.extend(older.filter_map(|point| inode_at(&point, AtFlags::SYMLINK_NOFOLLOW)));
    }
    all
}

fn inode_at(path: &Path, flags: AtFlags) -> Option<InodeId> {
    let stat = statx(CWD, path, flags | AtFlags::STATX_DONT_SYNC, StatxFlags::INO).ok()?;
    let dev = rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor);
    Some(InodeId { dev, ino: stat.stx_ino })
}
