//! Whether this `/proc` shows every process.

use std::path::Path;

use super::mounts::{self, Mount};
use super::proc::{ProcReader, read_small, read_status};

const CAP_SYS_PTRACE: u64 = 1 << 19;

impl ProcReader {
    /// Processes of other users are hidden from this reader: `/proc` is mounted with
    /// `hidepid=`, as proc(5) describes it, and the reader may not look beyond.
    pub fn hides_processes(&self) -> bool {
        let Ok(own) = self.dir("self") else { return false };
        let table = read_small(&own, "mountinfo", 4 << 20).unwrap_or_default();
        is_hidden(&mounts::parse(&table), self.path())
            && read_status(&own).is_none_or(|status| status.capeff & CAP_SYS_PTRACE == 0)
    }
}

/// The topmost proc at this place hides what its reader may not trace.
fn is_hidden(mounts: &[Mount], place: &Path) -> bool {
    let proc = mounts.iter().rev().find(|mount| mount.fs_type == b"proc" && mount.point == place);
    let options = proc.map(|mount| mount.options.as_slice()).unwrap_or_default();
    let hiding = [&b"hidepid=2"[..], b"hidepid=4", b"hidepid=invisible", b"hidepid=ptraceable"];
    options.split(|&byte| byte == b',').any(|option| hiding.contains(&option))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topmost_mount_counts() {
        let hidden = "1 0 0:21 / /proc rw - proc proc rw,hidepid=invisible\n";
        let open = "2 1 0:22 / /proc rw - proc proc rw\n";
        let other = "3 1 0:23 / /x/proc rw - proc proc rw,hidepid=2\n";
        let of = |text: &str| is_hidden(&mounts::parse(text.as_bytes()), Path::new("/proc"));
        assert!(of(hidden));
        assert!(!of(&format!("{hidden}{open}")));
        assert!(of(&format!("{open}{hidden}{other}")));
        assert!(!of(other));
        // Processes are shown, but may not be looked at: those are counted one by one.
        assert!(!of("1 0 0:21 / /proc rw - proc proc rw,hidepid=noaccess\n"));
    }
}
