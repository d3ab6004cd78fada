//! `PROCMAP_QUERY`, ioctl(2) on `/proc/PID/maps` since Linux 6.11.

#![allow(unsafe_code, reason = "an ioctl that no library wraps")]

use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};

/// `struct procmap_query` of `<linux/fs.h>`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Query {
    size: u64,
    query_flags: u64,
    query_addr: u64,
    pub(crate) vma_start: u64,
    pub(crate) vma_end: u64,
    pub(crate) vma_flags: u64,
    vma_page_size: u64,
    pub(crate) vma_offset: u64,
    pub(crate) inode: u64,
    pub(crate) dev_major: u32,
    pub(crate) dev_minor: u32,
    vma_name_size: u32,
    build_id_size: u32,
    vma_name_addr: u64,
    build_id_addr: u64,
}

const OPCODE: Opcode = opcode::read_write::<Query>(b'f', 17);
/// `PROCMAP_QUERY_COVERING_OR_NEXT_VMA`.
const COVERING_OR_NEXT: u64 = 0x10;
/// `PROCMAP_QUERY_FILE_BACKED_VMA`.
const FILE_BACKED: u64 = 0x20;

impl Query {
    /// `PROCMAP_QUERY_VMA_EXECUTABLE`, in `vma_flags`.
    pub(crate) const EXECUTABLE: u64 = 0x04;
}

/// The file-backed mapping that covers `address`, or the next one above it;
/// `None` after the last.
///
/// # Errors
///
/// `ESRCH` when the process's memory is gone, `ENOTTY` before Linux 6.11.
pub(crate) fn next_vma(maps: BorrowedFd<'_>, address: u64) -> Result<Option<Query>, Errno> {
    let mut query = Query {
        size: size_of::<Query>() as u64,
        query_flags: COVERING_OR_NEXT | FILE_BACKED,
        query_addr: address,
        ..Query::default()
    };
    // SAFETY: the opcode encodes the size of `Query`, whose layout is the kernel's; no
    // name or build-id buffer is announced, so the kernel writes to the struct alone.
    let answer = unsafe { ioctl(maps, Updater::<OPCODE, Query>::new(&mut query)) };
    match answer {
        Ok(()) => Ok(Some(query)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}
