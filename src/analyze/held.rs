//! What each inode holds, each content written down once: most inodes hold what another holds.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::model::ContentId;

/// The content of each inode, where it was read.
#[derive(Debug, Clone, Default)]
pub struct Held {
    contents: Vec<ContentId>,
    /// The places among `contents`, by the contents there: five bytes each, where a map would
    /// have each content a second time.
    known: HashTable<u32>,
    /// By inode, one more than the content's place among `contents`; 0 where it was not read.
    places: Vec<u32>,
}

impl Held {
    /// Nothing is known of these inodes yet.
    pub fn none(inodes: usize) -> Self {
        Self { places: vec![0; inodes], ..Self::default() }
    }

    /// How many inodes.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// There is no inode.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// What the inode holds.
    pub fn get(&self, inode: usize) -> Option<ContentId> {
        let place = self.places[inode].checked_sub(1)?;
        Some(self.contents[place as usize])
    }

    /// The inode holds this.
    pub fn set(&mut self, inode: usize, content: Option<ContentId>) {
        self.places[inode] = content.map_or(0, |content| self.place_of(content) + 1);
    }

    fn place_of(&mut self, content: ContentId) -> u32 {
        let Self { contents, known, .. } = self;
        let is_it = |&place: &u32| contents[place as usize] == content;
        match known.entry(head(&content), is_it, |&place| head(&contents[place as usize])) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(free) => {
                let place = contents.len() as u32;
                free.insert(place);
                contents.push(content);
                place
            }
        }
    }

    /// The inode holds what another does.
    pub fn copy(&mut self, from: usize, to: usize) {
        self.places[to] = self.places[from];
    }

    /// The inodes of each content, of those that are asked for, where there are enough of them:
    /// contents in their order, and inodes in theirs.
    pub fn by_content(
        &self,
        asked: impl Fn(usize) -> bool,
        enough: impl Fn(&ContentId, usize) -> bool,
    ) -> Vec<(ContentId, Vec<usize>)> {
        let place = |&inode: &usize| self.places[inode].checked_sub(1);
        let asked = || (0..self.len()).filter(|&inode| asked(inode));
        let held = || asked().filter_map(|inode| Some((place(&inode)? as usize, inode)));
        // Most contents of many files are of one file each: those take nothing but a number.
        let mut counts = vec![0_u32; self.contents.len()];
        held().for_each(|(place, _)| counts[place] += 1);
        let (mut found, mut slots) = (Vec::new(), vec![u32::MAX; counts.len()]);
        for (place, count) in counts.into_iter().enumerate() {
            let (content, count) = (self.contents[place], count as usize);
            if count > 0 && enough(&content, count) {
                slots[place] = found.len() as u32;
                found.push((content, Vec::with_capacity(count)));
            }
        }
        for (place, inode) in held() {
            if let Some((_, inodes)) = found.get_mut(slots[place] as usize) {
                inodes.push(inode);
            }
        }
        found.sort_unstable_by_key(|(content, _)| *content);
        found
    }
}

impl FromIterator<Option<ContentId>> for Held {
    fn from_iter<I: IntoIterator<Item = Option<ContentId>>>(contents: I) -> Self {
        let mut held = Self::default();
        for content in contents {
            held.places.push(0);
            held.set(held.len() - 1, content);
        }
        held
    }
}

/// A content is named by a hash already: its first bytes are as good as another hash of it.
/// Whoever looks for contents whose hashes begin alike has to try 2^32 times for every two of them.
fn head(content: &ContentId) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = content.0;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ContentId = ContentId([7; 32]);
    const B: ContentId = ContentId([3; 32]);

    #[test]
    fn inodes_are_told_by_content() {
        let held: Held = [Some(A), None, Some(B), Some(A)].into_iter().collect();
        assert_eq!((held.get(0), held.get(1), held.get(2)), (Some(A), None, Some(B)));
        assert_eq!(held.by_content(|_| true, |_, _| true), [(B, vec![2]), (A, vec![0, 3])]);
        assert_eq!(held.by_content(|inode| inode != 2, |_, _| true), [(A, vec![0, 3])]);
        assert_eq!(held.by_content(|_| true, |_, count| count > 1), [(A, vec![0, 3])]);
    }

    #[test]
    fn what_is_forgotten_is_told_no_more() {
        let mut held = Held::none(2);
        held.set(0, Some(A));
        held.copy(0, 1);
        held.set(0, None);
        assert_eq!(held.by_content(|_| true, |_, _| true), [(A, vec![1])]);
    }
}
