//! Why an entry was left as it is, with the way out where there is one.

use std::io;

use rustix::io::Errno;

/// The system's words, and what to do.
pub(crate) fn explain(doing: &str, error: &io::Error) -> String {
    let words = crate::scan::cause(error);
    match error.raw_os_error().and_then(advice) {
        Some(advice) => format!("cannot {doing}: {words}; {advice}"),
        None => format!("cannot {doing}: {words}"),
    }
}

fn advice(errno: i32) -> Option<&'static str> {
    let is = |known: Errno| known.raw_os_error() == errno;
    Some(match errno {
        _ if is(Errno::NOSPC) => "free some space on its file system, and run it again",
        _ if is(Errno::DQUOT) => "its owner's quota is used up: raise it, and run it again",
        _ if is(Errno::ROFS) => "its file system is read-only: mount it writable first",
        _ if is(Errno::PERM) => {
            "is it, or its directory, immutable or append-only? `chattr -i -a` allows it"
        }
        _ if is(Errno::ACCESS) => "run it as root",
        _ if is(Errno::MFILE) => "more files may not be open at once: `ulimit -Hn` raises that",
        _ if is(Errno::INVAL) => {
            "the file system has no exchange of names; --method reflink may do without"
        }
        _ if is(Errno::XDEV) => {
            "another file system is mounted there, or its directory is of another project (`lsattr -p`)"
        }
        _ if is(Errno::MLINK) => {
            "its file system allows no more names of one file: it keeps a copy of its own"
        }
        _ if is(Errno::IO) => "the device failed: look at the kernel's log before anything else",
        _ => return None,
    })
}
