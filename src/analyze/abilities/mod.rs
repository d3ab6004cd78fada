//! What a host, a file system and a container allow, why not, and what would change it.

mod container;
mod file_system;
mod host;

pub use container::of_container;
pub use file_system::{of_root, of_store};
pub use host::of_host;
