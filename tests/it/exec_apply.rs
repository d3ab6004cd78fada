//! `apply` and `undo` on real trees, from plans that are made by hand.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;

use cbin_audit::model::{
    Action, Applets, Applied, Bind, Bytes, ContainerPath, ContentId, FileState, HostPath, Method,
    MountMeans, MountPlan, Notices, ObjectName, Plan, PlanSettings, PlannedRoot, RootId, RootPath,
    RootState, RunState, Runtime, Saves, Select, Silent, Step, StoreFormat, Undone,
};
use cbin_audit::ops::{self, ApplyOptions, ExecError, UndoOptions};

use crate::command::{Ran, run};
use crate::loopfs::LoopFs;
use crate::packages;
use crate::suite::{Need, Suite};
use crate::world;
use crate::world::{busybox, hardlink, link};

pub fn tests(suite: &mut Suite) {
    suite.test("privileged_apply_and_undo_are_inverse", &[Need::Root], inverse);
    suite.test("privileged_apply_leaves_what_changed_after_planning", &[Need::Root], changed);
    suite.test("privileged_apply_leaves_a_file_that_is_open_for_writing", &[Need::Root], busy);
    let needs = &[Need::Root, Need::Program("mkfs.ext4")];
    suite.test("privileged_apply_refuses_when_inodes_are_short", needs, few_inodes);
    suite.test("privileged_undo_refuses_when_inodes_are_short", needs, few_inodes_for_undo);
    suite.test("privileged_apply_refuses_when_space_is_short", needs, short);
    suite.test("privileged_undo_refuses_when_space_is_short", needs, short_for_undo);
    suite.test("privileged_undo_keeps_what_was_put_there_since", &[Need::Root], superseded);
    suite.test("privileged_undo_of_one_root_leaves_the_others", &[Need::Root], one_root);
    suite.test("privileged_undo_refuses_a_damaged_object", &[Need::Root], damaged_object);
    suite.test("privileged_undo_refuses_a_damaged_journal", &[Need::Root], damaged_journal);
    suite.test("privileged_apply_of_two_at_once_is_refused", &[Need::Root], two_at_once);
    suite.test("privileged_apply_makes_a_link_on_the_host", &[Need::Root], host_link);
    let needs = &[Need::Root, Need::Package("busybox-static")];
    suite.test("privileged_apply_from_the_command_line", needs, command_line);
    suite.test("privileged_apply_takes_what_an_upgrade_put_back", needs, upgraded);
    suite.test("privileged_apply_keeps_the_store_open_to_users", needs, open_to_users);
    suite.test("privileged_gc_removes_what_no_run_needs", &[Need::Root], collect);
}

/// Two roots, a store and a journal.
pub struct Ground {
    dir: tempfile::TempDir,
}

impl Ground {
    fn new() -> Self {
        Self::laid(tempfile::tempdir().unwrap())
    }

    fn laid(dir: tempfile::TempDir) -> Self {
        for root in ["a", "b"] {
            let at = dir.path().join(root);
            world! { at,
                "bin/busybox" => busybox(),
                "bin/ls" => link("busybox"),
                "bin/sh" => link("/bin/busybox"),
                "bin/cat" => hardlink("bin/busybox"),
                "sbin/init" => link("../bin/busybox"),
                "usr/bin/vi" => hardlink("bin/busybox"),
            }
            let owner = Some(if root == "b" { 100_000 } else { 0 });
            for name in ["bin/busybox", "bin/ls", "sbin/init"] {
                let path = dir.path().join(root).join(name);
                std::os::unix::fs::lchown(path, owner, owner).unwrap();
            }
            let file = fs::File::open(dir.path().join(root).join("bin/busybox")).unwrap();
            let then = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 123);
            file.set_times(fs::FileTimes::new().set_modified(then).set_accessed(then)).unwrap();
        }
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn journal(&self) -> String {
        self.path("journal").to_str().unwrap().to_owned()
    }

    fn apply(&self, plan: &Plan) -> Result<Applied, ExecError> {
        let stop = AtomicBool::new(false);
        let (journal, host) = (self.path("journal"), self.path("host"));
        let options = ApplyOptions { journal: &journal, host: &host, stop: &stop };
        ops::apply(plan, options, &Silent)
    }

    fn undo(&self, root: Option<&Path>) -> Result<Undone, ExecError> {
        let stop = AtomicBool::new(false);
        let journal = self.path("journal");
        ops::undo(UndoOptions { journal: &journal, run: None, root, stop: &stop }, &Silent)
    }

    /// What the planner would say, in the article's way.
    fn plan(&self) -> Plan {
        let mut steps = Vec::new();
        let roots = [("a", RootId(0)), ("b", RootId(1))];
        let before = |root: &str| state(&self.path(root).join("bin/busybox"));
        let object = ObjectName::new("busybox", "x86_64", before("a").content);
        let target = ContainerPath(Path::new("/cbin").join(object.as_str()));
        let source = RootPath::new("bin/busybox");
        let mut add = |root, action| {
            let seq = steps.len() as u32;
            steps.push(Step { seq, root, action, object: Some(object.clone()) });
        };
        let (content, size) = (before("a").content, before("a").size);
        add(RootId(0), Action::Store { source, content, size });
        for (root, id) in roots {
            for path in ["bin/busybox", "bin/cat", "usr/bin/vi"] {
                let (path, target) = (RootPath::new(path), target.clone());
                add(id, Action::Replace { path, before: before(root), target });
            }
            for path in ["bin/ls", "bin/sh", "sbin/init"] {
                let was = fs::read_link(self.path(root).join(path)).unwrap();
                let before = was.as_os_str().as_bytes().to_vec();
                let (path, target) = (RootPath::new(path), target.clone());
                add(id, Action::Relink { path, before, target });
            }
            let (path, target) = (RootPath::new("bin/wget"), target.clone());
            add(id, Action::Link { path, target });
        }
        let planned = |(root, id): (&str, RootId)| PlannedRoot {
            id,
            path: HostPath(self.path(root)),
            ino: fs::metadata(self.path(root)).unwrap().ino(),
            name: root.to_owned(),
            runtime: Runtime::Directory,
            state: RootState::Stopped,
        };
        Plan {
            settings: PlanSettings {
                select: Select::Multicall,
                method: Method::Symlink,
                store: HostPath(self.path("store")),
                store_format: StoreFormat::Dir,
                mount_point: ContainerPath("/cbin".into()),
                applets: Applets::Complete,
                live: false,
                include_setid: false,
                trust_domain: None,
            },
            roots: roots.map(planned).to_vec(),
            steps,
            skips: Vec::new(),
            saves: Saves::default(),
            notices: Notices::default(),
        }
    }

    fn snapshot(&self) -> BTreeMap<PathBuf, String> {
        let mut all = snapshot(&self.path("a"));
        all.extend(snapshot(&self.path("b")));
        all
    }
}

fn state(path: &Path) -> FileState {
    let meta = fs::metadata(path).unwrap();
    FileState {
        ino: meta.ino(),
        size: Bytes(meta.len()),
        mtime: meta.mtime() * 1_000_000_000 + meta.mtime_nsec(),
        mode: meta.mode(),
        content: ContentId(blake3::hash(&fs::read(path).unwrap()).into()),
    }
}

/// Everything of a tree but the times of directories; hard links by the first of their names.
fn snapshot(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut first: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let mut all = BTreeMap::new();
    for entry in walkdir::WalkDir::new(root).sort_by_file_name() {
        let path = entry.unwrap().into_path();
        let meta = fs::symlink_metadata(&path).unwrap();
        let mut text = format!("{:o} {}:{}", meta.mode(), meta.uid(), meta.gid());
        if meta.is_symlink() {
            text += &format!(
                " {:?} {}.{}",
                fs::read_link(&path).unwrap(),
                meta.mtime(),
                meta.mtime_nsec()
            );
        } else if meta.is_file() {
            let first = first.entry(meta.ino()).or_insert_with(|| path.clone());
            let hash = blake3::hash(&fs::read(&path).unwrap());
            text += &format!(" {hash} {}.{} {first:?}", meta.mtime(), meta.mtime_nsec());
        }
        all.insert(path, text);
    }
    all
}

fn no_temporary_names(ground: &Ground) {
    for path in ground.snapshot().keys() {
        let name = path.file_name().unwrap_or(OsStr::new("")).as_bytes();
        assert!(!name.starts_with(cbin_audit::exec::TEMPORARY.as_bytes()), "{path:?}");
    }
}

fn inverse() {
    let ground = Ground::new();
    let (before, plan) = (ground.snapshot(), ground.plan());
    let applied = ground.apply(&plan).unwrap();
    assert_eq!((applied.state, applied.changed), (RunState::Applied, 14), "{applied:?}");
    assert!(applied.freed > applied.stored, "{applied:?}");
    for entry in ["a/bin/busybox", "b/usr/bin/vi", "a/bin/ls", "b/bin/wget"] {
        let target = fs::read_link(ground.path(entry)).unwrap();
        assert!(target.starts_with("/cbin"), "{entry}: {target:?}");
        let object = ground.path("store").join(target.file_name().unwrap());
        assert_eq!(fs::metadata(&object).unwrap().mode() & 0o7777, 0o555);
    }
    let link = fs::symlink_metadata(ground.path("b/bin/busybox")).unwrap();
    assert_eq!((link.uid(), link.gid()), (100_000, 100_000));
    no_temporary_names(&ground);
    // The same plan once more finds nothing as it was, and changes nothing.
    let after = ground.snapshot();
    let again = ground.apply(&plan).unwrap();
    assert_eq!((again.state, again.changed), (RunState::RolledBack, 0), "{again:?}");
    assert_eq!(ground.snapshot(), after);
    let undone = ground.undo(None).unwrap();
    assert_eq!((undone.state, undone.restored), (RunState::Undone, 14), "{undone:?}");
    assert_eq!(ground.snapshot(), before);
    assert!(matches!(ground.undo(None), Err(ExecError::NothingToUndo(_))));
    let history = run(&["history", "--journal", &ground.journal()]);
    assert_eq!(history.status, 0, "{history:?}");
    assert!(history.stdout.contains("run 1: undone"), "{}", history.stdout);
    assert!(history.stdout.contains("run 2: rolled back"), "{}", history.stdout);
}

/// The links of the roots lead somewhere on the host, too; undo leaves neither the link nor the
/// mount points behind.
fn host_link() {
    let ground = Ground::new();
    fs::create_dir(ground.path("host")).unwrap();
    let (before, mut plan) = (ground.snapshot(), ground.plan());
    let (store, point) = (ground.path("store"), ground.path("host/cbin"));
    let bind = Bind { source: HostPath(store.clone()), target: ContainerPath("/cbin".into()) };
    for root in [RootId(0), RootId(1)] {
        let mount = MountPlan {
            means: MountMeans::Nspawn,
            why: String::new(),
            binds: vec![bind.clone()],
            config: Vec::new(),
            live: false,
            restart: None,
            advice: Vec::new(),
        };
        let seq = plan.steps.len() as u32;
        plan.steps.push(Step { seq, root, action: Action::Mount(mount), object: None });
    }
    let root_time = || fs::metadata(ground.path("a")).unwrap().mtime_nsec();
    let time = root_time();
    ground.apply(&plan).unwrap();
    assert_eq!(fs::read_link(&point).unwrap(), store);
    assert!(ground.path("a/cbin").is_dir() && ground.path("b/cbin").is_dir());
    let journal = fs::read_to_string(ground.path("journal/runs/000001.journal")).unwrap();
    assert!(journal.contains("host_link") && journal.contains("attach"), "{journal}");
    ground.undo(Some(&ground.path("a"))).unwrap();
    assert!(point.is_symlink(), "the links of the other root lead through it");
    assert!(!ground.path("a/cbin").exists() && ground.path("b/cbin").is_dir());
    ground.undo(None).unwrap();
    assert!(!point.is_symlink());
    assert_eq!((ground.snapshot(), root_time()), (before.clone(), time));
    // A name that is taken stays as it is.
    fs::write(&point, b"theirs").unwrap();
    ground.apply(&plan).unwrap();
    ground.undo(None).unwrap();
    assert_eq!((ground.snapshot(), fs::read(&point).unwrap()), (before, b"theirs".to_vec()));
}

fn changed() {
    let ground = Ground::new();
    let plan = ground.plan();
    fs::write(ground.path("b/bin/busybox"), b"upgraded").unwrap();
    fs::remove_file(ground.path("a/bin/ls")).unwrap();
    std::os::unix::fs::symlink("toybox", ground.path("a/bin/ls")).unwrap();
    fs::write(ground.path("a/bin/wget"), b"theirs").unwrap();
    let applied = ground.apply(&plan).unwrap();
    assert_eq!(applied.state, RunState::Partial);
    assert_eq!(applied.left.len(), 5, "{:?}", applied.left);
    assert_eq!(fs::read(ground.path("b/bin/cat")).unwrap(), b"upgraded");
    assert_eq!(fs::read_link(ground.path("a/bin/ls")).unwrap(), Path::new("toybox"));
    assert_eq!(fs::read(ground.path("a/bin/wget")).unwrap(), b"theirs");
    no_temporary_names(&ground);
}

fn busy() {
    let ground = Ground::new();
    let plan = ground.plan();
    let writer = fs::OpenOptions::new().append(true).open(ground.path("b/bin/busybox")).unwrap();
    let applied = ground.apply(&plan).unwrap();
    let left: Vec<_> = applied.left.iter().filter(|left| left.root == RootId(1)).collect();
    assert_eq!(left.len(), 3, "{left:?}");
    assert!(left[0].cause.contains("open for writing"), "{left:?}");
    drop(writer);
    assert!(fs::symlink_metadata(ground.path("b/bin/busybox")).unwrap().is_file());
}

fn short() {
    let (fs, ground) = small();
    let (plan, before) = (ground.plan(), ground.snapshot());
    let filling = fill(&fs);
    let refused = ground.apply(&plan).unwrap_err();
    assert!(matches!(refused, ExecError::Space { .. }), "{refused}");
    assert_eq!(ground.snapshot(), before);
    drop(filling);
    ground.apply(&plan).unwrap();
}

/// Takes all space but 64 KiB.
fn fill(fs: &LoopFs) -> tempfile::NamedTempFile {
    let filling = tempfile::NamedTempFile::new_in(fs.path()).unwrap();
    let free = rustix::fs::statvfs(fs.path()).unwrap();
    let all = free.f_bavail * free.f_frsize;
    let flags = rustix::fs::FallocateFlags::empty();
    rustix::fs::fallocate(filling.as_file(), flags, 0, all - (64 << 10)).unwrap();
    filling
}

/// A file system with few inodes and not much space.
fn small() -> (LoopFs, Ground) {
    let fs = LoopFs::laid("ext4", 16, &["-N", "96", "-m", "0"], "loop");
    let ground = Ground::laid(tempfile::tempdir_in(fs.path()).unwrap());
    (fs, ground)
}

/// Makes files until so many inodes are left.
fn leave_inodes(fs: &LoopFs, left: u64) -> tempfile::TempDir {
    let filling = tempfile::tempdir_in(fs.path()).unwrap();
    let free = rustix::fs::statvfs(fs.path()).unwrap().f_favail;
    for number in left..free {
        fs::File::create(filling.path().join(number.to_string())).unwrap();
    }
    filling
}

/// Two roots of seven entries, an object, a journal and its directory: one inode each.
const INODES: u64 = 17;

fn few_inodes() {
    let (fs, ground) = small();
    let (plan, before) = (ground.plan(), ground.snapshot());
    // The directories of the store and the journal are made before.
    let filling = leave_inodes(&fs, INODES + 2 - 1);
    let refused = ground.apply(&plan).unwrap_err();
    assert!(matches!(refused, ExecError::Inodes { needed: INODES, .. }), "{refused}");
    assert_eq!(ground.snapshot(), before);
    fs::remove_file(fs::read_dir(filling.path()).unwrap().next().unwrap().unwrap().path()).unwrap();
    let applied = ground.apply(&plan).unwrap();
    assert!(applied.left.is_empty(), "{applied:?}");
}

fn few_inodes_for_undo() {
    let (fs, ground) = small();
    let before = ground.snapshot();
    ground.apply(&ground.plan()).unwrap();
    let after = ground.snapshot();
    // A file and three links in each root; the link that was added is not made anew.
    let filling = leave_inodes(&fs, 7);
    let refused = ground.undo(None).unwrap_err();
    assert!(matches!(refused, ExecError::Inodes { needed: 8, free: 7, .. }), "{refused}");
    assert_eq!(ground.snapshot(), after);
    fs::remove_file(fs::read_dir(filling.path()).unwrap().next().unwrap().unwrap().path()).unwrap();
    ground.undo(None).unwrap();
    assert_eq!(ground.snapshot(), before);
}

fn short_for_undo() {
    let (fs, ground) = small();
    let before = ground.snapshot();
    ground.apply(&ground.plan()).unwrap();
    let after = ground.snapshot();
    let filling = fill(&fs);
    let refused = ground.undo(None).unwrap_err();
    assert!(matches!(refused, ExecError::Space { .. }), "{refused}");
    assert_eq!(ground.snapshot(), after);
    drop(filling);
    ground.undo(None).unwrap();
    assert_eq!(ground.snapshot(), before);
}

fn superseded() {
    let ground = Ground::new();
    let times =
        || ["a/bin", "a/usr/bin"].map(|dir| fs::metadata(ground.path(dir)).unwrap().mtime_nsec());
    let before = times();
    ground.apply(&ground.plan()).unwrap();
    let path = ground.path("a/bin/busybox");
    fs::remove_file(&path).unwrap();
    fs::write(&path, b"upgraded").unwrap();
    let undone = ground.undo(None).unwrap();
    assert_eq!((undone.restored, undone.kept.len()), (13, 1), "{undone:?}");
    let (after, [theirs, ours]) = (times(), before);
    assert!(after[0] != theirs, "a directory that others changed, too, keeps its new time");
    assert_eq!(after[1], ours);
    assert_eq!(fs::read(&path).unwrap(), b"upgraded");
    // The names that are left of the file are one inode again.
    let ino = |name| fs::metadata(ground.path(name)).unwrap().ino();
    assert_eq!(ino("a/bin/cat"), ino("a/usr/bin/vi"));
}

fn one_root() {
    let ground = Ground::new();
    let before = ground.snapshot();
    ground.apply(&ground.plan()).unwrap();
    let undone = ground.undo(Some(&ground.path("a"))).unwrap();
    assert_eq!((undone.state, undone.restored), (RunState::PartlyUndone, 7));
    assert_eq!(snapshot(&ground.path("a")), {
        let mut a = before.clone();
        a.retain(|path, _| path.starts_with(ground.path("a")));
        a
    });
    assert!(fs::symlink_metadata(ground.path("b/bin/busybox")).unwrap().is_symlink());
    ground.undo(None).unwrap();
    assert_eq!(ground.snapshot(), before);
}

fn object_of(ground: &Ground) -> PathBuf {
    let target = fs::read_link(ground.path("a/bin/busybox")).unwrap();
    ground.path("store").join(target.file_name().unwrap())
}

fn damaged_object() {
    let ground = Ground::new();
    ground.apply(&ground.plan()).unwrap();
    let object = object_of(&ground);
    let mut bytes = fs::read(&object).unwrap();
    bytes[70] ^= 1;
    fs::write(&object, bytes).unwrap();
    let after = ground.snapshot();
    let undo = run(&["undo", "--journal", &ground.journal()]);
    assert_eq!(undo.status, 4, "{undo:?}");
    assert!(undo.stderr.contains("is damaged"), "{}", undo.stderr);
    assert_eq!(ground.snapshot(), after);
    assert!(object.is_file());
}

fn damaged_journal() {
    let ground = Ground::new();
    ground.apply(&ground.plan()).unwrap();
    let file = ground.path("journal/runs/000001.journal");
    let sound = fs::read(&file).unwrap();
    let mut bytes = sound.clone();
    bytes[400] ^= 1;
    fs::write(&file, &bytes).unwrap();
    for command in ["undo", "gc", "history"] {
        let ran = run(&[command, "--journal", &ground.journal()]);
        assert_eq!(ran.status, 4, "{command}: {ran:?}");
    }
    assert_eq!(fs::read(&file).unwrap(), bytes);
    // A torn tail is none: it was never flushed whole.
    fs::write(&file, [sound.as_slice(), b"0123abcd {\"end"].concat()).unwrap();
    let ran = run(&["undo", "--journal", &ground.journal()]);
    assert_eq!(ran.status, 0, "{ran:?}");
}

fn two_at_once() {
    let ground = Ground::new();
    ground.apply(&ground.plan()).unwrap();
    for dir in ["journal", "store"] {
        let held = fs::File::open(ground.path(dir)).unwrap();
        rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let ran = run(&["undo", "--journal", &ground.journal()]);
        assert_eq!(ran.status, 6, "{dir}: {ran:?}");
        assert!(ran.stderr.contains("holds the lock"), "{}", ran.stderr);
    }
    assert_eq!(run(&["undo", "--journal", &ground.journal()]).status, 0);
}

fn collect() {
    let ground = Ground::new();
    ground.apply(&ground.plan()).unwrap();
    let object = object_of(&ground);
    let store = ground.path("store");
    let gc = || run(&["gc", "--journal", &ground.journal(), "--store", store.to_str().unwrap()]);
    assert_eq!(gc().status, 0);
    assert!(object.is_file(), "a run needs it");
    ground.undo(None).unwrap();
    let ran = gc();
    assert!(ran.stdout.contains("1 objects removed"), "{}", ran.stdout);
    assert!(!object.exists());
}

fn command_line() {
    let ground = Ground::new();
    let real = fs::read(packages::busybox().unwrap()).unwrap();
    for root in ["a", "b"] {
        fs::write(ground.path(root).join("bin/busybox"), &real).unwrap();
    }
    let before = ground.snapshot();
    let [a, b] = ["a", "b"].map(|root| ground.path(root).to_str().unwrap().to_owned());
    let (store, journal) = (ground.path("store"), ground.journal());
    let store = store.to_str().unwrap();
    let at = ["--mounts", "none", "--store", store, "--journal", &journal];
    let mut arguments = vec!["dedupe", "--apply", "--json", "--applets", "rewrite"];
    arguments.extend(at);
    arguments.extend([a.as_str(), b.as_str()]);
    let first = run(&arguments);
    assert_eq!(first.status, 0, "{first:?}");
    let document: serde_json::Value = serde_json::from_str(&first.stdout).unwrap();
    assert_eq!(document["run"], 1);
    assert_eq!(document["state"], "applied");
    assert_eq!(document["pending_restart"], serde_json::json!([]));
    assert!(fs::read_link(ground.path("b/bin/busybox")).unwrap().starts_with("/cbin"));
    let after = ground.snapshot();
    arguments.retain(|argument| *argument != "--json");
    let second = run(&arguments);
    assert_eq!(second.status, 0, "{second:?}");
    assert!(second.stdout.contains("nothing was changed"), "{}", second.stdout);
    assert_eq!(ground.snapshot(), after);
    assert_eq!(run(&["recover", "--journal", &journal]).status, 0);
    let undone = run(&["undo", "--json", "--journal", &journal]);
    assert_eq!(undone.status, 0, "{undone:?}");
    assert_eq!(ground.snapshot(), before);
}

/// A package upgrade puts a real program back: the next run takes it again, and undo of the
/// first one leaves it.
fn upgraded() {
    let ground = Ground::new();
    let real = fs::read(packages::busybox().unwrap()).unwrap();
    for root in ["a", "b"] {
        fs::write(ground.path(root).join("bin/busybox"), &real).unwrap();
    }
    let [a, b, store] = ["a", "b", "store"].map(|name| ground.path(name).display().to_string());
    let journal = ground.journal();
    let dedupe = |options: &[&str]| -> serde_json::Value {
        let at = ["--json", "--mounts", "none", "--store", &store, "--journal", &journal, &a, &b];
        let ran = run(&[&["dedupe"], options, &at].concat());
        assert_eq!(ran.status, 0, "{ran:?}");
        serde_json::from_str(&ran.stdout).unwrap()
    };
    let applied = dedupe(&["--apply"]);
    assert_eq!(applied["state"], "applied");
    let upgraded = ground.path("a/bin/busybox");
    fs::write(upgraded.with_extension("new"), &real).unwrap();
    fs::set_permissions(upgraded.with_extension("new"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(upgraded.with_extension("new"), &upgraded).unwrap();
    let before = ground.snapshot();
    let plan = dedupe(&[]);
    assert_eq!(crate::dedupe_plan::entries(&plan), ["replace a/bin/busybox"]);
    let again = dedupe(&["--apply"]);
    assert_eq!((&again["run"], &again["applied"]), (&2.into(), &1.into()));
    assert!(fs::read_link(&upgraded).unwrap().starts_with("/cbin"));
    assert_eq!(run(&["undo", "--journal", &journal]).status, 0);
    assert_eq!(ground.snapshot(), before);
    let first = run(&["undo", "--journal", &journal]);
    assert_eq!(first.status, 3, "{first:?}");
    assert!(first.stdout.contains("package upgrade"), "{}", first.stdout);
    assert!(
        fs::read(&upgraded).unwrap() == real
            && !fs::symlink_metadata(&upgraded).unwrap().is_symlink()
    );
}

/// Every user of a container runs what the links lead to, whatever root's umask is.
fn open_to_users() {
    let ground = Ground::new();
    let real = fs::read(packages::busybox().unwrap()).unwrap();
    for root in ["a", "b"] {
        fs::write(ground.path(root).join("bin/busybox"), &real).unwrap();
    }
    let before = ground.snapshot();
    let store = ground.path("store");
    let apply = || {
        let mut shell = Command::new("sh");
        shell.args(["-c", "umask 077; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_cbin-audit")]);
        shell.args(["dedupe", "--apply", "--mounts", "none", "--journal", &ground.journal()]);
        shell.arg("--store").arg(&store).args([ground.path("a"), ground.path("b")]);
        Ran::from(shell.output().unwrap())
    };
    fs::create_dir(&store).unwrap();
    fs::set_permissions(&store, fs::Permissions::from_mode(0o700)).unwrap();
    let refused = apply();
    assert_eq!(refused.status, 1, "{refused:?}");
    assert!(refused.stderr.contains("chmod 755"), "{}", refused.stderr);
    assert_eq!(ground.snapshot(), before);
    fs::remove_dir(&store).unwrap();
    let applied = apply();
    assert_eq!(applied.status, 0, "{applied:?}");
    let object = fs::read_link(ground.path("a/bin/busybox")).unwrap();
    let mut user = Command::new("setpriv");
    user.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    // The directories above are the test's own; the store is entered as a mount is.
    user.args(["sh", "-c", "exec ./\"$0\" true"]).arg(object.file_name().unwrap());
    assert!(user.current_dir(&store).status().unwrap().success());
}
