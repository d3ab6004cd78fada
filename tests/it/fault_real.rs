//! Faults that are real: a file system is full, over its quota, read-only, broken or refuses, from
//! one system call of an `apply` on. The container on it is intact or put back, the other one is
//! changed, what is said names the way out, and once that was gone `recover` and `undo` leave all
//! as it was.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::rig::call::{Call, Kind};
use crate::rig::image::{BTRFS, EXT4, FileSystem, Mounted, XFS, scratch};
use crate::rig::logged::{Disk, LoggedDisk};
use crate::rig::scene::{ROOTS, Scene};
use crate::rig::supervise::{Answer, succeed, supervise};
use crate::snapshot::Snapshot;
use crate::suite::{Need, Suite};

pub fn tests(suite: &mut Suite) {
    for fault in FAULTS {
        let needs = [
            Need::Root,
            Need::Package("busybox-static"),
            Need::Program(fault.program),
            Need::Program("unshare"),
            Need::Program("chattr"),
        ];
        suite.test(&format!("privileged_fault_real_{}", fault.name), &needs, || happens(fault));
    }
    let needs = [
        Need::Root,
        Need::File("/dev/fuse"),
        Need::Package("busybox-static"),
        Need::Program("mkfs.ext4"),
        Need::Program("unshare"),
    ];
    suite.test("privileged_fault_real_broken_device", &needs, broken_device);
}

/// Something that becomes true of the file system of a container.
struct Fault {
    name: &'static str,
    fs: FileSystem,
    /// It can be made here.
    program: &'static str,
    /// What is done to the file system before anything else.
    prepare: fn(&Path),
    /// Before the first call of this kind that changes something there.
    at: Kind,
    begin: fn(&Path),
    end: fn(&Path),
    /// What is said, and the way out.
    told: [&'static str; 2],
}

const FAULTS: &[Fault] = &[
    Fault {
        name: "no_space",
        fs: EXT4,
        program: "mkfs.ext4",
        prepare: |_| {},
        at: Kind::Symlink,
        begin: take_all_inodes,
        end: give_back,
        told: ["No space left", "free some space"],
    },
    Fault {
        name: "no_quota",
        fs: BTRFS,
        program: "mkfs.btrfs",
        prepare: |at| btrfs(&["quota", "enable"], at),
        at: Kind::Symlink,
        begin: |at| btrfs(&["qgroup", "limit", "4k", "0/5"], at),
        end: |at| btrfs(&["quota", "disable"], at),
        told: ["quota", "raise it"],
    },
    Fault {
        name: "read_only_before_the_links",
        fs: EXT4,
        program: "mkfs.ext4",
        prepare: |_| {},
        at: Kind::Symlink,
        begin: |at| remount("ro", at),
        end: |at| remount("rw", at),
        told: ["Read-only", "mount it writable"],
    },
    Fault {
        name: "read_only_before_the_exchange",
        fs: XFS,
        program: "mkfs.xfs",
        prepare: |_| {},
        at: Kind::Exchange,
        begin: |at| remount("ro", at),
        end: |at| remount("rw", at),
        told: ["Read-only", "mount it writable"],
    },
    Fault {
        name: "read_only_before_the_old_is_removed",
        fs: BTRFS,
        program: "mkfs.btrfs",
        prepare: |_| {},
        at: Kind::Unlink,
        begin: |at| remount("ro", at),
        end: |at| remount("rw", at),
        told: ["Read-only", "mount it writable"],
    },
    Fault {
        name: "immutable_entry",
        fs: EXT4,
        program: "mkfs.ext4",
        prepare: |_| {},
        at: Kind::Exchange,
        begin: |at| chattr(&["+i"], &at.join("bin/busybox")),
        end: |at| chattr(&["-i"], &at.join("bin/busybox")),
        told: ["not permitted", "chattr -i"],
    },
    Fault {
        name: "immutable_directory",
        fs: XFS,
        program: "mkfs.xfs",
        prepare: |_| {},
        at: Kind::Symlink,
        begin: |at| chattr(&["+i"], &at.join("bin")),
        end: |at| chattr(&["-i"], &at.join("bin")),
        told: ["not permitted", "chattr -i"],
    },
    Fault {
        name: "another_mount_in_the_root",
        fs: EXT4,
        program: "mkfs.ext4",
        prepare: |at| {
            succeed(Command::new("mount").arg("--bind").args([at.join("sbin"), at.join("sbin")]));
        },
        at: Kind::Symlink,
        begin: |_| {},
        end: |at| drop(succeed(Command::new("umount").arg(at.join("sbin")))),
        told: ["cross-device", "another file system is mounted there"],
    },
    Fault {
        name: "another_project",
        fs: XFS,
        program: "mkfs.xfs",
        prepare: |_| {},
        at: Kind::Exchange,
        begin: |at| chattr(&["-p", "7", "+P"], &at.join("bin")),
        end: |at| chattr(&["-p", "0", "-P"], &at.join("bin")),
        told: ["cross-device", "another project"],
    },
    Fault {
        name: "append_only_directory",
        fs: BTRFS,
        program: "mkfs.btrfs",
        prepare: |_| {},
        at: Kind::Symlink,
        begin: |at| chattr(&["+a"], &at.join("bin")),
        end: |at| chattr(&["-a"], &at.join("bin")),
        told: ["not permitted", "chattr -i"],
    },
];

/// A scene whose first container lies on a file system of its own.
struct Stage {
    scene: Scene,
    before: Vec<Snapshot>,
    dir: tempfile::TempDir,
}

impl Stage {
    /// What `mount` mounts at the given directory is the first container's; it goes before the rest.
    fn new<T>(mount: impl FnOnce(&Path) -> T) -> (Self, T) {
        let dir = scratch();
        let base = dir.path().join("scene");
        let at = base.join(ROOTS[0]);
        fs::create_dir_all(&at).unwrap();
        let mounted = mount(&at);
        let scene = Scene::lay(&base);
        let before = scene.snapshot();
        rustix::fs::syncfs(File::open(at).unwrap()).unwrap();
        (Self { scene, before, dir }, mounted)
    }

    fn apply(&self, at: Kind, begin: impl FnOnce(&Path)) -> String {
        let [root, other] = self.scene.roots();
        let mut begin = Some(begin);
        let ended = supervise(&self.scene.apply(), |call: &Call| {
            if call.kind == at && call.is_below(&root) {
                begin.take().into_iter().for_each(|begin| begin(&root));
            }
            Answer::Happen
        });
        assert!(begin.is_none(), "there was no {at:?}: {:?}", ended.calls);
        assert_eq!(ended.status, Some(3), "{}", ended.stderr);
        self.scene.programs_run().unwrap();
        assert!(other.join("bin/busybox").is_symlink(), "the other container: {}", ended.stderr);
        ended.stderr
    }
}

fn happens(fault: &Fault) {
    let (stage, mounted) = Stage::new(|at| fresh(fault.fs, at));
    (fault.prepare)(mounted.path());
    let said = stage.apply(fault.at, fault.begin);
    for told in fault.told {
        assert!(said.contains(told), "{told:?} is not in {said}");
    }
    (fault.end)(mounted.path());
    stage.scene.recovers(&stage.before).unwrap();
}

/// A file system on a disk that can fail. The disk goes last, whatever ends the test: it would wait
/// for its loop device, which holds it for as long as the file system is mounted.
struct OnLoggedDisk {
    mounted: Option<Mounted>,
    disk: LoggedDisk,
}

impl OnLoggedDisk {
    fn mount(at: &Path) -> Self {
        let point = at.with_extension("device");
        fs::create_dir_all(&point).unwrap();
        let disk = LoggedDisk::mount(&point, EXT4.make(|_| {}), EXT4.size());
        let mut on_disk = Self { mounted: None, disk };
        on_disk.mount_again(at);
        on_disk
    }

    fn mount_again(&mut self, at: &Path) {
        self.mounted = None;
        self.mounted = Some(Mounted::new(&self.disk.file(), at));
    }
}

/// The device fails from the first flush on, and works again once the host was started anew.
fn broken_device() {
    let (stage, mut on_disk) = Stage::new(OnLoggedDisk::mount);
    let said = stage.apply(Kind::Flush, |_| on_disk.disk.fail(true));
    assert!(said.contains("the device failed: look at the kernel's log"), "{said}");
    on_disk.disk.fail(false);
    let [root, _] = stage.scene.roots();
    on_disk.mount_again(&root);
    stage.scene.recovers(&stage.before).unwrap();
    drop(on_disk);
    drop(stage.dir);
}

fn fresh(fs: FileSystem, at: &Path) -> Mounted {
    let image = at.with_extension("image");
    let disk: Disk = fs.make(|_| {});
    disk.lay(&image, fs.size());
    Mounted::new(&image, at)
}

/// Where what takes all inodes lies: not in the container that is compared.
fn filling(at: &Path) -> PathBuf {
    at.join("lost+found")
}

fn take_all_inodes(at: &Path) {
    let names = (0..).map(|number| filling(at).join(number.to_string()));
    let refused = names.map(File::create).find_map(Result::err).unwrap();
    assert_eq!(refused.kind(), std::io::ErrorKind::StorageFull);
}

fn give_back(at: &Path) {
    for entry in fs::read_dir(filling(at)).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
}

fn remount(how: &str, at: &Path) {
    succeed(Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(at));
}

fn btrfs(arguments: &[&str], at: &Path) {
    succeed(Command::new("btrfs").args(arguments).arg(at));
}

fn chattr(arguments: &[&str], at: &Path) {
    succeed(Command::new("chattr").args(arguments).arg(at));
}
