//! The store as generations of an EROFS image: made, mounted, shown, kept while they are
//! used, and written by nobody.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cbin_audit::exec::generations::{collect, publish, restore};
use cbin_audit::model::{ContentId, ObjectName};

use crate::memory_ground::{Ground, Running, distinct, done, frames, start};
use crate::packages;
use crate::suite::{Need, Suite};

pub fn tests(suite: &mut Suite) {
    let needs = [Need::Root, Need::Package("busybox-static"), Need::Program("mkfs.erofs")];
    let mut test = |name: &str, run: fn()| {
        suite.test(&format!("privileged_generations_{name}"), &needs, run);
    };
    test("hold_every_object_and_are_made_once", made_once);
    test("stay_while_a_container_has_them", kept_while_used);
    test("are_one_copy_in_memory", one_copy);
    test("that_were_cut_off_leave_nothing", cut_off);
    test("of_a_damaged_object_are_refused", damaged);
    test("follow_each_other_in_running_containers", follow_each_other);
}

/// A store with a real busybox; what is mounted below it goes with the value.
struct Store {
    dir: tempfile::TempDir,
}

impl Store {
    fn new() -> Self {
        let store = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(store.path()).unwrap();
        store
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    fn view(&self) -> PathBuf {
        self.path().join(".view")
    }

    /// Adds a busybox that ends with `tail`.
    fn add(&self, tail: &str) -> String {
        let mut bytes = fs::read(packages::busybox().unwrap()).unwrap();
        bytes.extend_from_slice(tail.as_bytes());
        let content = ContentId(blake3::hash(&bytes).into());
        let name = ObjectName::new("busybox", "x86_64", content).as_str().to_owned();
        let path = self.path().join(&name);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o555)).unwrap();
        name
    }

    /// What containers are shown.
    fn shown(&self) -> Vec<String> {
        let names = fs::read_dir(self.view()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// A container that is shown the store, and runs an object.
    fn container(&self, name: &str, object: &str) -> Running {
        let root = self.dir.path().join(name);
        fs::create_dir_all(root.join("cbin")).unwrap();
        let (root, view) = (root.display(), self.view());
        let script = format!(
            "mount --bind {} {root}/cbin && exec chroot {root} /cbin/{object} sleep 1000",
            view.display()
        );
        start(Command::new("unshare").args(["-m", "sh", "-c", &script]))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let dirs = fs::read_dir(self.path().join(".generations")).into_iter().flatten().flatten();
        for dir in dirs.filter(|entry| entry.path().is_dir()) {
            let _plain = Command::new("umount").arg("-l").arg(dir.path()).output();
        }
    }
}

fn made_once() {
    let store = Store::new();
    let one = store.add("one");
    let first = publish(&store.path()).unwrap();
    assert!(first.new && first.number == 1);
    assert_eq!(store.shown(), [one.as_str()]);
    assert!(!publish(&store.path()).unwrap().new, "the same objects make no new one");
    let two = store.add("two");
    let second = publish(&store.path()).unwrap();
    assert!(second.new && second.number == 2);
    let mut both = [one.as_str(), two.as_str()];
    both.sort_unstable();
    assert_eq!(store.shown(), both);
    let written = fs::write(store.view().join("x"), "x").unwrap_err();
    assert_eq!(written.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
}

fn kept_while_used() {
    let store = Store::new();
    let one = store.add("one");
    let first = publish(&store.path()).unwrap();
    let running = store.container("root", &one);
    store.add("two");
    publish(&store.path()).unwrap();
    assert!(collect(&store.path()).unwrap().is_empty());
    let sees = format!("/proc/{}/root/cbin/{one}", running.pid());
    assert!(Path::new(&sees).exists(), "it goes on with what it was shown");
    drop(running);
    let removed = collect(&store.path()).unwrap();
    assert_eq!(removed.len(), 1);
    assert_eq!(removed[0].0, first.mount.with_extension("erofs"));
    assert!(removed[0].1.0 > 1_000_000, "{removed:?}");
    assert!(!first.mount.exists());
    assert_eq!(store.shown().len(), 2);
}

fn one_copy() {
    let store = Store::new();
    let one = store.add(&format!("one {}", std::process::id()));
    publish(&store.path()).unwrap();
    let running = ["a", "b", "c"].map(|name| store.container(name, &one));
    let all = running.each_ref().map(|running| frames(running.pid(), &one));
    let (distinct, ideal) = distinct(&all);
    assert!(distinct == ideal && distinct > 100, "{distinct} {ideal}");
}

fn cut_off() {
    let store = Store::new();
    let one = store.add("one");
    let first = publish(&store.path()).unwrap();
    let cut = store.path().join(".generations/.cbin-audit-000002");
    fs::write(&cut, "half an image").unwrap();
    // As after a restart of the host.
    done(Command::new("umount").arg(&first.mount));
    assert_eq!(store.shown(), [""; 0]);
    let again = restore(&store.path()).unwrap().unwrap();
    assert_eq!((again.number, again.new), (1, false));
    assert_eq!(store.shown(), [one.as_str()]);
    assert!(!cut.exists());
}

fn damaged() {
    let store = Store::new();
    let one = store.add("one");
    publish(&store.path()).unwrap();
    let two = store.add("two");
    let path = store.path().join(&two);
    let mut bytes = fs::read(&path).unwrap();
    bytes[5000] ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = publish(&store.path()).unwrap_err().to_string();
    assert!(error.contains(&two), "{error}");
    assert_eq!(store.shown(), [one.as_str()], "the view is what it was");
}

/// After an upgrade a container that goes on running is shown the next image, over the one that
/// it was shown before; undo takes away both.
fn follow_each_other() {
    let ground = Ground::new();
    let roots = ["one", "two"].map(|name| {
        for dir in ["bin", "cbin", "dev", "etc", "proc", "usr"] {
            ground.dir(&format!("{name}/{dir}"));
        }
        ground.at(name)
    });
    let program = |root: &PathBuf| root.join("bin").join(&ground.name);
    let upgrade = |tail: &str| {
        for root in &roots {
            let new = ground.program_in(root);
            let mut bytes = fs::read(&new).unwrap();
            bytes.extend_from_slice(tail.as_bytes());
            fs::write(&new, bytes).unwrap();
            fs::rename(new, program(root)).unwrap();
        }
    };
    upgrade("first");
    let running = roots.each_ref().map(|root| {
        let mut command = Command::new("unshare");
        command.args(["-m", "--propagation", "private", "chroot"]).arg(root);
        start(command.args([&format!("/bin/{}", ground.name), "sleep", "1000"]))
    });
    let audit = |words: &[&str]| {
        let mut command = crate::command::cbin_audit();
        command.args(words).arg("--journal").arg(ground.at("journal"));
        if words[0] != "undo" {
            command.arg("--store").arg(ground.at("store")).args(&roots);
        }
        crate::command::Ran::from(command.output().unwrap())
    };
    let apply = ["dedupe", "--apply", "--live", "--mounts", "none", "--store-format", "erofs"];
    let mounted = |running: &Running| {
        let table = fs::read_to_string(format!("/proc/{}/mountinfo", running.pid())).unwrap();
        table.lines().filter(|line| line.contains("/cbin ")).count()
    };
    for number in 1..=3 {
        ground.mounted(&ground.at(&format!("store/.generations/{number:06}")));
    }
    let mut objects = Vec::new();
    for tail in ["first", "second"] {
        if tail == "second" {
            upgrade(tail);
        }
        let applied = audit(&apply);
        assert_eq!(applied.status, 0, "{tail}: {}{}", applied.stdout, applied.stderr);
        objects.push(fs::read_link(program(&roots[0])).unwrap());
        for (root, running) in roots.iter().zip(&running) {
            for object in &objects {
                let seen = format!("/proc/{}/root{}", running.pid(), object.display());
                assert!(Path::new(&seen).exists(), "{root:?} does not see {object:?}");
            }
        }
    }
    let verified = audit(&["verify"]);
    assert!(!verified.stdout.contains("can be written"), "{}", verified.stdout);
    assert_eq!(running.each_ref().map(mounted), [2; 2]);
    for _ in 0..2 {
        let undone = audit(&["undo"]);
        // What the upgrade put in the place of the first run's link is kept.
        assert!([0, 3].contains(&undone.status), "{}{}", undone.stdout, undone.stderr);
    }
    assert_eq!(running.each_ref().map(mounted), [0; 2]);
    drop(running);
}
