//! fanotify(7): each opening of a file waits for an answer, as where a virus scanner is at work.

#![expect(unsafe_code, reason = "fanotify is wrapped by no library without C")]

use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Who is asked before a file is opened.
pub struct Scanner(OwnedFd);

/// An opening that waits for as long as the value lives.
pub struct Held {
    scanner: Scanner,
    /// The file, as the scanner may read it.
    file: OwnedFd,
}

impl Scanner {
    pub fn watch(file: &Path) -> Self {
        let file = CString::new(file.as_os_str().as_bytes()).unwrap();
        let (class, reading) = (libc::FAN_CLASS_CONTENT | libc::FAN_CLOEXEC, libc::O_RDONLY);
        // SAFETY: plain numbers.
        let group = unsafe { libc::fanotify_init(class, reading as u32) };
        assert!(group >= 0, "fanotify_init: {}", std::io::Error::last_os_error());
        // SAFETY: the kernel has just made it, and nobody else knows it.
        let group = unsafe { OwnedFd::from_raw_fd(group) };
        let (how, what) = (libc::FAN_MARK_ADD, libc::FAN_OPEN_PERM);
        let raw = group.as_raw_fd();
        // SAFETY: an open group, and a string that lives until the call returns.
        let marked = unsafe { libc::fanotify_mark(raw, how, what, libc::AT_FDCWD, file.as_ptr()) };
        assert_eq!(marked, 0, "fanotify_mark: {}", std::io::Error::last_os_error());
        Self(group)
    }

    /// Waits for the next opening.
    pub fn held(self) -> Held {
        const SIZE: usize = size_of::<libc::fanotify_event_metadata>();
        let mut event = [0_u8; SIZE];
        let length = rustix::io::read(&self.0, &mut event).unwrap();
        assert_eq!(length, SIZE);
        // SAFETY: the kernel has written one event, which is plain numbers.
        let event: libc::fanotify_event_metadata = unsafe { std::mem::transmute(event) };
        // SAFETY: the kernel has opened it for this event alone.
        let file = unsafe { OwnedFd::from_raw_fd(event.fd) };
        Held { scanner: self, file }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let file = self.file.as_raw_fd().to_ne_bytes();
        let answer = [file, libc::FAN_ALLOW.to_ne_bytes()].concat();
        rustix::io::write(&self.scanner.0, &answer).unwrap();
    }
}
