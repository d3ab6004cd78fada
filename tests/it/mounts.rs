//! Each means that can be asked for, on paths that its own reader takes for something else
//! unless they are escaped: the container starts with the store, read-only, and without it again.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::booted::{self, Host};
use crate::memory_ground::wait_for;
use crate::packages;
use crate::suite::{Need, Suite};

pub fn tests(suite: &mut Suite) {
    let mut test = |name: &str, programs: &[Need], run: fn()| {
        let mut needs = vec![Need::Package("busybox-static")];
        needs.extend(booted::NEEDS.iter().chain(programs));
        suite.test(&format!("privileged_mounts_{name}"), &needs, run);
    };
    test("nspawn", &[], nspawn);
    test("unit_command_line", &[], command_line);
    test("unit_root_directory", &[], root_directory);
    test("lxc", &[Need::Program("lxc-start")], lxc);
    test("lxc_with_the_store_for_writing", &[Need::Program("lxc-start")], lxc_given_the_store);
    test("oci", &[Need::Program("runc")], oci);
    test("host", &[], host);
    test("host_again", &[], host_again);
    let image = [Need::Program("mkfs.erofs"), Need::File("/dev/loop-control")];
    test("of_an_image_are_back_after_a_boot", &image, image_after_boot);
}

/// Where the roots are, and the store: with all that some reader has a meaning for.
const WEIRD: &str = r"/home/a:b\c%n d";
const STORE: &str = r"/home/st:o\040re%n d";

/// What each container runs. No shell starts unless the store is there.
const TRY: &str = "set -- /cbin/busybox-*\ntouch /cbin/written 2>/dev/null && echo writable\n\
    echo \"$1\" >/result\n";

/// What a container tells that sees no store.
const ABSENT: &str = "/cbin/busybox-*\n";

/// A host with two roots, whose containers run [`TRY`] and end.
struct World {
    host: Host,
    home: tempfile::TempDir,
    roots: [String; 2],
}

impl World {
    fn lay(dir: &str, below: &str, kept: bool) -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let roots = ["one", "two"].map(|name| format!("{dir}/{name}{below}"));
        for root in &roots {
            lay_root(&home.path().join(root.strip_prefix("/home/").unwrap()));
        }
        let binary = Path::new(env!("CARGO_BIN_EXE_cbin-audit"));
        let binds = [(home.path(), "/home"), (binary, "/usr/local/bin/cbin-audit")];
        let host = if kept { Host::boot_on_a_disk(&binds) } else { Host::boot(&binds) };
        Self { host, home, roots }
    }

    fn on_disk(&self, path: &str) -> PathBuf {
        self.home.path().join(path.strip_prefix("/home/").unwrap())
    }

    fn unit(&self, text: &str) {
        self.host.write("/etc/systemd/system/try@.service", text);
        self.host.run("systemctl", &["daemon-reload"]);
    }

    /// Shares their programs by a means: the plan that was carried out.
    fn dedupe(&self, options: &[&str]) -> Value {
        let mut all = vec!["dedupe", "--apply", "--json"];
        all.extend(options.iter().copied().chain(self.roots.iter().map(String::as_str)));
        let applied: Value = serde_json::from_str(&self.host.run("cbin-audit", &all)).unwrap();
        assert_eq!(
            (&applied["state"], &applied["skips"]),
            (&"applied".into(), &Value::from([(); 0]))
        );
        applied
    }

    /// What each container found, once all have run.
    fn tried(&self, run: impl Fn(&str, &str)) -> [String; 2] {
        let results = self.roots.each_ref().map(|root| self.on_disk(root).join("result"));
        results.iter().for_each(|result| drop(fs::remove_file(result)));
        for (name, root) in ["one", "two"].iter().zip(&self.roots) {
            run(name, root);
        }
        wait_for("the containers", || results.iter().all(|result| result.exists()));
        results.map(|result| fs::read_to_string(result).unwrap())
    }

    /// Shared, tried, put back, and tried again.
    fn by(&self, means: &str, run: impl Fn(&str, &str)) {
        assert_eq!(self.tried(&run), [ABSENT; 2]);
        let etc = self.configured();
        let applied = self.dedupe(&["--mounts", means, "--store", STORE]);
        assert_ne!(self.configured(), etc, "{applied:#}");
        self.assert_shared(&run);
        self.host.run("cbin-audit", &["undo"]);
        assert_eq!(self.configured(), etc);
        assert_eq!(self.tried(&run), [ABSENT; 2]);
    }

    fn assert_shared(&self, run: impl Fn(&str, &str)) {
        for found in self.tried(run) {
            assert!(
                found.starts_with("/cbin/busybox-x") || found.starts_with("/cbin/busybox-a"),
                "{found}"
            );
        }
        let store = self.on_disk(STORE);
        assert!(!store.join("written").exists());
    }

    /// Every file that says how containers are run.
    fn configured(&self) -> String {
        let dirs = ["/etc/systemd", "/var/lib/lxc", "/home"];
        let find = ["-type", "f", "(", "-name", "*.nspawn", "-o", "-name", "*.conf", "-o", "-name"];
        let rest = ["*.service", "-o", "-name", "*.mount", "-o", "-name", "config*", ")"];
        // systemd-nspawn makes one in a root that has none.
        let rest = [&rest[..], &["!", "-name", "resolv.conf"]].concat();
        let exec = ["-exec", "sha256sum", "{}", "+"];
        self.host.run("find", &[&dirs[..], &find, &rest, &exec].concat())
    }

    fn start_unit(&self) -> impl Fn(&str, &str) {
        |name, _| {
            let unit = format!("try@{name}.service");
            self.host.run("systemctl", &["start", &unit]);
            // The paths that it waits for: no name of a unit has got into them.
            let needs = ["show", "--property=RequiresMountsFor", &unit];
            let needs = self.host.run("systemctl", &needs);
            assert!(!needs.contains("try@"), "{needs}");
        }
    }
}

fn lay_root(root: &Path) {
    for dir in ["bin", "dev", "etc", "proc", "run", "sys", "tmp", "usr", "var"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    let busybox = root.join("bin/busybox");
    fs::write(&busybox, fs::read(packages::busybox().unwrap()).unwrap()).unwrap();
    fs::set_permissions(&busybox, fs::Permissions::from_mode(0o755)).unwrap();
    for name in ["sh", "touch"] {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    fs::write(root.join("try"), TRY).unwrap();
}

/// The administrator's own escapes: a percent sign twice, and in quotes a backslash.
fn nspawn() {
    let world = World::lay(WEIRD, "", false);
    world.unit(
        "[Service]\nType=oneshot\n\
         ExecStart=/usr/bin/systemd-nspawn -q -D \"/home/a:b\\\\c%%n d/%i\" /bin/sh /try\n",
    );
    world.by("nspawn", world.start_unit());
}

fn command_line() {
    let world = World::lay(WEIRD, "", false);
    world.unit(
        "[Service]\nType=oneshot\nExecStart=/usr/bin/systemd-nspawn -q --bind-ro=/etc:/mnt \\\n  \
         -D \"/home/a:b\\\\c%%n d/%i\" /bin/sh /try\n",
    );
    world.by("unit", world.start_unit());
}

fn root_directory() {
    let world = World::lay(WEIRD, "", false);
    world.unit(
        "[Service]\nType=oneshot\nRootDirectory=/home/a:b\\c%%n d/%i\nExecStart=/bin/sh /try\n",
    );
    world.by("unit", world.start_unit());
}

fn lxc() {
    let world = World::lay(WEIRD, "", false);
    for (name, root) in ["one", "two"].iter().zip(&world.roots) {
        let dir = format!("/var/lib/lxc/{name}");
        fs::create_dir_all(world.host.path(&dir)).unwrap();
        let text = format!(
            "lxc.rootfs.path = dir:{root}\nlxc.uts.name = {name}\nlxc.net.0.type = empty\n\
             lxc.apparmor.profile = unconfined\nlxc.init.cmd = /bin/sh /try\n"
        );
        world.host.write(&format!("{dir}/config"), &text);
    }
    world.by("lxc", |name, _| drop(world.host.try_run("lxc-start", &["-F", "-n", name])));
}

/// A container of LXC is given the store for writing by its file of mounts, and nothing else: no
/// other may run from that store, plain or image, and it really writes it.
fn lxc_given_the_store() {
    let world = World::lay("/home", "", false);
    fs::create_dir(world.on_disk("/home/cbin")).unwrap();
    let configure = |name: &str, more: &str| {
        let dir = format!("/var/lib/lxc/{name}");
        fs::create_dir_all(world.host.path(&dir)).unwrap();
        let text = format!(
            "lxc.rootfs.path = dir:/home/{name}\nlxc.uts.name = {name}\nlxc.net.0.type = empty\n\
             lxc.apparmor.profile = unconfined\nlxc.init.cmd = /bin/sh /write\n{more}"
        );
        world.host.write(&format!("{dir}/config"), &text);
    };
    const DROP: &str = "lxc.cap.drop = sys_admin dac_read_search sys_module sys_rawio mknod\n";
    configure("one", &format!("{DROP}lxc.mount.fstab = /var/lib/lxc/one/fstab\n"));
    configure("two", "lxc.idmap = u 0 100000 65536\nlxc.idmap = g 0 100000 65536\n");
    let kept_apart = || {
        ["dir", "erofs"].map(|format| {
            let all = ["dedupe", "--json", "--store-format", format, "/home/one", "/home/two"];
            let plan: Value = serde_json::from_str(&world.host.run("cbin-audit", &all)).unwrap();
            let skips = plan["skips"].as_array().unwrap().iter();
            let apart = skips.filter(|skip| skip["reason"] == "trust-domain");
            apart.map(|it| it["explanation"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        })
    };
    world.host.write("/var/lib/lxc/one/fstab", "# nothing of the host's\n");
    assert_eq!(kept_apart(), [vec![""; 0], vec![""; 0]]);
    let fstab = "/home/cbin srv/store none bind,create=dir 0 0\n";
    world.host.write("/var/lib/lxc/one/fstab", fstab);
    for told in kept_apart() {
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("user 100000") && told[0].contains("can write"), "{told:?}");
    }
    let all = ["dedupe", "--json", "--trust-domain", "mine", "/home/one", "/home/two"];
    let declared = world.host.run("cbin-audit", &all);
    assert!(declared.contains("the store can be written in it"), "{declared}");
    fs::write(world.on_disk("/home/one/write"), "echo harm >/srv/store/harm\n").unwrap();
    drop(world.host.try_run("lxc-start", &["-F", "-n", "one"]));
    let harm = fs::read_to_string(world.on_disk("/home/cbin/harm"));
    assert_eq!(harm.unwrap(), "harm\n", "it does not write it: then it is kept apart for nothing");
}

fn oci() {
    let world = World::lay(WEIRD, "/rootfs", false);
    for root in &world.roots {
        let bundle = Path::new(root).parent().unwrap().to_str().unwrap();
        world.host.run("runc", &["spec", "-b", bundle]);
        let config = world.on_disk(bundle).join("config.json");
        let mut spec: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
        spec["process"]["terminal"] = false.into();
        spec["process"]["args"] = serde_json::json!(["/bin/sh", "/try"]);
        spec["root"]["readonly"] = false.into();
        fs::write(&config, spec.to_string()).unwrap();
    }
    world.by("oci", |name, root| {
        let bundle = Path::new(root).parent().unwrap().to_str().unwrap();
        world.host.run("runc", &["run", "-b", bundle, name]);
    });
}

/// systemd reads the unit as it was meant: what is mounted is taken away, and comes by it.
fn host() {
    let world = World::lay(WEIRD, "", false);
    world.by("host", |_, root| {
        let point = format!("{root}/cbin");
        if world.host.try_run("mountpoint", &["-q", &point]).is_ok() {
            world.host.run("umount", &[&point]);
            let unit = world.host.run("systemd-escape", &["--path", "--suffix=mount", &point]);
            world.host.run("systemctl", &["restart", unit.trim_end()]);
        }
        world.host.run("chroot", &[root, "/bin/sh", "/try"]);
    });
}

/// An upgrade puts a program back in a root that the host mounts the store in.
fn host_again() {
    let world = World::lay("/home", "", false);
    world.dedupe(&["--mounts", "host"]);
    let program = world.on_disk("/home/one/bin/busybox");
    let object = fs::read_link(&program).unwrap();
    let object = world.on_disk("/home/cbin").join(object.file_name().unwrap());
    let new = program.with_extension("dpkg-new");
    fs::copy(object, &new).unwrap();
    fs::rename(new, &program).unwrap();
    let applied = world.dedupe(&["--mounts", "host"]);
    assert_eq!(
        applied["steps"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|it| it["path"] == "bin/busybox")
            .count(),
        1
    );
    assert!(program.is_symlink());
    world.host.run("cbin-audit", &["undo"]);
    assert!(!program.is_symlink());
    // What the first run made is needed still, by the other root at the least.
    world.host.run("mountpoint", &["-q", "/home/two/cbin"]);
    // The upgrade's program is no longer what the first run made of it: that is kept, and told.
    let undone = world.host.try_run("cbin-audit", &["undo", "1"]).unwrap_err();
    assert!(
        undone.contains("/home/one/bin/busybox: it is no longer what the run made of it"),
        "{undone}"
    );
    assert!(world.host.try_run("mountpoint", &["-q", "/home/two/cbin"]).is_err());
}

/// The image, and what the host mounts of it, is there before the containers that the boot
/// starts, as long as one of them needs it.
fn image_after_boot() {
    let mut world = World::lay("/home", "", true);
    for (name, program) in
        [("one", "/usr/bin/systemd-nspawn -q -D /home/one"), ("two", "/usr/sbin/chroot /home/two")]
    {
        let text = format!("[Service]\nType=oneshot\nExecStart={program} /bin/sh /try\n");
        world.host.write(&format!("/etc/systemd/system/{name}.service"), &text);
    }
    let wants = world.host.path("/etc/systemd/system/test.target.wants");
    fs::create_dir(&wants).unwrap();
    for unit in ["one.service", "two.service"] {
        symlink(format!("/etc/systemd/system/{unit}"), wants.join(unit)).unwrap();
    }
    let etc = world.configured();
    world.dedupe(&["--store-format", "erofs"]);

    let boots = |world: &mut World| {
        let results = world.roots.each_ref().map(|root| world.on_disk(root).join("result"));
        results.iter().for_each(|result| drop(fs::remove_file(result)));
        world.host.reboot();
        results.map(|result| fs::read_to_string(result).unwrap())
    };
    for found in boots(&mut world) {
        assert!(found.starts_with("/cbin/busybox-"), "{found}");
    }
    let mounted = world.host.run("findmnt", &["-n", "-o", "FSTYPE,TARGET", "-t", "erofs"]);
    assert_eq!(mounted.lines().count(), 2, "the image, and the host's mount of it: {mounted}");
    world.host.run("cbin-audit", &["verify", "/home/one", "/home/two"]);

    // What is put back in one root is not all that needs the image.
    world.host.run("cbin-audit", &["undo", "--root", "/home/one"]);
    let [one, two] = boots(&mut world);
    assert_eq!(one, ABSENT);
    assert!(two.starts_with("/cbin/busybox-"), "{two}");
    world.host.run("cbin-audit", &["undo"]);
    assert_eq!(world.configured(), etc);
    assert_eq!(boots(&mut world), [ABSENT; 2]);
}
