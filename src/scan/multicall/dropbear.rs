//! dropbearmulti: its usage text names what was built in.

use memchr::memmem;

use super::{after, version};
use crate::model::{ElfFacts, Family, Program};

pub(super) const MARKER: &[u8] = b"Dropbear SSH multi-purpose v";

/// The text has some 500 bytes.
const USAGE_MAX: usize = 4096;

pub(super) fn read(bytes: &[u8], facts: &ElfFacts) -> Option<Program> {
    let usage = after(bytes, facts, MARKER, |byte| byte != 0)?;
    let usage = &usage[..usage.len().min(USAGE_MAX)];
    let mut applets: Vec<String> = usage.split(|&byte| byte == b'\n').flat_map(names).collect();
    applets.sort_unstable();
    applets.dedup();
    let number = |byte: u8| byte.is_ascii_digit() || byte == b'.';
    Some(Program {
        family: Family::Dropbear,
        // What the server and the client send as their identification (RFC 4253, 4.2).
        version: after(bytes, facts, b"SSH-2.0-dropbear_", number).and_then(version),
        applets,
    })
    .filter(|program| !program.applets.is_empty())
}

/// The names in a line such as `'dbclient' or 'ssh' - the Dropbear client`.
fn names(line: &[u8]) -> Vec<String> {
    let Some(end) = memmem::find(line, b"' - ") else { return Vec::new() };
    let Some(quoted) = line[..end].strip_prefix(b"'") else { return Vec::new() };
    let text = String::from_utf8_lossy(quoted);
    let listed: Vec<_> = text.split("' or '").map(str::to_owned).collect();
    let is_name = |name: &String| {
        (1..=32).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_lowercase())
    };
    if listed.iter().all(is_name) { listed } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn names_are_those_before_the_dash() {
        assert_eq!(names(b"'dropbear' - the Dropbear server"), ["dropbear"]);
        assert_eq!(names(b"'dbclient' or 'ssh' - the Dropbear client"), ["dbclient", "ssh"]);
        for other in [
            &b"following names or run 'dropbearmulti <command>'."[..],
            b"",
            b"'",
            b"' - ",
            b"'a b' - ",
        ] {
            assert_eq!(names(other), Vec::<String>::new());
        }
    }
}
