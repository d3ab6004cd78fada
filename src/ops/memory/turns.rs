//! Pieces of work that several threads do, and one takes in, in their order.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Who does which piece, and what is done before its turn.
pub(super) struct Turns<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    pieces: usize,
    /// Pieces after the one that is being taken in which may be in work or done.
    ahead: usize,
    claimed: usize,
    taken: usize,
    done: BTreeMap<usize, T>,
    /// A thread has panicked: the piece that it had will not come.
    broken: bool,
}

/// What the thread that takes in does next.
enum Next<T> {
    TakeIn(T),
    Work(usize),
}

impl<T> Turns<T> {
    /// So many pieces; `ahead` is at least one.
    pub(super) fn new(pieces: usize, ahead: usize) -> Self {
        let done = BTreeMap::new();
        let state = State { pieces, ahead, claimed: 0, taken: 0, done, broken: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Does pieces until there are none, or nobody wants them any more.
    pub(super) fn help(&self, mut work: impl FnMut(usize) -> T) {
        let _breaks = Breaks(self);
        while let Some(piece) = self.claim() {
            let done = work(piece);
            self.hand_over(piece, done);
        }
    }

    /// Takes in all pieces, and works itself while the next one is not there yet: it never
    /// sleeps while there is something to do.
    pub(super) fn take_in(&self, mut work: impl FnMut(usize) -> T, mut take: impl FnMut(usize, T)) {
        let _breaks = Breaks(self);
        let mut turn = 0;
        while let Some(next) = self.next() {
            match next {
                Next::Work(piece) => {
                    let done = work(piece);
                    self.hand_over(piece, done);
                }
                Next::TakeIn(done) => {
                    take(turn, done);
                    turn += 1;
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State<T>>) -> MutexGuard<'a, State<T>> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn claim(&self) -> Option<usize> {
        let mut state = self.lock();
        while !state.broken && state.claimed < state.pieces {
            match state.claim() {
                Some(piece) => return Some(piece),
                None => state = self.wait(state),
            }
        }
        None
    }

    fn next(&self) -> Option<Next<T>> {
        let mut state = self.lock();
        while !state.broken && state.taken < state.pieces {
            let turn = state.taken;
            if let Some(done) = state.done.remove(&turn) {
                state.taken += 1;
                self.changed.notify_all();
                return Some(Next::TakeIn(done));
            }
            match state.claim() {
                Some(piece) => return Some(Next::Work(piece)),
                None => state = self.wait(state),
            }
        }
        None
    }

    fn hand_over(&self, piece: usize, done: T) {
        let mut state = self.lock();
        state.done.insert(piece, done);
        if piece == state.taken {
            self.changed.notify_all();
        }
    }
}

impl<T> State<T> {
    /// The next piece that nobody has, unless too much is done ahead already.
    fn claim(&mut self) -> Option<usize> {
        let may = self.claimed < self.pieces && self.claimed < self.taken + self.ahead;
        may.then(|| {
            self.claimed += 1;
            self.claimed - 1
        })
    }
}

/// A thread that panics lets the others go: nobody waits for its piece.
struct Breaks<'a, T>(&'a Turns<T>);

impl<T> Drop for Breaks<'_, T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().broken = true;
            self.0.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, reason = "a thread that panics is what is tested")]

    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn pieces_are_taken_in_in_order_and_few_are_held() {
        let (turns, held) = (Turns::new(500, 4), AtomicUsize::new(0));
        let work = |piece| {
            // Four, and the one that is being taken in.
            assert!(held.fetch_add(1, Ordering::SeqCst) < 5);
            piece
        };
        let mut taken = Vec::new();
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| turns.help(work));
            }
            turns.take_in(work, |turn, piece| {
                held.fetch_sub(1, Ordering::SeqCst);
                assert_eq!(turn, piece);
                taken.push(piece);
            });
        });
        assert_eq!(taken, (0..500).collect::<Vec<_>>());
    }

    #[test]
    fn a_thread_that_panics_is_not_waited_for() {
        let (turns, began) = (Turns::new(50, 8), AtomicBool::new(false));
        let breaks = |_| {
            began.store(true, Ordering::SeqCst);
            panic!("broken")
        };
        // What is left to the other one is never all.
        let waits = |_| {
            while !began.load(Ordering::SeqCst) {
                thread::yield_now();
            }
        };
        let broken = AssertUnwindSafe(|| {
            thread::scope(|scope| {
                scope.spawn(|| turns.help(breaks));
                turns.take_in(waits, |_, ()| {});
            });
        });
        assert!(catch_unwind(broken).is_err());
    }
}
