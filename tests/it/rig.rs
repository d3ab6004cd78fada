//! What the tests of crash safety stand on: the real binary under a supervisor that sees every
//! changing system call before it happens, devices that log what is written to them, and a
//! comparison of whole trees.
//!
//! The supervisor takes the place of failpoints in the code. No step can be forgotten, the code
//! is the one that ships, and what it replaces (`mv`, `ln`) can be held to the same rules: that
//! is the negative control.

pub mod call;
pub mod dice;
pub mod filter;
pub mod image;
pub mod logged;
pub mod mutator;
pub mod naive;
pub mod scanner;
pub mod scene;
pub mod supervise;

/// In a copy of this program that was started to be something else: never returns.
pub fn become_another() {
    if std::env::var_os(supervise::SUPERVISED).is_some() {
        supervise::become_supervised();
    }
    if std::env::var_os(mutator::MUTATE).is_some() {
        std::process::exit(mutator::main());
    }
}
