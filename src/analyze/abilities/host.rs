//! What the kernel allows, and this process's privileges.

use crate::model::{Ability, Capabilities, Kernel};

/// The kernel's abilities, in the order of the commands that need them.
pub fn of_host(kernel: &Kernel) -> Vec<Ability> {
    let may = |capability| kernel.capabilities.has(capability);
    vec![
        Ability::yes_if(kernel.openat2, openat2()),
        Ability::yes_if(kernel.procmap_query, procmap_query()),
        Ability::yes_if(
            may(Capabilities::SYS_ADMIN) && kernel.initial_namespace,
            page_frames(kernel.initial_namespace),
        ),
        Ability::yes_if(kernel.root && may(Capabilities::SYS_ADMIN), change_roots(kernel)),
        Ability::yes_if(kernel.root || may(Capabilities::LEASE), lease()),
        Ability::yes_if(kernel.open_tree && kernel.mount_setattr, live(kernel)),
        erofs(kernel),
    ]
}

fn openat2() -> Ability {
    Ability::no(
        "openat2",
        "open what lies in a root without being led out of it",
        "openat2(2) is missing, or a filter forbids it",
        "Linux 5.6 or newer, without a seccomp filter that forbids openat2",
    )
}

fn procmap_query() -> Ability {
    Ability::no(
        "procmap_query",
        "read the mappings of processes fast",
        "PROCMAP_QUERY is missing: /proc/PID/maps is read as text, which gives the same answer",
        "Linux 6.11 or newer",
    )
}

fn page_frames(initial: bool) -> Ability {
    let (why, change) = match initial {
        true => ("CAP_SYS_ADMIN is missing: memory is an estimate", "run as root"),
        false => (
            "this is a user namespace: memory is an estimate",
            "run as root of the host, outside of a container",
        ),
    };
    Ability::no("page_frames", "count pages in memory exactly", why, change)
}

fn change_roots(kernel: &Kernel) -> Ability {
    let why = if kernel.root { "CAP_SYS_ADMIN is missing" } else { "this is not root" };
    Ability::no("change_roots", "dedupe --apply, undo", why, "run as root, with all capabilities")
}

fn lease() -> Ability {
    Ability::no(
        "lease",
        "know that nobody has a file open for writing while it is replaced",
        "CAP_LEASE is missing, and this is not root",
        "run as root",
    )
}

fn live(kernel: &Kernel) -> Ability {
    let (why, change) = match kernel.open_tree {
        true => ("mount_setattr(2) is missing", "Linux 5.12 or newer"),
        false => ("open_tree(2) and move_mount(2) are missing", "Linux 5.12 or newer"),
    };
    let change = format!("{change}; without it, containers are restarted");
    Ability::no("live", "attach the store inside running containers (--live)", why, change)
}

fn erofs(kernel: &Kernel) -> Ability {
    let no = |why: &str, change: &str| {
        let purpose = "a store that no container can write (--store-format erofs)";
        Ability::no("erofs", purpose, why, change)
    };
    if !kernel.mkfs_erofs {
        return no("mkfs.erofs is not installed", "install erofs-utils");
    }
    if !kernel.erofs && !kernel.erofs_module {
        return no("this kernel has no EROFS", "a kernel with CONFIG_EROFS_FS, Linux 5.4 or newer");
    }
    if !kernel.loop_devices {
        return no("there is no /dev/loop-control", "load the module loop");
    }
    let loaded = no("the module erofs is not loaded", "modprobe erofs");
    if kernel.erofs { Ability::yes_if(true, loaded) } else { loaded.unknown() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel() -> Kernel {
        Kernel {
            openat2: true,
            procmap_query: true,
            open_tree: true,
            mount_setattr: true,
            erofs: true,
            erofs_module: false,
            mkfs_erofs: true,
            loop_devices: true,
            root: true,
            capabilities: Capabilities(u64::MAX),
            initial_namespace: true,
        }
    }

    fn missing(kernel: &Kernel) -> Vec<(&'static str, Option<bool>)> {
        let all = of_host(kernel);
        for ability in &all {
            assert_eq!(ability.why.is_some(), ability.allowed != Some(true), "{ability:?}");
            assert_eq!(ability.change.is_some(), ability.allowed != Some(true), "{ability:?}");
        }
        let lacking = all.iter().filter(|ability| ability.allowed != Some(true));
        lacking.map(|ability| (ability.what, ability.allowed)).collect()
    }

    #[test]
    fn each_lack_is_told() {
        assert_eq!(missing(&kernel()), []);
        let no = |what| vec![(what, Some(false))];
        assert_eq!(missing(&Kernel { openat2: false, ..kernel() }), no("openat2"));
        assert_eq!(missing(&Kernel { procmap_query: false, ..kernel() }), no("procmap_query"));
        assert_eq!(missing(&Kernel { mount_setattr: false, ..kernel() }), no("live"));
        assert_eq!(missing(&Kernel { open_tree: false, ..kernel() }), no("live"));
        assert_eq!(missing(&Kernel { mkfs_erofs: false, ..kernel() }), no("erofs"));
        assert_eq!(missing(&Kernel { erofs: false, ..kernel() }), no("erofs"));
        assert_eq!(missing(&Kernel { loop_devices: false, ..kernel() }), no("erofs"));
        assert_eq!(missing(&Kernel { initial_namespace: false, ..kernel() }), no("page_frames"));
        let module = Kernel { erofs: false, erofs_module: true, ..kernel() };
        assert_eq!(missing(&module), [("erofs", None)]);
        let nobody = Kernel { root: false, capabilities: Capabilities(0), ..kernel() };
        let names: Vec<&str> = missing(&nobody).iter().map(|(what, _)| *what).collect();
        assert_eq!(names, ["page_frames", "change_roots", "lease"]);
    }
}
