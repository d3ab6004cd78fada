//! The documents `cbin-audit.history.v1`, `undo.v1`, `recover.v1` and `gc.v1`.

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::{Fields, Header};
use crate::model::{
    Collected, Host, Left, Notices, Outcome, Recovered, RunState, RunSummary, Undone,
};

/// A document whose rows are all there is to it.
macro_rules! document {
    ($(#[$doc:meta])* $name:ident, $of:ty, $schema:literal, $fields:ident) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name<'a> {
            of: &'a $of,
            host: &'a Host,
        }

        impl<'a> $name<'a> {
            /// All of it, in its order.
            pub fn new(of: &'a $of, host: &'a Host) -> Self {
                Self { of, host }
            }
        }

        impl Serialize for $name<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut map = serializer.serialize_map(None)?;
                let complete = complete(self.of);
                let notices = &Notices::default();
                map.header(&Header { schema: $schema, host: self.host, complete, notices })?;
                $fields(&mut map, self.of)?;
                map.end()
            }
        }
    };
}

document!(
    /// The runs of a journal.
    HistoryDocument, [RunSummary], "cbin-audit.history.v1", history
);
document!(
    /// What an undo came to.
    UndoneDocument, Undone, "cbin-audit.undo.v1", undone
);
document!(
    /// What a recovery came to.
    RecoveredDocument, [Recovered], "cbin-audit.recover.v1", recovered
);
document!(
    /// What was removed from the store.
    CollectedDocument, Collected, "cbin-audit.gc.v1", collected
);

/// Nothing is missing from an answer.
trait Complete {
    fn complete(&self) -> bool;
}

fn complete<T: Complete + ?Sized>(of: &T) -> bool {
    of.complete()
}

impl Complete for [RunSummary] {
    fn complete(&self) -> bool {
        self.iter().all(|run| run.damage.is_none())
    }
}

impl Complete for Undone {
    fn complete(&self) -> bool {
        self.kept.is_empty() && self.surroundings.is_empty()
    }
}

impl Complete for [Recovered] {
    fn complete(&self) -> bool {
        self.iter().all(|run| run.state != RunState::Unfinished)
    }
}

impl Complete for Collected {
    fn complete(&self) -> bool {
        true
    }
}

fn history<M: SerializeMap>(map: &mut M, runs: &[RunSummary]) -> Result<(), M::Error> {
    map.list("runs", runs.iter().map(SummaryFields))
}

fn undone<M: SerializeMap>(map: &mut M, undone: &Undone) -> Result<(), M::Error> {
    map.serialize_entry("run", &undone.run.0)?;
    map.serialize_entry("state", undone.state.name())?;
    map.serialize_entry("restored", &undone.restored)?;
    map.list("kept", undone.kept.iter().map(LeftFields))?;
    let paths = undone.surroundings.iter();
    map.list("not_put_back", paths.map(|(path, cause)| Caused(path.as_bytes(), cause)))?;
    map.list("recovered", undone.recovered.iter().map(RecoveredFields))
}

fn recovered<M: SerializeMap>(map: &mut M, runs: &[Recovered]) -> Result<(), M::Error> {
    map.list("runs", runs.iter().map(RecoveredFields))
}

fn collected<M: SerializeMap>(map: &mut M, collected: &Collected) -> Result<(), M::Error> {
    map.serialize_entry("kept", &collected.kept)?;
    map.list(
        "removed",
        collected.removed.iter().map(|(path, bytes)| Gone(path.as_bytes(), bytes.0)),
    )
}

struct SummaryFields<'a>(&'a RunSummary);

impl Serialize for SummaryFields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let run = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("run", &run.run.0)?;
        map.serialize_entry("time_seconds", &run.time_seconds)?;
        map.serialize_entry("state", run.state.map_or("damaged", RunState::name))?;
        map.path("store", run.store.as_bytes())?;
        map.serialize_entry("steps", &run.steps)?;
        map.serialize_entry("standing", &run.standing)?;
        map.serialize_entry("undone", &run.undone)?;
        map.paths("roots", run.roots.iter().map(|root| root.as_bytes()))?;
        map.serialize_entry("damage", &run.damage)?;
        map.end()
    }
}

/// A step that was left, or an entry that was kept.
pub(super) struct LeftFields<'a>(pub(super) &'a Left);

impl Serialize for LeftFields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("step", &self.0.step)?;
        map.serialize_entry("root", &self.0.root.0)?;
        map.path("path", self.0.path.as_bytes())?;
        map.serialize_entry("cause", &self.0.cause)?;
        map.end()
    }
}

/// A run that was cut off before.
pub(super) struct RecoveredFields<'a>(pub(super) &'a Recovered);

impl Serialize for RecoveredFields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let count = |outcome: Outcome| {
            self.0.entries.iter().filter(|entry| entry.outcome == outcome).count()
        };
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("run", &self.0.run.0)?;
        map.serialize_entry("state", self.0.state.name())?;
        map.serialize_entry("done", &count(Outcome::Done))?;
        map.serialize_entry("rolled_back", &count(Outcome::RolledBack))?;
        map.serialize_entry("superseded", &count(Outcome::Superseded))?;
        map.serialize_entry("undone", &count(Outcome::Undone))?;
        map.serialize_entry("parked", &count(Outcome::Parked))?;
        map.end()
    }
}

struct Caused<'a>(&'a [u8], &'a str);

impl Serialize for Caused<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.path("path", self.0)?;
        map.serialize_entry("cause", self.1)?;
        map.end()
    }
}

struct Gone<'a>(&'a [u8], u64);

impl Serialize for Gone<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.path("path", self.0)?;
        map.serialize_entry("allocated_bytes", &self.1)?;
        map.end()
    }
}

#[cfg(test)]
mod tests;
