//! Docker and Podman for real: two images with the same program, and a container of each.
//! Their layers are looked at, counted, and never edited.

mod unit;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::command::{Ran, cbin_audit};
use crate::memory_ground::{Ground, distinct, done, frames, is_asleep, wait_for};
use crate::packages::{self, Compose};
use crate::snapshot::Snapshot;
use crate::suite::{Need, Suite};

pub fn tests(suite: &mut Suite) {
    let mut test = |name: &str, more: &[Need], run: fn(By), by| {
        let mut needs = vec![Need::Root, Need::Package("busybox-static"), Need::Program("runc")];
        needs.extend(more);
        suite.test(&format!("privileged_engines_{name}"), &needs, move || run(by));
    };
    // Unpacked, not installed: no daemon of the host's is started for it.
    let docker = ["docker.io", "containerd", "tini"].map(Need::Package);
    test("docker", &docker, whole, By::Docker);
    test("podman", &[Need::Program("podman")], whole, By::Podman);
    test("docker_live", &docker, live, By::Docker);
    test("podman_live", &[Need::Program("podman")], live, By::Podman);
    let docker = [&docker[..], &[Need::Compose(Compose::Docker)]].concat();
    test("docker_compose", &docker, composed, By::Docker);
    let podman = [Need::Program("podman"), Need::Compose(Compose::Podman)];
    test("podman_compose", &podman, composed, By::Podman);
    test("podman_quadlet", &[Need::Program("podman"), Need::Quadlet], generated, By::Podman);
    unit::tests(suite);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Docker,
    Podman,
}

/// An engine with a store of its own. It ends with the value.
struct Engine {
    by: By,
    ground: Ground,
    daemon: Option<Child>,
}

impl Engine {
    fn start(by: By) -> Self {
        let mut engine = Self { by, ground: Ground::new(), daemon: None };
        if by == By::Docker {
            let mut command = engine.docker("dockerd");
            for (option, at) in [("--data-root", "data"), ("--exec-root", "exec"), ("-p", "pid")] {
                command.arg(option).arg(engine.ground.at(at));
            }
            command.args(["--bridge=none", "--iptables=false", "--ip6tables=false"]);
            command.args(["--ip-masq=false", "--storage-driver=overlay2"]);
            let log = fs::File::create(engine.ground.at("log")).unwrap();
            let log = command.stdout(Stdio::null()).stderr(log);
            engine.daemon = Some(log.spawn().unwrap());
            wait_for("dockerd", || {
                let ended = engine.daemon.as_mut().unwrap().try_wait().unwrap();
                let log = || fs::read_to_string(engine.ground.at("log")).unwrap();
                assert!(ended.is_none(), "{}", log());
                engine.command().args(["version"]).output().unwrap().status.success()
            });
        }
        engine
    }

    /// A program of the unpacked packages, told of our daemon's socket.
    fn docker(&self, program: &str) -> Command {
        let unpacked = ["docker.io", "containerd", "tini"].map(|it| packages::package(it).unwrap());
        let mut path: Vec<PathBuf> = unpacked
            .iter()
            .flat_map(|it| ["usr/sbin", "usr/bin"].map(|dir| it.join(dir)))
            .collect();
        path.extend(["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from));
        let found = path.iter().map(|dir| dir.join(program)).find(|it| it.exists()).unwrap();
        let mut command = Command::new(found);
        command.env_clear().env("PATH", std::env::join_paths(path).unwrap());
        command.env("HOME", self.ground.at("")).arg("-H");
        command.arg(format!("unix://{}", self.ground.at("sock").display()));
        command.stdin(Stdio::null());
        command
    }

    fn command(&self) -> Command {
        if self.by == By::Docker {
            return self.docker("docker");
        }
        let mut command = Command::new("podman");
        for (option, at) in [("--root", "data"), ("--runroot", "exec"), ("--tmpdir", "tmp")] {
            command.arg(option).arg(self.ground.at(at));
        }
        command.args(["--cgroup-manager=cgroupfs", "--events-backend=file", "--runtime", "runc"]);
        command.stdin(Stdio::null());
        command
    }

    /// An image of one layer, and a container of it. Its id.
    fn run(&self, name: &str) -> String {
        for dir in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
            self.ground.dir(&format!("image/{dir}"));
        }
        self.ground.program_in(&self.ground.at("image/bin"));
        fs::write(self.ground.at("image/etc/hostname"), name).unwrap();
        let tar = self.ground.at("image.tar");
        done(
            Command::new("tar")
                .arg("-cf")
                .arg(&tar)
                .arg("-C")
                .arg(self.ground.at("image"))
                .arg("."),
        );
        let image = format!("cbin-audit/{}-{name}:1", self.ground.name);
        done(self.command().arg("import").arg(&tar).arg(&image));
        let mut run = self.command();
        run.args(["run", "-d", "--network=none", "--name", name]);
        if self.by == By::Podman {
            run.args(["--ulimit=nofile=1024:1024", "--ulimit=nproc=32768:32768"]);
        }
        run.args([&image, &format!("/bin/{}", self.ground.name), "sleep", "1000"]);
        let output = run.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _gone = self.command().args(["rm", "-f", "one", "two"]).output();
        if let Some(mut daemon) = self.daemon.take() {
            let pid = rustix::process::Pid::from_child(&daemon);
            let _asked = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            let _ended = daemon.wait();
        }
        // Who looks after a container cleans up once it has ended, and mounts something for that.
        let ours = self.ground.at("").display().to_string();
        for _ in 0..500 {
            let all = fs::read_dir("/proc").into_iter().flatten().flatten();
            let mut told = all.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
            if !told.any(|it| String::from_utf8_lossy(&it).contains(&ours)) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        // What it mounted on its own directories.
        let mounts = fs::read("/proc/mounts").unwrap();
        let mounts = String::from_utf8_lossy(&mounts);
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(Path::new);
        points
            .filter(|it| it.starts_with(self.ground.at("")))
            .for_each(|it| self.ground.mounted(it));
    }
}

fn json(arguments: &[&str], more: &[&Path]) -> Value {
    let ran = Ran::from(cbin_audit().args(arguments).arg("--json").args(more).output().unwrap());
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    serde_json::from_str(&ran.stdout).unwrap()
}

fn whole(by: By) {
    let engine = Engine::start(by);
    let ids = ["one", "two"].map(|name| engine.run(name));
    let (data, name) = (engine.ground.at("data"), by.name());
    let mine = |memory: &Value| -> Vec<Value> {
        let all = memory["containers"].as_array().unwrap().iter();
        all.filter(|row| ids.iter().any(|id| row["name"] == **id)).cloned().collect()
    };
    wait_for("the containers to sleep", || {
        let memory = json(&["memory"], &[]);
        let asleep = |row: &Value| row["processes"] == 1 && row["text_pages"].as_u64() > Some(100);
        mine(&memory).iter().filter(|row| asleep(row)).count() == 2
    });

    // Two containers of two images: one process each, and every page of it twice.
    let memory = json(&["memory"], &[]);
    for row in mine(&memory) {
        assert_eq!((&row["runtime"], &row["privileged"]), (&name.into(), &false.into()), "{row}");
        assert!(row["root"].as_str().is_some_and(|root| root.ends_with("/merged")), "{row}");
        assert_eq!(row["text_pages"], row["private_pages"], "{row}");
        assert_eq!(row["text_pages"], row["duplicated_pages"], "{row}");
    }
    let binaries = memory["binaries"].as_array().unwrap().iter();
    let binary = binaries.clone().find(|row| row["name"] == *engine.ground.name).unwrap();
    assert_eq!((&binary["objects"], &binary["containers"]), (&2.into(), &2.into()), "{binary}");

    // On disk: a layer each.
    let report = json(&["report", "--select", "multicall", "--no-memory"], &[&data]);
    let group = &report["groups"].as_array().unwrap()[0];
    assert_eq!(group["physical_copies"], 2, "{group}");
    let roots = report["roots"].as_array().unwrap();
    for name in ["one", "two"] {
        let root = roots.iter().find(|root| root["name"] == name).expect(name);
        assert_eq!((&root["runtime"], &root["state"]), (&by.name().into(), &"running".into()));
    }

    // They stay as they are; what the engine is to be told is said.
    let layers = data.join(if by == By::Docker { "overlay2" } else { "overlay" });
    let before = Snapshot::of(&layers).without_directory_times().without_access_times();
    let (store, journal) = (engine.ground.at("store"), engine.ground.at("journal"));
    let at = ["--store", store.to_str().unwrap(), "--journal", journal.to_str().unwrap()];
    for how in [&["dedupe"][..], &["dedupe", "--apply"]] {
        let plan = json(&[how, &at].concat(), &[&data]);
        assert!(plan["steps"].as_array().unwrap().is_empty(), "{plan}");
        let skips = plan["skips"].as_array().unwrap();
        assert_eq!(skips.len(), 2, "{skips:#?}");
        for skip in skips {
            assert_eq!(skip["reason"], "overlay");
            let told = skip["explanation"].as_str().unwrap();
            let volume = format!("{}:/cbin:ro", store.display());
            assert!(told.contains(&format!("{name} run -v {volume} ...")), "{told}");
            assert!(told.contains(&format!("under volumes: - {volume}")), "{told}");
            assert_eq!(told.contains(&format!("Volume={volume}")), by == By::Podman, "{told}");
        }
    }
    let after = Snapshot::of(&layers).without_directory_times().without_access_times();
    assert_eq!(before.differences(&after), [""; 0]);
    assert!(!store.exists());

    // The line does what it says.
    fs::create_dir(&store).unwrap();
    fs::write(store.join("object"), "shown").unwrap();
    let mut run = engine.command();
    run.args(["run", "--rm", "--network=none", "-v", &format!("{}:/cbin:ro", store.display())]);
    if by == By::Podman {
        run.args(["--ulimit=nofile=1024:1024", "--ulimit=nproc=32768:32768"]);
    }
    let image = format!("cbin-audit/{}-one:1", engine.ground.name);
    let program = format!("/bin/{}", engine.ground.name);
    run.args([&image, &program, "sh", "-c"]);
    let output = run.arg(format!("{program} cat /cbin/object; echo x > /cbin/y")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "shown", "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("Read-only"), "{output:?}");
}

/// Objects are bound over the names in the running containers, whose images and layers stay as
/// they are; what runs from the old files is told; after a restart all is as it was.
fn live(by: By) {
    let engine = Engine::start(by);
    let _ids = ["one", "two"].map(|name| engine.run(name));
    let (data, name) = (engine.ground.at("data"), engine.ground.name.clone());
    let first = ["one", "two"].map(|container| engine.first(container));
    wait_for("the containers to sleep", || first.iter().all(|pid| is_asleep(*pid)));
    let layers = || -> Vec<Snapshot> {
        let all = data.join(if by == By::Docker { "overlay2" } else { "overlay" });
        let mut all: Vec<PathBuf> =
            fs::read_dir(all).unwrap().map(|it| it.unwrap().path()).collect();
        all.sort();
        let layers = all.iter().map(|it| it.join("diff")).filter(|it| it.exists());
        layers.map(|it| Snapshot::of(&it).without_access_times()).collect()
    };
    let before = layers();
    let unchanged = || {
        let now = layers();
        assert_eq!(before.len(), now.len());
        let changed: Vec<String> =
            before.iter().zip(&now).flat_map(|(before, now)| before.differences(now)).collect();
        assert_eq!(changed, [""; 0]);
    };
    let old = engine.sleepers();
    let of =
        |pids: &[u32]| distinct(&pids.iter().map(|pid| frames(*pid, &name)).collect::<Vec<_>>());
    let (twice, pages) = of(&old);
    assert!(pages > 100 && twice * 2 > pages * 3, "{twice} {pages}");

    let (store, journal) = (engine.ground.at("store"), engine.ground.at("journal"));
    let at = ["--store", store.to_str().unwrap(), "--journal", journal.to_str().unwrap()];
    let run = |words: &[&str], more: &[&Path]| {
        let output = cbin_audit().args(words).args(more).output().unwrap();
        Ran::from(output)
    };
    let applied = json(&[&["dedupe", "--apply", "--live"], &at[..]].concat(), &[&data]);
    assert_eq!((&applied["applied"], &applied["freed_bytes"]), (&2.into(), &0.into()), "{applied}");
    let bound: Vec<&Value> =
        applied["steps"].as_array().unwrap().iter().filter(|it| it["action"] == "bind").collect();
    assert_eq!(bound.len(), 2, "{applied}");
    let pending = applied["pending_restart"].as_array().unwrap();
    assert_eq!(pending.len(), 4, "the first of each, and one more: {pending:#?}");
    let volume = format!("{} run -v {}:/cbin:ro ...", by.name(), store.display());
    let advice = applied["advice"].as_array().unwrap();
    assert!(advice.iter().all(|it| it.as_str().unwrap().contains(&volume)), "{advice:#?}");
    unchanged();

    let new = engine.sleepers();
    let (once, pages) = of(&new);
    assert!(pages > 100 && once * 2 < pages * 3, "{once} {pages}");
    let verified = run(&[&["verify"], &at[..]].concat(), &[]);
    assert_eq!(verified.status, 10, "{}{}", verified.stdout, verified.stderr);
    assert!(verified.stdout.contains("pending restart"), "{}", verified.stdout);

    engine.restart("one");
    let verified = run(&[&["verify"], &at[..]].concat(), &[]);
    assert!(verified.stdout.contains("started anew"), "{}", verified.stdout);
    unchanged();
    let undone = json(&["undo", "--journal", journal.to_str().unwrap()], &[]);
    assert_eq!((&undone["state"], &undone["restored"]), (&"undone".into(), &2.into()), "{undone}");
    let (twice, _) = of(&engine.sleepers());
    assert!(twice * 2 > pages * 3, "{twice} {pages}");
    let verified = run(&[&["verify"], &at[..]].concat(), &[]);
    assert_eq!(verified.status, 0, "{}{}", verified.stdout, verified.stderr);
    unchanged();
}

impl Engine {
    /// The first process of a container.
    fn first(&self, container: &str) -> u32 {
        let output = self.command().args(["inspect", "-f", "{{.State.Pid}}", container]).output();
        String::from_utf8(output.unwrap().stdout).unwrap().trim().parse().unwrap()
    }

    /// What is started in each container now.
    fn sleepers(&self) -> Vec<u32> {
        let program = format!("/bin/{}", self.ground.name);
        let started = ["one", "two"].map(|container| {
            let first = self.first(container);
            let before = processes(first);
            let mut exec = self.command();
            done(exec.args(["exec", "-d", container, &program, "sleep", "2000"]));
            let mut new = None;
            wait_for("what was started", || {
                let now = processes(first);
                new = now.into_iter().find(|pid| !before.contains(pid) && is_asleep(*pid));
                new.is_some()
            });
            new.unwrap()
        });
        started.into()
    }

    fn restart(&self, container: &str) {
        done(self.command().args(["restart", "-t", "0", container]));
        wait_for("the container to sleep", || is_asleep(self.first(container)));
    }
}

/// Those with the root of this one.
fn processes(of: u32) -> Vec<u32> {
    use std::os::unix::fs::MetadataExt as _;
    let root = |pid: u32| {
        let stat = fs::metadata(format!("/proc/{pid}/root")).ok()?;
        Some((stat.dev(), stat.ino()))
    };
    let all = fs::read_dir("/proc").unwrap().flatten();
    let pids = all.filter_map(|it| it.file_name().to_str()?.parse().ok());
    let mine = root(of);
    pids.filter(|pid| mine.is_some() && root(*pid) == mine).collect()
}

impl By {
    fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }
}

/// An engine with two containers, a store that has their program, and what the plan says of it.
struct Told {
    engine: Engine,
    store: PathBuf,
    lines: String,
}

impl Told {
    fn by(by: By) -> Self {
        let engine = Engine::start(by);
        let _ids = ["one", "two"].map(|name| engine.run(name));
        let store = engine.ground.dir("store");
        engine.ground.program_in(&store);
        fs::set_permissions(
            engine.ground.at(""),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .unwrap();
        let (data, journal) = (engine.ground.at("data"), engine.ground.at("journal"));
        let at = ["--store", store.to_str().unwrap(), "--journal", journal.to_str().unwrap()];
        let plan = json(&[&["dedupe"], &at[..]].concat(), &[&data]);
        let lines = plan["skips"][0]["explanation"].as_str().unwrap().to_owned();
        Self { engine, store, lines }
    }

    /// What stands behind these words, up to the end of the line or of what is said.
    fn after(&self, words: &str) -> String {
        let (_, rest) = self.lines.split_once(words).unwrap_or_else(|| panic!("{}", self.lines));
        rest.split(';').next().unwrap().trim().to_owned()
    }

    fn image(&self) -> String {
        format!("cbin-audit/{}-one:1", self.engine.ground.name)
    }

    /// The program of the store runs in a container, which cannot write there.
    fn script(&self) -> [String; 4] {
        let shown = format!("/cbin/{}", self.engine.ground.name);
        let script = format!("{shown} readlink /proc/self/exe; {shown} touch /cbin/x");
        [shown, "sh".to_owned(), "-c".to_owned(), script]
    }

    #[track_caller]
    fn assert_used(&self, output: &std::process::Output) {
        let said = [output.stdout.as_slice(), &output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains(&format!("/cbin/{}", self.engine.ground.name)), "{said}");
        assert!(said.contains("Read-only file system"), "{said}");
        assert!(!self.store.join("x").exists());
    }
}

/// Takes the options away that give a network.
const DROP: &str = "all=()\nwhile [ $# -gt 0 ]; do case $1 in --net|--network-alias) shift;; *) all+=(\"$1\");; esac; shift; done\nset -- \"${all[@]}\"";

/// The lines for a Compose file make a service that uses the store.
fn composed(by: By) {
    let told = Told::by(by);
    let volume = told.after("under volumes: ");
    let command = serde_json::to_string(&told.script()).unwrap();
    let text = format!(
        "version: '2.4'\nservices:\n  web:\n    image: {}\n    network_mode: none\n    command: {command}\n    \
         ulimits:\n      nofile: 1024\n      nproc: 32768\n    volumes:\n      {volume}\n",
        told.image()
    );
    let ground = &told.engine.ground;
    let file = ground.dir("project").join("compose.yml");
    fs::write(&file, text).unwrap();
    let which = if by == By::Docker { Compose::Docker } else { Compose::Podman };
    let mut compose = which.command().unwrap();
    compose.env("HOME", ground.at("")).current_dir(ground.at("project")).stdin(Stdio::null());
    if by == By::Docker {
        compose.arg("-H").arg(format!("unix://{}", ground.at("sock").display()));
        compose.arg("-f").arg(&file).args(["up", "--no-color", "--abort-on-container-exit"]);
    } else {
        // It calls podman by name, and knows no options of podman's own; and it gives a network to
        // a service that asks for none.
        let wrapper = ground.dir("bin").join("podman");
        let mut podman = told.engine.command();
        let words: Vec<String> =
            podman.arg("\"$@\"").get_args().map(|it| it.to_str().unwrap().to_owned()).collect();
        fs::write(
            &wrapper,
            format!("#!/bin/bash\n{DROP}\nexec /usr/bin/podman {}\n", words.join(" ")),
        )
        .unwrap();
        fs::set_permissions(&wrapper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        compose.arg("--podman-path").arg(&wrapper).arg("-f").arg(&file).args(["up"]);
    }
    let output = compose.output().unwrap();
    if by == By::Podman {
        let _gone = told.engine.command().args(["rm", "-f", "-a"]).output();
    }
    told.assert_used(&output);
}

/// The line for a quadlet makes a unit that starts a container with the store.
fn generated(by: By) {
    let told = Told::by(by);
    let volume = told.after("in a quadlet's [Container]: ");
    let units = told.engine.ground.dir("units");
    let [program, more @ ..] = told.script();
    let exec = format!("{program} {} {} '{}'", more[0], more[1], more[2]);
    let text =
        format!("[Container]\nImage={}\nNetwork=none\n{volume}\nExec={exec}\n", told.image());
    fs::write(units.join("web.container"), text).unwrap();
    let mut generator = Command::new(packages::quadlet().unwrap());
    generator.env_clear().env("QUADLET_UNIT_DIRS", &units).arg("-dryrun");
    let output = generator.output().unwrap();
    let unit = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(unit.contains(&format!("RequiresMountsFor={}", told.store.display())), "{unit}");
    let command = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("a command");

    // As the unit would, but for what belongs to systemd, and to a host of its own.
    let mut podman = told.engine.command();
    podman.args(["run", "--rm", "--network=none"]);
    podman.args(["--ulimit=nofile=1024:1024", "--ulimit=nproc=32768:32768"]);
    let words: Vec<&str> = command.split(' ').collect();
    let mounts = words.windows(2).filter(|pair| ["-v", "--mount"].contains(&pair[0]));
    let mounts: Vec<&str> = mounts.flatten().copied().collect();
    assert_eq!(mounts.len(), 2, "{command}");
    podman.args(mounts).arg(told.image()).args(told.script());
    told.assert_used(&podman.output().unwrap());
}
