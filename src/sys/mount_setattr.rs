//! Whether mount_setattr(2) is there (Linux 5.12).

#![allow(unsafe_code, reason = "a system call that no library wraps")]

use std::ptr;

/// The kernel has it, and no filter forbids it. Nothing is changed: the kernel refuses an
/// attribute of no size before it looks at anything else.
pub(crate) fn has_mount_setattr() -> bool {
    let (path, none) = (c"".as_ptr(), ptr::null::<u8>());
    // SAFETY: the path is a string that outlives the call; the attribute has no size, so
    // its null pointer is not followed.
    let answer = unsafe { libc::syscall(libc::SYS_mount_setattr, -1, path, 0, none, 0_usize) };
    let error = std::io::Error::last_os_error().raw_os_error();
    answer == 0 || !matches!(error, Some(libc::ENOSYS | libc::EPERM))
}
