//! The power is cut at every step, after an unrelated program has flushed at any step before:
//! what is on the device then is a working container, and can be recovered and undone.
//!
//! The cut is the shutdown ioctl of ext4 and xfs. Alone it proves nothing: all that was not
//! flushed is lost together, and a build that never flushes passes. The unrelated flush is what
//! brings half of the changes to the device, and the negative controls show that it does.

#![expect(clippy::print_stderr, reason = "how much was tried is a part of the answer")]

mod boot;

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;

use crate::hardlinks::ground as hardlinks;
use crate::rig::call::Call;
use crate::rig::dice::Dice;
use crate::rig::filter::shut_down;
use crate::rig::image::{Below, EXT4, FileSystem, Mounted, XFS, scratch};
use crate::rig::logged::Disk;
use crate::rig::mutator::MOUNTS;
use crate::rig::naive;
use crate::rig::scene::{Scene, run};
use crate::rig::supervise::{Answer, supervise};
use crate::snapshot::Snapshot;
use crate::suite::{Need, Suite};

/// `CBIN_AUDIT_TEST_PAIRS=1` takes all pairs; without it, those of every sixth flush: a state
/// costs two mounts and five programs.
fn every() -> usize {
    let told = std::env::var("CBIN_AUDIT_TEST_PAIRS").ok();
    told.and_then(|every| every.parse().ok()).unwrap_or(6)
}

pub fn tests(suite: &mut Suite) {
    for (fs, mkfs) in [(EXT4, "mkfs.ext4"), (XFS, "mkfs.xfs")] {
        let needs = &[
            Need::Root,
            Need::Package("busybox-static"),
            Need::Program(mkfs),
            Need::Program("unshare"),
            Need::Program("mkfs.erofs"),
        ];
        let name = |what: &str| format!("privileged_crash_power_{}_{what}", fs.kind);
        for (what, trial) in TRIALS {
            suite.test(&name(what), needs, move || survives(fs, what, *trial));
        }
        for (what, trial, decide) in CONTROLS {
            suite
                .test(&name(&format!("{what}_is_red")), needs, move || is_red(fs, *trial, *decide));
        }
    }
}

/// What is cut off, again and again.
#[derive(Clone, Copy)]
struct Trial {
    lay: fn(&Path) -> Scene,
    /// Comes before the command, and is on the device.
    prepare: fn(&Scene),
    /// Comes before the command, and is not flushed.
    meanwhile: fn(&Scene),
    command: fn(&Scene) -> Command,
    /// What must hold once there is power again.
    holds: fn(&Scene, &[Snapshot]) -> Result<(), String>,
    /// Of the flushes that others try one in so many: of its many calls few reach the device.
    sparse: usize,
}

impl Trial {
    const APPLY: Self = Self {
        lay: Scene::lay_small,
        prepare: |_| {},
        meanwhile: |_| {},
        command: Scene::apply,
        holds: Scene::recovers,
        sparse: 1,
    };
    const UNDO: Self = Self {
        prepare: |scene| drop(run(&mut scene.apply()).unwrap()),
        command: Scene::undo,
        ..Self::APPLY
    };
    const TREE_APPLY: Self = Self { lay: Scene::lay_tree, ..Self::APPLY };
    const TREE_UNDO: Self = Self { lay: Scene::lay_tree, ..Self::UNDO };
    /// What starts the containers is told to show them the store.
    const CONFIG_APPLY: Self =
        Self { lay: boot::lay_configs, holds: boot::recovers_by_configs, sparse: 6, ..Self::APPLY };
    const CONFIG_UNDO: Self =
        Self { prepare: Self::UNDO.prepare, command: Scene::undo, ..Self::CONFIG_APPLY };
    /// The store is an image.
    const IMAGE_APPLY: Self =
        Self { lay: boot::lay_image, holds: boot::recovers_by_image, sparse: 6, ..Self::APPLY };
    const IMAGE_UNDO: Self =
        Self { prepare: Self::UNDO.prepare, command: Scene::undo, ..Self::IMAGE_APPLY };
    const HARDLINK_APPLY: Self = Self {
        lay: hardlinks::lay,
        prepare: |scene| drop(hardlinks::plan(scene)),
        command: hardlinks::apply_plan,
        holds: hardlinks::recovers,
        ..Self::APPLY
    };
    const HARDLINK_UNDO: Self = Self {
        prepare: |scene| drop(run(&mut hardlinks::apply(scene)).unwrap()),
        command: Scene::undo,
        ..Self::HARDLINK_APPLY
    };
    /// The file that stays was written a moment ago.
    const HARDLINK_TO_A_NEW_FILE: Self = Self {
        prepare: |_| {},
        meanwhile: hardlinks::renew_what_stays,
        command: hardlinks::apply,
        holds: hardlinks::entries_run,
        ..Self::HARDLINK_APPLY
    };
}

const TRIALS: &[(&str, Trial)] = &[
    ("apply", Trial::APPLY),
    ("undo", Trial::UNDO),
    ("tree_apply", Trial::TREE_APPLY),
    ("tree_undo", Trial::TREE_UNDO),
    ("config_apply", Trial::CONFIG_APPLY),
    ("config_undo", Trial::CONFIG_UNDO),
    ("image_apply", Trial::IMAGE_APPLY),
    ("image_undo", Trial::IMAGE_UNDO),
    ("hardlink_apply", Trial::HARDLINK_APPLY),
    ("hardlink_undo", Trial::HARDLINK_UNDO),
    ("hardlink_to_a_new_file", Trial::HARDLINK_TO_A_NEW_FILE),
];

/// What a build does that must not pass.
const CONTROLS: &[(&str, Trial, Decide)] = &[
    ("without_flush", Trial::APPLY, |_, call| naive::without_flush(call)),
    ("object_not_flushed", Trial::APPLY, without_flush_of_store),
    ("tree_not_flushed", Trial::TREE_APPLY, without_flush_of_store),
    ("config_not_flushed", Trial::CONFIG_APPLY, |scene, call| {
        naive::without_flush_of(&scene.base().join(MOUNTS), call)
    }),
    // An image that is not flushed alone is not seen: who mounts it by a loop device has the file
    // system write it out (Linux 6.18), and that comes before anything leads to it.
    ("image_of_what_is_not_flushed", Trial::IMAGE_APPLY, without_flush_of_store),
    ("hardlink_without_flush", Trial::HARDLINK_APPLY, |_, call| naive::without_flush(call)),
    ("hardlink_to_what_is_not_flushed", Trial::HARDLINK_TO_A_NEW_FILE, |scene, call| {
        naive::without_flush_of(&scene.roots()[1], call)
    }),
];

fn without_flush_of_store(scene: &Scene, call: &Call) -> Answer {
    naive::without_flush_of(&scene.store(), call)
}

fn survives(fs: FileSystem, what: &str, trial: Trial) {
    let (pairs, states, broken) =
        Cut::new(fs, trial).pairs(|_, _| Answer::Happen, every() * trial.sparse, usize::MAX);
    eprintln!("{}: {what}: {pairs} pairs, {states} states, {} broken", fs.kind, broken.len());
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

fn is_red(fs: FileSystem, trial: Trial, decide: Decide) {
    let (.., broken) = Cut::new(fs, trial).pairs(decide, 1, 1);
    assert!(!broken.is_empty(), "a build passes that does not flush what it must");
}

/// One command on one file system, cut off again and again.
struct Cut {
    fs: FileSystem,
    template: Disk,
    before: Vec<Snapshot>,
    trial: Trial,
    dir: tempfile::TempDir,
}

type Decide = fn(&Scene, &Call) -> Answer;

impl Cut {
    fn new(fs: FileSystem, trial: Trial) -> Self {
        let dir = scratch();
        let image = dir.path().join("image");
        fs.make(|base| drop((trial.lay)(base))).lay(&image, fs.size());
        let up = Up::new(&image, &dir.path().join("mount"));
        let before = up.scene.snapshot();
        (trial.prepare)(&up.scene);
        drop(up);
        let template = Disk::read(&image);
        Self { fs, template, before, trial, dir }
    }

    /// All pairs of a step at which somebody else flushes (each of them, or each second, ...) and
    /// any later one at which the power is cut. Between two steps at which the device is as it was nothing new can be found: they
    /// are one state. Stops once `enough` are broken.
    fn pairs(&self, decide: Decide, every: usize, enough: usize) -> (usize, usize, Vec<String>) {
        let (mut pairs, mut states, mut broken) = (0, 0, Vec::new());
        let calls = self.changes(usize::MAX, decide).len() - 1;
        for flush in (0..=calls).step_by(every) {
            let changes = self.changes(flush, decide);
            for cut in flush..changes.len() {
                pairs += 1;
                if cut > flush && changes[cut - 1] == changes[cut] {
                    continue;
                }
                states += 1;
                if let Err(error) = self.state(flush, cut, decide) {
                    broken.push(format!("flush at {flush}, cut at {cut}: {error}"));
                    if broken.len() >= enough {
                        return (pairs, states, broken);
                    }
                }
            }
        }
        (pairs, states, broken)
    }

    /// Runs the command to its end; says for each of its calls how much had been written to the
    /// device before it, and at last how much in all.
    fn changes(&self, flush: usize, decide: Decide) -> Vec<u64> {
        let up = self.begin();
        let scene = &up.scene;
        let mut changes = Vec::new();
        let ended = supervise(&(self.trial.command)(scene), |call| {
            if call.index == flush {
                scene.flush_unrelated(&mut Dice::new(flush as u64));
            }
            changes.push(sectors_written(scene.base()));
            decide(scene, call)
        });
        assert_eq!(ended.status, Some(0), "{}", ended.stderr);
        changes.push(sectors_written(scene.base()));
        changes
    }

    fn state(&self, flush: usize, cut: usize, decide: Decide) -> Result<(), String> {
        let up = self.begin();
        let scene = &up.scene;
        let ended = supervise(&(self.trial.command)(scene), |call| {
            if call.index == flush {
                scene.flush_unrelated(&mut Dice::new(flush as u64));
            }
            if call.index == cut {
                power_off(scene.base());
                return Answer::Kill;
            }
            decide(scene, call)
        });
        if !ended.is_killed() {
            power_off(scene.base());
        }
        drop(up);
        let again = Up::new(&self.image(), &self.dir.path().join("mount"));
        (self.trial.holds)(&again.scene, &self.before)
    }

    fn begin(&self) -> Up {
        self.template.lay(&self.image(), self.fs.size());
        let up = Up::new(&self.image(), &self.dir.path().join("mount"));
        (self.trial.meanwhile)(&up.scene);
        up
    }

    fn image(&self) -> std::path::PathBuf {
        self.dir.path().join("image")
    }
}

/// A scene on its file system; what is mounted of its store goes before that.
struct Up {
    scene: Scene,
    _of_store: Below,
    _mounted: Mounted,
}

impl Up {
    fn new(image: &Path, point: &Path) -> Self {
        let mounted = Mounted::new(image, point);
        let scene = Scene::at(mounted.path());
        Self { _of_store: Below(scene.store()), scene, _mounted: mounted }
    }
}

fn power_off(base: &Path) {
    shut_down(File::open(base).unwrap().as_fd()).unwrap();
}

/// Of the device that a directory is on.
fn sectors_written(base: &Path) -> u64 {
    let device = std::os::unix::fs::MetadataExt::dev(&std::fs::metadata(base).unwrap());
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let stat = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).unwrap();
    stat.split_whitespace().nth(6).unwrap().parse().unwrap()
}
