//! A disk with a write cache loses power: what it keeps is all that came before the last flush
//! and any part of what came after. The writes of a whole `dedupe --apply` and `undo` are
//! recorded, with unrelated flushes between; at each flush random parts are replayed, mounted,
//! and must hold working containers that can be recovered and undone.

#![expect(clippy::print_stderr, reason = "how much was tried is a part of the answer")]

use crate::rig::call::Call;
use crate::rig::dice::Dice;
use crate::rig::image::{BTRFS, EXT4, FileSystem, Mounted, XFS, scratch};
use crate::rig::logged::{Disk, Event, LoggedDisk};
use crate::rig::naive;
use crate::rig::scene::Scene;
use crate::rig::supervise::{Answer, supervise};
use crate::snapshot::Snapshot;
use crate::suite::{Need, Suite};

/// On each file system: more than 400 in all.
const STATES: usize = 150;

pub fn tests(suite: &mut Suite) {
    for (fs, mkfs) in [(EXT4, "mkfs.ext4"), (XFS, "mkfs.xfs"), (BTRFS, "mkfs.btrfs")] {
        let needs = &[
            Need::Root,
            Need::File("/dev/fuse"),
            Need::Package("busybox-static"),
            Need::Program(mkfs),
            Need::Program("unshare"),
        ];
        let name = |what: &str| format!("privileged_crash_reorder_{}_{what}", fs.kind);
        suite.test(&name("survives"), needs, move || survives(fs));
        // btrfs commits all there is in one transaction, and xfs writes data out early: what is
        // not flushed is lost together there, too seldom in parts to tell a bad build by it.
        if fs != BTRFS {
            suite.test(&name("without_flush_is_red"), needs, move || without_flush_is_red(fs));
        }
        if fs == EXT4 {
            let red = move || unflushed_object_is_red(fs);
            suite.test(&name("object_not_flushed_is_red"), needs, red);
        }
    }
}

fn survives(fs: FileSystem) {
    let recorded = Recorded::new(fs, &|_, _| Answer::Happen);
    let (states, broken) = recorded.replay(STATES, usize::MAX);
    eprintln!("{}: {states} states, {} broken", fs.kind, broken.len());
    assert!(states >= STATES, "{states} states only");
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

fn without_flush_is_red(fs: FileSystem) {
    let recorded = Recorded::new(fs, &|_, call| naive::without_flush(call));
    assert!(!recorded.replay(STATES, 1).1.is_empty(), "a build that never flushes passes");
}

fn unflushed_object_is_red(fs: FileSystem) {
    let recorded = Recorded::new(fs, &|scene, call| naive::without_flush_of(&scene.store(), call));
    assert!(!recorded.replay(STATES, 1).1.is_empty(), "an object that is not flushed passes");
}

/// All that was written during one run.
struct Recorded {
    fs: FileSystem,
    start: Disk,
    log: Vec<Event>,
    before: Vec<Snapshot>,
    dir: tempfile::TempDir,
}

impl Recorded {
    fn new(fs: FileSystem, decide: &dyn Fn(&Scene, &Call) -> Answer) -> Self {
        let dir = scratch();
        let disk = fs.make(|base| drop(Scene::lay(base)));
        let point = dir.path().join("fuse");
        std::fs::create_dir(&point).unwrap();
        let logged = LoggedDisk::mount(&point, disk.clone(), fs.size());
        let mounted = Mounted::new(&logged.file(), &dir.path().join("mount"));
        let scene = Scene::at(mounted.path());
        let before = scene.snapshot();
        let mut dice = Dice::new(4);
        for command in [scene.apply(), scene.undo()] {
            let ended = supervise(&command, |call| {
                if dice.once_in(5) {
                    scene.flush_unrelated(&mut dice);
                }
                decide(&scene, call)
            });
            assert_eq!(ended.status, Some(0), "{}", ended.stderr);
        }
        let log = logged.log();
        drop(mounted);
        drop(logged);
        Self { fs, start: disk, log, before, dir }
    }

    /// At least `states` of what may be left, spread evenly over the flushes. Stops once `enough`
    /// are broken. Returns how many there were, and what did not hold.
    fn replay(&self, states: usize, enough: usize) -> (usize, Vec<String>) {
        let windows: Vec<&[Event]> =
            self.log.split(|event| matches!(event, Event::Flush)).collect();
        let filled = windows.iter().filter(|window| !window.is_empty()).count();
        assert!(filled > 5, "{filled} flushes only");
        let each = states.div_ceil(filled);
        let (mut disk, mut count, mut broken) = (self.start.clone(), 0, Vec::new());
        for (number, window) in windows.iter().enumerate().filter(|(_, window)| !window.is_empty())
        {
            for seed in 0..each as u64 {
                count += 1;
                let state = part(&disk, window, &mut Dice::new(number as u64 * 1000 + seed), seed);
                if let Err(error) = self.check(&state) {
                    broken.push(format!("window {number}, seed {seed}: {error}"));
                    if broken.len() >= enough {
                        return (count, broken);
                    }
                }
            }
            disk = part(&disk, window, &mut Dice::new(0), 0);
        }
        (count, broken)
    }

    fn check(&self, state: &Disk) -> Result<(), String> {
        let image = self.dir.path().join("image");
        state.lay(&image, self.fs.size());
        let mounted = Mounted::new(&image, &self.dir.path().join("mount"));
        Scene::at(mounted.path()).recovers(&self.before)
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
