//! Room is counted whole before anything is changed: on a file system that has too little a
//! command says so and changes nothing; on one that has just enough in its eyes it ends well.

#![expect(clippy::print_stderr, reason = "how much was tried is a part of the answer")]

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{Ran, cbin_audit};
use crate::loopfs::LoopFs;
use crate::packages;
use crate::rig::image::Below;
use crate::rig::scene::age;
use crate::snapshot::Snapshot;
use crate::suite::{Need, Suite};
use crate::world::{Entry, dir, file, link};

pub fn tests(suite: &mut Suite) {
    let needs = [Need::Root, Need::Package("busybox-static"), Need::Program("mkfs.ext4")];
    for place in [Place::Roots, Place::Store, Place::Journal] {
        let name = format!("privileged_room_of_{}", format!("{place:?}").to_lowercase());
        suite.test(&name, &needs, move || counted_whole(place, "dir", leave_bytes));
    }
    for place in [Place::Roots, Place::Store] {
        let name = format!("privileged_room_of_{}_inodes", format!("{place:?}").to_lowercase());
        suite.test(&name, &needs, move || counted_whole(place, "dir", leave_inodes));
    }
    let needs = [&needs[..], &[Need::Program("mkfs.erofs"), Need::File("/dev/loop-control")]];
    let needs = needs.concat();
    suite.test("privileged_room_of_an_image", &needs, || {
        counted_whole(Place::Store, "erofs", leave_bytes);
    });
}

/// What has a file system of its own.
#[derive(Debug, Clone, Copy)]
enum Place {
    Roots,
    Store,
    Journal,
}

struct Ground {
    /// What is mounted of the store goes first.
    _images: Below,
    file_systems: [LoopFs; 3],
    format: &'static str,
}

impl Ground {
    fn new(format: &'static str) -> Self {
        let make = || LoopFs::laid("ext4", 96, &["-b", "4096", "-m", "0", "-N", "9000"], "loop");
        let file_systems = [make(), make(), make()];
        let _images = Below(file_systems[Place::Store as usize].path().join("store"));
        let ground = Self { _images, file_systems, format };
        ground.roots().iter().for_each(|root| lay(root));
        ground
    }

    fn at(&self, place: Place) -> &LoopFs {
        &self.file_systems[place as usize]
    }

    fn roots(&self) -> [PathBuf; 2] {
        ["web", "db"].map(|name| self.at(Place::Roots).path().join(name))
    }

    fn apply(&self) -> Ran {
        let mut command = self.command("dedupe");
        command.args(["--apply", "--select", "all", "--mounts", "none", "--applets", "complete"]);
        command.args(["--store-format", self.format]);
        command.arg("--store").arg(self.at(Place::Store).path().join("store"));
        Ran::from(command.args(self.roots()).output().unwrap())
    }

    fn undo(&self) -> Ran {
        Ran::from(self.command("undo").output().unwrap())
    }

    fn command(&self, what: &str) -> Command {
        let mut command = cbin_audit();
        command.args([what, "--json", "--journal"]);
        command.arg(self.at(Place::Journal).path().join("journal"));
        command
    }

    fn snapshot(&self) -> Vec<Snapshot> {
        self.roots().iter().map(|root| Snapshot::of(root).without_access_times()).collect()
    }
}

/// A program with links, and a directory that is nearly all links with long names and targets.
fn lay(root: &Path) {
    let busybox = fs::read(packages::busybox().unwrap()).unwrap();
    crate::world! { root,
        "bin/busybox" => Entry::File(busybox.clone(), 0o755),
        "bin/sh" => link("busybox"),
        "etc/os-release" => file("ID=nifty\n"),
        "cbin" => dir(),
    }
    let (name, long) = ("n".repeat(150), format!("../{}", "t".repeat(300)));
    for number in 0..400 {
        let below = root.join(format!("usr/share/tree/{number}"));
        fs::create_dir_all(&below).unwrap();
        fs::write(below.join("file"), vec![b'f'; 300]).unwrap();
        for which in 0..4 {
            symlink(&long, below.join(format!("{name}{which}"))).unwrap();
        }
    }
    age(root);
}

/// Takes all of a file system but a part, twice as large each turn.
type Leave = fn(&LoopFs, u32) -> tempfile::TempDir;

fn leave_bytes(fs: &LoopFs, turn: u32) -> tempfile::TempDir {
    let filling = tempfile::tempdir_in(fs.path()).unwrap();
    let file = File::create(filling.path().join("file")).unwrap();
    let free = rustix::fs::statvfs(fs.path()).unwrap();
    let all = free.f_bavail * free.f_frsize - (65_536 << turn);
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, all).unwrap();
    filling
}

fn leave_inodes(fs: &LoopFs, turn: u32) -> tempfile::TempDir {
    let filling = tempfile::tempdir_in(fs.path()).unwrap();
    let free = rustix::fs::statvfs(fs.path()).unwrap().f_favail;
    for number in 256_u64 << turn..free {
        File::create(filling.path().join(number.to_string())).unwrap();
    }
    filling
}

/// The least that a command finds enough is enough.
fn counted_whole(place: Place, format: &'static str, leave: Leave) {
    let ground = Ground::new(format);
    let before = ground.snapshot();
    least_is_enough(&ground, place, leave, Ground::apply);
    for root in ground.roots() {
        assert!(root.join("usr/share/tree").is_symlink() && root.join("bin/sh").is_symlink());
    }
    least_is_enough(&ground, place, leave, Ground::undo);
    for (now, then) in ground.snapshot().iter().zip(&before) {
        assert_eq!(then.differences(now), [""; 0]);
    }
}

fn least_is_enough(ground: &Ground, place: Place, leave: Leave, command: fn(&Ground) -> Ran) {
    let before = ground.snapshot();
    for turn in 0.. {
        let filling = leave(ground.at(place), turn);
        let free = || rustix::fs::statvfs(ground.at(place).path()).unwrap();
        let (then, ran, now) = (free(), command(ground), free());
        if ran.status == 0 {
            let bytes = (then.f_bavail as i64 - now.f_bavail as i64) * 4096;
            let inodes = then.f_favail as i64 - now.f_favail as i64;
            let (blocks, left) = (then.f_bavail * 4096, then.f_favail);
            eprintln!("{place:?}: {bytes} of {blocks} bytes, {inodes} of {left} inodes");
            return;
        }
        let words = [" on the file system of ", " are needed and ", " are free"];
        assert!(words.iter().all(|words| ran.stderr.contains(words)), "{ran:?}");
        assert_eq!(ran.status, 1, "{ran:?}");
        for (now, then) in ground.snapshot().iter().zip(&before) {
            assert_eq!(then.differences(now), [""; 0], "it was refused");
        }
        drop(filling);
    }
}
