//! Reads the system: roots, files, processes. Changes nothing.

pub mod dir;
mod facts;
mod host;
mod multicall;
mod source;
pub mod walk;

pub use facts::elf_facts;
pub use host::host;
pub use multicall::{program, program_in};
pub use source::Source;
