//! A run in short: how its steps ended, or where they were, too, and no more. Each line is checked,
//! but what was there before, nearly all of a journal, is not taken apart.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use serde::Deserialize;

use super::line;
use super::read::Records;
use crate::exec::error::ExecError;
use crate::model::{
    Begin, Ended, EntryPlace, JournalObject, Outcome, Record, RootId, RootPath, RunId, RunState,
};

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
    let Some((begin, mut records)) = open(journal, run)? else { return Ok(None) };
    let (mut outcomes, mut state) = (BTreeMap::new(), RunState::Unfinished);
    while let Some(record) = records.read(|line| line::decode_some(line, &[br#"{"end"#]))? {
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

/// Where the steps of a run were, and how they ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// What it is about.
    pub begin: Begin,
    /// Objects that it put into the store.
    pub objects: Vec<JournalObject>,
    /// Entries, by step.
    pub entries: BTreeMap<u32, PlacedEntry>,
    /// An undo was begun.
    pub undo: bool,
    /// What it was left in.
    pub state: RunState,
}

/// An entry that a run changed, or was about to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedEntry {
    /// The root.
    pub root: RootId,
    /// The entry.
    pub path: RootPath,
    /// How it ended; `None`: it was cut off.
    pub outcome: Option<Outcome>,
}

/// The records that tell it; of intents the place alone.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Telling {
    Intents(Vec<EntryPlace>),
    Objects(Vec<JournalObject>),
    Ended(Vec<Ended>),
    UndoBegin {},
    End { state: RunState },
}

const TELLING: [&[u8]; 5] =
    [br#"{"intents""#, br#"{"objects""#, br#"{"ended""#, br#"{"undo_begin""#, br#"{"end""#];

/// Reads where the steps of a run were; `None` where no record was ever flushed.
///
/// # Errors
///
/// When the file cannot be read, is damaged, or is of a newer version.
pub fn placed(journal: &Path, run: RunId) -> Result<Option<Placed>, ExecError> {
    let Some((begin, mut records)) = open(journal, run)? else { return Ok(None) };
    let (objects, entries, state) = (Vec::new(), BTreeMap::new(), RunState::Unfinished);
    let mut placed = Placed { begin, objects, entries, undo: false, state };
    while let Some(record) = records.read(|line| line::decode_some(line, &TELLING))? {
        placed.state = RunState::Unfinished;
        if let Some(record) = record {
            placed.take(record);
        }
    }
    Ok(Some(placed))
}

impl Placed {
    fn take(&mut self, record: Telling) {
        match record {
            Telling::Intents(intents) => {
                let entries = intents.into_iter().map(|EntryPlace { step, root, path }| {
                    (step, PlacedEntry { root, path, outcome: None })
                });
                self.entries.extend(entries);
            }
            Telling::Objects(objects) => self.objects.extend(objects),
            Telling::Ended(ended) => {
                for ended in ended {
                    for step in ended.steps {
                        if let Some(entry) = self.entries.get_mut(&step) {
                            entry.outcome = Some(ended.outcome);
                        }
                    }
                }
            }
            Telling::UndoBegin {} => self.undo = true,
            Telling::End { state } => self.state = state,
        }
    }
}

/// What a run is about, and the records behind that.
type Opened = (Begin, Records<BufReader<File>>);

/// Opens a run's file; `None` where no record was ever flushed.
fn open(journal: &Path, run: RunId) -> Result<Option<Opened>, ExecError> {
    let path = super::file(journal, run);
    let file = File::open(&path).map_err(ExecError::io("open", &path))?;
    let mut records = Records::new(BufReader::new(file), path);
    let Some(first) = records.next().transpose()? else { return Ok(None) };
    Ok(Some((records.begin(first)?.begin, records)))
}
