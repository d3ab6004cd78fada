//! The machine that an answer is about.

use super::Bytes;

/// The machine that an answer is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// The node name of `uname(2)`.
    pub hostname: String,
    /// The release of `uname(2)`.
    pub kernel: String,
    /// The base page size.
    pub page_size: Bytes,
}
