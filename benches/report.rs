//! The disk side on root trees of real size: what the walk, looking at every
//! file, hashing every file, and whole reports cost.
//!
//! The tree is made once, by `testdata/make-trees`, below `target/`;
//! `CBIN_AUDIT_TREE` names another one.

#![expect(clippy::disallowed_methods, reason = "a script makes the tree")]

#[path = "farm/trees.rs"]
mod trees;

use cbin_audit::model::{Bytes, HostPath, Inventory, Select, Silent};
use cbin_audit::ops::{AuditOptions, Limits, audit};
use cbin_audit::scan::Cache;
use cbin_audit::scan::Listings;
use cbin_audit::scan::dir::RootDir;
use cbin_audit::scan::read::{self, Job, Library, Want};
use cbin_audit::scan::walk::{self, WalkLimits};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn benches(criterion: &mut Criterion) {
    let roots = trees::roots();
    let dirs: Vec<RootDir> =
        roots.iter().map(|root| RootDir::open(&HostPath::from(root)).expect("open root")).collect();
    let limits = WalkLimits { entries: u64::MAX };
    let (inventories, _) = walk::walk(&dirs, limits, &Listings::default(), &Silent);
    let files = inventories.iter().map(|inventory| inventory.files().len() as u64).sum();

    let mut group = criterion.benchmark_group("tree");
    group.sample_size(10).throughput(Throughput::Elements(files));
    group.bench_function("walk", |bench| {
        bench.iter(|| walk::walk(&dirs, limits, &Listings::default(), &Silent));
    });
    for (name, want) in
        [("look at every file", Want::Kind), ("hash every file", Want::WholeContent)]
    {
        let jobs = jobs(&inventories, want);
        let library = Library { roots: &dirs, inventories: &inventories, largest: Bytes(u64::MAX) };
        group.bench_function(name, |bench| bench.iter(|| read::read(library, &jobs, &Silent)));
    }
    let selections = [("multicall", Select::Multicall), ("elf", Select::Elf), ("all", Select::All)];
    for (name, select) in selections {
        for trees in [false, true] {
            let name = format!("report {name}{}", if trees { " with trees" } else { "" });
            let options = AuditOptions {
                roots: roots.clone(),
                select,
                trees,
                memory: false,
                limits: Limits::default(),
            };
            group.bench_function(name, |bench| {
                bench.iter(|| audit(&options, &mut Cache::none(), &Silent));
            });
        }
    }
    group.finish();
}

fn jobs(inventories: &[Inventory], want: Want) -> Vec<Job> {
    let of = |(inventory, root): (&Inventory, u32)| {
        inventory.files().map(|(file, _)| Job { root, file, want }).collect::<Vec<_>>()
    };
    inventories.iter().zip(0..).flat_map(of).collect()
}

criterion_group!(all, benches);
criterion_main!(all);
