//! Derives answers from what was read: values in, values out.

pub mod abilities;
pub mod config;
pub mod drift;
mod frames;
pub mod groups;
pub mod held;
pub mod inodes;
pub mod links;
mod objects;
pub mod paths;
pub mod plan;
pub mod resolve;
mod sharing;
pub mod trees;
pub mod wanted;
#[cfg(test)]
mod world;

pub use objects::{Collector, Object, Objects, PageSets, SetId, Sighting, Use};
pub use sharing::{Account, ContainerText, ObjectFacts, ProcessText, account};
