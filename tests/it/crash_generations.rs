//! Killed before each call that makes, mounts, shows or removes an image of the store: each
//! container's programs run, `recover` leaves nothing of a moment behind and brings the image
//! back after a boot, and `undo` puts everything back. And an image that cannot be made.

#![expect(clippy::print_stderr, reason = "how much was tried is a part of the answer")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cbin_audit::exec::generations::publish;
use cbin_audit::model::{ContentId, ObjectName};
use rustix::io::Errno;

use crate::memory_ground::{Running, start};
use crate::packages;
use crate::rig::call::{Call, Kind};
use crate::rig::image::scratch;
use crate::rig::mutator::MOUNTS;
use crate::rig::scene::{NEEDS, ROOTS, Scene, run};
use crate::rig::supervise::{Answer, supervise};
use crate::snapshot::Snapshot;
use crate::suite::{Need, Suite};

pub fn tests(suite: &mut Suite) {
    let more =
        [Need::Program("mkfs.erofs"), Need::Program("nsenter"), Need::File("/dev/loop-control")];
    let needs = [NEEDS, &more].concat();
    let mut test = |name: String, run: Box<dyn FnOnce() + Send>| {
        suite.test(&format!("privileged_crash_generations_{name}"), &needs, run);
    };
    for by in ["nobody", "host", "live"] {
        let ways: [Way; 4] = [
            ("apply", Scene::apply, |_| {}),
            ("undo", Scene::undo, applied),
            ("recover", Scene::recover, cut_off),
            ("gc", Scene::gc, with_a_stray_object),
        ];
        for (name, command, prepare) in ways {
            test(format!("{by}_{name}"), Box::new(move || holds(by, command, prepare)));
        }
    }
    test("shown_before_it_is_mounted_is_red".into(), Box::new(shown_too_early_is_red));
    for by in ["nobody", "live"] {
        test(format!("{by}_faults"), Box::new(move || faults(by)));
    }
    test("without_mkfs".into(), Box::new(without_mkfs));
}

/// A command that is killed, and what was done before.
type Way = (&'static str, fn(&Scene) -> Command, fn(&Laid));

fn applied(laid: &Laid) {
    run(&mut laid.scene.apply()).unwrap();
}

/// The image is shown, and some entries lead to it.
fn cut_off(laid: &Laid) {
    let mut exchanged = 0;
    let ended = supervise(&laid.scene.apply(), |call| {
        exchanged += usize::from(call.kind == Kind::Exchange);
        if exchanged == 2 { Answer::Kill } else { Answer::Happen }
    });
    assert!(ended.is_killed(), "{ended:?}");
}

/// A generation has something that no run needs.
fn with_a_stray_object(laid: &Laid) {
    applied(laid);
    let mut bytes = fs::read(packages::busybox().unwrap()).unwrap();
    bytes.extend_from_slice(b"stray");
    let content = ContentId(blake3::hash(&bytes).into());
    let stray = ObjectName::new("busybox", std::env::consts::ARCH, content);
    let path = laid.scene.store().join(stray.as_str());
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o555)).unwrap();
    assert!(publish(&laid.scene.store()).unwrap().new);
}

fn holds(by: &'static str, command: fn(&Scene) -> Command, prepare: fn(&Laid)) {
    let laid = Laid::prepared(by, prepare);
    let ended = supervise(&command(&laid.scene), |_| Answer::Happen);
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    let points = laid.points(&ended.calls);
    drop(laid);
    let broken: Vec<String> = points
        .iter()
        .filter_map(|at| {
            let laid = Laid::prepared(by, prepare);
            let kill = |call: &Call| if call.index == *at { Answer::Kill } else { Answer::Happen };
            let killed = supervise(&command(&laid.scene), kill);
            assert!(killed.is_killed(), "{at}: {killed:?}");
            let told = |error| format!("killed before {}: {error}", killed.calls[*at]);
            laid.recovers().map_err(told).err()
        })
        .collect();
    eprintln!("{by}: killed before each of {} calls", points.len());
    assert!(points.len() > 3 && broken.is_empty(), "{points:?}\n{}", broken.join("\n"));
}

/// What containers are shown leads to an image that is mounted nowhere.
fn shown_too_early_is_red() {
    let laid = Laid::prepared("nobody", applied);
    laid.unmount_images();
    laid.programs_run().expect_err("the links lead to an empty directory, and nobody noticed");
}

/// What the making of an image may meet.
fn faults(by: &'static str) {
    let laid = Laid::prepared(by, |_| {});
    let all = supervise(&laid.scene.apply(), |_| Answer::Happen).calls;
    let of_image = laid.points(&all).into_iter().filter(|at| laid.makes_an_image(&all[*at]));
    let cases: Vec<(usize, Option<Errno>)> = of_image
        .flat_map(|at| {
            let errors: &[Errno] = match all[at].kind {
                Kind::Write | Kind::Open => &[Errno::NOSPC, Errno::IO],
                Kind::Flush => &[Errno::IO],
                Kind::Mount => &[Errno::PERM, Errno::NODEV],
                Kind::MakeDirectory | Kind::Symlink | Kind::Rename => &[Errno::NOSPC],
                _ => &[Errno::PERM],
            };
            errors.iter().map(move |error| (at, Some(*error))).chain([(at, None)])
        })
        .collect();
    drop(laid);
    let broken: Vec<String> = cases
        .iter()
        .filter_map(|(at, errno)| {
            let laid = Laid::prepared(by, |_| {});
            let ended = supervise(&laid.scene.apply(), |call| match errno {
                Some(errno) if call.index == *at => Answer::Fail(*errno),
                None if call.index == *at => {
                    // The program that makes the call alone.
                    let pid = rustix::process::Pid::from_raw(call.pid as i32).unwrap();
                    let _it = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                    Answer::Happen
                }
                _ => Answer::Happen,
            });
            let said = format!("{errno:?} at {}: {}", ended.calls[*at], ended.stderr);
            let told = |error| format!("{said}: {error}");
            if ended.status.is_some_and(|status| status != 0)
                && !ended.stderr.contains("cannot")
                && !ended.stderr.contains("Image")
            {
                return Some(format!("{said}: it does not say why"));
            }
            laid.recovers().map_err(told).err()
        })
        .collect();
    eprintln!("{by}: {} faults", cases.len());
    assert!(cases.len() > 10 && broken.is_empty(), "{}", broken.join("\n"));
}

fn without_mkfs() {
    let laid = Laid::prepared("nobody", |_| {});
    let mut command = laid.scene.apply();
    let empty = laid.scene.base().join("journal");
    let error = run(command.env("PATH", empty)).unwrap_err();
    assert!(error.contains("mkfs.erofs") && error.contains("erofs-utils"), "{error}");
    laid.recovers().unwrap();
    assert_eq!(laid.now(), laid.before);
}

/// A scene whose store is an image, and what it was.
struct Laid {
    scene: Scene,
    by: &'static str,
    running: Vec<Running>,
    before: State,
    _dir: tempfile::TempDir,
}

/// All that a run may change, apart from the store and the journal.
#[derive(Debug, PartialEq)]
struct State {
    roots: Vec<Snapshot>,
    /// Those of images left out.
    mounts: BTreeSet<PathBuf>,
    names: BTreeSet<PathBuf>,
}

impl Laid {
    fn prepared(by: &'static str, prepare: fn(&Self)) -> Self {
        let dir = scratch();
        let scene = Scene::lay_small(&dir.path().join("scene")).with_an_image();
        if by != "nobody" {
            fs::create_dir(scene.base().join(MOUNTS)).unwrap();
            fs::write(scene.base().join(MOUNTS).join("by"), by).unwrap();
        }
        let running = if by == "live" {
            scene.roots().iter().map(|it| container(it)).collect()
        } else {
            Vec::new()
        };
        let before = State::of(&scene);
        let laid = Self { scene, by, running, before, _dir: dir };
        prepare(&laid);
        laid
    }

    fn now(&self) -> State {
        State::of(&self.scene)
    }

    /// Before each call that has to do with an image, with what shows it, or with an entry, and
    /// after each; of many writes to one file the first, the last, and one between.
    fn points(&self, calls: &[Call]) -> Vec<usize> {
        let is_write = |at: usize| {
            let same = |other: usize| {
                calls
                    .get(other)
                    .is_some_and(|it| it.kind == Kind::Write && it.path == calls[at].path)
            };
            same(at) && at > 0 && same(at - 1) && same(at + 1)
        };
        let mut points: Vec<usize> = (0..calls.len())
            .filter(|at| self.matters(&calls[*at]) || *at > 0 && self.matters(&calls[at - 1]))
            .collect();
        let (writes, others): (Vec<usize>, Vec<usize>) =
            points.iter().partition(|at| is_write(**at));
        points = others;
        points.extend(writes.get(writes.len() / 2));
        points.sort_unstable();
        points
    }

    fn matters(&self, call: &Call) -> bool {
        self.makes_an_image(call) || call.kind == Kind::Exchange || self.shows(call)
    }

    fn makes_an_image(&self, call: &Call) -> bool {
        let (images, view) = (self.scene.store().join(".generations"), self.scene.shown());
        let paths = [Some(&call.path), call.other.as_ref()];
        let is_ours = |path: &Path| {
            path.starts_with(&images)
                || path.parent() == view.parent()
                    && path
                        .file_name()
                        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
        };
        paths.into_iter().flatten().any(|path| is_ours(path))
    }

    /// It has to do with the mount points.
    fn shows(&self, call: &Call) -> bool {
        let points = self.scene.roots().map(|root| root.join("cbin"));
        call.kind == Kind::Mount || points.contains(&call.path)
    }

    /// Now; after `recover`; and, where the image is mounted by the host alone, after a boot.
    fn recovers(&self) -> Result<(), String> {
        self.programs_run().map_err(|error| format!("at once: {error}"))?;
        run(&mut self.scene.recover())?;
        self.has_no_scraps()?;
        self.programs_run().map_err(|error| format!("after recover: {error}"))?;
        if self.by == "nobody" {
            self.unmount_images();
            run(&mut self.scene.recover())?;
            self.programs_run().map_err(|error| format!("after a boot: {error}"))?;
        }
        run(&mut self.scene.gc())?;
        self.has_no_scraps()?;
        self.programs_run().map_err(|error| format!("after gc: {error}"))?;
        let changed = self.scene.roots().iter().any(|root| root.join("bin/busybox").is_symlink());
        if changed {
            run(&mut self.scene.undo())?;
        }
        let now = self.now();
        if now != self.before {
            let roots = self.before.roots.iter().zip(&now.roots);
            let differences: Vec<String> =
                roots.flat_map(|(then, now)| then.differences(now)).collect();
            return Err(format!(
                "in the end: {}\n{:?}, {:?}",
                differences.join("\n"),
                now.mounts,
                now.names
            ));
        }
        for running in &self.running {
            let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", running.pid())).unwrap();
            if let Some(left) = mounts.lines().find(|line| line.contains("/cbin ")) {
                return Err(format!("undo left {left}"));
            }
        }
        self.programs_run().map_err(|error| format!("after undo: {error}"))?;
        run(&mut self.scene.gc())?;
        self.has_no_scraps()?;
        match objects(&self.scene.store()).as_slice() {
            [] => Ok(()),
            left => Err(format!("gc left {left:?}")),
        }
    }

    /// In each container, whether it runs or is started now.
    fn programs_run(&self) -> Result<(), String> {
        if self.by != "live" {
            return match self.by {
                // What the host has mounted is there already.
                "host" => self.scene.programs_run_as_they_are(),
                _ => self.scene.programs_run(),
            };
        }
        for (name, running) in ROOTS.iter().zip(&self.running) {
            let mut command = Command::new("nsenter");
            command.args(["-m", "-r", "-w", "-t", &running.pid().to_string(), "--"]);
            let ended = command.args(["/bin/sh", "-c", "echo ok"]).output().unwrap();
            if ended.stdout != b"ok\n" {
                let words = String::from_utf8_lossy(&ended.stderr).into_owned();
                return Err(format!("no program runs in {name}: {words}"));
            }
        }
        Ok(())
    }

    fn has_no_scraps(&self) -> Result<(), String> {
        let all = walkdir::WalkDir::new(self.scene.base()).into_iter().flatten();
        let ours = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(b".cbin-audit-");
        match all.map(walkdir::DirEntry::into_path).find(|it| it.file_name().is_some_and(ours)) {
            Some(path) => Err(format!("{path:?} is left")),
            None => Ok(()),
        }
    }

    fn unmount_images(&self) {
        for point in images_mounted(&self.scene) {
            rustix::mount::unmount(&point, rustix::mount::UnmountFlags::DETACH).unwrap();
        }
    }
}

/// The objects, and images, of a store.
fn objects(store: &Path) -> Vec<PathBuf> {
    let names = fs::read_dir(store).into_iter().flatten().flatten().map(|it| it.path());
    names
        .filter(|path| path.file_name().is_some_and(|it| !it.as_encoded_bytes().starts_with(b".")))
        .collect()
}

/// Its root is changed in a mount namespace of its own, and it sleeps.
fn container(root: &Path) -> Running {
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private", "chroot"]).arg(root);
    start(command.args(["/bin/busybox", "sleep", "1000"]))
}

impl Drop for Laid {
    /// What is mounted keeps its directory.
    fn drop(&mut self) {
        for point in mounted(&self.scene).into_iter().rev() {
            let _gone = rustix::mount::unmount(&point, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

/// What this process sees mounted in a scene.
fn mounted(scene: &Scene) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    points.map(PathBuf::from).filter(|point| point.starts_with(scene.base())).collect()
}

fn images_mounted(scene: &Scene) -> Vec<PathBuf> {
    mounted(scene).into_iter().filter(|point| point.starts_with(scene.store())).collect()
}

impl State {
    fn of(scene: &Scene) -> Self {
        let of = |at: &PathBuf| Snapshot::of(at).without_directory_times().without_access_times();
        let names = fs::read_dir(scene.base()).unwrap().map(|entry| entry.unwrap().path());
        Self {
            roots: scene.roots().iter().map(of).collect(),
            mounts: mounted(scene)
                .into_iter()
                .filter(|it| !it.starts_with(scene.store()))
                .collect(),
            names: names.filter(|path| *path != scene.store()).collect(),
        }
    }
}
