//! Who may share a plain store: told by what containers really are, not by whom their
//! directories belong to.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::command::{Ran, cbin_audit};
use crate::memory_ground::{Ground, Running, is_asleep, wait_for};
use crate::suite::{Need, Suite};

pub fn tests(suite: &mut Suite) {
    let needs = [Need::Root, Need::Package("busybox-static"), Need::Program("systemd-nspawn")];
    let mut test = |name: &str, run: fn()| {
        suite.test(&format!("privileged_trust_{name}"), &needs, run);
    };
    test("of_idmapped_containers", idmapped);
}

const MAPPED: [&str; 2] = ["--private-users=655360:65536", "--private-users-ownership=map"];

/// Roots of the host's root, on disk, each with a copy of one program.
struct World {
    ground: Ground,
    running: Vec<Running>,
    pids: Vec<u32>,
}

impl Drop for World {
    fn drop(&mut self) {
        for &pid in &self.pids {
            // What a runtime started outlives the runtime.
            let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
            let _ended = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

impl World {
    fn new() -> Self {
        let ground = Ground::new();
        std::fs::set_permissions(
            ground.at(""),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .unwrap();
        Self { ground, running: Vec::new(), pids: Vec::new() }
    }

    fn root(&self, name: &str) -> PathBuf {
        for dir in ["bin", "dev", "etc", "proc", "run", "sys", "tmp", "usr", "var"] {
            self.ground.dir(&format!("roots/{name}/{dir}"));
        }
        let root = self.ground.at(&format!("roots/{name}"));
        self.ground.program_in(&root.join("bin"));
        root
    }

    /// Starts a container of a new root.
    fn start(&mut self, name: &str, options: &[&str]) {
        let root = self.root(name);
        let machine = format!("{}-{name}", self.ground.name);
        let mut command = Command::new("systemd-nspawn");
        command.args(["-q", "--register=no", "--keep-unit", "-M", &machine, "-D"]).arg(&root);
        command.args(options).args([&format!("/bin/{}", self.ground.name), "sleep", "1000"]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        self.running.push(Running(child.unwrap()));
        let stat = rustix::fs::stat(&root).unwrap();
        let inode = cbin_audit::model::InodeId { dev: stat.st_dev, ino: stat.st_ino };
        wait_for("the container", || {
            let proc = std::path::Path::new("/proc");
            let found = cbin_audit::scan::mount_namespaces(proc, inode).unwrap();
            let asleep = found.iter().find(|one| is_asleep(one.pid));
            self.pids.extend(asleep.map(|one| one.pid));
            asleep.is_some()
        });
    }

    /// `name: reason` of what is left as it is, and the words for it.
    fn left(&self, options: &[&str]) -> Vec<(String, String)> {
        let mut command = cbin_audit();
        command.args(["dedupe", "--json", "--live", "--store"]).arg(self.ground.at("store"));
        let ran = Ran::from(command.args(options).arg(self.ground.at("roots")).output().unwrap());
        assert_eq!(ran.status, 0, "{}", ran.stderr);
        let plan: Value = serde_json::from_str(&ran.stdout).unwrap();
        let skips = plan["skips"].as_array().unwrap().iter();
        let skip = |skip: &Value| {
            let root = plan["roots"][skip["root"].as_u64().unwrap() as usize]["path"].as_str();
            let name = root.unwrap().rsplit('/').next().unwrap().to_owned();
            let reason = skip["reason"].as_str().unwrap();
            (format!("{name}: {reason}"), skip["explanation"].as_str().unwrap().to_owned())
        };
        skips.map(skip).collect()
    }
}

/// On disk they belong to the host's root; running, they are users of their own. Two of
/// them share a plain store, and none does with a container that can write it.
fn idmapped() {
    let mut world = World::new();
    world.start("mapped1", &MAPPED);
    world.start("mapped2", &MAPPED);
    assert_eq!(world.left(&[]), []);
    world.start("host1", &[]);
    world.start("host2", &[]);
    world.start("host3", &[]);
    let left = world.left(&[]);
    let names: Vec<&str> = left.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["mapped1: trust-domain", "mapped2: trust-domain"], "{left:#?}");
    assert!(left[0].1.contains("user 655360"), "{left:#?}");
    for way in [&["--store-format", "erofs"], &["--trust-domain", "mine"]] {
        assert_eq!(world.left(way), []);
    }
}
