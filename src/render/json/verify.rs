//! The document `cbin-audit.verify.v1`.

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::{Fields, Header};
use crate::model::{Check, Host, Verified};

/// What was verified, as the document `cbin-audit.verify.v1`.
#[derive(Debug)]
pub struct VerifyDocument<'a> {
    verified: &'a Verified,
    host: &'a Host,
}

impl<'a> VerifyDocument<'a> {
    /// All of it, in its order.
    pub fn new(verified: &'a Verified, host: &'a Host) -> Self {
        Self { verified, host }
    }
}

impl Serialize for VerifyDocument<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let verified = self.verified;
        let mut map = serializer.serialize_map(None)?;
        map.header(&Header {
            schema: "cbin-audit.verify.v1",
            host: self.host,
            complete: verified.notices.complete(),
            notices: &verified.notices,
        })?;
        map.list("checks", verified.checks.iter().map(CheckFields))?;
        map.serialize_entry("ok", &verified.ok())?;
        map.serialize_entry("damaged", &verified.damaged())?;
        map.end()
    }
}

struct CheckFields<'a>(&'a Check);

impl Serialize for CheckFields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let check = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("what", check.what)?;
        match &check.root {
            Some(root) => map.path("root", root.as_bytes())?,
            None => map.serialize_entry("root", &None::<&str>)?,
        }
        match &check.path {
            Some(path) => map.path("path", path)?,
            None => map.serialize_entry("path", &None::<&str>)?,
        }
        map.serialize_entry("ok", &check.ok)?;
        map.serialize_entry("damage", &check.damage)?;
        map.serialize_entry("detail", &check.detail)?;
        map.list("pids", check.pids.iter())?;
        map.end()
    }
}
