//! Roots as several distributions lay them, under several runtimes: shared from the next start
//! on, shared while they run, and put back.

mod roots;

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::booted::{self, Host};
use crate::memory_ground::{Running, wait_for};
use crate::snapshot::Snapshot;
use crate::suite::{Need, Suite};

pub fn tests(suite: &mut Suite) {
    let mut test = |name: &str, program, by| {
        let mut needs =
            vec![Need::Package("busybox-static"), Need::MuslBusybox, Need::Program(program)];
        needs.extend(booted::NEEDS);
        let run = move || World::lay(by).shared_and_put_back();
        suite.test(&format!("privileged_layouts_{name}"), &needs, run);
    };
    test("runc", "runc", By::Runc);
    test("lxc", "lxc-start", By::Lxc);
    test("bubblewrap", "bwrap", By::Bubblewrap);
}

/// Two roots of each layout.
const NAMES: [&str; 6] = ["alpine1", "alpine2", "docker1", "docker2", "buildroot1", "buildroot2"];

/// What runs them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Runc,
    Lxc,
    Bubblewrap,
}

/// A host with the roots `/home/NAME/rootfs`.
struct World {
    host: Host,
    by: By,
    home: tempfile::TempDir,
}

/// What has to live as long as the containers do.
type Kept = Vec<Running>;

impl World {
    fn lay(by: By) -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::set_permissions(home.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
        for name in NAMES {
            let root = home.path().join(name).join("rootfs");
            match name.trim_end_matches(['1', '2']) {
                "alpine" => roots::alpine(&root),
                "docker" => roots::docker(&root),
                _ => roots::buildroot(&root),
            }
        }
        let binary = Path::new(env!("CARGO_BIN_EXE_cbin-audit"));
        let host = Host::boot(&[(home.path(), "/home"), (binary, "/usr/local/bin/cbin-audit")]);
        let world = Self { host, by, home };
        NAMES.iter().for_each(|name| world.configure(name));
        world
    }

    fn configure(&self, name: &str) {
        match self.by {
            By::Runc => {
                self.host.run("runc", &["spec", "-b", &format!("/home/{name}")]);
                let config = self.home.path().join(name).join("config.json");
                let mut spec: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
                spec["process"]["terminal"] = false.into();
                spec["process"]["args"] = serde_json::json!(["/bin/sleep", "1000"]);
                fs::write(&config, spec.to_string()).unwrap();
            }
            By::Lxc => {
                let dir = format!("/var/lib/lxc/{name}");
                fs::create_dir_all(self.host.path(&dir)).unwrap();
                let text = format!(
                    "lxc.rootfs.path = dir:/home/{name}/rootfs\nlxc.uts.name = {name}\n\
                     lxc.net.0.type = empty\nlxc.apparmor.profile = unconfined\n\
                     lxc.mount.auto = proc\nlxc.init.cmd = /bin/sleep 1000\n"
                );
                self.host.write(&format!("{dir}/config"), &text);
            }
            By::Bubblewrap => {}
        }
    }

    fn roots(&self) -> [String; 6] {
        NAMES.map(|name| format!("/home/{name}/rootfs"))
    }

    fn trees(&self) -> Vec<Snapshot> {
        let tree = |name| Snapshot::of(&self.home.path().join(name).join("rootfs"));
        NAMES.into_iter().map(|name| tree(name).without_directory_times()).collect()
    }

    /// What `cbin-audit ARGUMENTS --json ROOTS` says, ending with `status`.
    fn audit(&self, arguments: &[&str], status: i32) -> Value {
        let roots = self.roots();
        let all = arguments.iter().copied().chain(["--json"]);
        let all: Vec<&str> = all.chain(roots.iter().map(String::as_str)).collect();
        let output = self.host.command("cbin-audit", &all).output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn start(&self) -> Kept {
        let kept = NAMES.iter().filter_map(|name| self.start_one(name)).collect();
        wait_for("the containers", || self.sleepers().len() == NAMES.len());
        kept
    }

    fn start_one(&self, name: &str) -> Option<Running> {
        let root = format!("/home/{name}/rootfs");
        let mut command = match self.by {
            By::Lxc => {
                self.host.run("lxc-start", &["-n", name]);
                return None;
            }
            By::Runc => self.host.command("runc", &["run", "-b", &format!("/home/{name}"), name]),
            By::Bubblewrap => {
                let mut options = vec!["--bind", &root, "/", "--proc", "/proc", "--dev", "/dev"];
                options.extend(["--unshare-pid", "--die-with-parent", "/bin/sleep", "1000"]);
                self.host.command("bwrap", &options)
            }
        };
        Some(Running(command.stdout(std::process::Stdio::null()).spawn().unwrap()))
    }

    fn stop(&self, kept: Kept) {
        for name in NAMES {
            let _may_have_ended = match self.by {
                By::Runc => self.host.try_run("runc", &["delete", "-f", name]),
                By::Lxc => self.host.try_run("lxc-stop", &["-k", "-n", name]),
                By::Bubblewrap => Ok(String::new()),
            };
        }
        drop(kept);
        wait_for("the containers to end", || self.sleepers().is_empty());
    }

    /// The containers' first programs: their numbers on the host, in the order of the roots.
    fn sleepers(&self) -> Vec<u64> {
        let memory = self.audit(&["memory"], 0);
        let containers = memory["containers"].as_array().unwrap();
        let processes = memory["processes"].as_array().unwrap();
        let of_root = |root: &String| {
            let at = containers.iter().position(|row| row["root"].as_str() == Some(root))?;
            let mine = processes.iter().filter(|row| row["container"].as_u64() == Some(at as u64));
            mine.filter(|row| row["comm"] == "sleep").find_map(|row| row["pid"].as_u64())
        };
        self.roots().iter().filter_map(of_root).collect()
    }

    /// Which program runs, when a new process is started in each container.
    fn run_from(&self) -> Vec<String> {
        let asked = ["/bin/readlink", "/proc/self/exe"];
        let sleepers = self.sleepers();
        let run = |(at, name): (usize, &&str)| match self.by {
            By::Runc => self.host.run("runc", &[&["exec", name], &asked[..]].concat()),
            By::Lxc => self.host.run("lxc-attach", &[&["-n", name, "--"], &asked[..]].concat()),
            By::Bubblewrap => {
                let pid = sleepers[at].to_string();
                let enter = ["-m", "-p", "-r", "-w", "-t", &pid, "--"];
                self.host.run("nsenter", &[&enter[..], &asked[..]].concat())
            }
        };
        NAMES.iter().enumerate().map(run).collect()
    }

    /// Pages that copies of busybox hold more than once.
    fn wasted(&self) -> u64 {
        let memory = self.audit(&["memory"], 0);
        let binaries = memory["binaries"].as_array().unwrap().iter();
        let busybox = binaries.filter(|row| row["name"].as_str().unwrap().starts_with("busybox"));
        busybox.map(|row| row["wasted_pages"].as_u64().unwrap()).sum()
    }

    fn shared_and_put_back(&self) {
        let trees = self.trees();
        let all_from = |dir: &str| {
            let programs = self.run_from();
            assert!(programs.iter().all(|program| program.starts_with(dir)), "{programs:?}");
        };

        // While they are stopped.
        let applied = self.audit(&["dedupe", "--apply"], 0);
        assert_eq!(applied["skips"], serde_json::json!([]));
        let kept = self.start();
        all_from("/cbin/busybox-");
        assert_eq!(self.wasted(), 0);
        assert_eq!(self.audit(&["verify"], 0)["ok"], true);
        self.stop(kept);
        self.host.run("cbin-audit", &["undo"]);
        self.assert_same(&trees);

        // While they run.
        let kept = self.start();
        all_from("/bin/");
        assert!(self.wasted() > 4 * 50, "two copies of one busybox, and four of another");
        let before = self.sleepers();
        let applied = self.audit(&["dedupe", "--apply", "--live"], 0);
        assert_eq!(applied["skips"], serde_json::json!([]));
        assert_eq!(applied["pending_restart"].as_array().unwrap().len(), NAMES.len());
        all_from("/cbin/busybox-");
        assert_eq!(self.sleepers(), before, "what ran goes on");
        self.audit(&["verify"], 10);
        self.host.run("cbin-audit", &["undo"]);
        all_from("/bin/");
        self.assert_same(&trees);
        self.stop(kept);
    }

    fn assert_same(&self, before: &[Snapshot]) {
        for (before, after) in before.iter().zip(self.trees()) {
            assert_eq!(before.differences(&after), [""; 0]);
        }
    }
}
