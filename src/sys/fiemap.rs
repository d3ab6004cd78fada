//! `FS_IOC_FIEMAP`: where a file's bytes lie on its device.
//!
//! Kernel documentation: `Documentation/filesystems/fiemap.rst`.
#![expect(unsafe_code, reason = "rustix has no wrapper for this ioctl")]

use std::io;
use std::os::fd::BorrowedFd;

use rustix::ioctl::{self, Opcode, Updater, opcode};

use crate::model::{Extent, ExtentFlags};

/// Extents asked for at a time.
const AT_A_TIME: usize = 64;

const LAST: u32 = 0x1;
const UNKNOWN: u32 = 0x2;
const DELALLOC: u32 = 0x4;
const ENCODED: u32 = 0x8;
const NOT_ALIGNED: u32 = 0x100;
const DATA_INLINE: u32 = 0x200;
const DATA_TAIL: u32 = 0x400;
const UNWRITTEN: u32 = 0x800;
const SHARED: u32 = 0x2000;

/// `struct fiemap` without its extents: what the ioctl's number is made of.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Header {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    count: u32,
    reserved: u32,
}

/// `struct fiemap_extent`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct RawExtent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved64: [u64; 2],
    flags: u32,
    reserved: [u32; 3],
}

#[repr(C)]
struct Request {
    header: Header,
    extents: [RawExtent; AT_A_TIME],
}

const FS_IOC_FIEMAP: Opcode = opcode::read_write::<Header>(b'f', 11);

/// The first `most` extents of a file, and whether these are all.
///
/// Nothing is flushed first: bytes that have no place on the device yet are flagged.
pub(crate) fn extents(fd: BorrowedFd<'_>, most: usize) -> io::Result<(Vec<Extent>, bool)> {
    let mut found = Vec::new();
    let mut start = 0;
    while found.len() < most {
        let request = ask(fd, start)?;
        let got = &request.extents[..AT_A_TIME.min(request.header.mapped as usize)];
        found.extend(got.iter().map(extent));
        match got.last() {
            Some(last) if last.flags & LAST == 0 => {
                start = last.logical.saturating_add(last.length);
            }
            _ => return Ok((found, true)),
        }
    }
    Ok((found, false))
}

fn ask(fd: BorrowedFd<'_>, start: u64) -> io::Result<Request> {
    let header =
        Header { start, length: u64::MAX - start, count: AT_A_TIME as u32, ..Header::default() };
    let mut request = Request { header, extents: [RawExtent::default(); AT_A_TIME] };
    // SAFETY: the kernel writes into `request` alone: its header, and at most
    // `count` extents behind it, which is how many there is room for.
    unsafe { ioctl::ioctl(fd, Updater::<FS_IOC_FIEMAP, Request>::new(&mut request))? };
    Ok(request)
}

fn extent(raw: &RawExtent) -> Extent {
    let odd = UNKNOWN | DELALLOC | NOT_ALIGNED | DATA_INLINE | DATA_TAIL;
    Extent {
        logical: raw.logical,
        physical: raw.physical,
        length: raw.length,
        flags: ExtentFlags {
            shared: raw.flags & SHARED != 0,
            encoded: raw.flags & ENCODED != 0,
            unwritten: raw.flags & UNWRITTEN != 0,
            unplaced: raw.flags & odd != 0,
        },
    }
}
