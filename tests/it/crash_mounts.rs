//! Killed before each call that makes the store visible in a root, on the host or by what starts
//! its container, or that takes it away: each container's programs run, `recover` leaves nothing
//! of a run that changed no entry, and `undo` puts everything back.

#![expect(clippy::print_stderr, reason = "how much was tried is a part of the answer")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::rig::call::{Call, Kind};
use crate::rig::image::scratch;
use crate::rig::mutator::{MOUNTS, configs};
use crate::rig::scene::{NEEDS, ROOTS, Scene, run};
use crate::rig::supervise::{Answer, supervise};
use crate::snapshot::Snapshot;
use crate::suite::Suite;

pub fn tests(suite: &mut Suite) {
    for by in ["host", "config"] {
        let name = |what: &str| format!("privileged_crash_mounts_{by}_{what}");
        suite.test(&name("apply"), NEEDS, move || holds(by, Scene::apply, |_| {}));
        suite.test(&name("undo"), NEEDS, move || holds(by, Scene::undo, applied));
        suite.test(&name("recover"), NEEDS, move || holds(by, Scene::recover, cut_off));
        suite.test(&name("unannounced_is_red"), NEEDS, move || unannounced_is_red(by));
    }
}

fn applied(laid: &Laid) {
    run(&mut laid.scene.apply()).unwrap();
}

/// All is visible, and no entry is changed yet.
fn cut_off(laid: &Laid) {
    let [web, db] = laid.scene.roots();
    let ended = supervise(&laid.scene.apply(), |call| {
        let entry = call.kind == Kind::Symlink && (call.is_below(&web) || call.is_below(&db));
        if entry { Answer::Kill } else { Answer::Happen }
    });
    assert!(ended.is_killed(), "{ended:?}");
}

fn holds(by: &'static str, command: fn(&Scene) -> Command, prepare: fn(&Laid)) {
    let fresh = || {
        let laid = Laid::new(by);
        prepare(&laid);
        laid
    };
    let laid = fresh();
    let ended = supervise(&command(&laid.scene), |_| Answer::Happen);
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    let ours: Vec<bool> = ended.calls.iter().map(|call| laid.is_of_mounts(call)).collect();
    // Before each of them, and after each of them.
    let points: Vec<usize> =
        (0..ours.len()).filter(|at| ours[*at] || (*at > 0 && ours[at - 1])).collect();
    drop(laid);
    let broken = points.iter().filter_map(|at| {
        let laid = fresh();
        let kill = |call: &Call| if call.index == *at { Answer::Kill } else { Answer::Happen };
        let killed = supervise(&command(&laid.scene), kill);
        assert!(killed.is_killed(), "{at}: {killed:?}");
        let told = |error| format!("killed before {}: {error}", killed.calls[*at]);
        laid.recovers().map_err(told).err()
    });
    let broken: Vec<String> = broken.collect();
    eprintln!("{by}: killed before each of {} calls", points.len());
    assert!(points.len() > 5 && broken.is_empty(), "{points:?}\n{}", broken.join("\n"));
}

/// A run whose journal says nothing of what it was about to make: what it made stays.
fn unannounced_is_red(by: &'static str) {
    let laid = Laid::new(by);
    cut_off(&laid);
    let runs = fs::read_dir(laid.scene.journal().join("runs")).unwrap();
    for run in runs.map(|run| run.unwrap().path()) {
        let records = fs::read_to_string(&run).unwrap();
        let told = |line: &&str| !["attach", "config"].iter().any(|kind| line.contains(kind));
        let kept: Vec<&str> = records.lines().filter(told).collect();
        assert!(kept.len() < records.lines().count(), "{records}");
        fs::write(&run, kept.join("\n") + "\n").unwrap();
    }
    laid.recovers().expect_err("what was made is left behind, and nobody noticed");
}

/// A scene, and what it was.
struct Laid {
    scene: Scene,
    by: &'static str,
    before: State,
    _dir: tempfile::TempDir,
}

/// All that a run may change, apart from the store and the journal.
#[derive(Debug, PartialEq)]
struct State {
    roots: Vec<Snapshot>,
    mounts: Vec<PathBuf>,
    /// The files, and `None` for a directory.
    configs: BTreeMap<PathBuf, Option<Vec<u8>>>,
    beside: Vec<PathBuf>,
}

impl Laid {
    fn new(by: &'static str) -> Self {
        let dir = scratch();
        let scene = Scene::lay_small(&dir.path().join("scene"));
        let base = scene.base();
        // A mount point that is missing, and one that is there.
        fs::remove_dir(scene.roots()[0].join("cbin")).unwrap();
        for (dir, name) in ["nspawn", "system", "lxc/web", "lxc/db"].into_iter().zip(0..) {
            fs::create_dir_all(base.join(MOUNTS).join(dir)).unwrap();
            if name > 1 {
                fs::write(base.join(MOUNTS).join(dir).join("config"), "a = b\n").unwrap();
            }
        }
        fs::write(base.join(MOUNTS).join("by"), by).unwrap();
        let before = State::of(&scene);
        Self { scene, by, before, _dir: dir }
    }

    fn is_of_mounts(&self, call: &Call) -> bool {
        let paths = [Some(&call.path), call.other.as_ref()];
        let points = self.scene.roots().map(|root| root.join("cbin"));
        let is_point = |path: &Path| {
            path == self.scene.base().join("cbin") || points.contains(&path.to_owned())
        };
        let configs = self.scene.base().join(MOUNTS);
        call.kind == Kind::Mount
            || paths.into_iter().flatten().any(|path| is_point(path) || path.starts_with(&configs))
    }

    fn recovers(&self) -> Result<(), String> {
        self.programs_run().map_err(|error| format!("at once: {error}"))?;
        run(&mut self.scene.recover())?;
        self.programs_run().map_err(|error| format!("after recover: {error}"))?;
        let changed = self.scene.roots().iter().any(|root| root.join("bin/busybox").is_symlink());
        if changed {
            run(&mut self.scene.undo())?;
        }
        let now = State::of(&self.scene);
        if now == self.before {
            return Ok(());
        }
        let mut differences = vec![
            format!("{:?} are mounted", now.mounts),
            format!("{:?}, {:?}", now.beside, now.configs),
        ];
        for (then, now) in self.before.roots.iter().zip(&now.roots) {
            differences.extend(then.differences(now));
        }
        Err(format!(
            "after {}:\n{}",
            if changed { "undo" } else { "recover" },
            differences.join("\n")
        ))
    }

    /// Each container, as it would be started now, runs its shell.
    fn programs_run(&self) -> Result<(), String> {
        const SCRIPT: &str = r#"
            if [ -n "$1" ] && [ -d "$2/cbin" ]; then mount --bind "$1" "$2/cbin" || exit 9; fi
            [ "$(chroot "$2" /bin/sh -c 'echo ok')" = ok ]"#;
        for (name, root) in ROOTS.into_iter().zip(self.scene.roots()) {
            let configs = configs(&self.scene, name);
            let says =
                |file: &Path| fs::read_to_string(file).is_ok_and(|text| text.contains("cbin"));
            let is_shown = self.by == "config" && configs.iter().all(|config| says(&config.file.0));
            let store = if is_shown { self.scene.store() } else { PathBuf::new() };
            let mut command = Command::new("unshare");
            command.args(["--mount", "sh", "-c", SCRIPT, "sh"]).args([&store, &root]);
            let ended = command.output().unwrap();
            if !ended.status.success() {
                let words = String::from_utf8_lossy(&ended.stderr).into_owned();
                return Err(format!("no program runs in {name}: {words}"));
            }
        }
        Ok(())
    }
}

impl Drop for Laid {
    /// What a test that fails leaves mounted would keep its directory.
    fn drop(&mut self) {
        for point in State::mounts(&self.scene) {
            let _gone = rustix::mount::unmount(&point, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

impl State {
    fn of(scene: &Scene) -> Self {
        let of = |at: &Path| Snapshot::of(at).without_directory_times().without_access_times();
        let names = fs::read_dir(scene.base()).unwrap().map(|entry| entry.unwrap().path());
        let configs = walkdir::WalkDir::new(scene.base().join(MOUNTS)).into_iter();
        let configs = configs.map(|entry| entry.unwrap().into_path());
        let mut beside: Vec<PathBuf> = names.filter(|path| *path != scene.store()).collect();
        beside.sort();
        Self {
            roots: scene.roots().iter().map(|root| of(root)).collect(),
            mounts: Self::mounts(scene),
            configs: configs.map(|path| (path.clone(), fs::read(path).ok())).collect(),
            beside,
        }
    }

    fn mounts(scene: &Scene) -> Vec<PathBuf> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
        points.map(PathBuf::from).filter(|point| point.starts_with(scene.base())).collect()
    }
}
