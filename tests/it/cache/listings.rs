//! Directories that have not changed are not listed again, and those that have are.

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, inotify, renameat_with};
use serde_json::Value;

use crate::command::cbin_audit;
use crate::loopfs::{LoopFs, Mount};
use crate::suite::{Need, Suite};
use crate::world;
use crate::world::{busybox, file, link};

pub fn tests(suite: &mut Suite) {
    suite.test("cache_lists_what_changed_and_nothing_else", &[], lists_what_changed);
    for kind in ["ext4", "xfs", "btrfs"] {
        let mkfs = format!("mkfs.{kind}").leak();
        let needs = [Need::Root, Need::Program(mkfs)];
        let name = format!("privileged_cache_sees_every_change_of_names_on_{kind}");
        suite.test(&name, &needs, move || sees_every_change(LoopFs::make(kind, 320).path()));
    }
    suite.test("privileged_cache_sees_every_change_of_names_on_tmpfs", &[Need::Root], || {
        let dir = tempfile::tempdir().unwrap();
        sees_every_change(Mount::new("tmpfs", dir.path().join("mount"), "size=64m").path());
    });
    suite.test("privileged_cache_knows_no_overlay_again", &[Need::Root], knows_no_overlay);
}

/// What was changed within the last two seconds is not kept.
fn settle() {
    std::thread::sleep(Duration::from_millis(2100));
}

fn lay(root: &Path) {
    world! { root,
        "bin/busybox" => busybox(),
        "bin/other" => busybox(),
        "bin/ls" => link("busybox"),
        "etc/one" => file("the same"),
        "etc/two" => file("the same"),
        "etc/three" => file("another"),
        "etc/four" => file("another"),
        "var/lib/five" => file("the same"),
    }
}

/// The report, by a cache where one is named.
fn ask(root: &Path, cache: Option<&Path>) -> Value {
    let mut command = cbin_audit();
    command.args(["report", "--json", "--no-memory", "--select", "all"]);
    if let Some(cache) = cache {
        command.arg("--cache").arg(cache);
    }
    let output = command.arg(root).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// As the kernel tells it: a directory that is listed is read.
fn lists_what_changed() {
    let home = tempfile::tempdir().unwrap();
    let (root, cache) = (home.path().join("root"), home.path().join("cache"));
    lay(&root);
    settle();
    let dirs = ["", "bin", "etc", "var", "var/lib"];
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
    let watched = dirs.map(|dir| {
        let flags = inotify::WatchFlags::ACCESS | inotify::WatchFlags::ONLYDIR;
        (inotify::add_watch(&watch, root.join(dir), flags).unwrap(), dir)
    });
    let listed = || {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&watch, &mut buffer);
        let mut listed = Vec::new();
        while let Ok(event) = events.next() {
            if event.events().contains(inotify::ReadFlags::ISDIR) && event.file_name().is_none() {
                let is_it = |(number, _): &&(i32, &str)| *number == event.wd();
                listed.push(watched.iter().find(is_it).unwrap().1.to_owned());
            }
        }
        listed.sort();
        listed.dedup();
        listed
    };
    let plain = ask(&root, None);
    assert_eq!(listed(), dirs);
    assert_eq!(ask(&root, Some(&cache)), plain);
    assert_eq!(listed(), dirs);
    assert_eq!(ask(&root, Some(&cache)), plain);
    assert_eq!(listed(), [""; 0]);
    fs::write(root.join("etc/six"), "the same").unwrap();
    let after = ask(&root, Some(&cache));
    assert_eq!(listed(), ["etc"]);
    assert_eq!(after, ask(&root, None));
    assert_ne!(after, plain);
}

type Change = (&'static str, fn(&Path));

/// Each way in which names of a directory change.
const CHANGES: [Change; 8] = [
    ("made", |etc| fs::write(etc.join("six"), "the same").unwrap()),
    ("removed", |etc| fs::remove_file(etc.join("one")).unwrap()),
    ("renamed", |etc| fs::rename(etc.join("one"), etc.join("six")).unwrap()),
    ("put in another's place", |etc| fs::rename(etc.join("one"), etc.join("three")).unwrap()),
    ("exchanged", |etc| {
        let (one, three) = (etc.join("one"), etc.join("three"));
        renameat_with(CWD, one, CWD, three, RenameFlags::EXCHANGE).unwrap();
    }),
    ("linked", |etc| fs::hard_link(etc.join("one"), etc.join("six")).unwrap()),
    ("moved elsewhere", |etc| fs::rename(etc.join("one"), etc.join("../var/lib/one")).unwrap()),
    ("a link led elsewhere", |etc| {
        let bin = etc.join("../bin");
        fs::remove_file(bin.join("ls")).unwrap();
        symlink("other", bin.join("ls")).unwrap();
    }),
];

/// The directories have the time of the last change that they had before, as far as one can set it.
fn sees_every_change(disk: &Path) {
    let home = tempfile::tempdir().unwrap();
    for (at, _) in CHANGES.iter().enumerate() {
        lay(&disk.join(at.to_string()));
    }
    settle();
    for (at, (what, change)) in CHANGES.iter().enumerate() {
        let (root, cache) = (disk.join(at.to_string()), home.path().join(at.to_string()));
        let before = ask(&root, Some(&cache));
        assert_eq!(ask(&root, Some(&cache)), before);
        let dirs = ["etc", "bin", "var/lib"].map(|dir| root.join(dir));
        let times = dirs.each_ref().map(|dir| fs::metadata(dir).unwrap().modified().unwrap());
        change(&root.join("etc"));
        for (dir, time) in dirs.iter().zip(times) {
            File::open(dir).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
        }
        let after = ask(&root, Some(&cache));
        assert_ne!(after, before, "{what}");
        assert_eq!(after, ask(&root, None), "{what}");
    }
}

/// A lower layer was exchanged for another one while nothing was mounted: the directory that it is
/// merged into has the times of its upper layer, and the number of its first lower one.
fn knows_no_overlay() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    for (lower, name) in [("first", "etc/one"), ("second", "etc/two")] {
        let lower = at(lower);
        world! { &lower, name => file("the same"), "etc/three" => file("the same") }
    }
    for dir in ["upper/etc", "common/etc", "work"] {
        fs::create_dir_all(at(dir)).unwrap();
    }
    let of = |lower: &str, cache: Option<&Path>| {
        let at_home = |name: &str| at(name).display().to_string();
        let [common, lower, upper, work] = ["common", lower, "upper", "work"].map(at_home);
        let options = format!("lowerdir={common}:{lower},upperdir={upper},workdir={work}");
        let root = Mount::new("overlay", at("root"), &options);
        let answer = ask(root.path(), cache);
        let copies = answer["groups"][0]["copies"].as_array().unwrap().iter();
        let paths: Vec<String> = copies.map(|copy| copy["path"].to_string()).collect();
        let stat = fs::metadata(root.path().join("etc")).unwrap();
        ((stat.ino(), stat.mtime_nsec(), stat.ctime(), stat.ctime_nsec()), paths)
    };
    // Who lists a merged directory for the first time changes its upper layer.
    let plain = ["first", "second"].map(|lower| of(lower, None).1);
    settle();
    let cache = at("cache");
    let [first, second] = ["first", "second"].map(|lower| of(lower, Some(&cache)));
    assert_eq!([first.1, second.1], plain);
    assert_ne!(plain[0], plain[1]);
    // So has its device, unless somebody else took the number that had become free.
    assert_eq!(first.0, second.0, "it looks as if it had not changed");
}
