//! A run in short: how its steps ended, and no more. Each line is checked, but what was intended
//! and what was there before, nearly all of a journal, is not taken apart.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use super::line;
use super::read::Records;
use crate::exec::error::ExecError;
use crate::model::{Begin, Outcome, Record, RunId, RunState};

/// What the records of a run amount to, in short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Short {
    /// What it is about.
    pub begin: Begin,
    /// How steps ended, those that did.
    pub outcomes: BTreeMap<u32, Outcome>,
    /// What it was left in.
    pub state: RunState,
}

/// Reads a run in short; `None` where no record was ever flushed.
///
/// # Errors
///
/// When the file cannot be read, is damaged, or is of a newer version.
pub fn in_short(journal: &Path, run: RunId) -> Result<Option<Short>, ExecError> {
    let path = super::file(journal, run);
    let file = File::open(&path).map_err(ExecError::io("open", &path))?;
    let mut records = Records::new(BufReader::new(file), path);
    let Some(first) = records.next().transpose()? else { return Ok(None) };
    let begin = records.begin(first)?.begin;
    let (mut outcomes, mut state) = (BTreeMap::new(), RunState::Unfinished);
    while let Some(record) = records.read(line::decode_outcome)? {
        state = RunState::Unfinished;
        match record {
            Some(Record::Ended(all)) => {
                let steps = all.iter().flat_map(|it| it.steps.iter().map(|at| (*at, it.outcome)));
                outcomes.extend(steps);
            }
            Some(Record::End { state: end }) => state = end,
            _ => {}
        }
    }
    Ok(Some(Short { begin, outcomes, state }))
}
