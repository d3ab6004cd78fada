//! A dynamic program is shared among the roots in which it loads the same files.

use std::collections::BTreeMap;

use super::eligible::because;
use super::{Holding, Libraries, Refusal, Sharable};
use crate::model::{ContentId, SkipReason};

/// Takes those out of `kept` that load something else than most, or do not find it.
pub(super) fn unlike<'a>(
    sharable: &Sharable,
    kept: &mut Vec<&'a Holding>,
) -> Vec<(&'a Holding, Refusal)> {
    if sharable.loads.interpreter.is_none() {
        return Vec::new();
    }
    let mut counts: BTreeMap<ContentId, usize> = BTreeMap::new();
    for holding in kept.iter() {
        if let Libraries::Found(digest) = holding.libraries {
            *counts.entry(digest).or_default() += 1;
        }
    }
    let most = counts.iter().max_by_key(|(_, count)| **count).map(|(digest, _)| *digest);
    let mut refused = Vec::new();
    kept.retain(|holding| {
        let refusal = match &holding.libraries {
            Libraries::Found(digest) if Some(*digest) == most => return true,
            Libraries::Found(_) => because(SkipReason::LibrariesDiffer, DIFFER),
            Libraries::Missing(name) => because(SkipReason::LibrariesDiffer, missing(name)),
        };
        refused.push((*holding, refusal));
        false
    });
    refused
}

const DIFFER: &str = "its interpreter, or a library that it needs, is another one in this root than in \
     most: upgrade them alike";

fn missing(name: &[u8]) -> String {
    format!("it does not find what it needs in this root: {}", String::from_utf8_lossy(name))
}
