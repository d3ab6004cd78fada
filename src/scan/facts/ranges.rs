//! Sets of file offsets and addresses, as sorted ranges that do not overlap.

use std::ops::Range;

/// The union of ranges: sorted, without overlap, adjacent ones joined.
///
/// Hostile program headers may name the same bytes a thousand times; what works
/// on the union reads and counts them once.
pub(in crate::scan) fn merged(ranges: impl Iterator<Item = Range<u64>>) -> Vec<Range<u64>> {
    let mut sorted: Vec<_> = ranges.filter(|range| range.start < range.end).collect();
    sorted.sort_unstable_by_key(|range| range.start);
    let mut union: Vec<Range<u64>> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match union.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => union.push(range),
        }
    }
    union
}

/// How many numbers the ranges hold together.
pub(in crate::scan) fn total(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::{merged, total};

    #[test]
    fn overlap_counts_once() {
        let union = merged([5..9, 0..2, 1..4, 7..7, 4..5, 20..21].into_iter());
        assert_eq!(union, [0..9, 20..21]);
        assert_eq!(total(&union), 10);
    }

    #[test]
    fn no_sum_wraps() {
        assert_eq!(total(&merged([0..u64::MAX, 3..9].into_iter())), u64::MAX);
    }
}
