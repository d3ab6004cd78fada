//! Derives answers from what was read: values in, values out.

pub mod groups;
pub mod inodes;
pub mod links;
pub mod resolve;
pub mod trees;
pub mod wanted;
#[cfg(test)]
mod world;
