//! Turns answers into bytes: tables for people, JSON for programs.

pub mod escape;
pub mod human;
