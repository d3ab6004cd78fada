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
