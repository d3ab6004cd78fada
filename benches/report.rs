//! The disk side on root trees of real size: what the walk, looking at every
//! file, hashing every file, and whole reports cost.
//!
//! The tree is made once, by `testdata/make-trees`, below `target/`;
//! `CBIN_AUDIT_TREE` names another one.

#![expect(clippy::disallowed_methods, reason = "a script makes the tree")]

use std::path::{Path, PathBuf};
use std::process::Command;

use cbin_audit::model::{Bytes, HostPath, Inventory, Select, Silent};
use cbin_audit::ops::{AuditOptions, Limits, audit};
use cbin_audit::scan::Cache;
use cbin_audit::scan::dir::RootDir;
use cbin_audit::scan::read::{self, Job, Library, Want};
use cbin_audit::scan::walk::{self, WalkLimits};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn benches(criterion: &mut Criterion) {
    let roots = roots();
    let dirs: Vec<RootDir> =
        roots.iter().map(|root| RootDir::open(&HostPath::from(root)).expect("open root")).collect();
    let limits = WalkLimits { entries: u64::MAX };
    let (inventories, _) = walk::walk(&dirs, limits, &Silent);
    let files = inventories.iter().map(|inventory| inventory.files().len() as u64).sum();

    let mut group = criterion.benchmark_group("tree");
    group.sample_size(10).throughput(Throughput::Elements(files));
    group.bench_function("walk", |bench| bench.iter(|| walk::walk(&dirs, limits, &Silent)));
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

fn roots() -> Vec<PathBuf> {
    let tree = std::env::var_os("CBIN_AUDIT_TREE").map_or_else(made_tree, PathBuf::from);
    let mut roots: Vec<PathBuf> = std::fs::read_dir(tree)
        .expect("list the tree")
        .map(|entry| entry.expect("read the tree").path())
        .filter(|path| path.is_dir())
        .collect();
    roots.sort();
    roots
}

fn made_tree() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tree = package.join("target/trees");
    if !tree.is_dir() {
        let made = Command::new(package.join("testdata/make-trees")).arg(&tree).status();
        assert!(made.expect("start testdata/make-trees").success());
    }
    tree
}

criterion_group!(all, benches);
criterion_main!(all);
