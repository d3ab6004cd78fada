//! The names of one directory, with what is known of each.

/// Names whose bytes lie in one piece, so that a name takes no allocation of its own.
#[derive(Debug, Clone)]
pub struct Names<K> {
    bytes: Vec<u8>,
    list: Vec<Named<K>>,
}

/// Where a name lies in the piece, and what it is.
#[derive(Debug, Clone)]
struct Named<K> {
    start: u32,
    len: u32,
    kind: K,
}

impl<K> Named<K> {
    fn of<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.start as usize..][..self.len as usize]
    }
}

impl<K> Names<K> {
    /// Room for so many.
    pub fn with_capacity(names: usize) -> Self {
        Self { bytes: Vec::new(), list: Vec::with_capacity(names) }
    }

    /// Adds a name.
    pub fn push(&mut self, name: &[u8], kind: K) {
        let (start, len) = (self.bytes.len() as u32, name.len() as u32);
        self.bytes.extend_from_slice(name);
        self.list.push(Named { start, len, kind });
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Each name, and what it is.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &K)> {
        self.list.iter().map(|named| (named.of(&self.bytes), &named.kind))
    }

    /// Puts the names in byte order.
    pub fn sort(&mut self) {
        let bytes = &self.bytes;
        self.list.sort_unstable_by(|a, b| a.of(bytes).cmp(b.of(bytes)));
    }

    /// Keeps the first ones alone.
    pub fn truncate(&mut self, most: usize) {
        self.list.truncate(most);
    }

    /// The same names, each with what `look` makes of it, in no more room than they take.
    pub fn map<L>(&self, mut look: impl FnMut(&[u8], &K) -> L) -> Names<L> {
        let named = |named: &Named<K>| {
            let kind = look(named.of(&self.bytes), &named.kind);
            Named { start: named.start, len: named.len, kind }
        };
        Names { bytes: self.bytes.clone(), list: self.list.iter().map(named).collect() }
    }

    /// Forgets them all, and keeps the room that they took.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.list.clear();
    }

    /// The piece, and for each name where it lies in it.
    pub(super) fn into_parts(self) -> (Vec<u8>, impl ExactSizeIterator<Item = (u32, u32, K)>) {
        (self.bytes, self.list.into_iter().map(|named| (named.start, named.len, named.kind)))
    }
}

impl<K> Default for Names<K> {
    fn default() -> Self {
        Self::with_capacity(0)
    }
}

impl<N: AsRef<[u8]>, K> FromIterator<(N, K)> for Names<K> {
    fn from_iter<I: IntoIterator<Item = (N, K)>>(names: I) -> Self {
        let mut found = Self::with_capacity(0);
        names.into_iter().for_each(|(name, kind)| found.push(name.as_ref(), kind));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_keep_what_they_are() {
        let mut names: Names<u8> = [("b", 2), ("a", 1), ("ab", 3)].into_iter().collect();
        names.sort();
        names.truncate(2);
        let longer = names.map(|name, kind| name.len() as u8 * 10 + kind);
        names.clear();
        assert!(names.is_empty());
        let found: Vec<_> = longer.iter().collect();
        assert_eq!(found, [(b"a".as_slice(), &11), (b"ab".as_slice(), &23)]);
    }
}
