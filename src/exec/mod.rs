//! Carries a plan out, and puts it back: the only room that changes a file system.

pub mod config;
pub mod live;
