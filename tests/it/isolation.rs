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
use cbin_audit::scan::HostPlaces;
use cbin_audit::scan::isolation::{IsolationOptions, isolations};

use serde_json::Value;

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
    test("a_mount_of_the_stores_directory_is_enough", &["runc"], given_directory);
    test("a_stack_on_the_stores_directory_is_enough", &["runc"], given_stack);
    test("an_entry_of_lxc_is_enough", &["lxc-start"], given_by_lxc);
    test("a_mapped_mount_is_enough_in_a_namespace", &["systemd-nspawn"], given_mapped);
    test("a_disk_is_enough", &["runc", "mkfs.ext4"], given_disk);
    test("a_chroot_in_a_mount_namespace_can_be_left", &["unshare"], chroot_in_namespace);
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
        self.runc_with(capabilities, |_| ())
    }

    fn runc_with(&self, capabilities: &[&str], more: impl FnOnce(&mut Value)) -> Tried {
        let bundle = self.ground.at("bundle");
        let config = bundle.join("config.json");
        let _of_the_last_time = fs::remove_file(&config);
        done(Command::new("runc").arg("spec").current_dir(&bundle));
        let mut spec: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
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
        more(&mut spec);
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
            guarded: HostPlaces::find([self.store.as_path()]),
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
        assert!(self.told.len() >= 6, "{:?}", self.told);
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
    let exposure = tried.isolation.exposure;
    assert!(!exposure.host_mounts && !exposure.host_processes && !exposure.above_root);
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

/// No capability is needed where the store's directory is mounted once more, or one above it.
fn given_directory() {
    for below in ["", "store"] {
        let world = World::new();
        let source = world.ground.at(below);
        let object = if below.is_empty() { "/tmp/store/object" } else { "/tmp/object" };
        let tried = world.runc_with(&[], |spec| {
            spec["process"]["args"][2] = object.into();
            spec["mounts"].as_array_mut().unwrap().push(serde_json::json!({
                "destination": "/tmp", "type": "bind", "source": source, "options": ["rbind"]
            }));
        });
        assert_eq!(tried.written(), ["plainly"], "{:?}", tried.told);
        assert_eq!(world.harm(), ["object"]);
        assert_eq!(tried.isolation.escapes(), [Escape::HostFiles], "{:#?}", tried.isolation);
        assert_eq!(tried.isolation.exposure.host_files, Some(ContainerPath("/tmp".into())));
    }
}

/// What is written to an overlay is written to the directory below it.
fn given_stack() {
    let world = World::new();
    let (lower, work) = (world.ground.dir("lower"), world.ground.dir("work"));
    let options = [("lowerdir", &lower), ("upperdir", &world.store), ("workdir", &work)];
    let options = options.map(|(key, path)| format!("{key}={}", path.display()));
    let tried = world.runc_with(&[], |spec| {
        spec["process"]["args"][2] = "/tmp/object".into();
        spec["mounts"].as_array_mut().unwrap().push(serde_json::json!({
            "destination": "/tmp", "type": "overlay", "source": "overlay", "options": options
        }));
    });
    assert_eq!(tried.written(), ["plainly"], "{:?}", tried.told);
    assert_eq!(world.harm(), ["object"]);
    assert_eq!(tried.isolation.escapes(), [Escape::HostFiles], "{:#?}", tried.isolation);
}

/// LXC mounts the store for writing: by an entry of its configuration, or by its file of mounts.
fn given_by_lxc() {
    for by_file in [false, true] {
        let world = World::new();
        let config = world.ground.dir(&format!("lxc/{}", world.ground.name)).join("config");
        let entry = format!("{} cbin none bind,rw 0 0", world.store.display());
        let fstab = world.ground.at("fstab");
        fs::write(&fstab, format!("{entry}\n")).unwrap();
        let mount = match by_file {
            true => format!("lxc.mount.fstab = {}", fstab.display()),
            false => format!("lxc.mount.entry = {entry}"),
        };
        let settings = format!(
            "lxc.rootfs.path = dir:{}\nlxc.net.0.type = empty\nlxc.apparmor.profile = unconfined\n\
             lxc.uts.name = test\nlxc.console.path = none\n{mount}\n\
             lxc.cap.drop = sys_admin dac_read_search sys_module sys_rawio mknod sys_ptrace\n\
             lxc.init.cmd = /bin/try /cbin /cbin/object\n",
            world.root.display()
        );
        fs::write(&config, settings).unwrap();
        let mut command = Command::new("lxc-start");
        command.arg("-P").arg(world.ground.at("lxc")).args(["-F", "-n", &world.ground.name]);
        let tried = world.tried(&mut command);
        assert!(tried.written().contains(&"plainly"), "{:?}", tried.told);
        assert!(world.harm().contains(&"object".to_owned()), "{:?}", world.harm());
        let isolation = tried.isolation;
        assert!(isolation.escapes().contains(&Escape::HostFiles), "{isolation:#?}");
        assert_eq!(isolation.exposure.host_files, Some(ContainerPath("/cbin".into())));
    }
}

/// The host's user 0 is the container's where a mount says so, and there alone.
fn given_mapped() {
    for (option, expected) in [("idmap", true), ("noidmap", false)] {
        let world = World::new();
        let mut command = Command::new("systemd-nspawn");
        command.args(["-q", "--register=no", "--keep-unit", "-D"]).arg(&world.root);
        command.args(["--private-users=655360:65536", "--private-users-ownership=chown"]);
        command.arg(format!("--bind={}:/cbin:{option}", world.store.display()));
        let tried = world.tried(command.args(["/bin/try", "/cbin", "/cbin/object"]));
        assert_eq!(tried.written().contains(&"plainly"), expected, "{:?}", tried.told);
        let isolation = tried.isolation;
        assert_eq!(isolation.escapes() == [Escape::HostFiles], expected, "{isolation:#?}");
    }
}

/// A disk of its own file system, which no other test has: opened for writing by its number.
fn given_disk() {
    let world = World::new();
    let image = world.ground.at("disk");
    fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
    done(Command::new("mkfs.ext4").arg("-q").arg(&image));
    let disk = world.ground.mount("store", &["-o", "loop", image.to_str().unwrap()]);
    fs::write(disk.join("object"), "as it was").unwrap();
    let number = fs::metadata(&disk).unwrap().dev();
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    let given = |rule: Value, capabilities: &[&str]| {
        let tried = world.runc_with(capabilities, |spec| {
            let more = ["disk".to_owned(), major.to_string(), minor.to_string()];
            let arguments = spec["process"]["args"].as_array_mut().unwrap();
            arguments.extend(more.map(Value::from));
            spec["linux"]["resources"]["devices"] = serde_json::json!([
                {"allow": false, "access": "rwm"}, rule
            ]);
        });
        let opened = tried.told.iter().any(|line| line.starts_with("disk written"));
        (opened, tried.isolation.escapes())
    };
    let rule = |access: &str| serde_json::json!({"allow": true, "type": "b", "major": major, "access": access});
    assert_eq!(given(rule("rwm"), &["CAP_MKNOD"]), (true, vec![Escape::Disk]));
    assert_eq!(given(rule("rm"), &["CAP_MKNOD"]), (false, vec![]));
    let all = serde_json::json!({"allow": true, "access": "rwm"});
    assert_eq!(given(all.clone(), &["CAP_MKNOD"]), (true, vec![Escape::Disk]));
    assert_eq!(given(all, &["CAP_KILL"]), (false, vec![]));
}

/// chroot(2) by itself leaves the rest of the mount namespace where it was.
fn chroot_in_namespace() {
    const CAP_KILL: &str = "5";
    const CAP_SYS_CHROOT: &str = "18";
    for (kept, expected) in [(CAP_SYS_CHROOT, true), (CAP_KILL, false)] {
        let world = World::new();
        let left = world.store.join("left").display().to_string();
        let mut command = Command::new("unshare");
        command.args(["-m", "-p", "-f", "--kill-child", "chroot"]).arg(&world.root);
        command.args(["/bin/try", "/cbin", "/cbin/object", "keep", kept, "leave", &left]);
        let tried = world.tried(&mut command);
        assert_eq!(world.harm().contains(&"left".to_owned()), expected, "{:?}", tried.told);
        let isolation = tried.isolation;
        assert_eq!(isolation.escapes() == [Escape::LeaveChroot], expected, "{isolation:#?}");
    }
}

fn image() {
    const MAPPED: [&str; 2] = ["--private-users=655360:65536", "--private-users-ownership=chown"];
    for options in [&[][..], &MAPPED] {
        let world = World::new();
        let image = world.ground.at("image");
        done(Command::new("mkfs.erofs").arg(&image).arg(&world.store).stdout(Stdio::null()));
        let before = fs::read(&image).unwrap();
        let mount = ["-t", "erofs", "-o", "loop,ro", image.to_str().unwrap()];
        let mounted = world.ground.mount("mounted", &mount);
        let tried = world.nspawn(&mounted, options);
        assert_eq!(tried.written(), [""; 0], "{:?}", tried.told);
        assert!(before == fs::read(&image).unwrap());
        // The mount's own flag is no obstacle for the host's root: what cannot be written is the
        // file system.
        let remounted = tried.told.iter().any(|line| line == "remount unwritable EROFS");
        assert_eq!(remounted, options.is_empty(), "{:?}", tried.told);
        assert_eq!(tried.isolation.is_privileged(), options.is_empty());
        assert_eq!(tried.isolation.store.unwrap().fs_type, "erofs");
    }
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
    let exposure = &isolation.exposure;
    assert!(exposure.host_mounts && exposure.host_processes, "{isolation:#?}");
    assert!(isolation.escapes().contains(&Escape::LeaveChroot), "{isolation:#?}");
    assert_eq!(isolation.store.unwrap().flags, MountFlags::default());
}
