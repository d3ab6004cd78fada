//! Reads the system: roots, files, processes. Changes nothing.

pub mod below;
mod cache;
pub mod candidate;
mod container_names;
pub mod containers;
mod devices;
pub mod dir;
mod disk_threads;
pub mod extents;
mod facts;
pub mod file_system;
pub mod fuse_devices;
mod hidepid;
mod host;
mod host_config;
mod host_places;
pub mod isolation;
pub mod kernel;
pub mod mapped;
pub mod mounts;
mod multicall;
mod namespaces;
pub mod objects;
pub mod objfile;
pub mod packages;
mod pagemap;
pub mod patience;
mod proc;
pub mod read;
mod restart;
mod roots;
pub mod running;
pub mod served;
mod side_by_side;
mod source;
pub mod store;
mod vma;
pub mod walk;

use std::io;

pub use cache::{Cache, CacheError, Listings, Recalled};
pub use disk_threads::{on_disk_threads, prepare_for_threads};
pub use facts::elf_facts;
pub use host::host;
pub use host_config::host_config;
pub use host_places::HostPlaces;
pub use multicall::{program, program_in};
pub use namespaces::{MountNamespace, mount_namespaces};
pub use proc::{ProcReader, Process, Scratch, Seen};
pub use restart::{OldProcess, old_processes, running_from};
pub use roots::{RootsError, Stack, find_roots, stacks};
pub(crate) use side_by_side::together;
pub use source::Source;
pub use vma::{Vma, VmaSource};

/// The system's words for an error, without the number that Rust adds.
pub(crate) fn cause(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}
