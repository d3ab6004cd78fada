//! Bytes are copied, and hashed on the way.
#![expect(clippy::disallowed_methods, reason = "only files that nobody can see yet are written")]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};

use super::place::through;
use crate::model::{Bytes, ContentId};

/// Read at a time.
const PIECE: usize = 256 * 1024;

/// A new file without a name, on the file system of a directory (`O_TMPFILE`, open(2)).
pub(crate) fn nameless(dir: BorrowedFd<'_>) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    Ok(File::from(rustix::fs::openat(dir, c".", flags, mode)?))
}

/// Gives a file that has no name one; another one that has names, another.
pub(crate) fn name(file: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    // By way of /proc: AT_EMPTY_PATH wants CAP_DAC_READ_SEARCH.
    let from = through(file);
    Ok(rustix::fs::linkat(CWD, from.as_str(), dir, name, AtFlags::SYMLINK_FOLLOW)?)
}

/// Fills an empty file from another: by sharing its blocks where the file system can.
/// What was written is hashed, not what was read before.
pub(crate) fn copy(from: &File, to: &File, size: Bytes) -> io::Result<Option<ContentId>> {
    if rustix::fs::ioctl_ficlone(to.as_fd(), from.as_fd()).is_ok() {
        return hash(to, size);
    }
    let has_holes = from.metadata()?.blocks().saturating_mul(512) < size.0;
    let mut offset = 0;
    if !has_holes {
        return each_piece(from, size, |piece| {
            to.write_all_at(piece, offset)?;
            offset += piece.len() as u64;
            Ok(())
        });
    }
    // A hole stays one: it is not written, and reads as the zeros that were hashed.
    to.set_len(size.0)?;
    each_piece(from, size, |piece| {
        for block in piece.chunks(BLOCK) {
            if block.iter().any(|&byte| byte != 0) {
                to.write_all_at(block, offset)?;
            }
            offset += block.len() as u64;
        }
        Ok(())
    })
}

/// What file systems keep or leave out as a whole, at least.
const BLOCK: usize = 4096;

/// The hash of a file that has exactly this size; `None` where it has another.
pub(crate) fn hash(file: &File, size: Bytes) -> io::Result<Option<ContentId>> {
    each_piece(file, size, |_| Ok(()))
}

fn each_piece(
    file: &File,
    size: Bytes,
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<Option<ContentId>> {
    // One byte more than there should be would be seen.
    let most = size.0.saturating_add(1);
    let mut buffer = vec![0; PIECE.min(usize::try_from(most).unwrap_or(PIECE))];
    let mut hasher = blake3::Hasher::new();
    let mut read = 0;
    loop {
        let got = match file.read_at(&mut buffer, read) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            got => got?,
        };
        let piece = buffer.get(..got).unwrap_or_default();
        read += got as u64;
        if read > size.0 || (got == 0 && read < size.0) {
            return Ok(None);
        }
        if got == 0 {
            return Ok(Some(ContentId(hasher.finalize().into())));
        }
        take(piece)?;
        hasher.update(piece);
    }
}
