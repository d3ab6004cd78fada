//! The document `cbin-audit.plan.v1` of a plan that was carried out.

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::Fields;
use super::plan;
use super::runs::{LeftFields, RecoveredFields};
use crate::model::{Applied, Host, PendingRestart, Plan};

/// A plan, and what carrying it out came to.
#[derive(Debug)]
pub struct AppliedDocument<'a> {
    plan: &'a Plan,
    applied: &'a Applied,
    host: &'a Host,
}

impl<'a> AppliedDocument<'a> {
    /// All of both.
    pub fn new(plan: &'a Plan, applied: &'a Applied, host: &'a Host) -> Self {
        Self { plan, applied, host }
    }
}

impl Serialize for AppliedDocument<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let applied = self.applied;
        let mut map = serializer.serialize_map(None)?;
        plan::fields(&mut map, self.plan, self.host)?;
        map.serialize_entry("run", &applied.run.map(|run| run.0))?;
        map.serialize_entry("applied", &applied.changed)?;
        map.serialize_entry("state", applied.state.name())?;
        map.list("left", applied.left.iter().map(LeftFields))?;
        map.serialize_entry("freed_bytes", &applied.freed)?;
        map.serialize_entry("stored_bytes", &applied.stored)?;
        map.serialize_entry("advice", &applied.advice)?;
        map.list("recovered", applied.recovered.iter().map(RecoveredFields))?;
        map.list("pending_restart", applied.pending_restart.iter().map(PendingFields))?;
        map.end()
    }
}

struct PendingFields<'a>(&'a PendingRestart);

impl Serialize for PendingFields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("pid", &self.0.pid)?;
        map.serialize_entry("comm", &self.0.comm)?;
        map.serialize_entry("root", &self.0.root.0)?;
        map.path("path", self.0.path.as_bytes())?;
        map.end()
    }
}
