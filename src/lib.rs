//! Finds the programs that container roots hold twice, on disk and in memory.
//!
//! # Layers
//!
//! | layer | modules | may use |
//! |---|---|---|
//! | L0 | [`model`] | nothing of ours |
//! | | `sys` | [`model`] |
//! | L1 | [`analyze`], [`scan`], [`render`] | [`model`]; [`scan`] also `sys` |
//! | L2 | [`exec`] | [`model`], [`scan`], `sys` |
//! | L3 | [`ops`] | all of the above |
//! | | `main.rs`, `cli` | the library's face |
//!
//! [`model`] is what is known: values without behaviour that touches the
//! system. [`scan`] reads the system into it, [`analyze`] derives (values in,
//! values out), [`render`] turns it into bytes, [`exec`] carries a plan out, and
//! [`ops`] joins them.
//!
//! # Laws
//!
//! 1. Arrows point down; a test reads the `use` lines.
//! 2. Only [`exec`] changes a file system; a lint bars it everywhere else.
//! 3. Parsers take bytes; openers open; readers are told their root.
//! 4. A container's root is hostile: nothing in it is executed, no link is
//!    followed out of it, no name reaches a terminal unescaped, no special file
//!    is opened, no read is unbounded.
//! 5. One bad file never ends a run, and is never forgotten: it is a
//!    [`model::Notice`].
//! 6. A number that is an estimate says so.
//! 7. The library prints nothing.

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "unit tests lay the files that they read")
)]
#![cfg_attr(
    test,
    allow(
        clippy::panic,
        clippy::single_range_in_vec_init,
        clippy::type_complexity,
        reason = "tests fail by panicking, and write their samples as literals"
    )
)]

pub mod analyze;
pub mod exec;
pub mod model;
pub mod ops;
pub mod render;
pub mod scan;
mod sys;
