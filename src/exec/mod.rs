//! Carries a plan out, and puts it back: the only room that changes a file system.
