//! File servers that take every question and answer none, in a container and in place of a root:
//! whoever asked one could not even be killed. Each command ends, changes what it can, and names
//! what it left alone.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use cbin_audit::model::HostPath;
use cbin_audit::scan::dir::RootDir;
use cbin_audit::scan::served::{Served, Table};
use rustix::fs::{AtFlags, CWD, Statx, StatxFlags, statx};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::{Answer, finish};
use crate::command::cbin_audit;
use crate::memory_fuse::Server;
use crate::memory_ground::{Ground, Running, is_asleep, start};
use crate::suite::{Need, Suite};

pub fn tests(suite: &mut Suite) {
    let needs = [
        Need::Root,
        Need::Package("busybox-static"),
        Need::Program("unshare"),
        Need::File("/dev/fuse"),
    ];
    let mut test = |name: &str, run: fn()| {
        suite.test(&format!("privileged_hostile_silent_{name}"), &needs, run);
    };
    test("above_the_mount_point", above_the_mount_point);
    test("at_the_mount_point", at_the_mount_point);
    test("over_the_store_of_a_container", over_the_store);
    test("in_place_of_a_root", in_place_of_a_root);
    test("programs", programs);
    test("and_nobody_else", and_nobody_else);
    // A mount has a number for good.
    let needs = [&needs[..], &[Need::Linux(6, 8)]].concat();
    let mut test = |name: &str, run: fn()| {
        suite.test(&format!("privileged_hostile_silent_{name}"), &needs, run);
    };
    test("with_the_numbers_of_another", with_the_numbers_of_another);
    test("that_is_in_no_table", in_no_table);
}

/// Two running containers with a program of which both have a copy.
struct World {
    ground: Ground,
    containers: [Running; 2],
}

const ROOTS: [&str; 2] = ["roots/eve", "roots/web"];

impl World {
    fn new() -> Self {
        let ground = Ground::new();
        let containers = ROOTS.map(|root| {
            for dir in ["bin", "cbin", "dev", "etc", "opt/cbin", "proc", "usr"] {
                ground.dir(&format!("{root}/{dir}"));
            }
            ground.program_in(&ground.at(root).join("bin"));
            let mut command = Command::new("unshare");
            command.args(["-m", "--propagation", "private", "chroot"]).arg(ground.at(root));
            start(command.args([&format!("/bin/{}", ground.name), "sleep", "1000"]))
        });
        Self { ground, containers }
    }

    fn eve(&self) -> u32 {
        self.containers[0].pid()
    }

    fn roots(&self) -> [PathBuf; 2] {
        ROOTS.map(|root| self.ground.at(root))
    }

    fn is_changed(&self, root: usize) -> bool {
        self.roots()[root].join("bin").join(&self.ground.name).is_symlink()
    }

    /// A command on this world's own store and journal, until its end.
    fn run(&self, words: &[&str], roots: &[PathBuf]) -> Answer {
        let mut command = cbin_audit();
        command.args(words).arg("--json").arg("--journal").arg(self.ground.at("journal"));
        if words[0] != "undo" {
            command.arg("--store").arg(self.ground.at("store"));
        }
        finish({
            command.args(roots);
            command
        })
    }

    fn apply(&self, more: &[&str], roots: &[PathBuf]) -> Answer {
        let words = ["dedupe", "--apply", "--live", "--mounts", "none"];
        self.run(&[&words[..], more].concat(), roots)
    }

    fn undo(&self) -> Answer {
        self.run(&["undo"], &[])
    }
}

/// The checks of one root that failed.
fn failed<'a>(answer: &'a Answer, root: &Path) -> Vec<&'a str> {
    let checks = answer.json["checks"].as_array().expect("checks");
    let mine = checks.iter().filter(|it| it["ok"] == false && it["root"].as_str() == root.to_str());
    mine.map(|it| it["detail"].as_str().unwrap()).collect()
}

/// Nothing of it is looked up where the server stands on the way.
fn above_the_mount_point() {
    let world = World::new();
    let server = Server::silent_in(world.eve(), "/opt");
    let answer = world.apply(&["--mount-point", "/opt/cbin"], &world.roots());
    assert_eq!(answer.status, 3, "{}{}", answer.stdout, answer.stderr);
    assert!(answer.stdout.contains("a FUSE server"), "{}", answer.stdout);
    assert!(!world.is_changed(0) && world.is_changed(1));
    let verified = world.run(&["verify", "--mount-point", "/opt/cbin"], &[]);
    assert_eq!(failed(&verified, &world.roots()[0]), [""; 0], "{}", verified.stdout);
    drop(server);
    assert_eq!(world.undo().status, 0);
    assert!(!world.is_changed(1));
}

fn at_the_mount_point() {
    let world = World::new();
    let server = Server::silent_in(world.eve(), "/cbin");
    let answer = world.apply(&[], &world.roots());
    assert_eq!(answer.status, 3, "{}{}", answer.stdout, answer.stderr);
    assert!(answer.stdout.contains("something else is mounted"), "{}", answer.stdout);
    assert!(!world.is_changed(0) && world.is_changed(1));
    drop(server);
    assert_eq!(world.undo().status, 0);
}

/// A container hides the store that its links lead to behind a server of its own.
fn over_the_store() {
    let world = World::new();
    assert_eq!(world.apply(&[], &world.roots()).status, 0);
    let server = Server::silent_in(world.eve(), "/cbin");
    let verified = world.run(&["verify"], &[]);
    assert_eq!(verified.status, 10, "{}{}", verified.stdout, verified.stderr);
    let eve = failed(&verified, &world.roots()[0]);
    assert!(eve.iter().any(|detail| detail.contains("something else is at /cbin")), "{eve:?}");
    let doctor = {
        let mut command = cbin_audit();
        command.args(["doctor", "--json"]).args(world.roots());
        finish(command)
    };
    assert!(doctor.json.is_object(), "{}", doctor.stderr);
    let undone = world.undo();
    assert!(!world.is_changed(0) && !world.is_changed(1), "{}", undone.stdout);
    assert!(undone.stdout.contains("something else is mounted"), "{}", undone.stdout);
    drop(server);
}

/// Somebody mounts a server over a root that a run changed.
fn in_place_of_a_root() {
    let world = World::new();
    assert_eq!(world.apply(&[], &world.roots()).status, 0);
    let [eve, _] = world.roots();
    let server = Server::mount(&eve, Vec::new(), ["a", "b"]);
    server.fall_silent();

    let named = eve.file_name().unwrap().to_str().unwrap();
    let told = |answer: &Answer| {
        let notices = answer.json["notices"].as_array().expect("notices").iter();
        let mine = notices.filter(|it| it["path"].as_str().unwrap().ends_with(named));
        assert!(mine.clone().any(|it| it["cause"].as_str().unwrap().contains("a FUSE server")));
    };
    told(&world.run(&["verify"], &[]));
    told(&world.run(&["verify"], &world.roots()));
    told(&super::report(&[], &world.roots()));
    told(&world.run(&["dedupe", "--live", "--mounts", "none"], &world.roots()));
    told(&world.apply(&[], &world.roots()));
    let alone = world.apply(&[], std::slice::from_ref(&eve));
    assert_eq!(alone.status, 1, "{}", alone.stdout);
    assert!(alone.stderr.contains("a FUSE server"), "{}", alone.stderr);
    let inside = world.apply(&[], &[eve.join("below")]);
    assert!(
        inside.stderr.contains("name the directory that it is mounted on"),
        "{}",
        inside.stderr
    );

    // The other root is put back, this one stays as the run left it.
    let undone = world.undo();
    assert_eq!(undone.status, 3, "{}{}", undone.stdout, undone.stderr);
    assert!(undone.stdout.contains("a FUSE server"), "{}", undone.stdout);
    assert!(!world.is_changed(1));
    world.run(&["recover"], &[]);
    drop(server);
    assert_eq!(world.undo().status, 0);
    assert!(!world.is_changed(0));
}

/// What a container runs comes from its own server, also where that is mounted nowhere any more.
fn programs() {
    let world = World::new();
    assert_eq!(world.apply(&[], &world.roots()).status, 0);
    let program = world.ground.at("store");
    let object = fs::read_dir(&program).unwrap().map(|it| it.unwrap().path());
    let object = object.into_iter().find(|it| it.is_file()).expect("an object");
    let point = world.ground.dir("fuse");
    let content = fs::read(object).unwrap();
    let server = Server::mount(&point, content, ["busybox-silent", "busybox-other"]);
    let running = start(Command::new(point.join("busybox-silent")).args(["sleep", "1000"]));
    let mut chroot = Command::new("chroot");
    let inside = start(chroot.arg(&point).args(["/busybox-other", "sleep", "1000"]));
    server.fall_silent();
    for hidden in [false, true] {
        if hidden {
            let flags = rustix::mount::UnmountFlags::DETACH;
            rustix::mount::unmount(&point, flags).unwrap();
        }
        let answer = world.run(&["verify"], &world.roots());
        let notices = answer.json["notices"].as_array().expect("notices").iter();
        let told = notices.filter(|it| it["cause"].as_str().unwrap().contains("does not answer"));
        assert!(told.count() > 0, "{hidden}: {}{}", answer.stdout, answer.stderr);
        let plan = world.run(&["dedupe", "--live", "--mounts", "none"], &world.roots());
        assert_eq!(plan.status, 0, "{hidden}: {}{}", plan.stdout, plan.stderr);
        let mut memory = cbin_audit();
        memory.args(["memory", "--json"]);
        let memory = finish(memory);
        assert!(memory.stdout.contains("does not answer"), "{}", memory.stderr);
        assert!(is_asleep(running.pid()) && is_asleep(inside.pid()));
    }
    let undone = world.undo();
    assert_eq!(undone.status, 0, "{}{}", undone.stdout, undone.stderr);
    drop(server);
    drop((running, inside));
}

/// The negative control: who asks such a server does not come back, and cannot be ended.
fn and_nobody_else() {
    let ground = Ground::new();
    let point = ground.dir("fuse");
    let server = Server::mount(&point, Vec::new(), ["a", "b"]);
    server.fall_silent();
    let mut asking = Command::new("ls").arg(&point).spawn().unwrap();
    let waits = || {
        let stat = fs::read_to_string(format!("/proc/{}/wchan", asking.id())).unwrap_or_default();
        stat.contains("request_wait_answer") || stat.contains("fuse")
    };
    crate::memory_ground::wait_for("a question", waits);
    // The server has to have taken it.
    std::thread::sleep(std::time::Duration::from_millis(300));
    asking.kill().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert!(asking.try_wait().unwrap().is_none(), "a signal ends it: then patience would do");
    drop(server);
    asking.wait().unwrap();
}

/// A mount has the numbers of one that is gone, of which it was known who answers for it.
fn with_the_numbers_of_another() {
    let ground = tempfile::tempdir().unwrap();
    let root = HostPath::from(ground.path());
    let told = || RootDir::open(&root).unwrap().served();
    for _ in 0..200 {
        let kernels = in_memory(ground.path(), || {
            assert_eq!(told(), None, "a tmpfs");
            numbers(ground.path())
        });
        let server = Server::mount(ground.path(), Vec::new(), ["a", "b"]);
        assert_eq!(told(), Some(Served::Fuse), "a FUSE server");
        let servers = numbers(ground.path());
        drop(server);
        let again = in_memory(ground.path(), || {
            assert_eq!(told(), None, "a tmpfs again");
            numbers(ground.path())
        });
        if kernels == servers && servers == again {
            return;
        }
    }
    panic!("no numbers were given out again: nothing is shown");
}

/// A mount that was detached is in no table: who answers for it, nobody tells.
fn in_no_table() {
    let ground = tempfile::tempdir().unwrap();
    let held = in_memory(ground.path(), || {
        let held = File::open(ground.path()).unwrap();
        let stat = stat_of(&held);
        assert_eq!(Table::own().served(held.as_fd(), &stat), None);
        held
    });
    // It was known, and a mount keeps its file system.
    let stat = stat_of(&held);
    assert_eq!(Table::own().served(held.as_fd(), &stat), None);
    let held = in_memory(ground.path(), || File::open(ground.path()).unwrap());
    let stat = stat_of(&held);
    assert_eq!(Table::own().served(held.as_fd(), &stat), Some(Served::Fuse));
}

fn stat_of(held: &File) -> Statx {
    let mask = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
    statx(held, "", AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC, mask).unwrap()
}

fn in_memory<T>(point: &Path, meanwhile: impl FnOnce() -> T) -> T {
    mount("none", point, "tmpfs", MountFlags::empty(), None).unwrap();
    let answer = meanwhile();
    unmount(point, UnmountFlags::DETACH).unwrap();
    answer
}

/// A mount's number, and its device's.
fn numbers(point: &Path) -> (u64, u32) {
    let stat = statx(CWD, point, AtFlags::STATX_DONT_SYNC, StatxFlags::MNT_ID).unwrap();
    (stat.stx_mnt_id, stat.stx_dev_minor)
}
