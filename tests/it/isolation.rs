//! Whether a container's root can write what it is shown read-only: tried for real, inside real
//! containers, and held against what the library says of them.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cbin_audit::model::{
    ContainerPath, Escape, HostPath, InodeId, Isolation, MountFlags, TrustDomain,
};
use cbin_audit::scan::isolation::{IsolationOptions, isolations};

use crate::memory_ground::{Ground, Running, done};
use crate::packages::testdata;
use crate::suite::{Need, Suite};

pub fn tests(suite: &mut Suite) {
    let mut test = |name: &str, programs: &[&'static str], run: fn()| {
        let mut needs = vec![Need::Root, Need::Program("gcc")];
        needs.extend(programs.iter().map(|program| Need::Program(program)));
        suite.test(&format!("privileged_isolation_{name}"), &needs, run);
    };
    test("root_of_the_host_writes_a_directory", &["systemd-nspawn"], host_root);
    test("root_of_a_namespace_does_not", &["systemd-nspawn"], namespace_root);
    test("without_capabilities_it_does_not", &["runc"], without_capabilities);
    test("one_capability_is_enough", &["runc"], one_capability);
    test("nobody_writes_an_image", &["systemd-nspawn", "mkfs.erofs"], image);
    test("a_chroot_alone_is_the_host", &["chroot"], chroot_alone);
}

/// A root with the program that tries, and a store with an object.
struct World {
    ground: Ground,
    root: PathBuf,
    store: PathBuf,
}

impl World {
    fn new() -> Self {
        let ground = Ground::new();
        for dir in ["bin", "cbin", "dev", "etc", "proc", "run", "sys", "tmp", "usr", "var"] {
            ground.dir(&format!("bundle/rootfs/{dir}"));
        }
        let root = ground.at("bundle/rootfs");
        let mut gcc = Command::new("gcc");
        gcc.args(["-static", "-O1", "-o"]).arg(root.join("bin/try"));
        done(gcc.arg(testdata().join("write-read-only.c")));
        let store = ground.dir("store");
        fs::write(store.join("object"), "as it was").unwrap();
        Self { ground, root, store }
    }

    /// What the container's root brought about in a plain directory.
    fn harm(&self) -> Vec<String> {
        let names = fs::read_dir(&self.store).unwrap().map(|entry| entry.unwrap().file_name());
        let names = names.map(|name| name.into_string().unwrap());
        let mut harm: Vec<String> = names.filter(|name| name != "object").collect();
        if fs::read(self.store.join("object")).unwrap() != b"as it was" {
            harm.push("object".to_owned());
        }
        harm.sort();
        harm
    }

    fn nspawn(&self, store: &Path, options: &[&str]) -> Tried {
        let mut command = Command::new("systemd-nspawn");
        command.args(["-q", "--register=no", "--keep-unit", "-D"]).arg(&self.root).args(options);
        command.arg(format!("--bind-ro={}:/cbin", store.display()));
        self.tried(command.args(["/bin/try", "/cbin", "/cbin/object"]))
    }

    fn runc(&self, capabilities: &[&str]) -> Tried {
        let bundle = self.ground.at("bundle");
        done(Command::new("runc").arg("spec").current_dir(&bundle));
        let config = bundle.join("config.json");
        let mut spec: serde_json::Value =
            serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
        spec["process"]["terminal"] = false.into();
        spec["process"]["noNewPrivileges"] = false.into();
        spec["process"]["args"] = serde_json::json!(["/bin/try", "/cbin", "/cbin/object"]);
        spec["root"]["readonly"] = false.into();
        for set in ["bounding", "effective", "permitted"] {
            spec["process"]["capabilities"][set] = capabilities.into();
        }
        spec["mounts"].as_array_mut().unwrap().push(serde_json::json!({
            "destination": "/cbin", "type": "bind", "source": self.store, "options": ["rbind", "ro"]
        }));
        fs::write(&config, spec.to_string()).unwrap();
        let mut command = Command::new("runc");
        command.arg("--root").arg(self.ground.at("state")).args(["run", "-b"]).arg(&bundle);
        self.tried(command.arg(&self.ground.name))
    }

    /// Runs what tries, waits until it has, and looks at the container meanwhile.
    fn tried(&self, command: &mut Command) -> Tried {
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut running = Running(child.unwrap());
        let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines();
        let told = lines.by_ref().map(Result::unwrap).take_while(|line| line != "done").collect();
        let isolation = self.isolation();
        for &pid in &isolation.pids {
            // What a runtime started outlives the runtime.
            let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
            let _ended = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        let _ended = running.0.wait();
        Tried { told, isolation }
    }

    fn isolation(&self) -> Isolation {
        let found = isolations(&self.options()).unwrap().containers;
        let mut mine =
            found.into_iter().filter(|it| it.root == Some(HostPath::from(self.root.as_path())));
        mine.next().expect("the container is found")
    }

    fn options(&self) -> IsolationOptions {
        let stat = fs::metadata(&self.root).unwrap();
        let inode = InodeId { dev: stat.dev(), ino: stat.ino() };
        IsolationOptions {
            proc_root: "/proc".into(),
            roots: vec![(inode, HostPath::from(self.root.as_path()))],
            mount_point: ContainerPath("/cbin".into()),
        }
    }
}

struct Tried {
    told: Vec<String>,
    isolation: Isolation,
}

impl Tried {
    /// The ways that led to a write.
    fn written(&self) -> Vec<&str> {
        assert_eq!(self.told.len(), 6, "{:?}", self.told);
        let written = |line: &'_ &String| line.trim_end().ends_with(" written");
        self.told.iter().filter(written).map(|line| line.split(' ').next().unwrap()).collect()
    }
}

/// The negative control: a read-only mount of a plain directory holds nobody who is root
/// of the host.
fn host_root() {
    let world = World::new();
    let tried = world.nspawn(&world.store, &[]);
    for way in ["open_tree", "mount_setattr", "remount"] {
        assert!(tried.written().contains(&way), "{:?}", tried.told);
        assert!(world.harm().contains(&way.to_owned()), "{:?}", world.harm());
    }
    let isolation = tried.isolation;
    assert!(isolation.escapes().contains(&Escape::Remount), "{isolation:#?}");
    assert_eq!(isolation.domain(), TrustDomain::Host);
    assert!(isolation.store.is_some(), "{isolation:#?}");
}

fn namespace_root() {
    let world = World::new();
    let options = ["--private-users=655360:65536", "--private-users-ownership=chown"];
    let tried = world.nspawn(&world.store, &options);
    assert_eq!(tried.written(), [""; 0], "{:?}", tried.told);
    assert_eq!(world.harm(), [""; 0]);
    let isolation = tried.isolation;
    assert!(!isolation.is_privileged(), "{isolation:#?}");
    assert_eq!(isolation.domain().to_string(), "users:655360+65536");
    let flags = isolation.store.unwrap().flags;
    assert!(flags.read_only && !flags.noexec, "{flags:?}");
}

fn without_capabilities() {
    let world = World::new();
    let tried = world.runc(&["CAP_KILL", "CAP_MKNOD", "CAP_DAC_OVERRIDE"]);
    assert_eq!(tried.written(), [""; 0], "{:?}", tried.told);
    assert_eq!(world.harm(), [""; 0]);
    assert!(!tried.isolation.is_privileged(), "{:#?}", tried.isolation);
    assert_eq!(tried.isolation.domain(), TrustDomain::Host);
    assert!(!tried.isolation.host_mounts && !tried.isolation.host_processes);
}

/// CAP_DAC_READ_SEARCH writes the object itself: opened by handle, through the mount of
/// the container's own root, which lies on the same file system.
fn one_capability() {
    let world = World::new();
    let tried = world.runc(&["CAP_DAC_READ_SEARCH", "CAP_DAC_OVERRIDE"]);
    assert_eq!(tried.written(), ["handle"], "{:?}", tried.told);
    assert_eq!(world.harm(), ["object"]);
    assert_eq!(tried.isolation.escapes(), [Escape::OpenByHandle]);
}

fn image() {
    let world = World::new();
    let image = world.ground.at("image");
    done(Command::new("mkfs.erofs").arg(&image).arg(&world.store).stdout(Stdio::null()));
    let before = fs::read(&image).unwrap();
    let mounted =
        world.ground.mount("mounted", &["-t", "erofs", "-o", "loop,ro", image.to_str().unwrap()]);
    let tried = world.nspawn(&mounted, &[]);
    assert_eq!(tried.written(), [""; 0], "{:?}", tried.told);
    // The mount's own flag was no obstacle: what cannot be written is the file system.
    assert!(tried.told.iter().any(|line| line == "remount unwritable EROFS"), "{:?}", tried.told);
    assert!(before == fs::read(&image).unwrap());
    assert!(tried.isolation.is_privileged());
    assert_eq!(tried.isolation.store.unwrap().fs_type, "erofs");
}

fn chroot_alone() {
    let world = World::new();
    done(Command::new("mount").arg("--bind").arg(&world.store).arg(world.root.join("cbin")));
    world.ground.mounted(&world.root.join("cbin"));
    let mut command = Command::new("chroot");
    let command = command.arg(&world.root).args(["/bin/try", "/cbin", "/cbin/object"]);
    let tried = world.tried(command);
    assert!(tried.written().contains(&"plainly"), "{:?}", tried.told);
    let isolation = tried.isolation;
    assert!(isolation.host_mounts && isolation.host_processes, "{isolation:#?}");
    assert!(isolation.escapes().contains(&Escape::LeaveChroot), "{isolation:#?}");
    assert_eq!(isolation.store.unwrap().flags, MountFlags::default());
}
