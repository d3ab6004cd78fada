//! The integration tests: the real binary on real files, processes and file systems.
//!
//! Each test states what it needs. What this machine lacks is reported as
//! skipped, with the reason, and counted apart: nothing passes silently.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "tests lay the worlds that the library reads")]

mod article;
mod booted;
mod bound;
mod cache;
mod command;
mod crash;
mod crash_batches;
mod crash_generations;
mod crash_mounts;
mod dedupe_plan;
mod doctor;
mod elf;
mod eligibility;
mod engines;
mod exec_apply;
mod fake_host;
mod fault;
mod fault_real;
mod generations;
mod hardlinks;
mod hostile;
mod interrupt;
mod inverse;
mod isolation;
mod journal;
mod layering;
mod layouts;
mod live;
mod loopfs;
mod memory_fuse;
mod memory_ground;
mod memory_ksm;
mod memory_races;
mod memory_robust;
mod memory_runtimes;
mod memory_sharing;
mod memory_waste;
mod mounts;
mod multicall;
mod objects;
mod oracle;
mod packages;
mod power;
mod race;
mod readme;
mod reflink;
mod reorder;
mod report_output;
mod rig;
mod room;
mod roots;
mod size;
mod size_cases;
mod size_mutation;
mod snapshot;
mod suite;
mod trees;
mod trust;
mod usage;
mod verify;
mod world;

use suite::Suite;

fn main() {
    rig::become_another();
    if let Some(host) = std::env::var_os("CBIN_AUDIT_TEST_DISCOVER") {
        return roots::discover_and_print(std::path::Path::new(&host));
    }
    let mut suite = Suite::new();
    size::tests(&mut suite);
    size_cases::tests(&mut suite);
    size_mutation::tests(&mut suite);
    article::tests(&mut suite);
    cache::tests(&mut suite);
    dedupe_plan::tests(&mut suite);
    eligibility::tests(&mut suite);
    doctor::tests(&mut suite);
    crash::tests(&mut suite);
    crash_batches::tests(&mut suite);
    crash_generations::tests(&mut suite);
    crash_mounts::tests(&mut suite);
    generations::tests(&mut suite);
    hardlinks::tests(&mut suite);
    hostile::tests(&mut suite);
    interrupt::tests(&mut suite);
    inverse::tests(&mut suite);
    isolation::tests(&mut suite);
    journal::tests(&mut suite);
    elf::tests(&mut suite);
    bound::tests(&mut suite);
    engines::tests(&mut suite);
    exec_apply::tests(&mut suite);
    reflink::tests(&mut suite);
    fault::tests(&mut suite);
    fault_real::tests(&mut suite);
    layering::tests(&mut suite);
    layouts::tests(&mut suite);
    live::tests(&mut suite);
    mounts::tests(&mut suite);
    multicall::tests(&mut suite);
    memory_ksm::tests(&mut suite);
    memory_races::tests(&mut suite);
    memory_robust::tests(&mut suite);
    memory_runtimes::tests(&mut suite);
    memory_sharing::tests(&mut suite);
    memory_waste::tests(&mut suite);
    oracle::tests(&mut suite);
    packages::tests(&mut suite);
    power::tests(&mut suite);
    race::tests(&mut suite);
    report_output::tests(&mut suite);
    readme::tests(&mut suite);
    reorder::tests(&mut suite);
    room::tests(&mut suite);
    roots::tests(&mut suite);
    trees::tests(&mut suite);
    trust::tests(&mut suite);
    usage::tests(&mut suite);
    verify::tests(&mut suite);
    suite.run();
}
