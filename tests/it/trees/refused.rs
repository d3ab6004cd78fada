//! What the store's directory could not be: the plan leaves it with the reason in words; what has
//! become so since is left when the plan is carried out, with the reason, too.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FileType, IFlags, Mode, OFlags, XattrFlags, mknodat};
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use serde_json::Value;

use super::{
    TREE, apply, apply_plan, apply_plan_command, cbin, dedupe, fresh, json, lay, plan,
    trees_are_read, whole,
};
use crate::command::Ran;
use crate::loopfs::Mount;
use crate::rig::image::scratch;
use crate::rig::scene::{NEEDS, Scene, age, run};
use crate::rig::supervise::succeed;
use crate::snapshot::Snapshot;
use crate::suite::{Need, Suite};

pub fn tests(suite: &mut Suite) {
    suite.test("privileged_trees_that_are_odd_are_skipped_in_the_plan", NEEDS, skipped);
    suite.test("privileged_trees_that_become_odd_are_kept", NEEDS, kept);
    suite.test("privileged_trees_with_the_stores_label_are_shared", NEEDS, labels);
    suite.test("privileged_trees_of_200000_names_are_skipped", NEEDS, many_names);
    suite.test("privileged_trees_of_2000_levels_are_skipped", NEEDS, levels);
    let needs = [NEEDS, &[Need::Program("setpriv"), Need::Program("prlimit")]].concat();
    suite.test("privileged_trees_of_more_files_than_may_be_open_are_kept", &needs, few_open);
    suite.test("privileged_trees_of_more_inodes_than_are_free_are_refused", NEEDS, few_inodes);
}

/// What makes a directory odd, and what is said of it by the plan, and when it is carried out.
struct Odd {
    make: fn(&Path),
    planned: &'static str,
    applied: &'static str,
}

const ODD: [Odd; 16] = [
    odd(|tree| attribute(&tree.join("Etc"), "trusted.note"), "\"Etc\" in it has extended"),
    odd(|tree| attribute(tree, "trusted.note"), "it has extended attributes"),
    odd(|tree| attribute(&tree.join("localtime"), "trusted.note"), "\"localtime\" in it has ext"),
    odd(acl, "\"Etc\" in it has extended attributes, which the store's would not have: system.pos"),
    Odd {
        applied: "\"tzdata\" in it has extended",
        ..odd(|tree| attribute(&tree.join("tzdata"), "security.selinux"), "has a security label")
    },
    odd(
        |tree| flag(&tree.join("Etc/posix"), IFlags::IMMUTABLE),
        "\"Etc/posix\" in it is immutable",
    ),
    Odd {
        applied: "\"tzdata\" in it: it is immutable or append-only",
        ..odd(|tree| flag(&tree.join("tzdata"), IFlags::APPEND), "\"tzdata\" in it is append-only")
    },
    special(|tree| node(&tree.join("Etc/pipe"), FileType::Fifo), "\"Etc/pipe\" in it is a FIFO"),
    special(|tree| drop(UnixListener::bind(tree.join("s")).unwrap()), "\"s\" in it is a socket"),
    special(
        |tree| node(&tree.join("null"), FileType::CharacterDevice),
        "\"null\" in it is a character device",
    ),
    Odd {
        applied: "\"Etc/posix\" in it: cannot look at it: Invalid cross-device link; another file",
        ..odd(mounted, "\"Etc/posix\" in it has another file system mounted on it")
    },
    Odd {
        applied: "a file in it has another name elsewhere",
        ..odd(named_elsewhere, "in it has another name elsewhere")
    },
    changed(|tree| symlink("../../lib", tree.join("lib")).unwrap(), "\"lib\" in it is a relative"),
    changed(|tree| mode(&tree.join("tzdata"), 0o4644), "\"tzdata\" in it has a set-id"),
    changed(|tree| mode(&tree.join("Etc"), 0o777), "\"Etc\" in it may be written by others"),
    odd(|tree| give(&tree.join("localtime"), 7), "\"localtime\" in it belongs to user 7"),
];

const fn odd(make: fn(&Path), said: &'static str) -> Odd {
    Odd { make, planned: said, applied: said }
}

const fn special(make: fn(&Path), planned: &'static str) -> Odd {
    Odd { make, planned, applied: "is a special file" }
}

/// Another tree, by its names and modes.
const fn changed(make: fn(&Path), planned: &'static str) -> Odd {
    Odd { make, planned, applied: "it changed after planning" }
}

fn attribute(path: &Path, name: &str) {
    rustix::fs::lsetxattr(path, name, b"system_u:object_r:bin_t:s0\0", XattrFlags::empty())
        .unwrap();
}

/// A default entry of POSIX.1e: user, group and others may read, acl(5).
fn acl(tree: &Path) {
    let entry = |tag: u16| [tag.to_le_bytes(), 5_u16.to_le_bytes(), [0xff; 2], [0xff; 2]].concat();
    let value = [2_u32.to_le_bytes().to_vec(), entry(1), entry(4), entry(32)].concat();
    let name = "system.posix_acl_default";
    rustix::fs::setxattr(tree.join("Etc"), name, &value, XattrFlags::empty()).unwrap();
}

fn flag(path: &Path, flag: IFlags) {
    let file = rustix::fs::open(path, OFlags::RDONLY, Mode::empty()).unwrap();
    rustix::fs::ioctl_setflags(file, flag).unwrap();
}

fn node(path: &Path, kind: FileType) {
    mknodat(rustix::fs::CWD, path, kind, Mode::from_raw_mode(0o644), rustix::fs::makedev(1, 3))
        .unwrap();
}

fn mounted(tree: &Path) {
    mount_bind(tree, tree.join("Etc/posix")).unwrap();
}

fn named_elsewhere(tree: &Path) {
    fs::hard_link(tree.join("Zulu"), tree.join("../other")).unwrap();
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn give(path: &Path, user: u32) {
    std::os::unix::fs::lchown(path, Some(user), Some(user)).unwrap();
}

/// Takes away, when it goes, what keeps a directory from being removed.
struct Cleared(Vec<PathBuf>);

impl Drop for Cleared {
    fn drop(&mut self) {
        for tree in &self.0 {
            let _not_mounted = unmount(tree.join("Etc/posix"), UnmountFlags::DETACH);
            for locked in ["Etc/posix", "tzdata"] {
                if let Ok(file) = fs::File::open(tree.join(locked)) {
                    rustix::fs::ioctl_setflags(file, IFlags::empty()).unwrap();
                }
            }
        }
    }
}

fn cleared(scene: &Scene) -> Cleared {
    Cleared(scene.roots().map(|root| root.join(TREE)).to_vec())
}

fn tree(root: &Path) -> Snapshot {
    Snapshot::of(&root.join(TREE)).without_access_times()
}

/// The plan's words for the tree in each root.
fn reasons(plan: &Value) -> Vec<&str> {
    let skips = plan["skips"].as_array().unwrap().iter();
    let tree = skips.filter(|skip| skip["path"] == TREE && skip["reason"] == "tree");
    tree.map(|skip| skip["explanation"].as_str().unwrap()).collect()
}

fn skipped() {
    for Odd { make, planned, .. } in ODD {
        let (_dir, scene) = fresh();
        let _cleared = cleared(&scene);
        scene.roots().iter().for_each(|root| make(&root.join(TREE)));
        let before = scene.roots().map(|root| tree(&root));
        let applied = json(&Ran::from(apply(&scene).output().unwrap()));
        let said = reasons(&applied);
        assert_eq!(
            said.iter().filter(|said| said.contains(planned)).count(),
            2,
            "{planned}: {said:?}"
        );
        assert!(!applied.to_string().contains("remove_tree"), "{planned}: {applied}");
        for (root, then) in scene.roots().iter().zip(&before) {
            assert_eq!(then.differences(&tree(root)), [""; 0], "{planned}");
        }
    }
}

fn kept() {
    for Odd { make, applied: cause, .. } in ODD {
        let (_dir, scene) = fresh();
        let _cleared = cleared(&scene);
        let plan = plan(&scene);
        make(&scene.roots()[1].join(TREE));
        let before = tree(&scene.roots()[1]);
        let applied = json(&apply_plan(&scene, &plan));
        assert_eq!(applied["state"], "partial", "{cause}: {applied}");
        let left = applied["left"].as_array().unwrap();
        let said: Vec<_> = left.iter().map(|left| left["cause"].as_str().unwrap()).collect();
        assert!(said.len() == 1 && said[0].contains(cause), "{cause}: {said:?}");
        assert!(scene.roots()[0].join(TREE).is_symlink(), "{cause}");
        assert_eq!(before.differences(&tree(&scene.roots()[1])), [""; 0], "{cause}");
    }
}

/// Where SELinux labels everything, what the store gets is labelled alike; each root gets its own
/// back.
fn labels() {
    let (_dir, scene) = fresh();
    fs::create_dir(scene.store()).unwrap();
    let label = |path: &Path, user: &str| {
        let label = format!("{user}:object_r:usr_t:s0\0");
        let name = "security.selinux";
        rustix::fs::lsetxattr(path, name, label.as_bytes(), XattrFlags::empty()).unwrap();
    };
    label(&scene.store(), "system_u");
    for (root, user) in scene.roots().iter().zip(["system_u", "user_u"]) {
        for entry in walkdir::WalkDir::new(root.join(TREE)) {
            label(entry.unwrap().path(), user);
        }
        age(root);
    }
    let before = whole(&scene);
    let said = run(&mut apply(&scene)).unwrap();
    assert!(scene.roots().iter().all(|root| root.join(TREE).is_symlink()), "{said}");
    trees_are_read(&scene, &scene.store()).unwrap();
    assert_eq!(cbin(&scene, "undo").status, 0);
    for (now, then) in whole(&scene).iter().zip(&before) {
        assert_eq!(then.differences(now), [""; 0]);
    }
    // An image has no labels.
    let plan = run(dedupe(&scene, &["--json", "--store-format", "erofs"]).args(scene.roots()));
    assert!(!plan.unwrap().contains("remove_tree"));
}

/// The roots, of which only the plan is made.
fn planned(fill: fn(&Path)) -> (Scene, Ran, tempfile::TempDir) {
    let dir = scratch();
    let scene = lay(&dir.path().join("scene"));
    scene.roots().iter().for_each(|root| fill(&root.join(TREE)));
    let mut command = dedupe(&scene, &["--json"]);
    let ran = Ran::from(command.args(scene.roots()).output().unwrap());
    (scene, ran, dir)
}

fn many_names() {
    let fill = |tree: &Path| {
        for dir in 0..100 {
            let dir = tree.join(dir.to_string());
            fs::create_dir(&dir).unwrap();
            for name in 0..2000 {
                symlink("x", dir.join(name.to_string())).unwrap();
            }
        }
    };
    let (_scene, ran, _dir) = planned(fill);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let plan = json(&ran);
    let said = reasons(&plan);
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said.iter().all(|said| said.contains("more than 65536 names")), "{said:?}");
}

/// So many files more in each tree.
fn fill(scene: &Scene, files: usize) {
    for root in scene.roots() {
        for name in 0..files {
            fs::write(root.join(TREE).join(name.to_string()), name.to_string()).unwrap();
        }
        age(&root);
    }
}

/// Whoever runs it may not have so many files open.
fn few_open() {
    let (_dir, scene) = fresh();
    fill(&scene, 500);
    let before = scene.roots().map(|root| tree(&root));
    let kept = |said: &[&str]| {
        let words = "ulimit -Hn";
        assert!(said.len() == 2 && said.iter().all(|said| said.contains(words)), "{said:?}");
        for (root, then) in scene.roots().iter().zip(&before) {
            assert_eq!(then.differences(&tree(root)), [""; 0]);
        }
    };
    let as_planned = plan(&scene);
    let planned = json(&limited(dedupe(&scene, &["--json"]).args(scene.roots())));
    let skips = planned["skips"].as_array().unwrap();
    let of_tree = skips.iter().filter(|skip| skip["path"] == TREE);
    kept(&of_tree.map(|skip| skip["explanation"].as_str().unwrap()).collect::<Vec<_>>());
    let applied = json(&limited(&apply_plan_command(&scene, &as_planned)));
    let left = applied["left"].as_array().unwrap().iter().filter(|left| left["path"] == TREE);
    kept(&left.map(|left| left["cause"].as_str().unwrap()).collect::<Vec<_>>());
    // Who may raise the limit does.
    let mut raised = Command::new("prlimit");
    let applied = apply(&scene);
    raised.arg("--nofile=400:400").arg(applied.get_program()).args(applied.get_args());
    assert_eq!(json(&Ran::from(raised.output().unwrap()))["state"], "applied");
}

/// By somebody who may have few files open, and may not raise that.
fn limited(command: &Command) -> Ran {
    let mut limited = Command::new("prlimit");
    limited.args(["--nofile=400:400", "setpriv", "--bounding-set=-sys_resource"]);
    limited.args(["--inh-caps=-sys_resource"]).arg(command.get_program());
    Ran::from(limited.args(command.get_args()).output().unwrap())
}

/// A directory in the store, and each that comes back, takes inodes beside those that are there.
fn few_inodes() {
    let dir = scratch();
    let limited = |inodes: u64| {
        let free = rustix::fs::statvfs(dir.path().join("fs")).unwrap();
        let all = free.f_files - free.f_favail + inodes;
        let options = format!("remount,nr_inodes={all}");
        succeed(Command::new("mount").args(["-o", &options]).arg(dir.path().join("fs")));
    };
    let fs = Mount::new("tmpfs", dir.path().join("fs"), "nr_inodes=10000");
    let scene = lay(&fs.path().join("scene"));
    fill(&scene, 300);
    let before = whole(&scene);
    limited(290);
    let refused = Ran::from(apply(&scene).output().unwrap());
    assert_eq!(refused.status, 1, "{refused:?}");
    assert!(refused.stderr.contains("inodes"), "{refused:?}");
    limited(400);
    assert_eq!(json(&Ran::from(apply(&scene).output().unwrap()))["state"], "applied");
    limited(590);
    let refused = cbin(&scene, "undo");
    assert_eq!(refused.status, 1, "{refused:?}");
    assert!(refused.stderr.contains("inodes"), "{refused:?}");
    limited(700);
    assert_eq!(cbin(&scene, "undo").status, 0);
    for (now, then) in whole(&scene).iter().zip(&before) {
        assert_eq!(then.differences(now), [""; 0]);
    }
}

fn levels() {
    let fill = |tree: &Path| {
        let mut at = rustix::fs::open(tree, OFlags::PATH, Mode::empty()).unwrap();
        for _ in 0..2000 {
            rustix::fs::mkdirat(&at, "d", Mode::from_raw_mode(0o755)).unwrap();
            at = rustix::fs::openat(&at, "d", OFlags::PATH, Mode::empty()).unwrap();
        }
    };
    let (scene, ran, _dir) = planned(fill);
    // Deeper than a path may be long: rm(1) goes down by directories.
    let deep = scene.roots().map(|root| root.join(TREE).join("d"));
    succeed(Command::new("rm").arg("-rf").args(deep));
    // The walk went no further, and says so.
    assert_eq!(ran.status, 3, "{}", ran.stderr);
    let plan = json(&ran);
    let said = reasons(&plan);
    assert_eq!(said.len(), 2, "{said:?}");
    let deep = "lies below more than 64 directories in one another";
    assert!(said.iter().all(|said| said.contains(deep)), "{said:?}");
}
