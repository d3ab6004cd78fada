//! `F_SETLEASE`: nobody has a file open for writing, and whoever opens it so is told of.
//!
//! fcntl(2), "Leases". A read lease is granted only while no open file description and
//! no shared writable mapping can write the file.
#![expect(unsafe_code, reason = "rustix has no wrapper for leases")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Once;

/// A read lease on a file; given back when the file is closed.
#[derive(Debug)]
pub(crate) struct ReadLease(());

impl ReadLease {
    /// Takes one. `EAGAIN`: somebody can write the file.
    pub(crate) fn take(file: &File) -> io::Result<Self> {
        ignore_notice();
        fcntl(file, libc::F_SETLEASE, libc::F_RDLCK)?;
        Ok(Self(()))
    }

    /// Nobody has opened the file for writing since: such an opening would have ended the lease,
    /// or waits for its end; or is on its way there. What is on its way, and is held up by who
    /// watches openings (fanotify(7)), counts as a writer already, but has not ended the lease:
    /// it is seen when the lease is taken once more.
    pub(crate) fn holds(&self, file: &File) -> bool {
        fcntl(file, libc::F_GETLEASE, 0).is_ok_and(|kind| kind == libc::F_RDLCK)
            && fcntl(file, libc::F_SETLEASE, libc::F_RDLCK).is_ok()
    }
}

/// The kernel tells of a writer by SIGIO, which would end the process: it is asked instead.
fn ignore_notice() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: no handler is installed; the signal is merely ignored.
        unsafe { libc::signal(libc::SIGIO, libc::SIG_IGN) };
    });
}

fn fcntl(file: &File, command: libc::c_int, argument: libc::c_int) -> io::Result<libc::c_int> {
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and these
    // commands take and return integers alone.
    match unsafe { libc::fcntl(file.as_raw_fd(), command, argument) } {
        -1 => Err(io::Error::last_os_error()),
        answer => Ok(answer),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_writer_keeps_the_lease_from_being_granted() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let reader = File::open(file.path()).unwrap();
        let refused = ReadLease::take(&reader).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EAGAIN));
    }

    #[test]
    fn a_writer_that_comes_later_is_seen() {
        use std::os::unix::fs::OpenOptionsExt;
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        let reader = File::open(&path).unwrap();
        let lease = ReadLease::take(&reader).unwrap();
        assert!(lease.holds(&reader));
        let opened =
            File::options().write(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap_err();
        assert_eq!(opened.raw_os_error(), Some(libc::EWOULDBLOCK));
        assert!(!lease.holds(&reader));
    }
}
