//! Where the pages of one file lie in memory.

use crate::model::Run;

/// Page frame numbers by page of the file, 64 pages to a word.
#[derive(Debug, Clone, Default)]
pub(super) struct FrameTable {
    words: Vec<Word>,
}

#[derive(Debug, Clone)]
struct Word {
    number: u64,
    present: u64,
    frames: Box<[u64; 64]>,
}

/// What two views of a file have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Vote {
    /// A page of both lies in one frame: one object. A page that moved while it
    /// was being looked at is outvoted by any that did not.
    Same,
    /// They have pages in common, and each has frames of its own.
    Different,
    /// No page is in both.
    NothingInCommon,
}

impl FrameTable {
    /// Whether these runs show the object that this table holds.
    pub(super) fn vote<'a>(&self, runs: impl IntoIterator<Item = &'a Run>) -> Vote {
        let mut vote = Vote::NothingInCommon;
        let mut near = 0;
        for run in runs {
            for offset in 0..u64::from(run.len) {
                match self.frame(run.page + offset, &mut near) {
                    Some(frame) if frame == run_frame(run, offset) => return Vote::Same,
                    Some(_) => vote = Vote::Different,
                    None => {}
                }
            }
        }
        vote
    }

    /// Takes in the pages that are not here yet.
    pub(super) fn absorb<'a>(&mut self, runs: impl IntoIterator<Item = &'a Run>) {
        let mut near = 0;
        for run in runs {
            let mut offset = 0;
            while offset < u64::from(run.len) {
                let page = run.page + offset;
                let count = (64 - page % 64).min(u64::from(run.len) - offset);
                let word = self.word_mut(page / 64, &mut near);
                word.absorb(page % 64, count, run, offset);
                offset += count;
            }
        }
    }

    /// The pages as runs, in order.
    pub(super) fn runs(&self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for word in &self.words {
            for bit in (0..64).filter(|bit| word.present & 1 << bit != 0) {
                let (page, pfn) = (word.number * 64 + bit, word.frames[bit as usize]);
                match runs.last_mut() {
                    Some(run)
                        if run.page + u64::from(run.len) == page
                            && run_frame(run, u64::from(run.len)) == pfn =>
                    {
                        run.len += 1;
                    }
                    _ => runs.push(Run { page, pfn, len: 1 }),
                }
            }
        }
        runs
    }

    fn frame(&self, page: u64, near: &mut usize) -> Option<u64> {
        let number = page / 64;
        if self.words.get(*near).is_none_or(|word| word.number != number) {
            *near = self.words.binary_search_by_key(&number, |word| word.number).ok()?;
        }
        let word = &self.words[*near];
        (word.present & 1 << (page % 64) != 0).then(|| word.frames[(page % 64) as usize])
    }

    fn word_mut(&mut self, number: u64, near: &mut usize) -> &mut Word {
        if self.words.get(*near).is_none_or(|word| word.number != number) {
            let place = self.words.binary_search_by_key(&number, |word| word.number);
            *near = place.unwrap_or_else(|place| {
                self.words.insert(place, Word { number, present: 0, frames: Box::new([0; 64]) });
                place
            });
        }
        &mut self.words[*near]
    }
}

impl Word {
    fn absorb(&mut self, bit: u64, count: u64, run: &Run, offset: u64) {
        let bits = (u64::MAX >> (64 - count)) << bit;
        if self.present & bits == bits {
            return;
        }
        for index in (0..count).filter(|index| self.present & 1 << (bit + index) == 0) {
            self.frames[(bit + index) as usize] = run_frame(run, offset + index);
        }
        self.present |= bits;
    }
}

/// The frame of a run's page; 0 for all of them where the kernel hides it.
fn run_frame(run: &Run, offset: u64) -> u64 {
    if run.pfn == 0 { 0 } else { run.pfn + offset }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(runs: &[Run]) -> FrameTable {
        let mut table = FrameTable::default();
        table.absorb(runs);
        table
    }

    #[test]
    fn one_common_frame_is_enough() {
        let mine = table(&[Run { page: 0, pfn: 100, len: 10 }]);
        let moved = [Run { page: 8, pfn: 7, len: 1 }, Run { page: 9, pfn: 109, len: 1 }];
        assert_eq!(mine.vote(&moved), Vote::Same);
        assert_eq!(mine.vote(&moved[..1]), Vote::Different);
        assert_eq!(mine.vote(&[Run { page: 10, pfn: 110, len: 3 }]), Vote::NothingInCommon);
    }

    #[test]
    fn what_is_known_stays() {
        let mut mine = table(&[Run { page: 62, pfn: 1000, len: 4 }]);
        mine.absorb(&[Run { page: 60, pfn: 500, len: 8 }]);
        let expected = [
            Run { page: 60, pfn: 500, len: 2 },
            Run { page: 62, pfn: 1000, len: 4 },
            Run { page: 66, pfn: 506, len: 2 },
        ];
        assert_eq!(mine.runs(), expected);
    }

    #[test]
    fn hidden_frames_are_equal() {
        let mine = table(&[Run { page: 0, pfn: 0, len: 70 }]);
        assert_eq!(mine.runs(), [Run { page: 0, pfn: 0, len: 70 }]);
        assert_eq!(mine.vote(&[Run { page: 69, pfn: 0, len: 1 }]), Vote::Same);
    }
}
