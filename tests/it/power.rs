//! The power is cut at every step, after an unrelated program has flushed at any step before:
//! what is on the device then is a working container, and can be recovered and undone.
//!
//! The cut is the shutdown ioctl of ext4 and xfs. Alone it proves nothing: all that was not
//! flushed is lost together, and a build that never flushes passes. The unrelated flush is what
//! brings half of the changes to the device, and the negative controls show that it does.

#![expect(clippy::print_stderr, reason = "how much was tried is a part of the answer")]

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;

use crate::rig::call::Call;
use crate::rig::dice::Dice;
use crate::rig::filter::shut_down;
use crate::rig::image::{EXT4, FileSystem, Mounted, XFS, scratch};
use crate::rig::logged::Disk;
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
        ];
        let name = |what: &str| format!("privileged_crash_power_{}_{what}", fs.kind);
        suite.test(&name("apply"), needs, move || apply_survives(fs));
        suite.test(&name("undo"), needs, move || undo_survives(fs));
        suite.test(&name("without_flush_is_red"), needs, move || without_flush_is_red(fs));
        suite.test(&name("object_not_flushed_is_red"), needs, move || unflushed_object_is_red(fs));
        suite.test(&name("tree_apply"), needs, move || tree_apply_survives(fs));
        suite.test(&name("tree_undo"), needs, move || tree_undo_survives(fs));
        suite.test(&name("tree_not_flushed_is_red"), needs, move || unflushed_tree_is_red(fs));
    }
}

fn apply_survives(fs: FileSystem) {
    let cut = Cut::new(fs, Scene::apply, |_| {});
    let (pairs, states, broken) = cut.pairs(&|_, call| happen(call), every(), usize::MAX);
    eprintln!("{}: apply: {pairs} pairs, {states} states, {} broken", fs.kind, broken.len());
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

fn undo_survives(fs: FileSystem) {
    let cut = Cut::new(fs, Scene::undo, |scene| drop(run(&mut scene.apply()).unwrap()));
    let (pairs, states, broken) = cut.pairs(&|_, call| happen(call), every(), usize::MAX);
    eprintln!("{}: undo: {pairs} pairs, {states} states, {} broken", fs.kind, broken.len());
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

fn without_flush_is_red(fs: FileSystem) {
    let cut = Cut::new(fs, Scene::apply, |_| {});
    let (.., broken) = cut.pairs(&|_, call| naive::without_flush(call), 1, 1);
    assert!(!broken.is_empty(), "a build that never flushes passes");
}

fn unflushed_object_is_red(fs: FileSystem) {
    let cut = Cut::new(fs, Scene::apply, |_| {});
    let decide = |scene: &Scene, call: &Call| naive::without_flush_of(&scene.store(), call);
    let (.., broken) = cut.pairs(&decide, 1, 1);
    assert!(!broken.is_empty(), "a build that does not flush its object passes");
}

fn tree_apply_survives(fs: FileSystem) {
    let cut = Cut::of(Scene::lay_tree, fs, Scene::apply, |_| {});
    let (pairs, states, broken) = cut.pairs(&|_, call| happen(call), every(), usize::MAX);
    eprintln!("{}: apply: {pairs} pairs, {states} states, {} broken", fs.kind, broken.len());
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

fn tree_undo_survives(fs: FileSystem) {
    let prepare = |scene: &Scene| drop(run(&mut scene.apply()).unwrap());
    let cut = Cut::of(Scene::lay_tree, fs, Scene::undo, prepare);
    let (pairs, states, broken) = cut.pairs(&|_, call| happen(call), every(), usize::MAX);
    eprintln!("{}: undo: {pairs} pairs, {states} states, {} broken", fs.kind, broken.len());
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

fn unflushed_tree_is_red(fs: FileSystem) {
    let cut = Cut::of(Scene::lay_tree, fs, Scene::apply, |_| {});
    let decide = |scene: &Scene, call: &Call| naive::without_flush_of(&scene.store(), call);
    let (.., broken) = cut.pairs(&decide, 1, 1);
    assert!(!broken.is_empty(), "a build that does not flush its tree passes");
}

fn happen(_: &Call) -> Answer {
    Answer::Happen
}

/// One command on one file system, cut off again and again.
struct Cut {
    fs: FileSystem,
    template: Disk,
    before: Vec<Snapshot>,
    command: fn(&Scene) -> Command,
    dir: tempfile::TempDir,
}

type Decide<'a> = &'a dyn Fn(&Scene, &Call) -> Answer;

impl Cut {
    /// `prepare` comes before the command, and is on the device.
    fn new(fs: FileSystem, command: fn(&Scene) -> Command, prepare: fn(&Scene)) -> Self {
        Self::of(Scene::lay_small, fs, command, prepare)
    }

    fn of(
        lay: fn(&Path) -> Scene,
        fs: FileSystem,
        command: fn(&Scene) -> Command,
        prepare: fn(&Scene),
    ) -> Self {
        let dir = scratch();
        let mut before = Vec::new();
        let image = dir.path().join("image");
        fs.make(|base| drop(lay(base))).lay(&image, fs.size());
        let mounted = Mounted::new(&image, &dir.path().join("mount"));
        let scene = Scene::at(mounted.path());
        before.extend(scene.snapshot());
        prepare(&scene);
        drop(mounted);
        let template = Disk::read(&image);
        Self { fs, template, before, command, dir }
    }

    /// All pairs of a step at which somebody else flushes (each of them, or each second, ...) and
    /// any later one at which the power is cut. Between two steps at which the device is as it was nothing new can be found: they
    /// are one state. Stops once `enough` are broken.
    fn pairs(
        &self,
        decide: Decide<'_>,
        every: usize,
        enough: usize,
    ) -> (usize, usize, Vec<String>) {
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
    fn changes(&self, flush: usize, decide: Decide<'_>) -> Vec<u64> {
        let mounted = self.mount();
        let scene = Scene::at(mounted.path());
        let mut changes = Vec::new();
        let ended = supervise(&(self.command)(&scene), |call| {
            if call.index == flush {
                scene.flush_unrelated(&mut Dice::new(flush as u64));
            }
            changes.push(sectors_written(scene.base()));
            decide(&scene, call)
        });
        assert_eq!(ended.status, Some(0), "{}", ended.stderr);
        changes.push(sectors_written(scene.base()));
        changes
    }

    fn state(&self, flush: usize, cut: usize, decide: Decide<'_>) -> Result<(), String> {
        let mounted = self.mount();
        let scene = Scene::at(mounted.path());
        let ended = supervise(&(self.command)(&scene), |call| {
            if call.index == flush {
                scene.flush_unrelated(&mut Dice::new(flush as u64));
            }
            if call.index == cut {
                power_off(scene.base());
                return Answer::Kill;
            }
            decide(&scene, call)
        });
        if !ended.is_killed() {
            power_off(scene.base());
        }
        drop(mounted);
        let again = Mounted::new(&self.image(), &self.dir.path().join("mount"));
        Scene::at(again.path()).recovers(&self.before)
    }

    fn mount(&self) -> Mounted {
        self.template.lay(&self.image(), self.fs.size());
        Mounted::new(&self.image(), &self.dir.path().join("mount"))
    }

    fn image(&self) -> std::path::PathBuf {
        self.dir.path().join("image")
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
