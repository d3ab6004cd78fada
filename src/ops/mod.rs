//! The operations a user asks for, each of the layers below joined.

mod audit;
mod links;
mod memory;
mod survey;

pub use audit::{AuditError, AuditOptions, Limits, audit};
pub use memory::{MemoryError, MemoryOptions, memory};
