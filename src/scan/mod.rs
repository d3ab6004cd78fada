//! Reads the system: roots, files, processes. Changes nothing.

pub mod dir;
pub mod extents;
mod facts;
mod host;
mod multicall;
pub mod objfile;
pub mod read;
mod roots;
mod source;
pub mod walk;

use std::io;

pub use facts::elf_facts;
pub use host::host;
pub use multicall::{program, program_in};
pub use roots::{RootsError, find_roots};
pub use source::Source;

/// The system's words for an error, without the number that Rust adds.
pub(crate) fn cause(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}
