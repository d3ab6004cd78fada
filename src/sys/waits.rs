//! How often a thread has waited.

#![expect(unsafe_code, reason = "getrusage(2) is not wrapped by rustix")]

use std::mem::MaybeUninit;

/// What a thread has waited for up to now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waits {
    /// Blocks that it has asked a disk for (`ru_inblock`).
    pub(crate) blocks: libc::c_long,
    /// How often it gave its processor away: for a disk, another host, or another thread (`ru_nvcsw`).
    pub(crate) times: libc::c_long,
}

impl Waits {
    /// Those of this thread, by getrusage(2).
    pub(crate) fn now() -> Self {
        let mut usage = MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: the kernel writes a whole `rusage` there, or nothing.
        unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) };
        // SAFETY: all zeros is a `rusage`, too.
        let usage = unsafe { usage.assume_init() };
        Self { blocks: usage.ru_inblock, times: usage.ru_nvcsw }
    }
}
