//! Containers that change under the hands of a step: thousands of times a thread of theirs swaps
//! the entry, its directory or the temporary name for links that lead out, writes into the file,
//! or puts a new one in its place, at any moment of the step. Nothing outside of the root is
//! opened or changed, and nothing that the container wrote is lost.
//!
//! The step is the library's own, without its journal: races are about the names alone. The same
//! attacks on a step that is made without care are red, so that the tests are seen not to be
//! blind.

#![expect(clippy::print_stderr, reason = "how much was tried is a part of the answer")]

mod gate;
mod ground;

use std::collections::BTreeMap;
use std::path::Path;

use cbin_audit::model::Step;

use crate::rig::naive;
use crate::suite::{Need, Suite};

use gate::race;
use ground::{EVIL, Ground, Now, ORIGINAL, Thing};

/// Of each race; `CBIN_AUDIT_TEST_ROUNDS` asks for another number.
fn rounds() -> u64 {
    let told = std::env::var("CBIN_AUDIT_TEST_ROUNDS").ok();
    told.and_then(|rounds| rounds.parse().ok()).unwrap_or(20_000)
}

pub fn tests(suite: &mut Suite) {
    for race in RACES {
        let Race { name, attack, holds } = *race;
        suite.test(&format!("privileged_race_{name}"), &[Need::Root], move || {
            survives(name, attack, holds);
        });
        suite.test(&format!("privileged_race_undo_{name}"), &[Need::Root], move || {
            undo_survives(name, attack, holds);
        });
        let red = format!("privileged_race_{name}_without_care_is_red");
        suite.test(&red, &[Need::Root], move || without_care_is_red(attack, holds));
    }
    for race in TREES {
        let Race { name, attack, holds } = *race;
        suite.test(&format!("privileged_race_tree_{name}"), &[Need::Root], move || {
            survives_on(&Ground::of_a_tree(), name, (attack, holds), tree_rounds());
        });
        suite.test(&format!("privileged_race_tree_undo_{name}"), &[Need::Root], move || {
            undo_survives_on(&Ground::of_a_tree(), name, (attack, holds), tree_rounds());
        });
        let red = format!("privileged_race_tree_{name}_without_care_is_red");
        suite.test(&red, &[Need::Root], move || tree_without_care_is_red(attack, holds));
    }
}

/// A directory is laid in ten times the time of a file.
fn tree_rounds() -> u64 {
    rounds().min(if std::env::var_os("CBIN_AUDIT_TEST_ROUNDS").is_some() { u64::MAX } else { 2000 })
}

/// The same container when the entry is a directory.
const TREES: &[Race] = &[
    Race { name: "swapped_for_a_link", attack: Ground::swap_entry, holds: links_are_kept },
    Race { name: "parent_swapped_for_a_link", attack: Ground::swap_parent, holds: entry_stands },
    Race { name: "temporary_name_swapped", attack: Ground::swap_temporary, holds: entry_is_there },
    Race { name: "second_name_swapped", attack: Ground::swap_scrap, holds: entry_is_there },
    Race { name: "written_inside", attack: Ground::write_inside, holds: writes_are_kept },
    Race { name: "package_inside", attack: Ground::put_package_inside, holds: writes_are_kept },
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

fn survives(name: &str, attack: Attack, holds: Holds) {
    survives_on(&Ground::new(), name, (attack, holds), rounds());
}

fn survives_on(ground: &Ground, name: &str, (attack, holds): (Attack, Holds), rounds: u64) {
    let mut ended = BTreeMap::new();
    let turns = race(
        ground,
        attack,
        rounds,
        || ground.lay(),
        |step| ground.carry_out(step),
        |round| {
            *ended.entry(round.ended.0).or_insert(0_u64) += 1;
            holds(&ground.now(), round)
        },
    );
    let turns = turns.unwrap_or_else(|broken| panic!("{name}: {broken}"));
    eprintln!("{name}: {rounds} rounds, {turns} attacks, {ended:?}");
    ground.nothing_outside_was_touched().unwrap();
    let (met, done) = (ended.iter().filter(|(how, _)| **how != "done"), ended.get("done"));
    let met = met.map(|(_, times)| times).sum::<u64>();
    assert!(met > rounds / 100, "the step was hardly ever met: {ended:?}");
    assert!(done.is_some_and(|done| *done > 0), "it never ended: {ended:?}");
}

/// What an undo does to an entry, without its journal, as above.
fn undo_survives(name: &str, attack: Attack, holds: Holds) {
    undo_survives_on(&Ground::new(), name, (attack, holds), rounds());
}

fn undo_survives_on(ground: &Ground, name: &str, (attack, holds): (Attack, Holds), rounds: u64) {
    // The object comes into the store as always.
    ground.apply(&ground.lay());
    let mut undone = 0;
    let prepare = || ground.lay_applied();
    let turns = race(
        ground,
        attack,
        rounds,
        prepare,
        |entry| ground.put_back(entry),
        |round| {
            undone += u64::from(round.ended.0 == "undone");
            holds(&ground.now(), round)
        },
    );
    let turns = turns.unwrap_or_else(|broken| panic!("undo: {name}: {broken}"));
    eprintln!("undo: {name}: {rounds} rounds, {turns} attacks, {undone} undone");
    ground.nothing_outside_was_touched().unwrap();
    assert!(turns > rounds / 10, "it was hardly ever attacked: {turns}");
    assert!(undone > rounds / 100, "it was hardly ever undone: {undone}");
}

fn without_care_is_red(attack: Attack, holds: Holds) {
    is_red(&Ground::new(), naive::step, (attack, holds));
}

fn tree_without_care_is_red(attack: Attack, holds: Holds) {
    is_red(&Ground::of_a_tree(), naive::tree_step, (attack, holds));
}

/// A step that is made without care, by names.
type Careless = fn(&Path, &Path, &str, &str);

fn is_red(ground: &Ground, careless: Careless, (attack, holds): (Attack, Holds)) {
    let step = |_: &Step| {
        careless(&ground.entry(), &ground.temporary(), ORIGINAL, ground.target());
        ("done", None)
    };
    let broken = race(
        ground,
        attack,
        rounds(),
        || ground.lay(),
        step,
        |round| {
            holds(&ground.now(), round)?;
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
    let kept = Thing::File(written.clone());
    let beside = || now.iter().any(|(name, thing)| *thing == kept && round.tells_of(name));
    if now.get("tool") == Some(&kept) || beside() {
        return Ok(());
    }
    Err(format!("{written:?} is lost: {now:?} after {:?}", round.ended))
}
