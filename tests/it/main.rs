//! The integration tests: the real binary on real files, processes and file systems.
//!
//! Each test states what it needs. What this machine lacks is reported as
//! skipped, with the reason, and counted apart: nothing passes silently.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "tests lay the worlds that the library reads")]

mod command;
mod layering;
mod loopfs;
mod memory_fuse;
mod memory_ground;
mod memory_robust;
mod memory_runtimes;
mod memory_sharing;
mod memory_waste;
mod oracle;
mod packages;
mod suite;
mod usage;

use suite::Suite;

fn main() {
    let arguments = libtest_mimic::Arguments::from_args();
    let mut suite = Suite::new();
    layering::tests(&mut suite);
    memory_robust::tests(&mut suite);
    memory_runtimes::tests(&mut suite);
    memory_sharing::tests(&mut suite);
    memory_waste::tests(&mut suite);
    oracle::tests(&mut suite);
    packages::tests(&mut suite);
    usage::tests(&mut suite);
    suite.run(&arguments).exit();
}
