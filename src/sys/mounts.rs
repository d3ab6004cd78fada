//! mount_setattr(2), and a thread with a file system view of its own.

#![allow(
    unsafe_code,
    reason = "no library wraps mount_setattr(2), nor unshare(2) of one safe flag"
)]

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;
use rustix::thread::UnshareFlags;

/// `struct mount_attr`, the first and only version (Linux 5.12).
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// `MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV` of linux/mount.h.
const READ_ONLY_NO_DEVICES: u64 = 0x1 | 0x4;

/// Makes every mount of a detached tree read-only, without devices, and private: nothing
/// that is mounted on the original appears in it, nor the other way round.
///
/// # Errors
///
/// Those of mount_setattr(2): `ENOSYS` before Linux 5.12.
pub(crate) fn seal(tree: BorrowedFd<'_>) -> Result<(), Errno> {
    let attributes = MountAttr {
        set: READ_ONLY_NO_DEVICES,
        clear: 0,
        propagation: libc::MS_PRIVATE,
        user_namespace: 0,
    };
    // SAFETY: the path is an empty C string, and the kernel reads as many bytes of the
    // structure, which outlives the call, as it is told.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<MountAttr>(),
        )
    };
    match answer {
        0 => Ok(()),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}

/// Gives the calling thread a root, a working directory and a umask of its own, which
/// setns(2) into a mount namespace asks for.
///
/// # Errors
///
/// Those of unshare(2).
pub(crate) fn unshare_fs() -> Result<(), Errno> {
    // SAFETY: the hazard of the call is a table of descriptors that threads no longer
    // share; CLONE_FS leaves that table alone.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }
}
