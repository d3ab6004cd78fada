//! Turns answers into bytes: tables for people, JSON for programs.

pub mod diff;
pub mod doctor;
pub mod escape;
pub mod html;
pub mod human;
pub mod json;
mod layout;
pub mod memory;
pub mod next;
pub mod openmetrics;
mod order;
pub mod plan;
pub mod report;
#[cfg(test)]
mod sample;
pub mod size;
pub mod verify;

pub use layout::Page;
pub use order::{Sort, sort};
