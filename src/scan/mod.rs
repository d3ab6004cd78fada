//! Reads the system: roots, files, processes. Changes nothing.

pub mod dir;
mod host;
mod source;
pub mod walk;

pub use host::host;
pub use source::Source;
