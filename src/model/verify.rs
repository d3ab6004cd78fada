//! Whether what runs changed still stands: one check at a time.

use super::{HostPath, Notices};

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// A word for it, stable for scripts: `object`, `link`, `drift`, `mount`, ...
    pub what: &'static str,
    /// The root that it is about.
    pub root: Option<HostPath>,
    /// What it is about: an entry of the root, otherwise a path on the host.
    pub path: Option<Vec<u8>>,
    /// It is as it should be.
    pub ok: bool,
    /// The store or the journal is damaged: what undo needs may be lost.
    pub damage: bool,
    /// What was found, and where it is not as it should be, the way out.
    pub detail: String,
    /// The processes that it is about.
    pub pids: Vec<u32>,
}

impl Check {
    /// It is as it should be.
    pub fn good(what: &'static str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { what, root: None, path: None, ok: true, damage: false, detail, pids: Vec::new() }
    }

    /// It is not.
    pub fn bad(what: &'static str, detail: impl Into<String>) -> Self {
        Self { ok: false, ..Self::good(what, detail) }
    }

    /// The store or the journal is damaged.
    pub fn damage(what: &'static str, detail: impl Into<String>) -> Self {
        Self { damage: true, ..Self::bad(what, detail) }
    }

    /// It is about this root.
    pub fn in_root(self, root: &HostPath) -> Self {
        Self { root: Some(root.clone()), ..self }
    }

    /// It is about this path.
    pub fn at(self, path: &[u8]) -> Self {
        Self { path: Some(path.to_vec()), ..self }
    }
}

/// What was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verified {
    /// Every check: what is damaged first, then what is not as it should be.
    pub checks: Vec<Check>,
    /// What could not be looked at.
    pub notices: Notices,
}

impl Verified {
    /// Everything is as it should be.
    pub fn ok(&self) -> bool {
        self.checks.iter().all(|check| check.ok)
    }

    /// The store or the journal is damaged.
    pub fn damaged(&self) -> bool {
        self.checks.iter().any(|check| check.damage)
    }
}
