//! The document `cbin-audit.plan.v1`: a plan, whole, so that exactly it can be applied later.

mod fields;
mod parse;

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::{Fields, Header};
use crate::model::{Host, Plan};

use fields::{RootFields, SettingsFields, SkipFields, StepFields};

pub use parse::PlanFileError;

const SCHEMA: &str = "cbin-audit.plan.v1";

/// A plan as the document `cbin-audit.plan.v1`.
#[derive(Debug)]
pub struct PlanDocument<'a> {
    plan: &'a Plan,
    host: &'a Host,
}

impl<'a> PlanDocument<'a> {
    /// The whole plan.
    pub fn new(plan: &'a Plan, host: &'a Host) -> Self {
        Self { plan, host }
    }
}

impl PlanDocument<'_> {
    /// The plan that a document holds. Its notices stay behind: they are about the survey
    /// that the plan was made from.
    ///
    /// # Errors
    ///
    /// When the bytes are no such document, or a step of it could not be one of ours.
    pub fn parse(bytes: &[u8]) -> Result<Plan, PlanFileError> {
        parse::parse(bytes)
    }
}

impl Serialize for PlanDocument<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        fields(&mut map, self.plan, self.host)?;
        map.end()
    }
}

/// The fields of a plan's document; the outcome of a run adds its own behind them.
///
/// # Errors
///
/// Those of the serializer.
pub fn fields<M: SerializeMap>(map: &mut M, plan: &Plan, host: &Host) -> Result<(), M::Error> {
    map.header(&Header {
        schema: SCHEMA,
        host,
        complete: plan.notices.complete(),
        notices: &plan.notices,
    })?;
    map.serialize_entry("settings", &SettingsFields::of(&plan.settings))?;
    map.list("roots", plan.roots.iter().map(RootFields::of))?;
    map.list("steps", plan.steps.iter().map(StepFields::of))?;
    map.list("skips", plan.skips.iter().map(SkipFields::of))?;
    map.serialize_entry("saves", &fields::SavesFields::of(plan.saves))
}

#[cfg(test)]
mod tests;
