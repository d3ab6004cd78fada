//! System calls that no library wraps safely: the one module with `unsafe`.

pub(crate) mod fiemap;
