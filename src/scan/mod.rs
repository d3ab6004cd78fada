//! Reads the system: roots, files, processes. Changes nothing.
