//! System calls that no library wraps safely: the one module with `unsafe`.

mod arenas;
mod dedupe_range;
mod device_filters;
pub(crate) mod fiemap;
mod lease;
mod mincore;
mod mount_setattr;
mod mounts;
mod procmap;
mod waits;

pub(crate) use arenas::limit_arenas;
pub(crate) use dedupe_range::{Compared, dedupe_range};
pub(crate) use device_filters::device_filters;
pub(crate) use lease::ReadLease;
pub(crate) use mincore::cached_pages;
pub(crate) use mount_setattr::has_mount_setattr;
pub(crate) use mounts::{seal, unshare_fs};
pub(crate) use procmap::{Query, next_vma};
pub(crate) use waits::Waits;
