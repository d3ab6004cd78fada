//! What it costs to make hundreds of roots one, and to put them back: the plan, apply, undo.
//!
//! Each root has a static busybox, a multi-call dropbear and 270 links to them, copied for
//! real. They are made once, below `target/`; `CBIN_AUDIT_ROOTS` says how many (100),
//! `CBIN_AUDIT_ROOTS_DIR` where else: the file system matters more than all the rest.
//! Needs root, for the store belongs to it.
//!
//! Before criterion's measurements it prints one table: apply and undo beside their floor, in
//! turns, and the least of `CBIN_AUDIT_BENCH_ROUNDS` (3).

#![expect(clippy::disallowed_methods, reason = "roots are made")]

#[path = "farm/floor.rs"]
mod floor;
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
    ground.compare(entries);
    let mut group = criterion.benchmark_group(format!("{} roots", ground.roots.len()));
    group.sample_size(10).throughput(Throughput::Elements(entries));
    group.bench_function("plan", |bench| bench.iter(|| ground.plan()));
    group.bench_function("apply", |bench| {
        bench.iter_custom(|times| (0..times).map(|_| ground.there_and_back()[0].wall).sum());
    });
    group.bench_function("undo", |bench| {
        bench.iter_custom(|times| (0..times).map(|_| ground.there_and_back()[1].wall).sum());
    });
    group.finish();
}

/// Time, and the processors' time.
#[derive(Debug, Clone, Copy)]
struct Cost {
    wall: Duration,
    cpu: Duration,
}

impl Cost {
    fn of(work: impl FnOnce()) -> Self {
        let (began, cpu) = (Instant::now(), cpu());
        work();
        Self { wall: began.elapsed(), cpu: self::cpu() - cpu }
    }

    /// The lesser of each: what disturbs a run only ever adds.
    fn least(self, other: Self) -> Self {
        Self { wall: self.wall.min(other.wall), cpu: self.cpu.min(other.cpu) }
    }
}

fn cpu() -> Duration {
    let stat = procfs::process::Process::myself().and_then(|own| own.stat()).expect("own times");
    Duration::from_secs_f64((stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64)
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

    #[expect(clippy::print_stdout, reason = "a table")]
    fn compare(&self, entries: u64) {
        let rounds = std::env::var("CBIN_AUDIT_BENCH_ROUNDS").map_or(3, |n| n.parse().expect("n"));
        let round = |_: u32| [self.floor(), self.there_and_back()].concat();
        let least = (0..rounds).map(round).reduce(|one, other| {
            one.into_iter().zip(other).map(|(one, other)| one.least(other)).collect()
        });
        let Some(least) = least else { return };
        let [there, back, apply, undo] = <[Cost; 4]>::try_from(least).expect("four");
        println!(
            "{} roots, {entries} entries: time (CPU), the least of {rounds}",
            self.roots.len()
        );
        for (name, ours, floor) in [("apply", apply, there), ("undo", undo, back)] {
            println!(
                "{name:5}  {:.2?} ({:.2?})   floor {:.2?} ({:.2?})   ratio {:.2} ({:.2})",
                ours.wall,
                ours.cpu,
                floor.wall,
                floor.cpu,
                ours.wall.as_secs_f64() / floor.wall.as_secs_f64(),
                ours.cpu.as_secs_f64() / floor.cpu.as_secs_f64(),
            );
        }
    }

    fn floor(&self) -> [Cost; 2] {
        let plan = self.plan();
        let floor = floor::Floor::new(&plan, &self.home.join("floor"));
        let costs = [Cost::of(|| floor.there()), Cost::of(|| floor.back())];
        fs::remove_file(self.home.join("floor")).expect("remove");
        costs
    }

    /// What it took to carry a plan out, and to put it back.
    fn there_and_back(&self) -> [Cost; 2] {
        let (plan, stop) = (self.plan(), AtomicBool::new(false));
        let journal = self.home.join("journal");
        // Undo looks at all the runs that there ever were.
        let _gone = fs::remove_dir_all(&journal);
        let apply = Cost::of(|| {
            let options = ApplyOptions { journal: &journal, host: &self.home, stop: &stop };
            let applied = ops::apply(&plan, options, &Silent).expect("apply");
            assert!(applied.left.is_empty(), "{:?}", applied.left.first());
        });
        let undo = Cost::of(|| {
            let options = UndoOptions { journal: &journal, run: None, root: None, stop: &stop };
            let undone = ops::undo(options, &Silent).expect("undo");
            assert!(undone.kept.is_empty(), "{:?}", undone.kept.first());
        });
        [apply, undo]
    }
}

criterion_group!(dedupe, benches);
criterion_main!(dedupe);
