//! Files that may well hold the same, read side by side: one is hashed, the others are compared with
//! it, which costs a fraction of a hash.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use rustix::process::{Resource, getrlimit};

use super::source::Source;
use crate::model::ContentId;

/// Files that one thread reads side by side, at most: as many descriptors.
pub(super) const TOGETHER: usize = 16;

/// Files that each of so many threads reads side by side: all of them may have a quarter of the
/// descriptors that there can be.
pub(crate) fn together(threads: usize) -> usize {
    let most = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX) / 4;
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    (most / threads.max(1)).clamp(1, TOGETHER)
}

/// What the first one holds; lets go of the others that differ from it. The buffers are of one size;
/// `read` is told of each piece, those of the first file before the others'.
///
/// # Errors
///
/// Those of pread(2) on the first file; when it is shorter than `size`.
pub(super) fn hash_and_compare(
    first: &File,
    others: &mut [Option<File>],
    size: u64,
    (buffer, other): (&mut [u8], &mut [u8]),
    read: &mut dyn FnMut(&[u8]),
) -> io::Result<ContentId> {
    let (mut hasher, mut at) = (blake3::Hasher::new(), 0);
    while at < size {
        let piece = (size - at).min(buffer.len() as u64) as usize;
        let bytes = &mut buffer[..piece];
        if Source::file(first.as_fd(), size).read_at(at, bytes)? < piece {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        read(bytes);
        hasher.update(bytes);
        for slot in &mut *others {
            slot.take_if(|file| {
                let source = Source::file(file.as_fd(), size);
                let got = source.read_at(at, &mut other[..piece]).unwrap_or(0);
                read(&other[..got]);
                other[..got] != *bytes
            });
        }
        at += piece as u64;
    }
    Ok(ContentId(hasher.finalize().into()))
}
