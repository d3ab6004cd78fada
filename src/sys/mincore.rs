//! mincore(2) over parts of a file.

#![allow(unsafe_code, reason = "mincore(2) is not wrapped by any library")]

use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::ptr;

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Pages that are mapped at a time.
const WINDOW: u64 = 16 * 1024;

/// Calls `seen` with the number of every page of the given ones that is in the page cache. They are
/// mapped in windows and never touched.
///
/// cachestat(2) would be cheaper, but counts 0 on overlayfs.
///
/// # Errors
///
/// Those of mmap(2) and mincore(2).
pub(crate) fn cached_pages(
    file: BorrowedFd<'_>,
    page_size: u64,
    pages: Range<u64>,
    mut seen: impl FnMut(u64),
) -> Result<(), Errno> {
    let window = WINDOW.min(pages.end.saturating_sub(pages.start));
    let mut resident = vec![0_u8; window as usize];
    for first in pages.clone().step_by(WINDOW as usize) {
        let count = WINDOW.min(pages.end - first);
        ask(file, first * page_size, (count * page_size) as usize, &mut resident)?;
        let hits = resident.iter().take(count as usize).enumerate();
        hits.filter(|(_, byte)| *byte & 1 != 0).for_each(|(index, _)| seen(first + index as u64));
    }
    Ok(())
}

/// Fills `resident`, a byte for each page of `length` bytes at `offset`.
fn ask(file: BorrowedFd<'_>, offset: u64, length: usize, resident: &mut [u8]) -> Result<(), Errno> {
    // SAFETY: the kernel chooses the address; the mapping is never dereferenced, so a
    // file that shrinks meanwhile cannot raise SIGBUS; it is unmapped below.
    let address =
        unsafe { mmap(ptr::null_mut(), length, ProtFlags::READ, MapFlags::SHARED, file, offset)? };
    // SAFETY: `resident` has a byte for each page of the mapping made above.
    let answer = unsafe { libc::mincore(address, length, resident.as_mut_ptr()) };
    let error = rustix::io::Errno::from_io_error(&std::io::Error::last_os_error());
    // SAFETY: exactly the mapping made above, which nothing refers to.
    unsafe { munmap(address, length)? };
    if answer == 0 { Ok(()) } else { Err(error.unwrap_or(Errno::IO)) }
}
