//! Carries a plan out, and puts it back: the only room that changes a file system.
//!
//! A run holds the lock, ends what was cut off before, and writes to its journal what it is
//! about to do before it does it. At every moment each name of a root leads to a working
//! program, whatever is cut off there; the next command looks at the entries and ends them.

mod apply;
mod batch;
mod bind;
mod cause;
pub mod config;
mod content;
mod directories;
mod error;
mod gc;
pub mod generations;
mod held;
mod history;
pub mod journal;
mod link;
pub mod live;
mod lock;
mod mount;
mod place;
mod prefix;
mod recover;
mod restore;
mod roots;
mod settle;
mod share;
mod space;
mod store;
mod surroundings;
mod tree;
mod twin;
mod undo;
mod work;

pub(crate) use apply::entry_path;
pub use apply::{ApplyOptions, apply};
pub use batch::{Log, NoLog, change, most_held};
pub use error::ExecError;
pub use gc::gc;
pub use history::history;
pub use recover::recover;
pub use restore::put_back;
pub use roots::Roots;
pub use store::check_tree;
pub use undo::{UndoOptions, undo};
pub use work::TEMPORARY;
