//! How many arenas malloc(3) has.

#![allow(unsafe_code, reason = "mallopt(3) is not wrapped by any library")]

/// Has malloc(3) make no more than so many arenas: by default there are eight for each
/// processor, one for each thread, and what one thread has given back lies in its own, where
/// no other thread finds it. Other libraries than glibc have none.
pub(crate) fn limit_arenas(most: usize) {
    #[cfg(target_env = "gnu")]
    {
        let most = libc::c_int::try_from(most).unwrap_or(libc::c_int::MAX);
        // SAFETY: it takes two numbers, and takes the lock of malloc(3) while it sets the limit.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, most) };
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = most;
}
