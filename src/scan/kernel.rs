//! What this kernel offers, and what this process may do with it. Nothing is changed to
//! find it out.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::model::{Capabilities, Kernel};
use crate::sys;

use super::proc::parse_status;

/// Asks the kernel. `host` is `/`, or what stands in for it.
pub fn kernel(host: &Path) -> Kernel {
    let status = std::fs::read(host.join("proc/self/status")).unwrap_or_default();
    let status = parse_status(&status);
    let file_systems = std::fs::read_to_string(host.join("proc/filesystems")).unwrap_or_default();
    Kernel {
        openat2: has_openat2(),
        procmap_query: has_procmap_query(host),
        // Both came with Linux 5.2.
        open_tree: open_tree(CWD, "/", OpenTreeFlags::OPEN_TREE_CLOEXEC).is_ok(),
        mount_setattr: sys::has_mount_setattr(),
        erofs: names(&file_systems).any(|name| name == "erofs"),
        erofs_module: module(host, "erofs"),
        mkfs_erofs: on_path("mkfs.erofs"),
        loop_devices: host.join("dev/loop-control").symlink_metadata().is_ok(),
        root: rustix::process::geteuid().is_root(),
        capabilities: Capabilities(status.map_or(0, |status| status.capeff)),
        initial_namespace: super::containers::own_user_namespace(host),
    }
}

fn has_openat2() -> bool {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    openat2(CWD, "/", flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS).is_ok()
}

fn has_procmap_query(host: &Path) -> bool {
    let maps = std::fs::File::open(host.join("proc/self/maps"));
    maps.is_ok_and(|maps| {
        !matches!(sys::next_vma(maps.as_fd(), 0), Err(Errno::NOTTY | Errno::INVAL))
    })
}

/// The names in `/proc/filesystems`: proc_filesystems(5).
fn names(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| line.split_ascii_whitespace().last())
}

/// A module of that name lies with this kernel's.
fn module(host: &Path, name: &str) -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let list = host.join("lib/modules").join(release).join("modules.dep");
    let listed = std::fs::read_to_string(list).unwrap_or_default();
    listed.lines().any(|line| line.contains(&format!("/{name}.ko")))
}

fn on_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    places.map(|dir| dir.join(name)).any(|place| place.metadata().is_ok_and(|it| it.is_file()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_have_their_names_last() {
        let found: Vec<&str> = names("nodev\tsysfs\n\text4\n\terofs\n\n").collect();
        assert_eq!(found, ["sysfs", "ext4", "erofs"]);
    }

    #[test]
    fn this_kernel_has_what_every_test_here_needs() {
        let kernel = kernel(Path::new("/"));
        assert!(kernel.openat2 && kernel.open_tree);
    }
}
