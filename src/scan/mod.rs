//! Reads the system: roots, files, processes. Changes nothing.

pub mod dir;
pub mod walk;
