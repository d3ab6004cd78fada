//! A set of page numbers of one file.

use std::ops::Range;

use super::Pages;

/// Pages of one file, 64 to a word, in order. Small for what processes map:
/// a few long stretches.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct PageSet {
    /// Number of the 64-page word and its bits, never 0; ascending.
    words: Vec<(u64, u64)>,
}

impl PageSet {
    /// How many pages.
    pub fn len(&self) -> Pages {
        Pages(self.words.iter().map(|(_, bits)| u64::from(bits.count_ones())).sum())
    }

    /// No page.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// The words, ascending: number and bits.
    pub fn words(&self) -> &[(u64, u64)] {
        &self.words
    }

    /// Adds the pages of a range.
    pub fn insert(&mut self, pages: Range<u64>) {
        let mut page = pages.start;
        while page < pages.end {
            let bit = page % 64;
            let count = (64 - bit).min(pages.end - page);
            self.insert_word(page / 64, (u64::MAX >> (64 - count)) << bit);
            page += count;
        }
    }

    /// The stretches below `end` that it lacks. What it has between two of them is left out only
    /// where that is at least `least` pages.
    pub fn gaps(&self, end: u64, least: u64) -> Vec<Range<u64>> {
        let (mut gaps, mut from) = (Vec::new(), 0);
        let mut add = |gap: Range<u64>| match gaps.last_mut() {
            _ if gap.is_empty() => {}
            Some(Range { end, .. }) if gap.start - *end < least => *end = gap.end,
            _ => gaps.push(gap),
        };
        for &(number, bits) in &self.words {
            for page in (0..64).filter(|bit| bits >> bit & 1 != 0).map(|bit| number * 64 + bit) {
                add(from.min(end)..page.min(end));
                from = page + 1;
            }
        }
        add(from.min(end)..end);
        gaps
    }

    fn insert_word(&mut self, number: u64, bits: u64) {
        match self.words.last_mut() {
            // Pages mostly come in order.
            Some(last) if last.0 == number => last.1 |= bits,
            Some(last) if last.0 > number => {
                match self.words.binary_search_by_key(&number, |word| word.0) {
                    Ok(index) => self.words[index].1 |= bits,
                    Err(index) => self.words.insert(index, (number, bits)),
                }
            }
            _ => self.words.push((number, bits)),
        }
    }

    /// The pages in either.
    pub fn union(&self, other: &Self) -> Self {
        self.combine(other, |mine, its| mine | its)
    }

    /// The pages in both.
    pub fn intersection(&self, other: &Self) -> Self {
        self.combine(other, |mine, its| mine & its)
    }

    /// The pages of `self` that `other` lacks.
    pub fn difference(&self, other: &Self) -> Self {
        self.combine(other, |mine, its| mine & !its)
    }

    /// Merges word by word; a word that one side lacks is 0 there.
    fn combine(&self, other: &Self, join: impl Fn(u64, u64) -> u64) -> Self {
        let (mut mine, mut its) = (self.words.iter().peekable(), other.words.iter().peekable());
        let mut words = Vec::with_capacity(self.words.len().max(other.words.len()));
        loop {
            let number = match (mine.peek(), its.peek()) {
                (Some(a), Some(b)) => a.0.min(b.0),
                (Some(a), None) => a.0,
                (None, Some(b)) => b.0,
                (None, None) => return Self { words },
            };
            let left = mine.next_if(|word| word.0 == number).map_or(0, |word| word.1);
            let right = its.next_if(|word| word.0 == number).map_or(0, |word| word.1);
            match join(left, right) {
                0 => {}
                bits => words.push((number, bits)),
            }
        }
    }
}

impl FromIterator<Range<u64>> for PageSet {
    fn from_iter<I: IntoIterator<Item = Range<u64>>>(ranges: I) -> Self {
        let mut set = Self::default();
        ranges.into_iter().for_each(|range| set.insert(range));
        set
    }
}

/// Which pages at least one, and which at least two of several sets hold.
#[derive(Debug, Clone, Default)]
pub struct Overlap {
    /// In one set or more.
    pub once: PageSet,
    /// In two or more.
    pub twice: PageSet,
}

impl Overlap {
    /// Takes in a set.
    pub fn add(&mut self, set: &PageSet) {
        let again = self.once.intersection(set);
        if !again.is_empty() {
            self.twice = self.twice.union(&again);
        }
        self.once = self.once.union(set);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ranges: &[Range<u64>]) -> PageSet {
        ranges.iter().cloned().collect()
    }

    #[test]
    fn holds_what_was_put_in() {
        let pages = set(&[3..5, 60..70, 128..192, 3..4]);
        assert_eq!(pages.len(), Pages(2 + 10 + 64));
        assert_eq!(pages.words(), &[(0, 0b11000 | (0xf << 60)), (1, 0x3f), (2, u64::MAX)]);
    }

    #[test]
    fn order_does_not_matter() {
        assert_eq!(set(&[1000..1001, 3..5]), set(&[3..4, 1000..1001, 4..5]));
    }

    #[test]
    fn joins() {
        let (a, b) = (set(&[0..100]), set(&[90..200]));
        assert_eq!(a.union(&b), set(&[0..200]));
        assert_eq!(a.intersection(&b), set(&[90..100]));
        assert_eq!(a.difference(&b), set(&[0..90]));
        assert!(a.difference(&a).is_empty());
    }

    #[test]
    fn gaps_are_what_it_lacks() {
        let pages = set(&[3..5, 60..70, 72..192]);
        assert_eq!(pages.gaps(200, 1), [0..3, 5..60, 70..72, 192..200]);
        assert_eq!(pages.gaps(192, 2), [0..3, 5..60, 70..72]);
        assert_eq!(pages.gaps(192, 3), [0..60, 70..72]);
        assert_eq!(pages.gaps(64, 1), [0..3, 5..60]);
        assert_eq!(pages.gaps(65, 1000), [0..60]);
        assert_eq!(pages.gaps(4, 1), [0..3]);
        assert_eq!(set(&[]).gaps(7, 1), [0..7]);
        assert_eq!(set(&[0..7]).gaps(7, 1), [0..0; 0]);
        assert_eq!(set(&[]).gaps(0, 1), [0..0; 0]);
    }

    #[test]
    fn overlap_counts_to_two() {
        let mut overlap = Overlap::default();
        [0..10, 5..15, 8..9].into_iter().for_each(|range| overlap.add(&set(&[range])));
        assert_eq!(overlap.once, set(&[0..15]));
        assert_eq!(overlap.twice, set(&[5..10]));
    }
}
