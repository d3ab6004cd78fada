//! What file systems allow, by their type: trying would write to a root.

use crate::model::{Ability, FileSystem, HostPath, Root};

/// `renameat2(2)` has `RENAME_EXCHANGE` on these; FUSE asks its server, overlayfs its layers.
const EXCHANGE: [&str; 10] =
    ["ext4", "xfs", "btrfs", "tmpfs", "f2fs", "bcachefs", "ubifs", "zfs", "vfat", "ramfs"];
/// `FICLONE` and `FIDEDUPERANGE`: ioctl_fideduperange(2).
const REFLINK: [&str; 4] = ["btrfs", "bcachefs", "xfs", "ocfs2"];
/// Those that answer only when they are asked.
const ASKS: [&str; 3] = ["fuse", "overlay", "fuseblk"];
/// `F_SETLEASE` is refused: the server holds its own.
const NO_LEASES: [&str; 8] = ["nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "fuse", "afs"];

/// What is possible in a root.
pub fn of_root(root: &Root, file_system: Option<&FileSystem>) -> Vec<Ability> {
    let Some(file_system) = file_system else { return Vec::new() };
    vec![
        change_entries(root, file_system),
        exchange(&file_system.kind),
        reflink(&file_system.kind),
        leases(&file_system.kind),
    ]
}

fn change_entries(root: &Root, file_system: &FileSystem) -> Ability {
    let no = |why: &str, change: &str| {
        Ability::no("change_entries", "replace copies by links", why, change)
    };
    if root.layer {
        let why = "one layer of a stacked root: what lies below a mounted overlay must not change";
        return no(
            why,
            "build the image anew, with the store mounted; dedupe --live shares what its container runs meanwhile",
        );
    }
    let writable = no("its file system is read-only", "mount it read-write while dedupe runs");
    Ability::yes_if(!file_system.flags.read_only, writable)
}

fn exchange(kind: &str) -> Ability {
    let no = Ability::no(
        "exchange",
        "replace a name without a moment in which it is absent",
        format!("{kind} is not known to have RENAME_EXCHANGE"),
        "move the root to ext4, xfs or btrfs",
    );
    by_type(kind, &EXCHANGE, no)
}

fn reflink(kind: &str) -> Ability {
    let no = Ability::no(
        "reflink",
        "share disk blocks and leave every file as it is (--method reflink)",
        format!("{kind} cannot share blocks"),
        "move the root to btrfs, or to xfs; or use --method symlink",
    );
    match kind {
        "xfs" => Ability {
            why: Some("xfs shares blocks where it was made with reflink=1".to_owned()),
            change: Some("mkfs.xfs -m reflink=1, the default since xfsprogs 5.1".to_owned()),
            ..no.unknown()
        },
        _ => by_type(kind, &REFLINK, no),
    }
}

fn leases(kind: &str) -> Ability {
    let no = Ability::no(
        "leases",
        "know that nobody has a file open for writing while it is replaced",
        format!("{kind} gives no leases: what was displaced is compared afterwards"),
        "move the root to a local file system",
    );
    let refuses = NO_LEASES.contains(&kind) || kind.starts_with("fuse.");
    Ability::yes_if(!refuses, no)
}

fn by_type(kind: &str, able: &[&str], no: Ability) -> Ability {
    if able.contains(&kind) {
        Ability::yes_if(true, no)
    } else if ASKS.contains(&kind) || kind.starts_with("fuse.") {
        let why = Some(format!("{kind} passes it on: it shows when it is tried"));
        Ability { why, ..no.unknown() }
    } else {
        no
    }
}

/// What is possible at the store's place. `changeable` is a directory on the way to it that
/// others than root may change.
pub fn of_store(file_system: Option<&FileSystem>, changeable: Option<&HostPath>) -> Vec<Ability> {
    let flags = file_system.map(|it| it.flags).unwrap_or_default();
    let no = |what, purpose, why: &str| {
        let change = "put the store elsewhere: --store DIR, on a file system without it";
        Ability::no(what, purpose, why, change)
    };
    vec![
        Ability::yes_if(
            !flags.read_only,
            no("write", "add objects", "the store's file system is read-only"),
        ),
        Ability::yes_if(
            !flags.noexec,
            no("exec", "run the shared programs", "the store's file system is mounted noexec"),
        ),
        Ability::yes_if(
            !flags.nosuid,
            no("setid", "share set-id programs (--include-setid)", "it is mounted nosuid"),
        ),
        trusted(changeable),
    ]
}

fn trusted(changeable: Option<&HostPath>) -> Ability {
    let (what, purpose) = ("trusted", "nobody but root can put another store in its place");
    let Some(dir) = changeable else { return Ability::yes(what, purpose) };
    let why = format!("others than root may change {:?}", dir.0);
    Ability::no(what, purpose, why, "chown root and chmod go-w that directory, or --store DIR")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{InodeId, MountFlags, RootState, Runtime};

    fn root(layer: bool) -> Root {
        Root {
            path: HostPath::from("/home/web"),
            inode: InodeId { dev: 1, ino: 1 },
            name: "web".to_owned(),
            runtime: Runtime::Directory,
            state: RootState::Stopped,
            layer,
        }
    }

    fn on(kind: &str, read_only: bool, layer: bool) -> Vec<(&'static str, Option<bool>)> {
        let flags = MountFlags { read_only, ..MountFlags::default() };
        let place = FileSystem { kind: kind.to_owned(), flags, quota: None };
        let abilities = of_root(&root(layer), Some(&place));
        abilities.iter().map(|ability| (ability.what, ability.allowed)).collect()
    }

    #[test]
    fn what_a_root_allows_is_its_file_systems() {
        let names = ["change_entries", "exchange", "reflink", "leases"];
        let cases = [
            ("ext4", false, false, [Some(true), Some(true), Some(false), Some(true)]),
            ("btrfs", false, false, [Some(true), Some(true), Some(true), Some(true)]),
            ("xfs", false, false, [Some(true), Some(true), None, Some(true)]),
            ("ext4", true, false, [Some(false), Some(true), Some(false), Some(true)]),
            ("ext4", false, true, [Some(false), Some(true), Some(false), Some(true)]),
            ("nfs4", false, false, [Some(true), Some(false), Some(false), Some(false)]),
            ("fuse.sshfs", false, false, [Some(true), None, None, Some(false)]),
            ("overlay", false, false, [Some(true), None, None, Some(true)]),
        ];
        for (kind, read_only, layer, expected) in cases {
            let expected: Vec<_> = names.into_iter().zip(expected).collect();
            assert_eq!(on(kind, read_only, layer), expected, "{kind}");
        }
    }

    #[test]
    fn a_store_needs_a_place_that_is_roots_alone() {
        let place = |flags| FileSystem { kind: "ext4".to_owned(), flags, quota: None };
        let lacking = |flags: MountFlags, changeable: Option<&HostPath>| -> Vec<&str> {
            let found = of_store(Some(&place(flags)), changeable);
            found.iter().filter(|it| it.allowed != Some(true)).map(|it| it.what).collect()
        };
        let free = MountFlags::default();
        assert_eq!(lacking(free, None), [""; 0]);
        assert_eq!(lacking(MountFlags { noexec: true, ..free }, None), ["exec"]);
        assert_eq!(lacking(MountFlags { nosuid: true, ..free }, None), ["setid"]);
        assert_eq!(lacking(MountFlags { read_only: true, ..free }, None), ["write"]);
        assert_eq!(lacking(free, Some(&HostPath::from("/home"))), ["trusted"]);
    }
}
