//! Positioned reads from a file, a part of one, or bytes in memory.
//!
//! Never a mapping: a file that shrinks under a mapping kills the process with
//! `SIGBUS`, a file that shrinks under `pread(2)` is a short read.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

/// A window of bytes that can be read at any offset.
///
/// Offsets count from the window's start and nothing outside it is ever read,
/// so that an archive member looks like a file of its own.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    backing: Backing<'a>,
    start: u64,
    len: u64,
}

#[derive(Debug, Clone, Copy)]
enum Backing<'a> {
    File(BorrowedFd<'a>),
    Bytes(&'a [u8]),
}

impl<'a> Source<'a> {
    /// The first `len` bytes of an open regular file.
    pub fn file(file: BorrowedFd<'a>, len: u64) -> Self {
        Self { backing: Backing::File(file), start: 0, len }
    }

    /// Bytes in memory.
    pub fn bytes_of(bytes: &'a [u8]) -> Self {
        Self { backing: Backing::Bytes(bytes), start: 0, len: bytes.len() as u64 }
    }

    /// The part `[offset, offset + len)` of this window, clamped to it.
    pub fn window(&self, offset: u64, len: u64) -> Self {
        let offset = offset.min(self.len);
        let len = len.min(self.len - offset);
        Self { backing: self.backing, start: self.start.saturating_add(offset), len }
    }

    /// The window's length in bytes. A file may be shorter by the time it is read.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// There is nothing to read.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Fills `buffer` from `offset` on and returns how many bytes there were:
    /// fewer than asked for only at the end of the window or of the file.
    ///
    /// # Errors
    ///
    /// As `pread(2)` says.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        if offset >= self.len {
            return Ok(0);
        }
        let room = usize::try_from(self.len - offset).unwrap_or(usize::MAX).min(buffer.len());
        let at = self.start.saturating_add(offset);
        let buffer = &mut buffer[..room];
        match self.backing {
            Backing::File(file) => pread_full(file, at, buffer),
            Backing::Bytes(bytes) => Ok(copy_at(bytes, at, buffer)),
        }
    }

    /// At most `len_max` bytes from `offset` on. Never allocates beyond the window.
    ///
    /// # Errors
    ///
    /// As `pread(2)` says.
    pub fn bytes(&self, offset: u64, len_max: usize) -> io::Result<Vec<u8>> {
        let left = self.len.saturating_sub(offset);
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(len_max);
        let mut bytes = vec![0; len];
        let got = self.read_at(offset, &mut bytes)?;
        bytes.truncate(got);
        Ok(bytes)
    }
}

/// `pread(2)` until the buffer is full or the file ends.
fn pread_full(file: BorrowedFd<'_>, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match rustix::io::pread(file, &mut buffer[done..], at.saturating_add(done as u64)) {
            Ok(0) => break,
            Ok(got) => done += got,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(done)
}

fn copy_at(bytes: &[u8], at: u64, buffer: &mut [u8]) -> usize {
    let from = usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
    let found = &bytes[from..];
    let len = found.len().min(buffer.len());
    buffer[..len].copy_from_slice(&found[..len]);
    len
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::{Seek, Write};
    use std::os::fd::AsFd;

    use super::Source;

    #[test]
    fn a_window_never_shows_what_lies_beside_it() {
        let source = Source::bytes_of(b"abcdefgh").window(2, 4);
        assert_eq!(source.bytes(0, 100).unwrap(), b"cdef");
        assert_eq!(source.bytes(3, 100).unwrap(), b"f");
        assert_eq!(source.bytes(4, 100).unwrap(), b"");
        assert_eq!(source.bytes(u64::MAX, 100).unwrap(), b"");
        assert_eq!(source.window(3, u64::MAX).bytes(0, 9).unwrap(), b"f");
    }

    #[test]
    fn a_file_and_bytes_read_alike() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"abcdefgh").unwrap();
        file.rewind().unwrap();
        let source = Source::file(file.as_fd(), 8).window(1, 6);
        assert_eq!(source.bytes(1, 3).unwrap(), b"cde");
        assert_eq!(source.bytes(4, 9).unwrap(), b"fg");
    }

    #[test]
    fn a_file_that_shrank_is_a_short_read() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"abc").unwrap();
        let source = Source::file(file.as_fd(), 1 << 40);
        assert_eq!(source.bytes(1, 64).unwrap(), b"bc");
    }
}
