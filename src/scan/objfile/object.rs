//! The bytes of one object: a file, or a member of an archive.

use std::ops::Range;

use super::Rejected;
use crate::scan::Source;

/// The program headers of most programs are among the first bytes.
const HEAD: usize = 1024;

/// What a read of a few bytes brings along: section groups lie one behind the other, and so do
/// the symbols that name them.
const NEAR: usize = 4096;

/// An object's bytes, with the part that was read last.
#[derive(Debug)]
pub(super) struct Object<'a> {
    source: Source<'a>,
    /// The size that its file or its archive claims: a cut-off member is shorter.
    pub nominal: u64,
    /// The header, and usually the program headers behind it.
    head: [u8; HEAD],
    head_len: usize,
    cached: Vec<u8>,
    cached_at: u64,
    /// What was around the last few bytes that were read.
    near: Vec<u8>,
    near_at: u64,
}

impl<'a> Object<'a> {
    pub(super) fn new(source: Source<'a>, nominal: u64) -> Self {
        let (cached, near) = (Vec::new(), Vec::new());
        Self {
            source,
            nominal,
            head: [0; HEAD],
            head_len: 0,
            cached,
            cached_at: 0,
            near,
            near_at: 0,
        }
    }

    /// `len` bytes from `offset` on are there.
    pub(super) fn holds(&self, offset: u64, len: u64) -> bool {
        self.source.len().checked_sub(offset).is_some_and(|room| len <= room)
    }

    /// Reads the first bytes, and says how many there are.
    pub(super) fn read_head(&mut self) -> Result<usize, Rejected> {
        let got = self.source.read_at(0, &mut self.head);
        self.head_len = got.map_err(|_| Rejected::NotRecognized)?;
        Ok(self.head_len)
    }

    /// The first bytes.
    pub(super) fn head(&self) -> &[u8] {
        &self.head[..self.head_len]
    }

    /// Reads `[from, table + len)` at once: the bytes before a table are needed next.
    pub(super) fn preload(&mut self, from: u64, table: u64, len: u64) -> Result<(), Rejected> {
        if !self.holds(table, len) {
            return Err(Rejected::NotRecognized);
        }
        let wanted = usize::try_from(table - from + len).unwrap_or(usize::MAX);
        self.cached_at = from;
        self.cached.resize(wanted, 0);
        let got = self.source.read_at(from, &mut self.cached);
        self.cached.truncate(got.map_err(|_| Rejected::NotRecognized)?);
        Ok(())
    }

    /// `len` bytes from `offset` on, all of them.
    pub(super) fn slice(&mut self, offset: u64, len: usize) -> Result<&[u8], Rejected> {
        if !self.holds(offset, len as u64) {
            return Err(Rejected::NotRecognized);
        }
        if self.cached_range(offset, len).is_none() {
            self.preload(offset, offset, len as u64)?;
        }
        let range = self.cached_range(offset, len).ok_or(Rejected::NotRecognized)?;
        Ok(&self.cached[range])
    }

    /// One byte; `None` where there is none.
    pub(super) fn byte(&self, offset: u64) -> Option<u8> {
        if let Some(range) = self.cached_range(offset, 1) {
            return self.cached.get(range.start).copied();
        }
        let mut byte = [0];
        (self.source.read_at(offset, &mut byte).ok()? == 1).then_some(byte[0])
    }

    /// `len` bytes from `offset` on, refused where they are not all there.
    pub(super) fn copy_checked(&mut self, offset: u64, len: u64) -> Result<Vec<u8>, Rejected> {
        if !self.holds(offset, len) {
            return Err(Rejected::NotRecognized);
        }
        self.copy(offset, usize::try_from(len).unwrap_or(usize::MAX))
    }

    /// `len` bytes from `offset` on, which the caller has checked to be there.
    pub(super) fn copy(&mut self, offset: u64, len: usize) -> Result<Vec<u8>, Rejected> {
        if let Some(range) = self.cached_range(offset, len) {
            return Ok(self.cached[range].to_vec());
        }
        if let Some(range) = within(offset, len, 0, self.head_len) {
            return Ok(self.head[range].to_vec());
        }
        if len < NEAR / 4 {
            return self.copy_near(offset, len);
        }
        let bytes = self.source.bytes(offset, len).map_err(|_| Rejected::NotRecognized)?;
        if bytes.len() == len { Ok(bytes) } else { Err(Rejected::NotRecognized) }
    }

    fn copy_near(&mut self, offset: u64, len: usize) -> Result<Vec<u8>, Rejected> {
        if within(offset, len, self.near_at, self.near.len()).is_none() {
            self.near.resize(NEAR, 0);
            let got = self.source.read_at(offset, &mut self.near);
            self.near_at = offset;
            self.near.truncate(got.map_err(|_| Rejected::NotRecognized)?);
        }
        let range = within(offset, len, self.near_at, self.near.len());
        Ok(self.near[range.ok_or(Rejected::NotRecognized)?].to_vec())
    }

    fn cached_range(&self, offset: u64, len: usize) -> Option<Range<usize>> {
        within(offset, len, self.cached_at, self.cached.len())
    }
}

/// Where `[offset, offset + len)` lies in the `held` bytes from `at` on.
fn within(offset: u64, len: usize, at: u64, held: usize) -> Option<Range<usize>> {
    let start = usize::try_from(offset.checked_sub(at)?).ok()?;
    let end = start.checked_add(len)?;
    (end <= held).then_some(start..end)
}
