//! Tells a root file system from a home directory by a few names at its top.
//!
//! The names of a system's own (`bin/sh`, `sbin/init`, `etc/os-release`, the
//! mount points `proc`, `sys`, `dev`) speak for a root; a login's own
//! (`.bashrc`, `.ssh`, `.local`) against it. A root may have some of the latter
//! (`HOME=/`), a home may have `bin` and `etc`:
//!
//! | at the top | is a root when it has |
//! |---|---|
//! | nothing of a login's | a shell or init; or a release file or two of the mount points, and two of the system directories |
//! | something of a login's | a release file, or a shell or init and two of the mount points; and two of the system directories |

use std::io;

use rustix::fs::Statx;
use rustix::io::Errno;

use super::place::{self, Place};

/// A shell, an init, or the program that is both. On a merged /usr `bin` is a link.
const PROGRAMS: [&str; 10] = [
    "bin/sh",
    "usr/bin/sh",
    "sbin/init",
    "usr/sbin/init",
    "bin/busybox",
    "usr/bin/busybox",
    "bin/bash",
    "usr/bin/bash",
    "linuxrc",
    "bin/toybox",
];
/// os-release(5).
const RELEASE: [&str; 2] = ["etc/os-release", "usr/lib/os-release"];
/// Where a container's mounts go.
const MOUNT_POINTS: [&str; 3] = ["proc", "sys", "dev"];
/// file-hierarchy(7).
const SYSTEM_DIRS: [&str; 8] = ["bin", "sbin", "lib", "lib64", "usr", "etc", "var", "run"];
/// What logging in, or a desktop, leaves in a home directory.
const LOGIN: [&str; 16] = [
    ".bashrc",
    ".bash_profile",
    ".bash_login",
    ".bash_logout",
    ".bash_history",
    ".profile",
    ".zshrc",
    ".zsh_history",
    ".ssh",
    ".gnupg",
    ".local",
    ".config",
    ".cache",
    ".mozilla",
    "Desktop",
    "Documents",
];

/// Whether a directory looks like a root file system.
///
/// # Errors
///
/// It may not be looked into.
pub(super) fn like_a_root(place: &Place) -> io::Result<bool> {
    // The first question finds out whether questions are answered at all.
    let program = any(place, &PROGRAMS)?;
    let release = any(place, &RELEASE)?;
    let mount_points = count(place, &MOUNT_POINTS)? >= 2;
    let system = count(place, &SYSTEM_DIRS)? >= 2;
    let login = any(place, &LOGIN)?;
    Ok(if login {
        (release || program && mount_points) && system
    } else {
        program || (release || mount_points) && system
    })
}

/// One of the names is there: any kind of entry for a login's, no directory otherwise.
fn any(place: &Place, names: &[&str]) -> io::Result<bool> {
    for name in names {
        if let Some(stat) = ask(place, name)?
            && (!name.contains('/') || !place::is_dir(&stat))
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// How many of the names are directories, or links to some.
fn count(place: &Place, names: &[&str]) -> io::Result<usize> {
    let mut count = 0;
    for name in names {
        let found = ask(place, name)?;
        count += usize::from(found.is_some_and(|s| place::is_dir(&s) || place::is_link(&s)));
    }
    Ok(count)
}

/// What `name` is, if anything that speaks for or against a root. What lies on
/// another mount does not: it belongs to whoever mounted it.
fn ask(place: &Place, name: &str) -> io::Result<Option<Statx>> {
    let error = match place.stat(name) {
        Ok(stat) => return Ok(Some(stat)),
        Err(error) => error,
    };
    match Errno::from_io_error(&error) {
        Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => Ok(None),
        Some(Errno::ACCESS) if parent_answers(place, name) => Ok(None),
        _ => Err(error),
    }
}

/// A directory below the top is closed, the top is not: the other names tell.
fn parent_answers(place: &Place, name: &str) -> bool {
    name.split_once('/').is_some_and(|(parent, _)| place.stat(parent).is_ok())
}
