//! Who may share a plain store: told by what containers really are, not by whom their
//! directories belong to.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::command::{Ran, cbin_audit};
use crate::memory_ground::{Ground, Running, is_asleep, wait_for};
use crate::suite::{Need, Suite};

pub fn tests(suite: &mut Suite) {
    let needs = [
        Need::Root,
        Need::Package("busybox-static"),
        Need::Program("systemd-nspawn"),
        Need::Program("runc"),
    ];
    let mut test = |name: &str, run: fn()| {
        suite.test(&format!("privileged_trust_{name}"), &needs, run);
    };
    test("of_idmapped_containers", idmapped);
    test("beside_those_of_an_earlier_run", later_run);
    test("lost_by_a_restart", restarted_with_more);
    test("of_stopped_bundles", bundles);
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
        self.root(name);
        self.boot(name, options);
    }

    /// Starts a container of a root.
    fn boot(&mut self, name: &str, options: &[&str]) {
        let root = self.ground.at(&format!("roots/{name}"));
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

    /// Stops the containers.
    fn stop(&mut self) {
        for pid in self.pids.drain(..) {
            let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
            let _ended = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        self.running.clear();
    }

    /// Runs a command on these roots, on a journal and at a mount point of its own.
    fn audit(&self, words: &[&str], roots: &[&str], status: i32) -> String {
        let mut command = cbin_audit();
        command.args(words).arg("--journal").arg(self.ground.at("journal"));
        if words[0] == "dedupe" && !words.contains(&"--plan") {
            let point = format!("/{}", self.ground.name);
            command.args(["--live", "--mounts", "none", "--mount-point", &point]);
        }
        if words[0] != "undo" && !words.contains(&"--store") && !words.contains(&"--plan") {
            command.arg("--store").arg(self.ground.at("store"));
        }
        command.args(roots.iter().map(|root| self.ground.at(&format!("roots/{root}"))));
        let ran = Ran::from(command.output().unwrap());
        assert_eq!(ran.status, status, "{words:?}: {}{}", ran.stdout, ran.stderr);
        format!("{}{}", ran.stdout, ran.stderr)
    }

    /// How many of these roots are kept apart from the others.
    fn left_of(&self, options: &[&str], roots: &[&str]) -> usize {
        let words = [&["dedupe", "--json"][..], options].concat();
        let plan: Value = serde_json::from_str(&self.audit(&words, roots, 0)).unwrap();
        let skips = plan["skips"].as_array().unwrap().iter();
        skips.filter(|skip| skip["reason"] == "trust-domain").count()
    }

    /// `name: reason` of what is left as it is, and the words for it.
    fn left(&self, options: &[&str]) -> Vec<(String, String)> {
        let mut command = cbin_audit();
        command.args(["dedupe", "--json", "--live", "--journal"]).arg(self.ground.at("journal"));
        if !options.contains(&"--store") {
            command.arg("--store").arg(self.ground.at("store"));
        }
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

const APPLY: [&str; 2] = ["dedupe", "--apply"];

/// Who is in a store already is not asked to leave; who comes later is kept from it, whichever
/// of both could write it, and a plan that was made before is held against it as well.
fn later_run() {
    for (first, second) in [(&MAPPED[..], &[][..]), (&[][..], &MAPPED[..])] {
        let mut world = World::new();
        for name in ["old1", "old2"] {
            world.start(name, first);
        }
        for name in ["new1", "new2"] {
            world.start(name, second);
        }
        let plan = world.ground.at("plan.json");
        let early = world.audit(&["dedupe", "--json"], &["new1", "new2"], 0);
        std::fs::write(&plan, early).unwrap();
        world.audit(&APPLY, &["old1", "old2"], 0);

        let old = world.ground.at("roots/old1").display().to_string();
        let left = world.left(&[]);
        let names: Vec<&str> = left.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["new1: trust-domain", "new2: trust-domain"], "{left:#?}");
        assert!(left[0].1.contains(&old) && left[0].1.contains("earlier run"), "{left:#?}");
        let told = world.audit(&APPLY, &["new1", "new2"], 0);
        assert!(told.contains("nothing was changed"), "{told}");
        let told = world.audit(&["dedupe", "--apply", "--plan", plan.to_str().unwrap()], &[], 1);
        assert!(told.contains("may not run from the store") && told.contains(&old), "{told}");
        let untouched = std::fs::symlink_metadata(
            world.ground.at(&format!("roots/new1/bin/{}", world.ground.name)),
        );
        assert!(untouched.unwrap().is_file());

        // What those that are there were not declared to be, they do not become.
        assert_eq!(world.left(&["--trust-domain", "mine"]), []);
        let declared =
            world.audit(&["dedupe", "--json", "--trust-domain", "mine"], &["new1", "new2"], 0);
        assert!(declared.contains("trust-domain\""), "{declared}");
        let another = world.ground.at("another").display().to_string();
        for way in [["--store-format", "erofs"], ["--store", &another]] {
            let words = [&["dedupe", "--json"][..], &way].concat();
            let plan = world.audit(&words, &["new1", "new2"], 0);
            assert!(!plan.contains("trust-domain\""), "{plan}");
        }
        world.audit(&["undo"], &[], 0);
        let after = world.audit(&["dedupe", "--json"], &["new1", "new2"], 0);
        assert!(!after.contains("trust-domain\""), "{after}");
    }
}

/// A container that comes back with the host's root is told by `verify`.
fn restarted_with_more() {
    let mut world = World::new();
    world.start("one", &MAPPED);
    world.start("two", &MAPPED);
    world.audit(&APPLY, &["one", "two"], 0);
    let told = world.audit(&["verify", "--json"], &[], 10);
    assert!(!told.contains("\"trust\""), "{told}");
    world.stop();
    let store = world.ground.at("store").display().to_string();
    let bind = format!("--bind-ro={store}:/{}", world.ground.name);
    world.boot("one", &[&[bind.as_str()], &MAPPED[..]].concat());
    world.boot("two", &[&bind]);
    let told: Value =
        serde_json::from_str(&world.audit(&["verify", "--json"], &["one"], 10)).unwrap();
    let checks = told["checks"].as_array().unwrap().iter();
    let trust: Vec<&Value> = checks.filter(|check| check["what"] == "trust").collect();
    assert_eq!(trust.len(), 1, "{told:#}");
    assert_eq!(trust[0]["root"], world.ground.at("roots/two").to_str().unwrap());
    assert!(trust[0]["detail"].as_str().unwrap().contains("roots/one"), "{told:#}");
    world.stop();
    world.audit(&["undo"], &[], 0);
}

/// What a bundle is allowed by its configuration counts as long as it does not run.
fn bundles() {
    let mut world = World::new();
    world.start("mapped", &MAPPED);
    let config = |name: &str| world.ground.at(&format!("bundles/{name}/config.json"));
    for name in ["a", "b", "c"] {
        let bundle = world.ground.dir(&format!("bundles/{name}"));
        world.root(&format!("../bundles/{name}/rootfs"));
        let made = Command::new("runc").arg("spec").current_dir(&bundle).status();
        assert!(made.unwrap().success());
    }
    const ALL: [&str; 4] =
        ["../bundles/a/rootfs", "../bundles/b/rootfs", "../bundles/c/rootfs", "mapped"];
    let left = || world.left_of(&[], &ALL);
    assert_eq!(left(), 0, "they have no capability to write with");
    let text = std::fs::read_to_string(config("b")).unwrap();
    let more = text.replace("\"CAP_KILL\"", "\"CAP_KILL\", \"CAP_SYS_ADMIN\"");
    assert_ne!(text, more);
    std::fs::write(config("b"), more).unwrap();
    assert_eq!(left(), 1, "the mapped one is in the company of one that can write");
    std::fs::write(config("b"), &text).unwrap();
    assert_eq!(left(), 0);
    // The store is not there yet: it will lie in what is mounted.
    let home = world.ground.at("").display().to_string();
    let mut spec: Value = serde_json::from_str(&text).unwrap();
    spec["mounts"].as_array_mut().unwrap().push(serde_json::json!({
        "destination": "/mnt", "type": "bind", "source": home, "options": ["rbind"]
    }));
    std::fs::write(config("b"), spec.to_string()).unwrap();
    assert_eq!(left(), 1, "one has what the store lies in");
    let erofs = world.left_of(&["--store-format", "erofs"], &ALL);
    assert_eq!(erofs, 1, "and what an image would lie in");
}
