//! A step and an attack on it, at once: round after round, each from a state that is known.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::ground::Ground;
use super::{Attack, Ended, Round};
use crate::rig::dice::Dice;

/// When the attacker may work. It waits on its feet: to be woken would take longer than a step.
#[derive(Default)]
struct Gate {
    open: AtomicBool,
    inside: AtomicBool,
    over: AtomicBool,
    /// Counts up while it waits: it is on a processor now.
    awake: AtomicU64,
    /// What a step takes, in nanoseconds: the attack begins at any moment of it.
    step: AtomicU64,
    turns: AtomicU64,
}

/// A few attacks come before the step.
const HEAD_START: Duration = Duration::from_micros(5);

/// Attacks `step` in each of so many rounds, each from what `prepare` laid. `judge` is asked after each, while nobody is at work.
/// Returns the number of attacks.
///
/// # Errors
/// The first thing that did not hold.
pub fn race<P>(
    ground: &Ground,
    attack: Attack,
    rounds: u64,
    mut prepare: impl FnMut() -> P,
    mut step: impl FnMut(&P) -> Ended,
    mut judge: impl FnMut(&Round) -> Result<(), String>,
) -> Result<u64, String> {
    let (gate, cores) = (Gate::default(), cores());
    std::thread::scope(|scope| {
        let _pinned = Pinned::to(cores[0]);
        scope.spawn(|| {
            let _pinned = Pinned::to(cores[1 % cores.len()]);
            gate.attack(ground, attack);
        });
        let _over = Over(&gate);
        let mut dice = Dice::new(2);
        for number in 0..rounds {
            let prepared = prepare();
            // Some are left in peace: a step that never came to its end would withstand everything.
            if !dice.once_in(64) {
                gate.open();
                if dice.once_in(2) {
                    stand(HEAD_START);
                }
            }
            let began = Instant::now();
            let ended = step(&prepared);
            gate.took(began.elapsed());
            gate.shut();
            let round = Round { ended, written: ground.written.lock().unwrap().take() };
            judge(&round).map_err(|broken| format!("round {number}: {broken}"))?;
        }
        Ok(gate.turns.load(SeqCst))
    })
}

/// Those that this thread may run on.
fn cores() -> Vec<usize> {
    let set = sched_getaffinity(None).unwrap();
    (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect()
}

/// The two keep off each other's core, where there are two: on one, neither would ever be met.
struct Pinned(CpuSet);

impl Pinned {
    fn to(core: usize) -> Self {
        let before = sched_getaffinity(None).unwrap();
        let mut one = CpuSet::new();
        one.set(core);
        sched_setaffinity(None, &one).unwrap();
        Self(before)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        sched_setaffinity(None, &self.0).unwrap();
    }
}

/// Ends the attack also when an assertion has failed.
struct Over<'a>(&'a Gate);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, SeqCst);
    }
}

impl Gate {
    fn attack(&self, ground: &Ground, attack: Attack) {
        let mut dice = Dice::new(1);
        while !self.over.load(SeqCst) {
            self.awake.fetch_add(1, SeqCst);
            if !self.open.load(SeqCst) {
                std::hint::spin_loop();
                continue;
            }
            // What a step does first would else hardly ever be met.
            let step = self.step.load(SeqCst) as usize;
            let delay = if dice.once_in(2) { 0 } else { dice.below(1 + step) };
            stand(Duration::from_nanos(delay as u64));
            // Once, at a moment of its own, or over and over.
            let once = dice.once_in(2);
            while self.turn(ground, attack) && !once {}
            wait_for(|| !self.open.load(SeqCst) || self.over.load(SeqCst));
        }
    }

    /// One attack, unless the gate is shut.
    fn turn(&self, ground: &Ground, attack: Attack) -> bool {
        self.inside.store(true, SeqCst);
        let open = self.open.load(SeqCst);
        if open {
            attack(ground, self.turns.fetch_add(1, SeqCst));
        }
        self.inside.store(false, SeqCst);
        open
    }

    fn open(&self) {
        let before = self.awake.load(SeqCst);
        wait_for(|| self.awake.load(SeqCst) != before);
        self.open.store(true, SeqCst);
    }

    fn shut(&self) {
        self.open.store(false, SeqCst);
        wait_for(|| !self.inside.load(SeqCst));
    }

    /// A step that was not interrupted is what counts: it is hardly ever the longest.
    fn took(&self, time: Duration) {
        let (now, time) = (self.step.load(SeqCst), time.as_nanos() as u64);
        self.step.store(if now == 0 { time } else { (now * 15 + time.min(now * 2)) / 16 }, SeqCst);
    }
}

fn stand(long: Duration) {
    let from = Instant::now();
    while from.elapsed() < long {
        std::hint::spin_loop();
    }
}

fn wait_for(done: impl Fn() -> bool) {
    let mut tries = 0_u32;
    while !done() {
        tries += 1;
        if tries.is_multiple_of(1000) {
            std::thread::yield_now();
        }
        std::hint::spin_loop();
    }
}

/// What the container wrote last.
pub type Written = Mutex<Option<String>>;
