//! The operations a user asks for, each of the layers below joined.

mod apply;
mod audit;
mod doctor;
mod links;
mod members;
mod memory;
mod plan;
mod survey;
mod verify;

pub use crate::exec::{ApplyOptions, ExecError, UndoOptions, gc, history, recover, undo};
pub use apply::apply;
pub use audit::{AuditError, AuditOptions, Limits, audit};
pub use doctor::{DoctorOptions, doctor};
pub use memory::{Interest, MemoryError, MemoryOptions, memory};
pub use plan::{PlanError, PlanOptions, plan};
pub use verify::{VerifyError, VerifyOptions, verify};
