//! How far long work is, told without printing.

/// A part of a run that takes a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Roots are being found.
    Roots,
    /// Names are being listed.
    Walk,
    /// Files are being read; counted in files.
    Read,
    /// Processes are being asked.
    Memory,
    /// Entries are being changed, or put back; counted in entries.
    Change,
}

/// Told how far the work is, from any thread.
pub trait Progress: Sync {
    /// A phase begins, with what it will count up to where that is known.
    fn start(&self, phase: Phase, total: Option<u64>);
    /// So much more is done.
    fn advance(&self, by: u64);
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn start(&self, _phase: Phase, _total: Option<u64>) {}
    fn advance(&self, _by: u64) {}
}
