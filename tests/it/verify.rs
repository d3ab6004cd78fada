//! `verify`, on roots with a real busybox: what stands, what drifted, what is damaged, what
//! containers see and run.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;

use cbin_audit::model::{
    Action, Applets, Bytes, ContainerPath, ContentId, FileState, HostPath, Method, Notices,
    ObjectName, Plan, PlanSettings, PlannedRoot, RootId, RootPath, RootState, Runtime, Saves,
    Select, Silent, Step, StoreFormat,
};
use cbin_audit::ops::{self, ApplyOptions, UndoOptions};
use cbin_audit::render::json::VERIFY_SCHEMA;
use serde_json::Value;

use crate::command::{Ran, run};
use crate::memory_ground::{Running, distinct, done, frames, start};
use crate::packages;
use crate::suite::{Need, Suite};
use crate::world;
use crate::world::{dir, file, link};

pub fn tests(suite: &mut Suite) {
    let needs = [Need::Root, Need::Package("busybox-static")];
    let mut test = |name: &str, run: fn()| {
        suite.test(&format!("privileged_verify_{name}"), &needs, run);
    };
    test("all_is_well_until_undone", all_is_well);
    test("a_link_to_nothing_is_found", link_to_nothing);
    test("damage_is_named_and_nothing_deleted", damage);
    test("a_container_without_the_mount_is_found", mounts);
    test("pages_are_shared_or_pending_restart", pages);
    test("a_run_that_was_taken_back_ends_what_was_before_it", taken_back);
    let needs = [Need::Root, Need::Package("busybox-static"), Need::Program("mkfs.erofs")];
    suite.test("privileged_verify_an_image_store", &needs, image);
    let needs = [Need::Root, Need::Package("busybox-static"), Need::Program("dpkg-deb")];
    suite.test("privileged_verify_drift_after_a_package_upgrade", &needs, drift);
}

/// Two roots with a real busybox of their own content, a store and a journal.
struct World {
    dir: tempfile::TempDir,
    format: StoreFormat,
}

/// An image store is mounted as long as the value lives.
impl Drop for World {
    fn drop(&mut self) {
        for point in cbin_audit::exec::generations::mounts(&self.at("store")) {
            let _plain = Command::new("umount").arg("-l").arg(point).output();
        }
    }
}

impl World {
    fn new() -> Self {
        let world = Self { dir: tempfile::tempdir().unwrap(), format: StoreFormat::Dir };
        fs::create_dir(world.at("store")).unwrap();
        // Nothing else that runs on this machine has the same bytes.
        let mut bytes = fs::read(packages::busybox().unwrap()).unwrap();
        bytes.extend_from_slice(world.dir.path().as_os_str().as_bytes());
        for root in ["a", "b"] {
            let at = world.at(root);
            world! { at,
                "bin/sh" => link("busybox"),
                "bin/sleep" => link("/bin/busybox"),
                "etc/os-release" => file("ID=test\n"),
                "cbin" => dir(),
                "proc" => dir(),
            }
            world.program(root, &bytes);
        }
        world
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn program(&self, root: &str, bytes: &[u8]) {
        let path = self.at(root).join("bin/busybox");
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn state(&self, root: &str) -> FileState {
        let path = self.at(root).join("bin/busybox");
        let stat = fs::metadata(&path).unwrap();
        FileState {
            ino: stat.ino(),
            size: Bytes(stat.len()),
            mtime: stat.mtime() * 1_000_000_000 + stat.mtime_nsec(),
            mode: stat.mode(),
            content: ContentId(blake3::hash(&fs::read(&path).unwrap()).into()),
        }
    }

    /// Shares the busybox of both roots, and returns the object.
    fn apply(&self) -> PathBuf {
        let before = self.state("a");
        let object = ObjectName::new("busybox", "x86_64", before.content);
        let target = ContainerPath(Path::new("/cbin").join(object.as_str()));
        let path = || RootPath::new("bin/busybox");
        let store = Action::Store { source: path(), content: before.content, size: before.size };
        let mut actions = vec![(RootId(0), store)];
        for (root, id) in [("a", RootId(0)), ("b", RootId(1))] {
            let before = self.state(root);
            let replace = Action::Replace { path: path(), before, target: target.clone() };
            let before = b"/bin/busybox".to_vec();
            let path = RootPath::new("bin/sleep");
            let relink = Action::Relink { path, before, target: target.clone() };
            actions.extend([(id, replace), (id, relink)]);
        }
        let steps = actions.into_iter().zip(0_u32..).map(|((root, action), seq)| Step {
            seq,
            root,
            action,
            object: Some(object.clone()),
        });
        let plan = self.plan(steps.collect());
        let stop = AtomicBool::new(false);
        let (journal, host) = (self.at("journal"), self.at("host"));
        let options = ApplyOptions { journal: &journal, host: &host, stop: &stop };
        let applied = ops::apply(&plan, options, &Silent).unwrap();
        assert_eq!(applied.left, [], "{applied:#?}");
        self.at("store").join(object.as_str())
    }

    fn plan(&self, steps: Vec<Step>) -> Plan {
        let planned = |(root, id): (&str, RootId)| PlannedRoot {
            id,
            path: HostPath(self.at(root)),
            ino: fs::metadata(self.at(root)).unwrap().ino(),
            name: root.to_owned(),
            runtime: Runtime::Directory,
            state: RootState::Stopped,
        };
        Plan {
            settings: PlanSettings {
                select: Select::Multicall,
                method: Method::Symlink,
                store: HostPath(self.at("store")),
                store_format: self.format,
                mount_point: ContainerPath("/cbin".into()),
                applets: Applets::Rewrite,
                live: false,
                include_setid: false,
                trust_domain: None,
            },
            roots: [("a", RootId(0)), ("b", RootId(1))].map(planned).to_vec(),
            steps,
            skips: Vec::new(),
            saves: Saves::default(),
            notices: Notices::default(),
        }
    }

    fn undo(&self) {
        let stop = AtomicBool::new(false);
        let journal = self.at("journal");
        let options = UndoOptions { journal: &journal, run: None, root: None, stop: &stop };
        let _undone = ops::undo(options, &Silent).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Ran {
        let [store, journal] = ["store", "journal"].map(|name| self.at(name));
        let [store, journal] = [&store, &journal].map(|path| path.to_str().unwrap());
        let fixed = ["verify", "--store", store, "--journal", journal];
        run(&[&fixed, arguments].concat())
    }

    /// The checks of a run that ends so, after they were held against the schema.
    fn verify(&self, status: i32) -> Vec<Value> {
        let ran = self.command(&["--json"]);
        assert_eq!(ran.status, status, "{}{}", ran.stdout, ran.stderr);
        let document: Value = serde_json::from_str(&ran.stdout).unwrap();
        let schema: Value = serde_json::from_str(VERIFY_SCHEMA).unwrap();
        let validator = jsonschema::draft202012::new(&schema).unwrap();
        let errors: Vec<String> =
            validator.iter_errors(&document).map(|it| it.to_string()).collect();
        assert!(errors.is_empty(), "{errors:?}\n{document:#}");
        assert_eq!(document["ok"], status == 0 || status == 3);
        assert_eq!(document["damaged"], status == 4);
        document["checks"].as_array().unwrap().clone()
    }

    /// What is not as it should be: what, where, why.
    fn wrong(&self, status: i32) -> Vec<(String, String, String)> {
        let checks = self.verify(status).into_iter().filter(|check| check["ok"] == false);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        checks
            .map(|check| (text(&check["what"]), text(&check["path"]), text(&check["detail"])))
            .collect()
    }

    /// A container of a root, with the store mounted read-only where it is asked for.
    fn container(&self, root: &str, mounted: bool) -> Running {
        let store = self.format.shown(&HostPath(self.at("store"))).0;
        let root = self.at(root);
        let (root, store) = (root.display(), store.display());
        let mount =
            format!("mount --bind {store} {root}/cbin && mount -o remount,ro,bind {root}/cbin && ");
        let mount = if mounted { mount.as_str() } else { "" };
        let script = format!("{mount}exec chroot {root} /bin/sleep 1000");
        start(Command::new("unshare").args(["-m", "sh", "-c", &script]))
    }
}

fn what(checks: &[Value]) -> Vec<&str> {
    let mut all: Vec<&str> = checks.iter().map(|check| check["what"].as_str().unwrap()).collect();
    all.sort_unstable();
    all
}

fn all_is_well() {
    let world = World::new();
    assert_eq!(world.verify(0), Vec::<Value>::new());
    world.apply();
    assert_eq!(what(&world.verify(0)), ["links", "links", "objects", "run"]);
    let one = world.command(&["--json", world.at("a").to_str().unwrap()]);
    let one: Value = serde_json::from_str(&one.stdout).unwrap();
    assert_eq!(what(one["checks"].as_array().unwrap()), ["links", "objects", "run"]);
    world.undo();
    assert_eq!(what(&world.verify(0)), ["objects"]);
}

fn link_to_nothing() {
    let world = World::new();
    world.apply();
    let gone = "/cbin/busybox-x86_64-000000000000";
    std::os::unix::fs::symlink(gone, world.at("b/bin/wget")).unwrap();
    let [(what, path, detail)] = world.wrong(10).try_into().unwrap();
    assert_eq!((what.as_str(), path.as_str()), ("link", "bin/wget"));
    assert!(detail.contains("busybox-x86_64-000000000000, which is not in the store"), "{detail}");
    let told = world.command(&[]);
    assert!(told.stdout.contains("1 thing to look into"), "{}", told.stdout);
}

/// dpkg puts a real busybox back; the applet links stay at the store.
fn drift() {
    let world = World::new();
    let package = packages::package("busybox-static").unwrap();
    let root = world.at("a");
    for dir in ["var/lib/dpkg/info", "var/lib/dpkg/updates"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::write(root.join("var/lib/dpkg/status"), "").unwrap();
    // The package as it was fetched is packed again: its control files came without it.
    let build = world.at("build");
    fs::create_dir_all(build.join("DEBIAN")).unwrap();
    fs::create_dir_all(build.join("bin")).unwrap();
    let binary = ["bin/busybox", "usr/bin/busybox"].map(|path| package.join(path));
    let binary = binary.iter().find(|path| path.exists()).unwrap();
    fs::copy(binary, build.join("bin/busybox")).unwrap();
    let control = "Package: busybox-static\nVersion: 2\nArchitecture: all\nMaintainer: test <t@t>\nDescription: test\n";
    fs::write(build.join("DEBIAN/control"), control).unwrap();
    let deb = world.at("busybox.deb");
    done(Command::new("dpkg-deb").args(["-b", "--root-owner-group"]).arg(&build).arg(&deb));
    world.apply();
    let _well = world.verify(0);
    let mut dpkg = Command::new("dpkg");
    dpkg.arg(format!("--root={}", root.display())).args(["--force-not-root", "-i"]);
    done(dpkg.arg(&deb));
    assert!(fs::symlink_metadata(root.join("bin/busybox")).unwrap().is_file());
    let [(what, path, detail)] = world.wrong(10).try_into().unwrap();
    assert_eq!((what.as_str(), path.as_str()), ("drift", "bin/busybox"));
    assert!(detail.contains("still start the old program"), "{detail}");
}

/// An upgrade put other programs in the place of a run's links, another run shared those, and was
/// undone: what stands there is what its undo put back, and no drift from the first run.
fn taken_back() {
    let world = World::new();
    world.apply();
    for root in ["a", "b"] {
        let bin = world.at(root).join("bin");
        for name in ["busybox", "sleep"] {
            fs::remove_file(bin.join(name)).unwrap();
        }
        symlink("/bin/busybox", bin.join("sleep")).unwrap();
        world.program(root, b"another");
    }
    assert_eq!(world.wrong(10).len(), 4);
    world.apply();
    world.undo();
    assert_eq!(what(&world.verify(0)), ["objects", "run"]);
}

fn damage() {
    let world = World::new();
    let object = world.apply();
    let sound = fs::read(&object).unwrap();
    let named = object.to_str().unwrap();
    let mut rotten = sound.clone();
    rotten[100_000] ^= 1;
    fs::write(&object, &rotten).unwrap();
    let wrong = world.wrong(4);
    assert_eq!((wrong[0].0.as_str(), wrong[0].1.as_str()), ("object", named));
    assert!(wrong[0].2.contains("not what its name says"), "{wrong:?}");
    assert!(fs::read(&object).unwrap() == rotten, "nothing is deleted");
    fs::remove_file(&object).unwrap();
    let wrong = world.wrong(4);
    assert!(wrong[0].2.contains("run 1 needs it"), "{wrong:?}");
    assert!(wrong.iter().any(|(what, path, _)| what == "link" && path == "bin/busybox"));
    fs::write(&object, &sound).unwrap();
    let [(what, _, detail)] = world.wrong(10).try_into().unwrap();
    assert_eq!(what, "object");
    assert!(detail.contains("chmod 0555"), "{detail}");
    fs::set_permissions(&object, fs::Permissions::from_mode(0o555)).unwrap();
    let _well = world.verify(0);
    let journal = fs::read_dir(world.at("journal/runs")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&journal).unwrap();
    bytes[40] ^= 1;
    fs::write(&journal, &bytes).unwrap();
    let wrong = world.wrong(4);
    assert_eq!(wrong[0].0, "journal");
    assert!(wrong[0].2.contains(journal.file_name().unwrap().to_str().unwrap()), "{wrong:?}");
    assert!(fs::read(&journal).unwrap() == bytes && object.exists(), "nothing is deleted");
}

fn mounts() {
    let world = World::new();
    // Started before, it goes on; what is started there now would fail.
    let running = world.container("a", false);
    world.apply();
    let wrong = world.wrong(10);
    let mount = wrong.iter().find(|(what, _, _)| what == "mount").unwrap();
    assert!(mount.2.contains("a: something else is at /cbin"), "{wrong:?}");
    drop(running);
    let running = world.container("a", true);
    let checks = world.verify(0);
    let mount = checks.iter().find(|check| check["what"] == "mount").unwrap();
    assert!(mount["detail"].as_str().unwrap().contains("at /cbin"), "{mount}");
    drop(running);
}

fn pages() {
    let world = World::new();
    let old = world.container("a", true);
    let object = world.apply();
    let wrong = world.wrong(10);
    let [(what, path, detail)] = wrong.as_slice() else { panic!("{wrong:#?}") };
    assert_eq!((what.as_str(), path.as_str()), ("pending_restart", object.to_str().unwrap()));
    assert!(detail.contains(&format!("a: {} ", old.pid())), "{detail}");
    drop(old);
    let running = ["a", "b"].map(|root| world.container(root, true));
    let checks = world.verify(0);
    let pages = checks.iter().find(|check| check["what"] == "pages").unwrap();
    let said = pages["detail"].as_str().unwrap();
    assert!(said.contains("2 processes in 2 containers share one copy"), "{said}");
    let name = object.file_name().unwrap().to_str().unwrap();
    let all = running.each_ref().map(|running| frames(running.pid(), name));
    let (distinct, ideal) = distinct(&all);
    assert!(distinct == ideal && distinct > 100, "{distinct} {ideal}");
    drop(running);
}

/// The same with a store that nobody can write: applied, shared, verified, undone.
fn image() {
    let mut world = World::new();
    world.format = StoreFormat::Erofs;
    let object = world.apply();
    let running = ["a", "b"].map(|root| world.container(root, true));
    let checks = world.verify(0);
    let pages = checks.iter().find(|check| check["what"] == "pages").unwrap();
    let said = pages["detail"].as_str().unwrap();
    assert!(said.contains("2 processes in 2 containers share one copy"), "{said}");
    let name = object.file_name().unwrap().to_str().unwrap();
    let seen = PathBuf::from(format!("/proc/{}/root/cbin/{name}", running[0].pid()));
    let refused = fs::OpenOptions::new().write(true).open(seen).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    drop(running);
    world.undo();
    assert!(fs::symlink_metadata(world.at("a/bin/busybox")).unwrap().is_file());
    let journal = world.at("journal");
    let _collected = ops::gc(&journal, &world.at("store")).unwrap();
    assert!(!object.exists());
    let shown = world.format.shown(&HostPath(world.at("store"))).0;
    assert_eq!(fs::read_dir(shown).unwrap().count(), 0, "the newest generation is empty");
    assert_eq!(world.verify(0), Vec::<Value>::new());
}
