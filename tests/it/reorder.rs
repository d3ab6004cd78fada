//! A disk with a write cache loses power: what it keeps is all that came before the last flush
//! and any part of what came after. The writes of a whole `dedupe --apply` and `undo` are
//! recorded, with unrelated flushes between; at each flush random parts are replayed, mounted,
//! and must hold working containers that can be recovered and undone.

#![expect(clippy::print_stderr, reason = "how much was tried is a part of the answer")]

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;

use crate::hardlinks::ground as hardlinks;
use crate::rig::call::Call;
use crate::rig::dice::Dice;
use crate::rig::image::{BTRFS, EXT4, FileSystem, Mounted, XFS, scratch};
use crate::rig::logged::{Disk, Event, LoggedDisk};
use crate::rig::naive;
use crate::rig::scene::Scene;
use crate::rig::supervise::{Answer, supervise};
use crate::snapshot::Snapshot;
use crate::suite::{Need, Suite};

/// One call in so many comes after somebody else has flushed something.
const NOISE: Option<usize> = Some(5);

/// A bad build is found out long before.
const ENOUGH: usize = 140;

/// A flush has as many parts that are tried. Of few writes there are few different ones.
const MOST_SEEDS: u64 = 64;

/// How many different states each file system is left in: more than 400 in all. One of xfs takes
/// as long as three of the others.
const FILE_SYSTEMS: [(FileSystem, &str, usize); 3] =
    [(EXT4, "mkfs.ext4", 160), (XFS, "mkfs.xfs", 100), (BTRFS, "mkfs.btrfs", 150)];

pub fn tests(suite: &mut Suite) {
    for (fs, mkfs, states) in FILE_SYSTEMS {
        let needs = &[
            Need::Root,
            Need::File("/dev/fuse"),
            Need::Package("busybox-static"),
            Need::Program(mkfs),
            Need::Program("unshare"),
        ];
        let name = |what: &str| format!("privileged_crash_reorder_{}_{what}", fs.kind);
        suite.test(&name("survives"), needs, move || survives(fs, states));
        suite.test(&name("without_flush_is_red"), needs, move || without_flush_is_red(fs));
        suite.test(&name("object_not_flushed_is_red"), needs, move || unflushed_object_is_red(fs));
        suite.test(&name("tree_survives"), needs, move || tree_survives(fs, states / 2));
        suite.test(&name("tree_not_flushed_is_red"), needs, move || unflushed_tree_is_red(fs));
        suite.test(&name("hardlinks_survive"), needs, move || hardlinks_survive(fs, states / 2));
        let red = name("hardlinks_without_flush_is_red");
        suite.test(&red, needs, move || hardlinks_without_flush_is_red(fs));
    }
}

/// Commands, one after the other.
#[derive(Clone, Copy)]
struct Trial {
    lay: fn(&Path) -> Scene,
    commands: [fn(&Scene) -> Command; 2],
    /// What must hold of each state.
    holds: fn(&Scene, &[Snapshot]) -> Result<(), String>,
}

const LINKS: Trial =
    Trial { lay: Scene::lay, commands: [Scene::apply, Scene::undo], holds: Scene::recovers };
const TREE: Trial = Trial { lay: Scene::lay_tree, ..LINKS };
const HARDLINKS: Trial = Trial {
    lay: hardlinks::lay,
    commands: [hardlinks::apply, Scene::undo],
    holds: hardlinks::recovers,
};

fn survives(fs: FileSystem, wanted: usize) {
    all_survive(&Recorded::of(LINKS, fs, NOISE, &|_, _| Answer::Happen), wanted);
}

fn tree_survives(fs: FileSystem, wanted: usize) {
    all_survive(&Recorded::of(TREE, fs, NOISE, &|_, _| Answer::Happen), wanted);
}

fn hardlinks_survive(fs: FileSystem, wanted: usize) {
    all_survive(&Recorded::of(HARDLINKS, fs, NOISE, &|_, _| Answer::Happen), wanted);
}

fn hardlinks_without_flush_is_red(fs: FileSystem) {
    let recorded = Recorded::of(HARDLINKS, fs, NOISE, &|_, call| naive::without_flush(call));
    assert!(!recorded.replay(ENOUGH, 1).1.is_empty(), "names that are not flushed pass");
}

fn unflushed_tree_is_red(fs: FileSystem) {
    // There all of a transaction is committed before the flush behind the first exchange of a
    // directory is over, the store's tree with it: the superblock's generation has gone up by then
    // (Linux 6.18). Nothing leads to the tree before that, so that this alone cannot be seen.
    let decide = |scene: &Scene, call: &Call| match fs == BTRFS {
        true => naive::without_flush(call),
        false => naive::without_flush_of(&scene.store(), call),
    };
    let recorded = Recorded::of(TREE, fs, NOISE, &decide);
    assert!(!recorded.replay(ENOUGH, 1).1.is_empty(), "a tree that is not flushed passes");
}

fn all_survive(recorded: &Recorded, wanted: usize) {
    let (states, broken) = recorded.replay(wanted, usize::MAX);
    eprintln!("{}: {states} different states, {} broken", recorded.fs.kind, broken.len());
    assert!(states >= wanted, "{states} states only");
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

fn without_flush_is_red(fs: FileSystem) {
    let recorded = Recorded::of(LINKS, fs, NOISE, &|_, call| naive::without_flush(call));
    assert!(!recorded.replay(ENOUGH, 1).1.is_empty(), "a build that never flushes passes");
}

fn unflushed_object_is_red(fs: FileSystem) {
    // There an unrelated flush often commits all there is, the object with it.
    let noise = if fs == BTRFS { None } else { NOISE };
    let decide = |scene: &Scene, call: &Call| naive::without_flush_of(&scene.store(), call);
    let recorded = Recorded::of(LINKS, fs, noise, &decide);
    assert!(!recorded.replay(ENOUGH, 1).1.is_empty(), "an object that is not flushed passes");
}

type Decide<'a> = &'a dyn Fn(&Scene, &Call) -> Answer;

/// All that was written during one run.
struct Recorded {
    trial: Trial,
    fs: FileSystem,
    start: Disk,
    log: Vec<Event>,
    before: Vec<Snapshot>,
    dir: tempfile::TempDir,
}

impl Recorded {
    fn of(trial: Trial, fs: FileSystem, noise: Option<usize>, decide: Decide<'_>) -> Self {
        let dir = scratch();
        let disk = fs.make(|base| drop((trial.lay)(base)));
        let point = dir.path().join("fuse");
        std::fs::create_dir(&point).unwrap();
        let logged = LoggedDisk::mount(&point, disk.clone(), fs.size());
        let mounted = Mounted::new(&logged.file(), &dir.path().join("mount"));
        let scene = Scene::at(mounted.path());
        let before = scene.snapshot();
        let mut dice = Dice::new(4);
        for command in trial.commands {
            let ended = supervise(&command(&scene), |call| {
                if noise.is_some_and(|every| dice.once_in(every)) {
                    scene.flush_unrelated(&mut dice);
                }
                decide(&scene, call)
            });
            assert_eq!(ended.status, Some(0), "{}", ended.stderr);
        }
        let log = logged.log();
        drop(mounted);
        drop(logged);
        Self { trial, fs, start: disk, log, before, dir }
    }

    /// `states` different ones of what may be left, spread over the flushes. Stops once `enough`
    /// are broken. Returns how many there were, and what did not hold.
    fn replay(&self, states: usize, enough: usize) -> (usize, Vec<String>) {
        let windows = self.windows();
        assert!(windows.len() > 5, "{} flushes only", windows.len());
        let (mut seen, mut broken) = (HashSet::new(), Vec::new());
        for seed in 0..MOST_SEEDS {
            for (number, (disk, window)) in windows.iter().enumerate() {
                if seen.len() == states {
                    return (states, broken);
                }
                let dice = &mut Dice::new(number as u64 * MOST_SEEDS + seed);
                let state = part(disk, window, dice, seed);
                if !seen.insert(state.digest(&self.start)) {
                    continue;
                }
                if let Err(error) = self.check(&state) {
                    broken.push(format!("flush {number}, seed {seed}: {error}"));
                    if broken.len() >= enough {
                        return (seen.len(), broken);
                    }
                }
            }
        }
        (seen.len(), broken)
    }

    /// What was written between two flushes, and the disk as it was at the first of them.
    fn windows(&self) -> Vec<(Disk, &[Event])> {
        let mut disk = self.start.clone();
        let windows = self.log.split(|event| matches!(event, Event::Flush));
        let filled = windows.filter(|window| !window.is_empty());
        filled
            .map(|window| {
                let after = part(&disk, window, &mut Dice::new(0), 0);
                (std::mem::replace(&mut disk, after), window)
            })
            .collect()
    }

    fn check(&self, state: &Disk) -> Result<(), String> {
        let image = self.dir.path().join("image");
        state.lay(&image, self.fs.size());
        let mounted = Mounted::new(&image, &self.dir.path().join("mount"));
        (self.trial.holds)(&Scene::at(mounted.path()), &self.before)
    }
}

/// All of the writes where the seed is 0, none where it is 1, else a random part: each block
/// of 4 KiB on its own, so that a long write may be torn.
fn part(disk: &Disk, window: &[Event], dice: &mut Dice, seed: u64) -> Disk {
    let mut disk = disk.clone();
    // A few lost, half of them, or a few kept.
    let of_eight = [7, 4, 1][dice.below(3)];
    for event in window {
        let Event::Write(offset, bytes) = event else { continue };
        for (number, block) in bytes.chunks(4096).enumerate() {
            let kept = match seed {
                0 => true,
                1 => false,
                _ => dice.below(8) < of_eight,
            };
            if kept {
                disk.write(offset + number as u64 * 4096, block);
            }
        }
    }
    disk
}
