//! `FIDEDUPERANGE`: two files come to share the blocks of what they hold alike.
//!
//! Manual page: `ioctl_fideduperange(2)`.
#![expect(unsafe_code, reason = "rustix has no wrapper for this ioctl")]

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use rustix::io::Errno;
use rustix::ioctl::{self, Opcode, Updater, opcode};

/// `FILE_DEDUPE_RANGE_SAME`.
const SAME: i32 = 0;
/// `FILE_DEDUPE_RANGE_DIFFERS`.
const DIFFERS: i32 = 1;

/// `struct file_dedupe_range` without its destinations: what the ioctl's number is made of.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Header {
    offset: u64,
    length: u64,
    count: u16,
    reserved: [u16; 3],
}

/// `struct file_dedupe_range_info`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Destination {
    fd: i64,
    offset: u64,
    deduped: u64,
    status: i32,
    reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Request {
    header: Header,
    to: Destination,
}

const FIDEDUPERANGE: Opcode = opcode::read_write::<Header>(0x94, 54);

/// What the kernel found when it compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compared {
    /// So many bytes were alike, and share their blocks now.
    Same(u64),
    /// The bytes differ: nothing was changed.
    Differs,
}

/// Makes `to` share the blocks of `from`, from `offset` on, where the bytes are alike: the
/// kernel compares them, and lets nobody write meanwhile. Descriptors for reading are enough.
pub(crate) fn dedupe_range(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    offset: u64,
    length: u64,
) -> io::Result<Compared> {
    let header = Header { offset, length, count: 1, ..Header::default() };
    let to = Destination { fd: to.as_raw_fd().into(), offset, ..Destination::default() };
    let mut request = Request { header, to };
    // SAFETY: the kernel reads `request`, and writes `count` destinations: there is one. Both
    // descriptors are borrowed for as long as the call lasts.
    unsafe { ioctl::ioctl(from, Updater::<FIDEDUPERANGE, Request>::new(&mut request))? };
    match request.to.status {
        SAME => Ok(Compared::Same(request.to.deduped)),
        DIFFERS => Ok(Compared::Differs),
        errno if errno < 0 => Err(Errno::from_raw_os_error(errno.saturating_neg()).into()),
        _ => Err(Errno::IO.into()),
    }
}
