//! The Rust coreutils. Its names stand in a perfect hash map, of which no layout
//! is promised: the links are what tells them.

use super::{after, version};
use crate::model::{ElfFacts, Family, Program};

pub(super) const MARKER: &[u8] = b" (multi-call binary)";

pub(super) fn read(bytes: &[u8], facts: &ElfFacts) -> Option<Program> {
    let any = |_: u8| true;
    after(bytes, facts, b"Currently defined functions:", any)?;
    after(bytes, facts, b"uucore", any)?;
    Some(Program {
        family: Family::Uutils,
        // From the source path in a panic message, where it was built from packaged sources.
        version: after(bytes, facts, b"/uucore-", |byte| byte != b'/').and_then(release),
        applets: Vec::new(),
    })
}

/// `0.0.27`, and nothing that is no such number.
fn release(bytes: &[u8]) -> Option<String> {
    let number = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
    bytes.iter().all(number).then(|| version(bytes)).flatten()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::program_in;
    use crate::model::{Bytes, Family};
    use crate::scan::{Source, elf_facts};

    /// A constructed file: one read-only segment that holds the text.
    fn executable(text: &[u8]) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
        bytes.extend([0u64, 64, 0].map(u64::to_le_bytes).concat());
        bytes.extend(b"\0\0\0\0\x40\0\x38\0\x01\0\0\0\0\0\0\0");
        bytes.extend(b"\x01\0\0\0\x04\0\0\0");
        let len = 120 + text.len() as u64;
        bytes.extend([0, 0, 0, len, len, 4096].map(u64::to_le_bytes).concat());
        bytes.extend(text);
        bytes
    }

    #[test]
    fn the_rust_coreutils_are_known_by_their_usage() {
        let usage = " (multi-call binary)\n\nUsage: Currently defined functions:\n\n uucore";
        let path = "/registry/src/index/uucore-0.0.27/src/lib/mods/panic.rs";
        for (text, expected) in [
            (format!("{usage}{path}"), Some(Some("0.0.27"))),
            (usage.to_owned(), Some(None)),
            (format!("{usage}/uucore-x/"), Some(None)),
            (" (multi-call binary) uucore".to_owned(), None),
        ] {
            let bytes = executable(text.as_bytes());
            let facts = elf_facts(&Source::bytes_of(&bytes), Bytes(4096)).unwrap().unwrap();
            let found = program_in(&bytes, &facts);
            let version = found.as_ref().map(|found| found.version.as_deref());
            assert_eq!(version, expected, "{text}");
            assert!(found.is_none_or(|found| found.family == Family::Uutils));
        }
    }
}
