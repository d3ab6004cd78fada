//! `--method hardlink`: programs of the roots of one trust domain become names of one inode. Real
//! trees, the real binary.

pub mod ground;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::command::{Ran, cbin_audit};
use crate::crash::Killed;
use crate::loopfs::LoopFs;
use crate::memory_ground::{Running, distinct, frames, start};
use crate::rig::call::{Call, Kind};
use crate::rig::image::scratch;
use crate::rig::scene::{NEEDS, Scene, age, run};
use crate::rig::supervise::{Answer, supervise};
use crate::snapshot::Snapshot;
use crate::suite::{Need, Suite};
use crate::world::{file, hardlink};

use ground::{TRUSTED, apply, apply_plan, date, dedupe, inode, inodes, lay, plan, recovers};

pub fn tests(suite: &mut Suite) {
    suite.test("privileged_hardlinks_there_and_back", NEEDS, there_and_back);
    suite.test("privileged_hardlinks_undo_of_one_root", NEEDS, one_root);
    suite.test("privileged_hardlinks_kill_apply", NEEDS, killed_while_applying);
    suite.test("privileged_hardlinks_kill_undo", NEEDS, killed_while_undoing);
    suite.test("privileged_hardlinks_kill_recover", NEEDS, killed_while_recovering);
    suite.test("privileged_hardlinks_that_changed_are_kept", NEEDS, changed);
    suite.test("privileged_hardlinks_take_all_names_or_none", NEEDS, all_or_none);
    suite.test("privileged_hardlinks_that_were_written_are_told", NEEDS, written);
    suite.test("privileged_hardlinks_swapped_names_lead_nowhere", NEEDS, swapped);
    suite.test("privileged_hardlinks_are_planned_among_equals", NEEDS, planned);
    suite.test("privileged_hardlinks_of_what_is_being_written", NEEDS, being_written);
    suite.test("privileged_hardlinks_of_two_writers", NEEDS, two_writers);
    suite.test("privileged_hardlinks_of_groups_stay_apart", NEEDS, groups);
    suite.test("privileged_hardlinks_of_running_containers", NEEDS, running);
    let ext4 = &[NEEDS, &[Need::Program("mkfs.ext4")]].concat();
    suite.test("privileged_hardlinks_are_not_too_many", ext4, too_many);
}

/// Each container has a program that stays, beside one that becomes a name of the other's: what
/// changes a directory's names then is not all that is newer in it.
fn crosswise(base: &Path) -> Scene {
    let scene = lay(base);
    let [web, db] = scene.roots();
    let mut another = fs::read(db.join("bin/busybox")).unwrap();
    another.push(0);
    crate::world! { web,
        "bin/another" => crate::world::Entry::File(another.clone(), 0o755),
        "sbin/another" => hardlink("bin/another"),
    }
    crate::world! { db, "bin/another" => crate::world::Entry::File(another, 0o755) }
    age(&web);
    age(&db);
    date(&db.join("bin/busybox"));
    scene
}

fn fresh() -> (tempfile::TempDir, Scene) {
    let dir = scratch();
    let scene = lay(&dir.path().join("scene"));
    (dir, scene)
}

fn cbin(scene: &Scene, arguments: &[&str]) -> Ran {
    let mut cbin = cbin_audit();
    cbin.args(arguments).arg("--json").arg("--journal").arg(scene.journal());
    if matches!(arguments[0], "verify" | "gc") {
        cbin.arg("--store").arg(scene.store());
    }
    Ran::from(cbin.output().unwrap())
}

fn json(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
}

fn whole(scene: &Scene) -> Vec<Snapshot> {
    scene.roots().iter().map(|root| Snapshot::of(root)).collect()
}

fn is_as(scene: &Scene, before: &[Snapshot]) {
    for (now, then) in whole(scene).iter().zip(before) {
        assert_eq!(then.differences(now), [""; 0]);
    }
}

fn there_and_back() {
    let (_dir, scene) = fresh();
    let before = whole(&scene);
    let [web, db] = scene.roots();
    let untrusted = dedupe(&scene, &["--apply", "--json"]).output().unwrap();
    assert_eq!(json(&Ran::from(untrusted))["steps"].as_array().unwrap().len(), 0);
    let text = run(&mut dedupe(&scene, &TRUSTED[1..])).unwrap();
    assert!(text.contains("trust domain mine: writable by each of these roots"), "{text}");
    assert!(text.contains("= db/bin/busybox"), "{text}");
    let applied = json(&Ran::from(apply(&scene).output().unwrap()));
    assert_eq!((&applied["state"], &applied["applied"]), (&"applied".into(), &2.into()));
    // That of more names stays.
    for name in ["bin/busybox", "usr/bin/vi"] {
        assert_eq!(inode(web.join(name)), inode(db.join("sbin/mount")), "{name}");
    }
    assert!(!scene.store().exists(), "hard links need no store");
    let verified = cbin(&scene, &["verify"]);
    assert_eq!(verified.status, 0, "{verified:?}");
    assert!(verified.stdout.contains("2 names lead to files"), "{verified:?}");
    let again = json(&Ran::from(apply(&scene).output().unwrap()));
    assert_eq!((again["steps"].as_array().unwrap().len(), &again["run"]), (0, &Value::Null));
    let history = json(&cbin(&scene, &["history"]));
    assert_eq!(history["runs"][0]["standing"], 2, "{history}");
    assert_eq!(cbin(&scene, &["gc"]).status, 0);
    // An upgrade is drift.
    let dirs = [web.clone(), web.join("usr/bin")];
    let times = dirs.clone().map(|dir| fs::metadata(dir).unwrap().modified().unwrap());
    fs::copy(crate::packages::busybox().unwrap(), web.join("new")).unwrap();
    fs::rename(web.join("new"), web.join("usr/bin/vi")).unwrap();
    let verified = cbin(&scene, &["verify"]);
    assert_eq!(verified.status, 10, "{verified:?}");
    fs::remove_file(web.join("usr/bin/vi")).unwrap();
    fs::hard_link(web.join("bin/busybox"), web.join("usr/bin/vi")).unwrap();
    for (dir, time) in dirs.into_iter().zip(times) {
        fs::File::open(dir).unwrap().set_times(fs::FileTimes::new().set_modified(time)).unwrap();
    }
    let undone = cbin(&scene, &["undo"]);
    assert_eq!(undone.status, 0, "{undone:?}");
    let inodes = inodes(&scene);
    assert_ne!(inodes[0], inodes[1]);
    is_as(&scene, &before);
}

fn one_root() {
    let (_dir, scene) = fresh();
    let before = whole(&scene);
    let [web, db] = scene.roots();
    run(&mut apply(&scene)).unwrap();
    // Its file is the one that stayed: it cannot be parted from the others by changing it.
    let kept = cbin(&scene, &["undo", "--root", db.to_str().unwrap()]);
    assert_eq!(kept.status, 3, "{kept:?}");
    assert!(kept.stdout.contains("other roots have names of it"), "{kept:?}");
    assert_eq!(inodes(&scene)[0], inodes(&scene)[1]);
    let undone = cbin(&scene, &["undo", "--root", web.to_str().unwrap()]);
    assert_eq!(undone.status, 0, "{undone:?}");
    is_as(&scene, &before);
}

fn killed_while_applying() {
    let broken =
        Killed { check: all_is_as_before, lay: crosswise, ..Killed::new(apply) }.at_each_call();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

fn killed_while_undoing() {
    let prepare = |scene: &Scene| drop(run(&mut apply(scene)).unwrap());
    let undo = Killed { check: all_is_as_before, lay, prepare, ..Killed::new(Scene::undo) };
    let broken = undo.at_each_call();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// What is to be recovered was killed when one name was exchanged and the other was not.
fn killed_while_recovering() {
    let prepare = |scene: &Scene| {
        let mut exchanged = 0;
        let ended = supervise(&apply(scene), |call| {
            exchanged += usize::from(call.kind == Kind::Exchange);
            if exchanged == 2 { Answer::Kill } else { Answer::Happen }
        });
        assert!(ended.is_killed(), "{ended:?}");
    };
    let recover = Killed { check: all_is_as_before, lay, prepare, ..Killed::new(Scene::recover) };
    let broken = recover.at_each_call();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

fn all_is_as_before(scene: &Scene, before: &[Snapshot]) -> Result<(), String> {
    recovers(scene, before)?;
    scene.directories_are_old()
}

/// What is given to a change after planning: the file that stays, and one that is to become a name.
type Change = fn(&Path, &Path) -> Option<fs::File>;

/// Somebody begins to write the file that stays: before a name comes to lead to it, that is left; at
/// that moment or later he may have come by that name, and it stays.
fn being_written() {
    for (at, shared) in [(Kind::Link, false), (Kind::Exchange, true)] {
        let (_dir, scene) = fresh();
        plan(&scene);
        let before = whole(&scene);
        let [_, stays] = scene.roots().map(|root| root.join("bin/busybox"));
        let ended = supervise(&apply_plan(&scene), |call| {
            if call.kind == at {
                // To wait would be to wait for the step, which waits for this.
                let mut writer = fs::OpenOptions::new();
                let writer = writer.append(true).custom_flags(libc::O_NONBLOCK).open(&stays);
                assert!(shared || writer.is_err(), "{call}");
            }
            Answer::Happen
        });
        // What has not come to lead to it yet when that begins is left.
        assert_eq!(ended.status, Some(3), "{ended:?}");
        let [one, other] = inodes(&scene);
        assert_eq!(one == other, shared, "{at:?}");
        if shared {
            assert_eq!(cbin(&scene, &["undo"]).status, 0);
        }
        for (now, then) in whole(&scene).iter().zip(&before) {
            let quiet = |of: &Snapshot| of.clone().without_directory_times();
            assert_eq!(quiet(then).differences(&quiet(now)), [""; 0], "{at:?}");
        }
    }
}

/// While a name comes to lead to another file, one begins to write what it led to, who had looked it
/// up before, and another what it leads to now. Both are kept: the first under the name, the second
/// there, too, or in the file of the container that has it; for that the roots trust each other.
fn two_writers() {
    let from = |calls: &[Call], kind| calls.iter().position(|call| call.kind == kind).unwrap();
    let moments = {
        let (_dir, scene) = fresh();
        plan(&scene);
        let calls = supervise(&apply_plan(&scene), |_| Answer::Happen).calls;
        from(&calls, Kind::Exchange)..from(&calls, Kind::Unlink)
    };
    assert!(moments.len() > 2, "{moments:?}");
    let mut elsewhere = 0;
    for moment in moments {
        let (_dir, scene) = fresh();
        plan(&scene);
        let [web, db] = scene.roots().map(|root| root.join("bin/busybox"));
        let mut writers = vec![(Writer::of(&web), "<of the first>")];
        let ended = supervise(&apply_plan(&scene), |call| {
            if call.index == moment {
                writers.push((Writer::of(&web), "<of the second>"));
                writers.iter().for_each(|(writer, _)| writer.begin());
            }
            Answer::Happen
        });
        assert_eq!(ended.status, Some(3), "{ended:?}");
        writers.iter().for_each(|(writer, text)| writer.write(text));
        let holds = |file: &Path, text: &str| {
            fs::read(file).unwrap().windows(text.len()).any(|some| some == text.as_bytes())
        };
        let call = &ended.calls[moment];
        assert!(holds(&web, "<of the first>"), "{call}");
        assert!(holds(&web, "<of the second>") || holds(&db, "<of the second>"), "{call}");
        elsewhere += usize::from(!holds(&web, "<of the second>"));
    }
    assert!(elsewhere > 0, "nobody ever wrote the other file");
}

/// Who has looked a file up, and opens it for writing.
struct Writer(fs::File);

impl Writer {
    fn of(file: &Path) -> Self {
        let mut options = fs::OpenOptions::new();
        Self(options.read(true).custom_flags(libc::O_PATH).open(file).unwrap())
    }

    fn open(&self, flags: i32) -> std::io::Result<fs::File> {
        let mut options = fs::OpenOptions::new();
        let through = format!("/proc/self/fd/{}", self.0.as_raw_fd());
        options.append(true).custom_flags(flags).open(through)
    }

    /// Waits for nobody: the step waits for this.
    fn begin(&self) {
        let _refused = self.open(libc::O_NONBLOCK);
    }

    fn write(&self, text: &str) {
        self.open(0).unwrap().write_all(text.as_bytes()).unwrap();
    }
}

/// Two runs made two files of four copies: those stay two until one of the runs is undone, which
/// finds its file again.
fn groups() {
    let (_dir, scene) = fresh();
    let [web, db] = scene.roots();
    let others = ["mail", "news"].map(|name| scene.base().join(name));
    for (from, to) in [&web, &db].into_iter().zip(&others) {
        run(Command::new("cp").arg("-a").args([from, to])).unwrap();
    }
    let before: Vec<Snapshot> = others.iter().map(|root| Snapshot::of(root)).collect();
    let share = |roots: &[&PathBuf], options: &[&str]| {
        let mut command = cbin_audit();
        command.args(["dedupe", "--method", "hardlink"]).args(TRUSTED).args(options).args(roots);
        command.arg("--store").arg(scene.store()).arg("--journal").arg(scene.journal());
        json(&Ran::from(command.output().unwrap()))
    };
    share(&[&web, &db], &["--apply"]);
    share(&[&others[0], &others[1]], &["--apply"]);
    let all = [&web, &db, &others[0], &others[1]];
    let plan = share(&all, &[]);
    assert_eq!(plan["steps"].as_array().unwrap().len(), 0, "{plan}");
    assert!(plan["skips"].to_string().contains("several roots share it already"), "{plan}");
    assert_eq!(cbin(&scene, &["undo", "2"]).status, 0);
    for (root, then) in others.iter().zip(&before) {
        assert_eq!(then.differences(&Snapshot::of(root)), [""; 0]);
    }
    share(&all, &["--apply"]);
    let inodes: BTreeSet<u64> = all.iter().map(|root| inode(root.join("bin/busybox"))).collect();
    assert_eq!(inodes.len(), 1);
    assert_eq!(cbin(&scene, &["undo"]).status, 0);
    for (root, then) in others.iter().zip(&before) {
        assert_eq!(then.differences(&Snapshot::of(root)), [""; 0]);
    }
    assert_eq!(cbin(&scene, &["undo"]).status, 0);
    let inodes: BTreeSet<u64> = all.iter().map(|root| inode(root.join("bin/busybox"))).collect();
    assert_eq!(inodes.len(), 4);
}

/// Who runs already runs its own file until it is started again; who starts then shares the pages.
fn running() {
    let (_dir, scene) = fresh();
    let tail = format!("{:?}", scene.base());
    for root in scene.roots() {
        // So that nothing else on this machine runs the same.
        let mut program =
            fs::OpenOptions::new().append(true).open(root.join("bin/busybox")).unwrap();
        program.write_all(tail.as_bytes()).unwrap();
        drop(program);
    }
    let start_all = || scene.roots().map(|root| container(&root));
    let old = start_all();
    run(&mut apply(&scene)).unwrap();
    let pending = json(&cbin(&scene, &["verify"]));
    let told = check(&pending, "pending_restart");
    assert!(told.contains(&format!("web: {} ", old[0].pid())), "{told}");
    assert!(!told.contains(&old[1].pid().to_string()), "it runs the file that stays: {told}");
    drop(old);
    let new = start_all();
    let verified = cbin(&scene, &["verify"]);
    assert_eq!(verified.status, 0, "{verified:?}");
    let told = check(&json(&verified), "pages");
    assert!(told.contains("2 processes in 2 containers share one copy"), "{told}");
    let (held, ideal) = distinct(&new.each_ref().map(|it| frames(it.pid(), "busybox")));
    assert!(held == ideal && held > 100, "{held} {ideal}");
    drop(new);
    assert_eq!(cbin(&scene, &["undo"]).status, 0);
    let apart = start_all();
    let (held, ideal) = distinct(&apart.each_ref().map(|it| frames(it.pid(), "busybox")));
    assert!(held > ideal, "{held} {ideal}");
}

fn container(root: &Path) -> Running {
    let script = format!("exec chroot {} /bin/busybox sleep 1000", root.display());
    start(Command::new("unshare").args(["-m", "sh", "-c", &script]))
}

/// What the one check of this kind says.
fn check(verified: &Value, what: &str) -> String {
    let all = verified["checks"].as_array().unwrap().iter();
    let mut found = all.filter(|check| check["what"] == what);
    let detail = found.next().map(|check| check["detail"].as_str().unwrap().to_owned());
    assert!(found.next().is_none(), "{verified}");
    detail.unwrap_or_else(|| panic!("{verified}"))
}

/// Why a change after planning keeps names from being shared: what is said.
fn changed() {
    let changes: [(&str, Change); 9] = [
        ("changed after planning", |_, name| fs::write(name, "another").map(|()| None).unwrap()),
        ("changed after planning", |stays, _| fs::write(stays, "another").map(|()| None).unwrap()),
        ("has others now", |stays, _| {
            let outside = stays.ancestors().nth(3).unwrap().join("outside");
            fs::hard_link(stays, outside).map(|()| None).unwrap()
        }),
        ("and the plan knows", |_, name| {
            fs::hard_link(name, name.with_file_name("more")).map(|()| None).unwrap()
        }),
        ("owner or mode", |stays, _| {
            std::os::unix::fs::chown(stays, Some(7), None).map(|()| None).unwrap()
        }),
        ("extended attributes", |_, name| {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(name, c"user.note", b"x", flags).map(|()| None).unwrap()
        }),
        ("open for writing", |stays, _| {
            fs::OpenOptions::new().append(true).open(stays).map(Some).unwrap()
        }),
        ("open for writing", |_, name| {
            fs::OpenOptions::new().append(true).open(name).map(Some).unwrap()
        }),
        ("immutable", |stays, _| {
            run(Command::new("chattr").arg("+i").arg(stays)).map(|_| None).unwrap()
        }),
    ];
    for (number, (words, change)) in changes.into_iter().enumerate() {
        let (_dir, scene) = fresh();
        plan(&scene);
        let [name, stays] = scene.roots().map(|root| root.join("bin/busybox"));
        let open = change(&stays, &name);
        let before = whole(&scene);
        let applied = json(&Ran::from(apply_plan(&scene).output().unwrap()));
        let _mutable = Command::new("chattr").arg("-i").arg(&stays).output();
        drop(open);
        assert_eq!(applied["state"], "rolled_back", "{number}: {applied}");
        let cause = applied["left"][0]["cause"].as_str().unwrap();
        assert!(cause.contains(words), "{number}: {cause}");
        for (now, then) in whole(&scene).iter().zip(&before) {
            let quiet = |of: &Snapshot| of.clone().without_directory_times();
            assert_eq!(quiet(then).differences(&quiet(now)), [""; 0], "{number}");
        }
    }
}

/// Of the names of one inode none is taken where one cannot be.
fn all_or_none() {
    let (_dir, scene) = fresh();
    plan(&scene);
    let [web, _] = scene.roots();
    run(Command::new("chattr").arg("+i").arg(web.join("usr/bin"))).unwrap();
    let applied = json(&Ran::from(apply_plan(&scene).output().unwrap()));
    run(Command::new("chattr").arg("-i").arg(web.join("usr/bin"))).unwrap();
    assert_eq!(applied["state"], "rolled_back", "{applied}");
    let left = applied["left"].to_string();
    assert!(left.contains("immutable") && left.contains("another of its names"), "{left}");
    assert_eq!(inode(web.join("bin/busybox")), inode(web.join("usr/bin/vi")));
}

/// What was written through one name is in all of them, and nowhere is what was there before.
fn written() {
    let (_dir, scene) = fresh();
    run(&mut apply(&scene)).unwrap();
    let [web, db] = scene.roots().map(|root| root.join("bin/busybox"));
    let writer = fs::OpenOptions::new().append(true).open(&db).unwrap();
    let busy = cbin(&scene, &["undo"]);
    assert_eq!(busy.status, 3, "{busy:?}");
    assert!(busy.stdout.contains("open for writing"), "{busy:?}");
    drop(writer);
    let old = fs::read(&web).unwrap();
    let mut new = old.clone();
    *new.last_mut().unwrap() ^= 1;
    fs::write(&db, new).unwrap();
    let verified = cbin(&scene, &["verify"]);
    assert_eq!(verified.status, 10, "{verified:?}");
    assert!(verified.stdout.contains("\"written\""), "{verified:?}");
    let kept = cbin(&scene, &["undo"]);
    assert_eq!(kept.status, 3, "{kept:?}");
    assert!(kept.stdout.contains("has been written since"), "{kept:?}");
    assert_eq!(inode(&web), inode(&db));
    fs::write(&db, old).unwrap();
    assert_eq!(cbin(&scene, &["undo"]).status, 0);
    assert_ne!(inode(&web), inode(&db));
}

/// At every call that changes something a container has put something else under its names.
fn swapped() {
    let mut tried = 0;
    for (number, (attack, answer)) in attacks().into_iter().enumerate() {
        let calls = {
            let (_dir, scene) = fresh();
            plan(&scene);
            supervise(&apply_plan(&scene), |_| Answer::Happen).calls
        };
        for at in 0..calls.len() {
            let (_dir, scene) = fresh();
            plan(&scene);
            let outside = scene.base().join("outside");
            let busybox = fs::read(scene.roots()[0].join("bin/busybox")).unwrap();
            crate::world! { outside,
                "busybox" => crate::world::Entry::File(busybox, 0o755),
                "sh" => file("the host's"),
            }
            let before = Snapshot::of(&outside).without_access_times();
            let hit = |call: &Call| {
                if call.index == at {
                    attack(&scene, &outside.join("busybox"));
                    return answer;
                }
                Answer::Happen
            };
            let _ended = supervise(&apply_plan(&scene), hit);
            let _undone = cbin(&scene, &["undo"]);
            let now = Snapshot::of(&outside).without_access_times();
            assert_eq!(before.differences(&now), [""; 0], "{number} at {at}");
            let stat = fs::metadata(outside.join("busybox")).unwrap();
            assert_eq!(stat.nlink(), 1, "{number} at {at}: the host's file has got a name more");
            assert_ne!(stat.ino(), inode(scene.roots()[1].join("bin/cat")), "{number} at {at}");
            tried += 1;
        }
    }
    assert!(tried >= 60, "{tried}");
}

/// What a container does meanwhile, given where the host's file lies, and what comes of the call.
type Attack = (fn(&Scene, &Path), Answer);

fn attacks() -> [Attack; 4] {
    // Its directory leads to the host's.
    let lead_directory = |scene: &Scene, secret: &Path| {
        let bin = scene.roots()[0].join("bin");
        if !bin.is_symlink() {
            fs::rename(&bin, bin.with_file_name("old")).unwrap();
            symlink(secret.parent().unwrap(), bin).unwrap();
        }
    };
    [
        // The entry, and that of the file that stays, lead to the host's file.
        (
            |scene, secret| {
                for root in scene.roots() {
                    lead(&root.join("bin/busybox"), secret);
                }
            },
            Answer::Happen,
        ),
        // The temporary name does.
        (
            |scene, secret| {
                let bin = scene.roots()[0].join("bin");
                let temporary = |name: &Path| name.to_string_lossy().contains("/.cbin-audit-");
                let names = fs::read_dir(bin).unwrap().map(|entry| entry.unwrap().path());
                names.filter(|name| temporary(name)).for_each(|name| lead(&name, secret));
            },
            Answer::Happen,
        ),
        (lead_directory, Answer::Happen),
        // What was cut off gives directories the times back that they had: not to the host's.
        (lead_directory, Answer::Kill),
    ]
}

fn lead(name: &Path, to: &Path) {
    let _gone = fs::remove_file(name);
    symlink(to, name).unwrap();
}

/// One owner, one mode, one file system; and every name among those that take part.
fn planned() {
    let (_dir, scene) = fresh();
    let [web, db] = scene.roots().map(|root| root.join("bin/busybox"));
    let told = |words: &str| {
        let ran = run(&mut dedupe(&scene, &TRUSTED)).unwrap();
        let plan: Value = serde_json::from_str(&ran).unwrap();
        assert_eq!(plan["steps"].as_array().unwrap().len(), 0, "{plan}");
        assert!(plan["skips"].to_string().contains(words), "{words}: {}", plan["skips"]);
    };
    std::os::unix::fs::chown(&web, Some(7), None).unwrap();
    told("attributes-differ");
    std::os::unix::fs::chown(&web, Some(0), None).unwrap();
    fs::set_permissions(&web, fs::Permissions::from_mode(0o700)).unwrap();
    told("attributes-differ");
    fs::set_permissions(&web, fs::Permissions::from_mode(0o755)).unwrap();
    let outside = scene.base().join("outside");
    fs::hard_link(&db, &outside).unwrap();
    told("who has the others could write it");
    fs::remove_file(outside).unwrap();
    let plan = run(&mut dedupe(&scene, &TRUSTED)).unwrap();
    assert!(plan.contains("\"names\":3"), "{plan}");
    let steps = |text: &str| serde_json::from_str::<Value>(text).unwrap()["steps"].clone();
    assert_eq!(steps(&plan).as_array().unwrap().len(), 2);
    // A plan that lost its domain makes nothing.
    let at = scene.base().join("plan.json");
    fs::write(&at, plan.replace("\"mine\"", "null")).unwrap();
    let refused = Ran::from(apply_plan(&scene).output().unwrap());
    assert_eq!(refused.status, 1, "{refused:?}");
    assert!(refused.stderr.contains("--trust-domain"), "{refused:?}");
    assert_ne!(inode(web), inode(db));
}

/// A file has as many names as its file system allows but one: of three names that are one file
/// one is shared, and undo makes the three one file again.
fn too_many() {
    const MOST: usize = 65_000;
    let ext4 = LoopFs::laid("ext4", 64, &["-b", "4096"], "loop");
    let scene = lay(&ext4.path().join("scene"));
    let [web, db] = scene.roots();
    fs::create_dir(web.join("many")).unwrap();
    for at in 2..MOST - 1 {
        fs::hard_link(web.join("bin/busybox"), web.join("many").join(at.to_string())).unwrap();
    }
    let of = |root: &Path| Snapshot::of(root).without_access_times();
    let before = of(&db);
    let applied = json(&Ran::from(apply(&scene).output().unwrap()));
    assert_eq!((&applied["state"], &applied["applied"]), (&"partial".into(), &1.into()));
    assert!(applied["left"].to_string().contains("allows no more names"), "{}", applied["left"]);
    let undone = cbin(&scene, &["undo"]);
    assert_eq!(undone.status, 0, "{undone:?}");
    assert_eq!(before.differences(&of(&db)), [""; 0]);
}
