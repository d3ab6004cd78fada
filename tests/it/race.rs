//! Containers that change under the hands of a step: thousands of times a thread of theirs swaps
//! the entry, its directory or the temporary name for links that lead out, writes into the file,
//! or puts a new one in its place, at any moment of the step. Nothing outside of the root is
//! opened or changed, and nothing that the container wrote is lost.
//!
//! The step is the library's own, without its journal: races are about the names alone. The same
//! attacks on a step that is made without care are red, so that the tests are seen not to be
//! blind.

#![expect(clippy::print_stderr, reason = "how much was tried is a part of the answer")]

mod attacks;
mod gate;
mod ground;

use std::collections::BTreeMap;
use std::path::Path;

use cbin_audit::model::Step;

use crate::rig::naive;
use crate::suite::{Need, Suite};

use ground::{EVIL, Ground, Now, ORIGINAL, OTHER, ROOT, Thing, What};

pub fn tests(suite: &mut Suite) {
    for kind in KINDS {
        for race in kind.races {
            let name = |more: &str| format!("privileged_race_{}{more}{}", kind.prefix, race.name);
            suite.test(&name(""), &[Need::Root], || survives(kind, race));
            suite.test(&name("undo_"), &[Need::Root], || undo_survives(kind, race));
            let red = format!("{}_without_care_is_red", name(""));
            suite.test(&red, &[Need::Root], || without_care_is_red(kind, race));
        }
    }
}

/// Containers, and what is done to them.
struct Kind {
    prefix: &'static str,
    what: What,
    /// Whose owner is at it.
    attacked: &'static str,
    /// A step that is made without care, by names.
    careless: fn(&Path, &Path, &str, &str),
    /// Of each race, where no other number is asked for.
    rounds: u64,
    races: &'static [Race],
}

impl Kind {
    fn ground(&self) -> Ground {
        Ground::new(self.what, self.attacked)
    }

    fn rounds(&self) -> u64 {
        let told = std::env::var("CBIN_AUDIT_TEST_ROUNDS").ok();
        told.and_then(|rounds| rounds.parse().ok()).unwrap_or(self.rounds)
    }

    /// After a round: what the race is about, and that the other container has what is its own.
    fn holds(&self, race: &Race, ground: &Ground, round: &Round) -> Result<(), String> {
        (race.holds)(&ground.now(), round)?;
        match (self.what, self.attacked) {
            (What::Twin, ROOT) => twin_stands(&ground.now_of(OTHER), round),
            (What::Twin, _) => victim_stands(&ground.now_of(ROOT), round),
            _ => Ok(()),
        }
    }
}

const KINDS: &[Kind] = &[
    Kind {
        prefix: "",
        what: What::File,
        attacked: ROOT,
        careless: naive::step,
        rounds: 20_000,
        races: RACES,
    },
    // A directory is laid in ten times the time of a file.
    Kind {
        prefix: "tree_",
        what: What::Tree,
        attacked: ROOT,
        careless: naive::tree_step,
        rounds: 2000,
        races: TREES,
    },
    Kind {
        prefix: "hardlink_",
        what: What::Twin,
        attacked: ROOT,
        careless: naive::hardlink_step,
        rounds: 2000,
        races: RACES,
    },
    Kind {
        prefix: "hardlink_of_",
        what: What::Twin,
        attacked: OTHER,
        careless: naive::hardlink_step,
        rounds: 2000,
        races: TWINS,
    },
];

/// The container when the entry is a directory.
const TREES: &[Race] = &[
    Race { name: "swapped_for_a_link", attack: Ground::swap_entry, holds: links_are_kept },
    Race { name: "parent_swapped_for_a_link", attack: Ground::swap_parent, holds: entry_stands },
    Race { name: "temporary_name_swapped", attack: Ground::swap_temporary, holds: entry_is_there },
    Race { name: "second_name_swapped", attack: Ground::swap_scrap, holds: entry_is_there },
    Race { name: "below_swapped_for_a_link", attack: Ground::swap_below, holds: entry_is_there },
    Race { name: "written_inside", attack: Ground::write_inside, holds: writes_are_kept },
    Race { name: "package_inside", attack: Ground::put_package_inside, holds: writes_are_kept },
];

/// The container that has the file which another's entry becomes a name of.
const TWINS: &[Race] = &[
    Race { name: "a_file_swapped_for_a_link", attack: Ground::swap_entry, holds: links_are_kept },
    Race {
        name: "a_directory_swapped_for_a_link",
        attack: Ground::swap_parent,
        holds: entry_stands,
    },
    Race {
        name: "a_file_written_in_place",
        attack: Ground::write_in_place,
        holds: writes_are_kept,
    },
    Race {
        name: "a_file_replaced_by_a_package",
        attack: Ground::put_package,
        holds: writes_are_kept,
    },
];

/// What a container does, over and over; the number of the turn tells one from the next.
type Attack = fn(&Ground, u64);
/// What must be true afterwards.
type Holds = fn(&Now, &Round) -> Result<(), String>;

struct Race {
    name: &'static str,
    attack: Attack,
    holds: Holds,
}

const RACES: &[Race] = &[
    Race { name: "entry_swapped_for_a_link", attack: Ground::swap_entry, holds: links_are_kept },
    Race { name: "directory_swapped_for_a_link", attack: Ground::swap_parent, holds: entry_stands },
    Race { name: "temporary_name_swapped", attack: Ground::swap_temporary, holds: entry_is_there },
    Race { name: "written_in_place", attack: Ground::write_in_place, holds: writes_are_kept },
    Race { name: "replaced_by_a_package", attack: Ground::put_package, holds: writes_are_kept },
];

/// One step under attack.
struct Round {
    ended: Ended,
    /// The last text that the container wrote into its program, and was told to be written.
    written: Option<String>,
}

/// How a step ended, and why: in the journal's words.
type Ended = (&'static str, Option<String>);

impl Round {
    /// What was left under the temporary name is named.
    fn tells_of(&self, name: &str) -> bool {
        self.ended.1.as_ref().is_some_and(|cause| cause.contains(name))
    }
}

fn survives(kind: &Kind, race: &Race) {
    let (ground, rounds, name) = (kind.ground(), kind.rounds(), race.name);
    let mut ended = BTreeMap::new();
    let turns = gate::race(
        &ground,
        race.attack,
        rounds,
        || ground.lay(),
        |step| ground.carry_out(step),
        |round| {
            *ended.entry(round.ended.0).or_insert(0_u64) += 1;
            kind.holds(race, &ground, round)
        },
    );
    let turns = turns.unwrap_or_else(|broken| panic!("{name}: {broken}"));
    eprintln!("{}{name}: {rounds} rounds, {turns} attacks, {ended:?}", kind.prefix);
    ground.nothing_outside_was_touched().unwrap();
    let (met, done) = (ended.iter().filter(|(how, _)| **how != "done"), ended.get("done"));
    let met = met.map(|(_, times)| times).sum::<u64>();
    assert!(met > rounds / 100, "the step was hardly ever met: {ended:?}");
    assert!(done.is_some_and(|done| *done > 0), "it never ended: {ended:?}");
}

/// What an undo does to an entry, without its journal, as above.
fn undo_survives(kind: &Kind, race: &Race) {
    let (ground, rounds, name) = (kind.ground(), kind.rounds(), race.name);
    ground.store();
    let mut undone = 0;
    let prepare = || ground.lay_applied();
    let turns = gate::race(
        &ground,
        race.attack,
        rounds,
        prepare,
        |entry| ground.put_back(entry),
        |round| {
            undone += u64::from(round.ended.0 == "undone");
            kind.holds(race, &ground, round)
        },
    );
    let turns = turns.unwrap_or_else(|broken| panic!("undo: {name}: {broken}"));
    eprintln!("undo: {}{name}: {rounds} rounds, {turns} attacks, {undone} undone", kind.prefix);
    ground.nothing_outside_was_touched().unwrap();
    assert!(turns > rounds / 10, "it was hardly ever attacked: {turns}");
    assert!(undone > rounds / 100, "it was hardly ever undone: {undone}");
}

fn without_care_is_red(kind: &Kind, race: &Race) {
    let ground = kind.ground();
    let step = |_: &Step| {
        (kind.careless)(&ground.entry(), &ground.temporary(), ORIGINAL, &ground.becomes());
        ("done", None)
    };
    let broken = gate::race(
        &ground,
        race.attack,
        kind.rounds(),
        || ground.lay(),
        step,
        |round| {
            kind.holds(race, &ground, round)?;
            ground.nothing_outside_was_touched()
        },
    );
    assert!(broken.is_err(), "a step without care passes");
}

/// The name leads to something. Who takes the temporary name for what is his own may lose that.
fn entry_is_there(now: &Now, round: &Round) -> Result<(), String> {
    let there = now.contains_key("tool").then_some(());
    there.ok_or_else(|| format!("the entry is gone: {now:?} after {:?}", round.ended))
}

/// What is said to be put back is; the temporary name is not left behind without a word.
fn entry_stands(now: &Now, round: &Round) -> Result<(), String> {
    entry_is_there(now, round)?;
    let untold = now.keys().any(|name| name.starts_with('.') && !round.tells_of(name));
    let gone = !now.values().any(|thing| *thing == Thing::File(ORIGINAL.to_owned()));
    match (untold, gone && round.ended.0 == "rolled_back") {
        (false, false) => Ok(()),
        _ => Err(format!("neither done nor undone: {now:?} after {:?}", round.ended)),
    }
}

/// The container's own link is still there, and so is its program, or the link to it.
fn links_are_kept(now: &Now, round: &Round) -> Result<(), String> {
    entry_stands(now, round)?;
    let evil = now.values().filter(|thing| **thing == Thing::Link(EVIL.to_owned())).count();
    let program = now.values().any(|thing| *thing != Thing::Link(EVIL.to_owned()));
    match (evil, program) {
        (1, true) => Ok(()),
        _ => Err(format!("something is lost: {now:?} after {:?}", round.ended)),
    }
}

/// What was written last is what the name leads to, or is kept beside it, and said to be.
fn writes_are_kept(now: &Now, round: &Round) -> Result<(), String> {
    let Some(written) = &round.written else { return entry_stands(now, round) };
    let beside = || now.iter().any(|(name, thing)| thing.says(written) && round.tells_of(name));
    if now.get("tool").is_some_and(|tool| tool.says(written)) || beside() {
        return Ok(());
    }
    Err(format!("{written:?} is lost: {now:?} after {:?}", round.ended))
}

/// The container that has the file has it still, and nothing else came there; who has a name of it
/// may have written it.
fn twin_stands(other: &Now, round: &Round) -> Result<(), String> {
    let written = |tool: &Thing| round.written.as_ref().is_some_and(|text| tool.says(text));
    let stands = other.get("tool").is_some_and(|tool| tool.says(ORIGINAL) || written(tool));
    match stands && other.len() == 2 {
        true => Ok(()),
        false => Err(format!("the other container is {other:?} after {:?}", round.ended)),
    }
}

/// The container whose entry it is has its own, to the byte, or the other's file; nothing else.
fn victim_stands(now: &Now, round: &Round) -> Result<(), String> {
    let stands = match (round.ended.0, now.get("tool")) {
        ("done" | "kept", Some(Thing::Shared(_))) => true,
        ("rolled_back" | "undone", Some(tool)) => *tool == Thing::File(ORIGINAL.to_owned()),
        _ => false,
    };
    match stands && now.len() == 2 {
        true => Ok(()),
        false => Err(format!("the entry's container is {now:?} after {:?}", round.ended)),
    }
}
