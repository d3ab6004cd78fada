//! Multi-call programs: one binary, many names.

/// A family of multi-call binaries, recognised from their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// BusyBox, and its `libbusybox.so`.
    Busybox,
    /// dropbearmulti.
    Dropbear,
    /// Toybox.
    Toybox,
    /// The Rust rewrite of coreutils.
    Uutils,
}

impl Family {
    /// The name in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Busybox => "busybox",
            Self::Dropbear => "dropbear",
            Self::Toybox => "toybox",
            Self::Uutils => "uutils",
        }
    }

    /// How the binary's own file name begins. Called by such a name it takes
    /// the applet from its first argument.
    pub fn file_prefix(self) -> &'static str {
        match self {
            Self::Uutils => "coreutils",
            family => family.name(),
        }
    }
}

/// What a multi-call binary says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Which family.
    pub family: Family,
    /// Its version, as its own bytes have it.
    pub version: Option<String>,
    /// The names it answers to, sorted. Empty where the table cannot be read
    /// from the bytes (uutils): then the links are all that is known.
    pub applets: Vec<String>,
}
