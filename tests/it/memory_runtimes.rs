//! Real container runtimes, as they name and number what runs in them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cbin_audit::model::{ContainerMemory, HostPath, MemoryReport, Runtime, UserNamespace};

use crate::memory_ground::{Ground, Running, done, is_asleep, look, look_with, sleeper, wait_for};
use crate::suite::{Need, Suite};

pub fn tests(suite: &mut Suite) {
    let mut test = |name: &str, program: &'static str, run: fn()| {
        let needs = [Need::Root, Need::Package("busybox-static"), Need::Program(program)];
        suite.test(&format!("privileged_memory_runtime_{name}"), &needs, run);
    };
    test("nspawn", "systemd-nspawn", nspawn);
    test("runc", "runc", runc);
    test("lxc", "lxc-start", lxc);
    test("bubblewrap", "bwrap", bubblewrap);
    test("chroot", "chroot", chroot);
    test("user_namespace", "unshare", user_namespace);
    test("one_root_is_asked_for", "chroot", one_root);
}

/// A root with the program and what runtimes mount on.
fn root(ground: &Ground, name: &str) -> PathBuf {
    for dir in ["bin", "dev", "etc", "proc", "run", "sys", "tmp", "usr", "var"] {
        ground.dir(&format!("{name}/{dir}"));
    }
    ground.program_in(&ground.at(&format!("{name}/bin")));
    ground.at(name)
}

fn place(ground: &Ground) -> String {
    format!("/bin/{}", ground.name)
}

/// The container of a root, once its process sleeps. Its processes end with the value.
struct Found {
    row: ContainerMemory,
    pids: Vec<u32>,
}

impl Drop for Found {
    fn drop(&mut self) {
        // What a runtime started outlives the runtime.
        for pid in &self.pids {
            let pid = rustix::process::Pid::from_raw(*pid as i32).unwrap();
            let _ended = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

fn find(root: &Path) -> Found {
    find_all(&[root]).remove(0)
}

/// All of them, in one view. A process that sleeps now may have been its runtime's a
/// moment ago, so that what counts is a view from when all of them slept.
fn find_all(roots: &[impl AsRef<Path>]) -> Vec<Found> {
    let mut seen = Vec::new();
    let mut asleep = false;
    wait_for("the containers", || {
        let report = look();
        seen = roots.iter().filter_map(|root| find_in(&report, root.as_ref())).collect();
        let whole = asleep && seen.len() == roots.len();
        asleep = seen.len() == roots.len();
        whole
    });
    seen.into_iter().map(|(row, pids)| Found { row, pids }).collect()
}

fn find_in(report: &MemoryReport, root: &Path) -> Option<(ContainerMemory, Vec<u32>)> {
    let wanted = HostPath::from(root);
    let at = report.containers.iter().position(|row| row.root.as_ref() == Some(&wanted))?;
    let mine = report.processes.iter().filter(|process| process.container as usize == at);
    let mine = mine.filter(|process| process.comm.starts_with("busybox"));
    let pids: Vec<u32> = mine.map(|process| process.pid).collect();
    let row = report.containers[at].clone();
    pids.iter().any(|pid| is_asleep(*pid)).then_some((row, pids))
}

fn check(row: &ContainerMemory, runtime: Runtime, name: &str, processes: u64) {
    assert_eq!(
        (row.runtime, row.name.as_str(), row.processes),
        (runtime, name, processes),
        "{row:#?}"
    );
    assert_eq!(row.text, row.shared + row.private, "{row:#?}");
    assert!(row.text.0 > 100, "{row:#?}");
}

/// Two containers that share one control group path stay two.
fn nspawn() {
    let ground = Ground::new();
    let machines = ["one", "two"].map(|name| format!("{}-{name}", ground.name));
    let roots = ["one", "two"].map(|name| root(&ground, name));
    let running: Vec<Running> = machines
        .iter()
        .zip(&roots)
        .map(|(machine, root)| {
            let mut command = Command::new("systemd-nspawn");
            command.args(["-q", "--register=no", "--keep-unit", "-M", machine, "-D"]).arg(root);
            command.args([&place(&ground), "sleep", "1000"]);
            Running(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
        })
        .collect();
    // In one view: a container is no second copy before the other one runs.
    let found = find_all(&roots);
    let groups =
        [0, 1].map(|at| fs::read_to_string(format!("/proc/{}/cgroup", found[at].pids[0])).unwrap());
    assert_eq!(groups[0], groups[1], "the control groups tell these two apart");
    for (found, machine) in found.iter().zip(&machines) {
        check(&found.row, Runtime::Nspawn, machine, 1);
        assert_eq!(found.row.user_namespace, UserNamespace::Host);
        // The second copy of the same bytes: every page that both hold.
        assert!(found.row.duplicated.0 > 100, "{:#?}", found.row);
    }
    drop((found, running));
}

fn runc() {
    let ground = Ground::new();
    let root = root(&ground, "bundle/rootfs");
    let bundle = ground.at("bundle");
    done(Command::new("runc").arg("spec").current_dir(&bundle));
    let config = bundle.join("config.json");
    let mut spec: serde_json::Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    spec["process"]["terminal"] = false.into();
    spec["process"]["args"] = serde_json::json!([place(&ground), "sleep", "1000"]);
    fs::write(&config, spec.to_string()).unwrap();
    let runc = |arguments: &[&str]| {
        let mut command = Command::new("runc");
        command.arg("--root").arg(ground.at("state")).args(arguments).stdin(Stdio::null());
        command
    };
    let id = ground.name.as_str();
    let running = runc(&["run", "-b", bundle.to_str().unwrap(), id]).stdout(Stdio::null()).spawn();
    let running = Running(running.unwrap());
    let found = find(&root);
    check(&found.row, Runtime::Oci, id, 1);
    assert!(!found.row.privileged, "runc leaves CAP_SYS_ADMIN out: {:#?}", found.row);
    drop(found);
    drop(running);
    let _gone = runc(&["delete", "-f", id]).stderr(Stdio::null()).status();
}

fn lxc() {
    let ground = Ground::new();
    let root = root(&ground, "rootfs");
    let config = ground.dir(&format!("lxc/{}", ground.name)).join("config");
    let settings = format!(
        "lxc.rootfs.path = dir:{}\nlxc.net.0.type = empty\nlxc.apparmor.profile = unconfined\n\
         lxc.uts.name = test\nlxc.init.cmd = {} sleep 1000\n",
        root.display(),
        place(&ground)
    );
    fs::write(&config, settings).unwrap();
    let lxc = |program: &str| {
        let mut command = Command::new(program);
        command.arg("-P").arg(ground.at("lxc")).args(["-n", &ground.name]).stdin(Stdio::null());
        command
    };
    done(&mut lxc("lxc-start"));
    let found = find(&root);
    check(&found.row, Runtime::Lxc, &ground.name, 1);
    drop(found);
    let _gone = lxc("lxc-stop").arg("-k").stderr(Stdio::null()).status();
}

fn bubblewrap() {
    let ground = Ground::new();
    let root = root(&ground, "root");
    let mut command = Command::new("bwrap");
    command.arg("--bind").arg(&root).args(["/", "--proc", "/proc", "--dev", "/dev"]);
    let command = command.args([&place(&ground), "sleep", "1000"]).stdin(Stdio::null());
    let running = Running(command.spawn().unwrap());
    let found = find(&root);
    assert_eq!(found.row.runtime, Runtime::Bubblewrap, "{:#?}", found.row);
    assert!(found.row.name.starts_with("bubblewrap-"), "{:#?}", found.row);
    drop((found, running));
}

/// A plain chroot has the host's mount namespace and a root of its own; one in a mount
/// namespace has both.
fn chroot() {
    let ground = Ground::new();
    let roots = ["plain", "apart"].map(|name| root(&ground, name));
    let plain =
        Command::new("chroot").arg(&roots[0]).args([&place(&ground), "sleep", "1000"]).spawn();
    let mut apart = Command::new("unshare");
    apart.args(["-m", "chroot"]).arg(&roots[1]).args([&place(&ground), "sleep", "1000"]);
    let running = [Running(plain.unwrap()), Running(apart.spawn().unwrap())];
    let found = find_all(&roots);
    for (found, name) in found.iter().zip(["plain", "apart"]) {
        check(&found.row, Runtime::Directory, name, 1);
        assert!(found.row.privileged, "root in the initial user namespace: {:#?}", found.row);
    }
    let host = look().containers.into_iter().find(|row| row.runtime == Runtime::Host).unwrap();
    assert_eq!(host.name, "host");
    assert!(host.processes > 0 && host.text.0 > 0);
    drop((found, running));
}

fn user_namespace() {
    let ground = Ground::new();
    let root = root(&ground, "root");
    let mut command = Command::new("unshare");
    command.args(["-U", "-r", "-m", "chroot"]).arg(&root).args([&place(&ground), "sleep", "1000"]);
    let running = Running(command.spawn().unwrap());
    let found = find(&root);
    check(&found.row, Runtime::Directory, "root", 1);
    assert_eq!(found.row.user_namespace, UserNamespace::Own);
    assert!(!found.row.privileged, "root there is nobody here: {:#?}", found.row);
    drop((found, running));
}

/// A root that is named leaves the others out; what it shares with them still counts.
fn one_root() {
    let ground = Ground::new();
    let root = root(&ground, "root");
    let outside = sleeper(&root.join(place(&ground).trim_start_matches('/')));
    let inside = Command::new("chroot").arg(&root).args([&place(&ground), "sleep", "1000"]).spawn();
    let inside = Running(inside.unwrap());
    let found = find(&root);
    let stat = rustix::fs::stat(&root).unwrap();
    let report = look_with(|options| {
        let inode = cbin_audit::model::InodeId { dev: stat.st_dev, ino: stat.st_ino };
        options.roots.push((inode, HostPath::from(root.as_path())));
        options.only_roots = true;
    });
    let [container] = report.containers.as_slice() else { panic!("{:#?}", report.containers) };
    assert_eq!(container.shared, container.text, "{container:#?}");
    assert_eq!(report.processes.len(), 1, "{:#?}", report.processes);
    assert_eq!(report.binaries.len(), 1, "{:#?}", report.binaries);
    drop((outside, inside, found));
}
