//! What it costs to make hundreds of roots one, and to put them back: the plan, apply, undo.
//!
//! Each root has a static busybox, a multi-call dropbear and 270 links to them, copied for
//! real. They are made once, below `target/`; `CBIN_AUDIT_ROOTS` says how many (100),
//! `CBIN_AUDIT_ROOTS_DIR` where else: the file system matters more than all the rest.
//! Needs root, for the store belongs to it.

#![expect(clippy::disallowed_methods, reason = "roots are made")]

#[path = "farm/roots.rs"]
mod roots;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use cbin_audit::model::{
    Applets, ContainerPath, HostPath, Method, MountMeans, Plan, PlanSettings, Select, Silent,
    StoreFormat,
};
use cbin_audit::ops::{self, ApplyOptions, Limits, PlanOptions, UndoOptions};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use roots::Programs;

fn benches(criterion: &mut Criterion) {
    let ground = Ground::make();
    let entries = ground.plan().steps.len() as u64;
    let mut group = criterion.benchmark_group(format!("{} roots", ground.roots.len()));
    group.sample_size(10).throughput(Throughput::Elements(entries));
    group.bench_function("plan", |bench| bench.iter(|| ground.plan()));
    group.bench_function("apply", |bench| {
        bench.iter_custom(|times| (0..times).map(|_| ground.there_and_back().0).sum());
    });
    group.bench_function("undo", |bench| {
        bench.iter_custom(|times| (0..times).map(|_| ground.there_and_back().1).sum());
    });
    group.finish();
}

/// Roots, a store and a journal on one file system.
struct Ground {
    home: PathBuf,
    roots: Vec<PathBuf>,
}

const LINKS: usize = 270;

impl Ground {
    fn make() -> Self {
        let home = std::env::var_os("CBIN_AUDIT_ROOTS_DIR").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/dedupe-roots"),
            PathBuf::from,
        );
        let count = std::env::var("CBIN_AUDIT_ROOTS").map_or(100, |n| n.parse().expect("a number"));
        let programs = Programs::fetch();
        let roots: Vec<_> = (1..=count).map(|at| home.join(format!("roots/{at}"))).collect();
        roots.iter().for_each(|root| programs.lay(root, LINKS));
        Self { home, roots }
    }

    fn plan(&self) -> Plan {
        let settings = PlanSettings {
            select: Select::Multicall,
            method: Method::Symlink,
            store: HostPath(self.home.join("store")),
            store_format: StoreFormat::Dir,
            mount_point: ContainerPath("/cbin".into()),
            applets: Applets::Auto,
            live: false,
            include_setid: false,
            trust_domain: None,
        };
        let (mounts, limits) = (Some(MountMeans::None), Limits::default());
        let (roots, journal) = (self.roots.clone(), self.home.join("journal"));
        let options = PlanOptions { roots, settings, mounts, limits, journal };
        ops::plan(&options, &Silent).expect("plan")
    }

    /// How long a plan took to be carried out, and to be put back.
    fn there_and_back(&self) -> (Duration, Duration) {
        let (plan, stop) = (self.plan(), AtomicBool::new(false));
        let journal = self.home.join("journal");
        // Undo looks at all the runs that there ever were.
        let _gone = fs::remove_dir_all(&journal);
        let began = Instant::now();
        let options = ApplyOptions { journal: &journal, host: &self.home, stop: &stop };
        let applied = ops::apply(&plan, options, &Silent).expect("apply");
        let apply = began.elapsed();
        assert!(applied.left.is_empty(), "{:?}", applied.left.first());
        let began = Instant::now();
        let options = UndoOptions { journal: &journal, run: None, root: None, stop: &stop };
        let undone = ops::undo(options, &Silent).expect("undo");
        assert!(undone.kept.is_empty(), "{:?}", undone.kept.first());
        (apply, began.elapsed())
    }
}

criterion_group!(dedupe, benches);
criterion_main!(dedupe);
