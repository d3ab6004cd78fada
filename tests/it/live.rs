//! Mounts attached inside running containers of real runtimes, and taken away again.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cbin_audit::exec::live::{self, Attached, MountError, Mounted, Source};
use cbin_audit::model::{ContainerPath, HostPath, InodeId};
use cbin_audit::scan::dir::RootDir;
use cbin_audit::scan::running::View;
use cbin_audit::scan::{MountNamespace, mount_namespaces};

use crate::memory_ground::{Ground, Running, done, is_asleep, wait_for};
use crate::suite::{Need, Suite};

pub fn tests(suite: &mut Suite) {
    let mut test = |name: &str, program: &'static str, run: fn()| {
        let needs = [
            Need::Root,
            Need::Package("busybox-static"),
            Need::Program(program),
            Need::Program("nsenter"),
        ];
        suite.test(&format!("privileged_live_{name}"), &needs, run);
    };
    test("nspawn", "systemd-nspawn", || attached_and_detached(nspawn));
    test("runc", "runc", || attached_and_detached(runc));
    test("lxc", "lxc-start", || attached_and_detached(lxc));
    test("unshared_chroot", "unshare", || attached_and_detached(unshared));
    test("chroot_sees_the_hosts_mount", "chroot", chroot);
    test("a_store_on_a_subvolume_is_seen", "mkfs.btrfs", subvolume);
    test("every_namespace_of_a_root_is_found", "unshare", two_namespaces);
    test("a_link_at_the_mount_point_is_refused", "unshare", link);
    test("another_mount_is_left_alone", "unshare", another_mount);
    test("a_container_that_stops_is_left_whole", "unshare", stops);
    test("a_user_namespace_cannot_write", "setpriv", user_namespace);
    test("a_user_namespace_with_the_hosts_root_is_refused", "unshare", maps_root);
}

/// A container that sleeps, and what ends it.
struct Container {
    runtime: Option<Running>,
    stop: Vec<Command>,
    /// Its processes outlive some runtimes.
    pids: Vec<u32>,
}

impl Drop for Container {
    fn drop(&mut self) {
        for pid in &self.pids {
            let pid = rustix::process::Pid::from_raw(*pid as i32).unwrap();
            let _ended = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        self.runtime = None;
        for stop in &mut self.stop {
            let _gone = stop.stdin(Stdio::null()).stderr(Stdio::null()).status();
        }
    }
}

/// A store, and a root whose container has the store's program as its own, too.
struct World {
    ground: Ground,
    root: PathBuf,
    store: PathBuf,
}

impl World {
    fn new() -> Self {
        let ground = Ground::new();
        // Roots of user namespaces go through it.
        fs::set_permissions(ground.at(""), fs::Permissions::from_mode(0o755)).unwrap();
        let root = ground.dir("bundle/rootfs");
        for dir in ["bin", "dev", "etc", "proc", "run", "sys", "tmp", "usr", "var"] {
            ground.dir(&format!("bundle/rootfs/{dir}"));
        }
        ground.program_in(&root.join("bin"));
        let store = ground.dir("store");
        ground.program_in(&store);
        Self { ground, root, store }
    }

    fn program(&self) -> String {
        format!("/bin/{}", self.ground.name)
    }

    fn source(&self) -> Source {
        Source::open(&HostPath::from(self.store.as_path())).unwrap()
    }

    fn root_dir(&self) -> RootDir {
        RootDir::open(&HostPath::from(self.root.as_path())).unwrap()
    }

    fn make_point(&self) -> Result<Attached, MountError> {
        live::make_mount_point(&self.root_dir(), &target())
    }

    fn namespaces(&self) -> Vec<MountNamespace> {
        let stat = rustix::fs::stat(&self.root).unwrap();
        let inode = InodeId { dev: stat.st_dev, ino: stat.st_ino };
        mount_namespaces(Path::new("/proc"), inode).unwrap()
    }

    /// The one namespace of the container, once its process sleeps.
    fn namespace(&self, container: &mut Container) -> MountNamespace {
        let mut found = Vec::new();
        wait_for("the container", || {
            found = self.namespaces();
            found.first().is_some_and(|one| is_asleep(one.pid))
        });
        assert_eq!(found.len(), 1, "{found:#?}");
        container.pids.push(found[0].pid);
        found.remove(0)
    }

    /// What a process of the container sees at a path.
    fn seen(&self, pid: u32, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{pid}/root{path}"))
    }

    fn sees_the_store(&self, pid: u32) -> bool {
        let seen = fs::metadata(self.seen(pid, &format!("/cbin/{}", self.ground.name)));
        let own = fs::metadata(self.store.join(&self.ground.name)).unwrap();
        seen.is_ok_and(|seen| (seen.dev(), seen.ino()) == (own.dev(), own.ino()))
    }
}

fn target() -> ContainerPath {
    ContainerPath("/cbin".into())
}

fn spawned(command: &mut Command) -> Container {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    Container { runtime: Some(Running(child)), stop: Vec::new(), pids: Vec::new() }
}

fn nspawn(world: &World) -> Container {
    let mut command = Command::new("systemd-nspawn");
    command.args(["-q", "--register=no", "--keep-unit", "-M", &world.ground.name, "-D"]);
    spawned(command.arg(&world.root).args([&world.program(), "sleep", "1000"]))
}

fn runc(world: &World) -> Container {
    let bundle = world.ground.at("bundle");
    done(Command::new("runc").arg("spec").current_dir(&bundle));
    let config = bundle.join("config.json");
    let mut spec: serde_json::Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    spec["process"]["terminal"] = false.into();
    spec["process"]["args"] = serde_json::json!([world.program(), "sleep", "1000"]);
    fs::write(&config, spec.to_string()).unwrap();
    let state = world.ground.at("state");
    let runc = || {
        let mut command = Command::new("runc");
        command.arg("--root").arg(&state);
        command
    };
    let mut run = runc();
    let mut container = spawned(run.arg("run").arg("-b").arg(&bundle).arg(&world.ground.name));
    let mut delete = runc();
    delete.args(["delete", "-f", &world.ground.name]);
    container.stop.push(delete);
    container
}

fn lxc(world: &World) -> Container {
    let name = &world.ground.name;
    let config = world.ground.dir(&format!("lxc/{name}")).join("config");
    let settings = format!(
        "lxc.rootfs.path = dir:{}\nlxc.net.0.type = empty\nlxc.apparmor.profile = unconfined\n\
         lxc.uts.name = test\nlxc.init.cmd = {} sleep 1000\n",
        world.root.display(),
        world.program()
    );
    fs::write(&config, settings).unwrap();
    let lxc = |program: &str| {
        let mut command = Command::new(program);
        command.arg("-P").arg(world.ground.at("lxc")).args(["-n", name]);
        command
    };
    done(lxc("lxc-start").stdin(Stdio::null()));
    let mut stop = lxc("lxc-stop");
    stop.arg("-k");
    Container { runtime: None, stop: vec![stop], pids: Vec::new() }
}

fn unshared(world: &World) -> Container {
    let mut command = Command::new("unshare");
    command.args(["-m", "chroot"]).arg(&world.root);
    spawned(command.args([&world.program(), "sleep", "1000"]))
}

/// It is there at once for the container alone, read-only, and runs; and it goes again.
fn attached_and_detached(run: fn(&World) -> Container) {
    let world = World::new();
    let mut container = run(&world);
    let namespace = world.namespace(&mut container);
    let (pid, source) = (namespace.pid, world.source());
    assert!(!namespace.own);

    assert!(live::attach_in(&namespace, &source, &target()).is_err(), "no mount point yet");
    assert_eq!(world.make_point().unwrap(), Attached::Now);
    assert_eq!(world.make_point().unwrap(), Attached::Already);
    assert_eq!(live::look_in(&namespace, &source, &target()).unwrap(), Mounted::Not);
    assert_eq!(live::attach_in(&namespace, &source, &target()).unwrap(), Attached::Now);
    assert_eq!(live::attach_in(&namespace, &source, &target()).unwrap(), Attached::Already);

    assert!(world.sees_the_store(pid));
    let refused = fs::write(world.seen(pid, "/cbin/new"), "x").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    assert_eq!(fs::read_dir(world.root.join("cbin")).unwrap().count(), 0, "the host sees it");
    let mut inside = Command::new("nsenter");
    inside.args(["-m", "-r", "-w", "-t", &pid.to_string(), "--"]);
    let inside = inside.args([&format!("/cbin/{}", world.ground.name), "echo", "ok"]).output();
    assert_eq!(String::from_utf8_lossy(&inside.unwrap().stdout), "ok\n");

    assert_eq!(live::detach_in(&namespace, &source, &target()).unwrap(), Mounted::Here);
    assert_eq!(live::detach_in(&namespace, &source, &target()).unwrap(), Mounted::Not);
    assert!(!world.sees_the_store(pid));
    assert!(is_asleep(pid), "the container goes on");
}

/// A chroot has no mount namespace of its own: what it sees is mounted on the host.
fn chroot() {
    let world = World::new();
    let mut command = Command::new("chroot");
    command.arg(&world.root).args([&world.program(), "sleep", "1000"]);
    let mut container = spawned(&mut command);
    let namespace = world.namespace(&mut container);
    let (root, source) = (world.root_dir(), world.source());
    assert!(namespace.own);
    world.make_point().unwrap();
    world.ground.mounted(&world.root.join("cbin"));

    assert_eq!(live::attach_on_host(&root, &source, &target()).unwrap(), Attached::Now);
    assert_eq!(live::attach_on_host(&root, &source, &target()).unwrap(), Attached::Already);
    assert_eq!(live::look_in(&namespace, &source, &target()).unwrap(), Mounted::Here);
    assert!(world.sees_the_store(namespace.pid));
    assert!(fs::write(world.root.join("cbin/new"), "x").is_err());
    // What is mounted on the store later is not seen through it.
    world.ground.mount("store/late", &["-t", "tmpfs", "late"]);
    fs::write(world.store.join("late/file"), "").unwrap();
    assert!(!world.root.join("cbin/late/file").exists());
    world.ground.unmount(&world.store.join("late"));

    assert_eq!(live::detach_on_host(&root, &source, &target()).unwrap(), Mounted::Here);
    assert_eq!(live::look_in(&namespace, &source, &target()).unwrap(), Mounted::Not);
    // Through the namespace it is the same.
    assert_eq!(live::attach_in(&namespace, &source, &target()).unwrap(), Attached::Now);
    assert_eq!(live::detach_on_host(&root, &source, &target()).unwrap(), Mounted::Here);
}

/// A subvolume has a device number of its own, which no mount table has: what is in it is seen
/// all the same.
fn subvolume() {
    let world = World::new();
    let image = world.ground.at("disk");
    fs::File::create(&image).unwrap().set_len(128 << 20).unwrap();
    done(Command::new("mkfs.btrfs").arg("-q").arg(&image));
    let disk = world.ground.mount("disks", &["-o", "loop", image.to_str().unwrap()]);
    let store = disk.join("store");
    done(Command::new("btrfs").args(["-q", "subvolume", "create"]).arg(&store));
    world.ground.program_in(&store);
    let mut container = unshared(&world);
    let namespace = world.namespace(&mut container);
    world.make_point().unwrap();
    let source = Source::open(&HostPath::from(store.as_path())).unwrap();
    assert_eq!(live::attach_in(&namespace, &source, &target()).unwrap(), Attached::Now);
    let view = View::of(namespace.pid).unwrap();
    let own = fs::metadata(store.join(&world.ground.name)).unwrap();
    let object = ContainerPath(Path::new("/cbin").join(&world.ground.name));
    let seen = view.at(&object).unwrap();
    assert_eq!((seen.dev, seen.ino), (own.dev(), own.ino()));
    assert_eq!(live::detach_in(&namespace, &source, &target()).unwrap(), Mounted::Here);
}

fn two_namespaces() {
    let world = World::new();
    let containers = [unshared(&world), unshared(&world)];
    wait_for("both containers", || {
        let found = world.namespaces();
        found.len() == 2 && found.iter().all(|one| is_asleep(one.pid))
    });
    drop(containers);
    wait_for("both to end", || world.namespaces().is_empty());
}

/// The container's owner lays a link where the mount would go: nothing outside is touched.
fn link() {
    let world = World::new();
    let outside = world.ground.dir("outside");
    symlink(&outside, world.root.join("cbin")).unwrap();
    let mut container = unshared(&world);
    let namespace = world.namespace(&mut container);
    assert!(world.make_point().is_err());
    assert!(live::attach_in(&namespace, &world.source(), &target()).is_err());
    let on_host = live::attach_on_host(&world.root_dir(), &world.source(), &target());
    assert!(on_host.is_err());
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    // The same above the last component.
    let deep = ContainerPath("/cbin/deep".into());
    assert!(live::make_mount_point(&world.root_dir(), &deep).is_err());
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

fn another_mount() {
    let world = World::new();
    world.make_point().unwrap();
    let point = world.ground.mount("bundle/rootfs/cbin", &["-t", "tmpfs", "theirs"]);
    let (root, source) = (world.root_dir(), world.source());
    let occupied = live::attach_on_host(&root, &source, &target());
    assert!(matches!(occupied, Err(MountError::Occupied { .. })), "{occupied:?}");
    let occupied = live::detach_on_host(&root, &source, &target());
    assert!(matches!(occupied, Err(MountError::Occupied { .. })), "{occupied:?}");
    world.ground.unmount(&point);
    // The store itself, but writable.
    world.ground.mount("bundle/rootfs/cbin", &["--bind", world.store.to_str().unwrap()]);
    let writable = live::attach_on_host(&root, &source, &target());
    assert!(matches!(writable, Err(MountError::Writable { .. })), "{writable:?}");
}

/// Between looking and attaching the container ends: its root has nothing of it.
fn stops() {
    let world = World::new();
    let mut container = unshared(&world);
    let namespace = world.namespace(&mut container);
    world.make_point().unwrap();
    drop(container);
    wait_for("the container to end", || world.namespaces().is_empty());
    let _attached_to_nobody = live::attach_in(&namespace, &world.source(), &target());
    drop(namespace);
    assert_eq!(fs::read_dir(world.root.join("cbin")).unwrap().count(), 0);
    fs::remove_dir(world.root.join("cbin")).unwrap();
}

/// Runs a command in the user and mount namespaces of a process, as their root.
fn as_container_root(pid: u32, command: &[&str]) -> bool {
    let mut nsenter = Command::new("nsenter");
    nsenter.args(["-U", "-m", "-S", "0", "-G", "0", "-t", &pid.to_string(), "--"]).args(command);
    nsenter.stdin(Stdio::null()).output().unwrap().status.success()
}

/// Its root may undo what makes the mount read-only, and still owns nothing in it. The
/// same tries do write for a container of the host's own user namespace.
fn user_namespace() {
    let world = World::new();
    world.make_point().unwrap();
    let point = world.root.join("cbin");
    let (point, new) = (point.to_str().unwrap(), world.store.join("new"));
    let tries = |pid: u32| {
        let _may_fail = as_container_root(pid, &["mount", "-o", "remount,bind,rw", point]);
        as_container_root(pid, &["sh", "-c", &format!("echo x > {point}/new")])
    };

    let mut command = Command::new("setpriv");
    command.args(["--reuid", "100000", "--regid", "100000", "--clear-groups"]);
    command.args(["unshare", "-U", "-r", "-m", "chroot"]).arg(&world.root);
    let mut container = spawned(command.args([&world.program(), "sleep", "1000"]));
    let namespace = world.namespace(&mut container);
    assert!(!namespace.maps_root);
    assert_eq!(live::attach_in(&namespace, &world.source(), &target()).unwrap(), Attached::Now);
    assert!(world.sees_the_store(namespace.pid));
    assert!(!tries(namespace.pid));
    assert!(!new.exists());
    drop(container);
    wait_for("the container to end", || world.namespaces().is_empty());

    let mut container = unshared(&world);
    let namespace = world.namespace(&mut container);
    assert_eq!(live::attach_in(&namespace, &world.source(), &target()).unwrap(), Attached::Now);
    let pid = namespace.pid.to_string();
    let nsenter = |command: &[&str]| {
        done(Command::new("nsenter").args(["-m", "-t", &pid, "--"]).args(command));
    };
    nsenter(&["mount", "-o", "remount,bind,rw", point]);
    nsenter(&["sh", "-c", &format!("echo x > {point}/new")]);
    assert!(new.exists(), "a privileged container can: that is why the two are told apart");
}

fn maps_root() {
    let world = World::new();
    world.make_point().unwrap();
    let mut command = Command::new("unshare");
    command.args(["-U", "-r", "-m", "chroot"]).arg(&world.root);
    let mut container = spawned(command.args([&world.program(), "sleep", "1000"]));
    let namespace = world.namespace(&mut container);
    assert!(namespace.maps_root);
    let refused = live::attach_in(&namespace, &world.source(), &target());
    assert!(matches!(refused, Err(MountError::MapsRoot { .. })), "{refused:?}");
    assert!(!world.sees_the_store(namespace.pid));
}
