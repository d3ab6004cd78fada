//! Killed before each changing system call: each container's programs run, `recover` leaves
//! nothing behind, `undo` puts everything back.

#![expect(clippy::print_stderr, reason = "how much was tried is a part of the answer")]

use std::path::Path;
use std::process::Command;

use crate::rig::call::{Call, Kind};
use crate::rig::naive;
use crate::rig::scene::{NEEDS, Scene, run};
use crate::rig::supervise::{Answer, supervise};
use crate::snapshot::Snapshot;
use crate::suite::Suite;

pub fn tests(suite: &mut Suite) {
    suite.test("privileged_crash_kill_apply", NEEDS, killed_while_applying);
    suite.test("privileged_crash_kill_undo", NEEDS, killed_while_undoing);
    suite.test("privileged_crash_kill_recover", NEEDS, killed_while_recovering);
    suite.test("privileged_crash_kill_by_hand_is_red", NEEDS, by_hand_is_red);
    suite.test("privileged_crash_kill_without_exchange_is_red", NEEDS, without_exchange_is_red);
}

fn killed_while_applying() {
    let broken = Killed::new(Scene::apply).at_each_call();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

fn killed_while_undoing() {
    let prepare = |scene: &Scene| drop(run(&mut scene.apply()).unwrap());
    let broken = Killed { prepare, ..Killed::new(Scene::undo) }.at_each_call();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// What is to be recovered is an `apply` that was killed when its links stood under both names.
fn killed_while_recovering() {
    let prepare = |scene: &Scene| {
        let mut exchanged = 0;
        let ended = supervise(&scene.apply(), |call| {
            exchanged += usize::from(call.kind == Kind::Exchange);
            if exchanged == 4 { Answer::Kill } else { Answer::Happen }
        });
        assert!(ended.is_killed(), "{ended:?}");
    };
    let broken = Killed { prepare, ..Killed::new(Scene::recover) }.at_each_call();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

fn by_hand_is_red() {
    let check = |scene: &Scene, _: &[Snapshot]| scene.programs_run();
    let broken = Killed { check, ..Killed::new(naive::by_hand) }.at_each_call();
    assert!(broken.len() >= 2, "a move and a link in each of two containers: {broken:?}");
}

/// An exchange that is two renames, cut between them.
fn without_exchange_is_red() {
    let dir = crate::rig::image::scratch();
    let scene = Scene::lay(&dir.path().join("scene"));
    let ended = supervise(&scene.apply(), |call| {
        if call.kind != Kind::Exchange {
            return Answer::Happen;
        }
        naive::begin_without_exchange(call);
        Answer::Kill
    });
    assert!(ended.is_killed(), "{ended:?}");
    scene.programs_run().expect_err("a name that is gone, and nobody noticed");
}

/// Directories have the times that they had, too: those of a power cut may not.
fn all_is_as_before(scene: &Scene, before: &[Snapshot]) -> Result<(), String> {
    scene.recovers(before)?;
    scene.directories_are_old()
}

/// A command that is killed before each of its calls in turn.
pub struct Killed {
    pub command: fn(&Scene) -> Command,
    /// What is done before.
    pub prepare: fn(&Scene),
    /// What must hold after.
    pub check: fn(&Scene, &[Snapshot]) -> Result<(), String>,
    /// Makes the containers.
    pub lay: fn(&Path) -> Scene,
    /// Before which calls.
    pub before: fn(&Call) -> bool,
}

impl Killed {
    pub fn new(command: fn(&Scene) -> Command) -> Self {
        Self {
            command,
            prepare: |_| {},
            check: all_is_as_before,
            lay: Scene::lay,
            before: |_| true,
        }
    }

    /// Runs it once to its end, to see its calls. Returns what did not hold.
    pub fn at_each_call(&self) -> Vec<String> {
        let all = self.fresh(|scene, _| {
            let ended = supervise(&(self.command)(scene), |_| Answer::Happen);
            assert_eq!(ended.status, Some(0), "{}", ended.stderr);
            ended.calls
        });
        assert!(all.len() > 5, "{all:?}");
        let chosen: Vec<&Call> = all.iter().filter(|call| (self.before)(call)).collect();
        let killed = chosen.iter().filter_map(|call| self.killed(call.index, all.len()).err());
        let broken = killed.collect();
        eprintln!("killed before {} of {} calls", chosen.len(), all.len());
        broken
    }

    fn killed(&self, at: usize, calls: usize) -> Result<(), String> {
        self.fresh(|scene, before| {
            let kill = |call: &Call| if call.index == at { Answer::Kill } else { Answer::Happen };
            let ended = supervise(&(self.command)(scene), kill);
            assert!(ended.is_killed(), "{at} of {calls}: {ended:?}");
            let told = |error| format!("killed before {}: {error}", ended.calls[at]);
            (self.check)(scene, before).map_err(told)
        })
    }

    fn fresh<T>(&self, body: impl FnOnce(&Scene, &[Snapshot]) -> T) -> T {
        let dir = crate::rig::image::scratch();
        let _mounts = crate::rig::image::Below(dir.path().to_owned());
        let scene = (self.lay)(&dir.path().join("scene"));
        let before = scene.snapshot();
        (self.prepare)(&scene);
        body(&scene, &before)
    }
}
