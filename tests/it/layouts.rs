//! Roots as several distributions lay them, under several runtimes: shared from the next start
//! on, shared while they run, and put back.

mod roots;

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::booted::{self, Host};
use crate::memory_ground::{Running, done, wait_for};
use crate::snapshot::Snapshot;
use crate::suite::{Need, Suite};
use crate::world::{file, link};

pub fn tests(suite: &mut Suite) {
    let mut test = |name: &str, program, by| {
        let mut needs =
            vec![Need::Package("busybox-static"), Need::MuslBusybox, Need::Program(program)];
        needs.extend(booted::NEEDS);
        let run = move || World::lay(by).shared_and_put_back(&[]);
        suite.test(&format!("privileged_layouts_{name}"), &needs, run);
        let run = move || World::lay(by).tree_is_shared_and_put_back(&[]);
        suite.test(&format!("privileged_layouts_{name}_tree"), &needs, run);
        needs.extend([Need::Program("mkfs.erofs"), Need::File("/dev/loop-control")]);
        let run = move || World::lay(by).shared_and_put_back(&["--store-format", "erofs"]);
        suite.test(&format!("privileged_layouts_{name}_image"), &needs, run);
    };
    test("runc", "runc", By::Runc);
    test("lxc", "lxc-start", By::Lxc);
    test("bubblewrap", "bwrap", By::Bubblewrap);
    test("podman", "podman", By::Podman);
    for (name, by, means) in [("nspawn", By::Nspawn, "nspawn"), ("chroot", By::Chroot, "host")] {
        let mut needs = vec![Need::Package("busybox-static"), Need::MuslBusybox];
        needs.extend(booted::NEEDS);
        let run = move || World::lay(by).tree_is_shared_and_put_back(&["--mounts", means]);
        suite.test(&format!("privileged_layouts_{name}_tree"), &needs, run);
        needs.extend([Need::Program("mkfs.erofs"), Need::File("/dev/loop-control")]);
        let image = ["--mounts", means, "--store-format", "erofs"];
        let run = move || World::lay(by).tree_is_shared_and_put_back(&image);
        suite.test(&format!("privileged_layouts_{name}_tree_in_an_image"), &needs, run);
    }
}

/// Two roots of each layout.
const NAMES: [&str; 6] = ["alpine1", "alpine2", "docker1", "docker2", "buildroot1", "buildroot2"];

/// What a file says of a directory that is the same in all.
const ZONE: &str = "UTC0";

/// What runs them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Runc,
    Lxc,
    Bubblewrap,
    Podman,
    /// Started by a unit, as these are by administrators.
    Nspawn,
    Chroot,
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
            crate::world! { root,
                "usr/share/zone/UTC" => file(ZONE),
                "usr/share/zone/Etc/Zulu" => link("../UTC"),
                "usr/share/zone/data" => file(vec![b'z'; 80 << 10]),
                "usr/share/zone/Tokyo" => file(tokyo()),
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
            By::Nspawn | By::Chroot => {
                let program = match self.by {
                    By::Nspawn => "systemd-nspawn -q --register=no --keep-unit -M %i -D",
                    _ => "chroot",
                };
                let text = format!(
                    "[Service]\nKillMode=mixed\nTimeoutStopSec=1\n\
                     ExecStart={program} /home/%i/rootfs /bin/sleep 1000\n"
                );
                self.host.write("/etc/systemd/system/sleeper@.service", &text);
                self.host.run("systemctl", &["daemon-reload"]);
            }
            By::Bubblewrap | By::Podman => {}
        }
    }

    /// Podman keeps mounts itself: one that starts anew is told of the store, as the plan says.
    fn podman(&self, mounted: Option<&str>, arguments: &[&str]) -> Command {
        let mut all = vec!["--root", "/tmp/podman/root", "--runroot", "/tmp/podman/run"];
        all.extend(["--tmpdir", "/tmp/podman/tmp", "--cgroup-manager=cgroupfs"]);
        all.extend(["--events-backend=file", "--runtime", "runc"]);
        all.extend(arguments.first());
        let volume = mounted.map(|store| format!("{store}:/cbin:ro"));
        all.extend(volume.iter().flat_map(|volume| ["-v", volume.as_str()]));
        all.extend(arguments.iter().skip(1));
        self.host.command("podman", &all)
    }

    fn roots(&self) -> [String; 6] {
        NAMES.map(|name| format!("/home/{name}/rootfs"))
    }

    fn trees(&self) -> Vec<Snapshot> {
        let tree = |name| Snapshot::of(&self.home.path().join(name).join("rootfs"));
        let trees = NAMES.into_iter().map(tree);
        trees.map(|tree| tree.without_directory_times().without_access_times()).collect()
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

    /// Starts them all, with the store mounted by what they are told, where that has to be.
    fn start(&self, mounted: Option<&str>) -> Kept {
        let kept = NAMES.iter().filter_map(|name| self.start_one(name, mounted)).collect();
        wait_for("the containers", || self.sleepers().len() == NAMES.len());
        kept
    }

    fn start_one(&self, name: &str, mounted: Option<&str>) -> Option<Running> {
        let root = format!("/home/{name}/rootfs");
        let mut command = match self.by {
            By::Lxc => {
                self.host.run("lxc-start", &["-n", name]);
                return None;
            }
            By::Podman => {
                let limits = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=32768:32768"];
                let mut arguments = vec!["run", "-d", "--network=none", "--name", name];
                arguments.extend(limits.iter().chain(&["--rootfs", &root, "/bin/sleep", "1000"]));
                done(&mut self.podman(mounted, &arguments));
                return None;
            }
            By::Nspawn | By::Chroot => {
                self.host.run("systemctl", &["start", &format!("sleeper@{name}.service")]);
                return None;
            }
            By::Runc => self.host.command("runc", &["run", "-b", &format!("/home/{name}"), name]),
            By::Bubblewrap => {
                let mut options = vec!["--bind", &root, "/", "--proc", "/proc", "--dev", "/dev"];
                options.extend(["--unshare-pid", "--die-with-parent", "/bin/sleep", "1000"]);
                self.host.command("bwrap", &options)
            }
        };
        Some(Running(command.stdout(Stdio::null()).spawn().unwrap()))
    }

    fn stop(&self, kept: Kept) {
        for name in NAMES {
            let _may_have_ended = match self.by {
                By::Runc => self.host.try_run("runc", &["delete", "-f", name]),
                By::Lxc => self.host.try_run("lxc-stop", &["-k", "-n", name]),
                By::Nspawn | By::Chroot => {
                    self.host.try_run("systemctl", &["stop", &format!("sleeper@{name}.service")])
                }
                By::Podman => {
                    done(&mut self.podman(None, &["rm", "-f", "-t", "0", name]));
                    continue;
                }
                By::Bubblewrap => continue,
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
        self.ask(&["/bin/readlink", "/proc/self/exe"])
    }

    /// What a new process answers in each container.
    fn ask(&self, asked: &[&str]) -> Vec<String> {
        let sleepers = self.sleepers();
        let run = |(at, name): (usize, &&str)| match self.by {
            By::Runc => self.host.run("runc", &[&["exec", name], asked].concat()),
            By::Lxc => self.host.run("lxc-attach", &[&["-n", name, "--"], asked].concat()),
            By::Podman => {
                let arguments = [&["exec", name], asked].concat();
                let output = self.podman(None, &arguments).output().unwrap();
                String::from_utf8(output.stdout).unwrap()
            }
            By::Bubblewrap | By::Nspawn | By::Chroot => {
                let pid = sleepers[at].to_string();
                let enter = ["-m", "-p", "-r", "-w", "-t", &pid, "--"];
                self.host.run("nsenter", &[&enter[..], asked].concat())
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

    /// The store is a plain directory, or an image.
    fn shared_and_put_back(&self, store: &[&str]) {
        // What a runtime itself leaves in a root, it leaves at the first start.
        let kept = self.start(None);
        self.stop(kept);
        let trees = self.trees();
        let all_from = |dir: &str| {
            let programs = self.run_from();
            assert!(programs.iter().all(|program| program.starts_with(dir)), "{programs:?}");
        };

        // While they are stopped.
        let shown = if store.is_empty() { "/home/cbin" } else { "/home/cbin/.view" };
        let means: &[&str] = if self.by == By::Podman { &["--mounts", "none"] } else { &[] };
        let applied = self.audit(&[&["dedupe", "--apply"], store, means].concat(), 0);
        assert_eq!(applied["skips"], serde_json::json!([]));
        let kept = self.start(Some(shown));
        all_from("/cbin/busybox-");
        assert_eq!(self.wasted(), 0);
        assert_eq!(self.audit(&["verify"], 0)["ok"], true);
        self.stop(kept);

        // What a restart of the host leaves: files.
        self.forget_mounts();
        if !store.is_empty() {
            let verified = self.audit(&["verify"], 10);
            let checks = verified["checks"].as_array().unwrap();
            let store = checks.iter().find(|check| check["what"] == "store").unwrap();
            assert!(store["detail"].as_str().unwrap().ends_with("cbin-audit recover"), "{store}");
        }
        self.host.run("cbin-audit", &["recover"]);
        self.host.run("systemctl", &["restart", "local-fs.target"]);
        let kept = self.start(Some(shown));
        all_from("/cbin/busybox-");
        assert_eq!(self.wasted(), 0);
        self.stop(kept);
        self.host.run("cbin-audit", &["undo"]);
        self.assert_same(&trees);

        // While they run.
        let kept = self.start(None);
        all_from("/bin/");
        assert!(self.wasted() > 4 * 50, "two copies of one busybox, and four of another");
        let before = self.sleepers();
        let applied = self.audit(&[&["dedupe", "--apply", "--live"], store].concat(), 0);
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

    /// The directory becomes one while the containers are stopped, and while they run and somebody
    /// works in it: its files are read by all.
    fn tree_is_shared_and_put_back(&self, options: &[&str]) {
        let kept = self.start(None);
        self.stop(kept);
        let (trees, held) = (self.trees(), self.blocks());
        let zones = || {
            assert_eq!(self.ask(&["/bin/cat", "/usr/share/zone/Etc/Zulu"]), [ZONE; 6]);
            let date = "TZ=:/usr/share/zone/Tokyo date -d @0 +%H%z";
            assert_eq!(self.ask(&["/bin/sh", "-c", date]), ["09+0900\n"; 6]);
        };
        let none = ["--mounts", "none"];
        let means = if self.by == By::Podman { &none } else { options };
        let image = options.contains(&"erofs");
        self.share_trees(means);
        // An image is one more.
        let copies = if image { 4 } else { 5 };
        assert!(self.blocks() + copies * (80 << 10) / 512 <= held, "{held} blocks before");
        let kept = self.start(Some("/home/cbin"));
        zones();
        assert_eq!(self.audit(&["verify"], 0)["ok"], true);
        self.stop(kept);
        self.host.run("cbin-audit", &["undo"]);
        self.assert_same(&trees);

        let kept = self.start(None);
        zones();
        let workers: Vec<Running> = self.sleepers().iter().map(|pid| self.worker(*pid)).collect();
        self.share_trees(&[options, &["--live"]].concat());
        zones();
        // Of the programs, those that ran before are told; nothing else.
        let verified = self.audit(&["verify"], 10);
        let bad = verified["checks"].as_array().unwrap().iter().filter(|it| it["ok"] == false);
        let bad: Vec<&Value> = bad.filter(|it| it["what"] != "pending_restart").collect();
        assert!(bad.is_empty(), "{bad:?}");
        for mut worker in workers {
            drop(worker.0.stdin.take());
            let mut said = String::new();
            worker.0.stdout.take().unwrap().read_to_string(&mut said).unwrap();
            assert_eq!(said, format!("ready\n{ZONE}\n"));
        }
        self.host.run("cbin-audit", &["undo"]);
        zones();
        self.assert_same(&trees);
        self.stop(kept);
    }

    fn share_trees(&self, options: &[&str]) {
        let all = [&["dedupe", "--apply", "--select", "all"], options].concat();
        let applied = self.audit(&all, 0);
        assert_eq!(applied["state"], "applied", "{applied}");
        let steps = applied["steps"].as_array().unwrap().iter();
        let linked = steps.filter(|step| step["action"] == "remove_tree").count();
        assert_eq!(linked, NAMES.len(), "{applied}");
    }

    /// Somebody in a container whose directory is in the tree, and who has a file of it open.
    fn worker(&self, pid: u64) -> Running {
        let script =
            "cd /usr/share/zone/Etc && exec 3<../UTC && echo ready && read go; cat <&3; echo";
        let pid = pid.to_string();
        let enter = ["-m", "-p", "-r", "-t", &pid, "--", "/bin/sh", "-c", script];
        let mut command = self.host.command("nsenter", &enter);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let worker = Running(child);
        let is_there = || {
            let cwds = fs::read_dir("/proc").unwrap().flatten();
            cwds.filter_map(|it| fs::read_link(it.path().join("cwd")).ok())
                .any(|cwd| cwd.ends_with("usr/share/zone/Etc"))
        };
        wait_for("somebody in the directory", is_there);
        worker
    }

    /// Of all roots and the store, each inode once.
    fn blocks(&self) -> u64 {
        let mut seen = std::collections::HashSet::new();
        let entries = walkdir::WalkDir::new(self.home.path()).into_iter().flatten();
        let stats = entries.filter_map(|entry| entry.metadata().ok());
        stats.filter(|stat| seen.insert((stat.dev(), stat.ino()))).map(|stat| stat.blocks()).sum()
    }

    /// Takes away all that is mounted at the store's place, in it, and in the roots.
    fn forget_mounts(&self) {
        let mounts = self.host.run("cat", &["/proc/mounts"]);
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        for point in points.filter(|point| point.starts_with("/home/")) {
            self.host.run("umount", &[point]);
        }
        // systemd has to have seen it.
        wait_for("the mounts to be gone", || {
            let units = self.host.run("systemctl", &["list-units", "--type=mount", "--plain"]);
            !units.lines().any(|line| line.starts_with("home-"))
        });
    }

    fn assert_same(&self, before: &[Snapshot]) {
        for (before, after) in before.iter().zip(self.trees()) {
            assert_eq!(before.differences(&after), [""; 0]);
        }
    }
}

/// Nine hours east of Greenwich, always: a file of time zones, tzfile(5).
fn tokyo() -> Vec<u8> {
    let counts = [0_u32, 0, 0, 0, 1, 4].map(u32::to_be_bytes).concat();
    let block = [b"TZif2", &[0; 15][..], &counts, &32_400_i32.to_be_bytes(), &[0, 0], b"JST\0"];
    let block = block.concat();
    [&block[..], &block, b"\nJST-9\n"].concat()
}
