//! How many programs decide which devices a control group may open: `BPF_PROG_QUERY`, bpf(2).

#![allow(unsafe_code, reason = "a system call that no library wraps")]

use std::fs::File;
use std::io;
use std::mem::size_of;
use std::os::fd::AsRawFd;
use std::path::Path;

const PROG_QUERY: libc::c_int = 16;
const CGROUP_DEVICE: u32 = 6;
/// Those of the groups above it count, too.
const EFFECTIVE: u32 = 1;

/// `union bpf_attr`, as the command reads it.
#[repr(C)]
#[derive(Default)]
struct Query {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    programs: u64,
    count: u32,
    padding: u32,
}

/// Programs that are asked when a process of the group opens a device.
///
/// # Errors
///
/// Those of bpf(2); `EPERM` without CAP_NET_ADMIN and CAP_BPF, or CAP_SYS_ADMIN.
pub(crate) fn device_filters(group: &Path) -> io::Result<u32> {
    let dir = File::open(group)?;
    let target = u32::try_from(dir.as_raw_fd()).map_err(io::Error::other)?;
    let attach_type = CGROUP_DEVICE;
    let mut query = Query { target, attach_type, query_flags: EFFECTIVE, ..Query::default() };
    let size = size_of::<Query>();
    // SAFETY: the structure outlives the call and has the size that is passed; it asks for no
    // programs, so that nothing but itself is written.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, PROG_QUERY, &raw mut query, size) };
    match answer {
        0 => Ok(query.count),
        _ => Err(io::Error::last_os_error()),
    }
}
