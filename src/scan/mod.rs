//! Reads the system: roots, files, processes. Changes nothing.

pub mod dir;
pub mod extents;
pub mod read;
pub mod walk;

use std::io;

/// The system's words for an error, without the number that Rust adds.
pub(crate) fn cause(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}
mod host;
mod source;

pub use host::host;
pub use source::Source;
