//! The live view on thousands of processes: what it costs for each, how it compares with
//! smem and ps_mem, how much memory it takes, what a second thread gains.
//!
//! The processes run in a pid namespace of their own, with a `/proc` of their own: the
//! number of processes is what was asked for, and nothing is left behind.

#![expect(clippy::disallowed_methods, reason = "the bench lays the roots of its processes")]
#![expect(clippy::print_stdout, reason = "a table is the answer")]
#![expect(clippy::panic, reason = "a bench fails by panicking")]

#[path = "../farm/apart.rs"]
mod apart;
#[path = "../farm/cost.rs"]
mod cost;
#[path = "../farm/processes.rs"]
mod processes;
#[path = "../farm/roots.rs"]
mod roots;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use cbin_audit::model::Silent;
use cbin_audit::ops::{MemoryOptions, memory};
use cbin_audit::scan::{VmaSource, host};
use cost::Cost;
use criterion::{Criterion, Throughput};
use processes::{Farm, running};
use roots::Programs;

/// Set in a copy that looks once, and how.
const LOOK: &str = "CBIN_AUDIT_BENCH_LOOK";
/// Processes, by comma: other sizes than the usual ones.
const SIZES: &str = "CBIN_AUDIT_BENCH_SIZES";
const ROOTS: usize = 20;
const LINKS: usize = 270;
const ROUNDS: usize = 15;
const QUERY: &str = "library, PROCMAP_QUERY";
const ONE: &str = "memory -j1";
const TWO: &str = "memory -j2";
const OTHERS: [&str; 2] = ["smem", "ps_mem"];

fn main() {
    if let Ok(source) = std::env::var(LOOK) {
        return look(if source == "text" { VmaSource::Text } else { VmaSource::Query }, 1);
    }
    apart::run_apart();
    let sizes = std::env::var(SIZES).unwrap_or_else(|_| "2000,10000".to_owned());
    let (programs, dir) = (Programs::fetch(), tempfile::tempdir().expect("make a directory"));
    let roots: Vec<PathBuf> = (0..ROOTS).map(|at| dir.path().join(at.to_string())).collect();
    roots.iter().for_each(|root| programs.lay(root, LINKS));
    let mut farm = Farm::default();
    let mut grow = |sleepers| farm.start(&["chroot"], &roots, sleepers);
    grow(1);
    let fixed = measure(contestants());
    let fixed = Fixed { processes: running(), costs: fixed };
    for size in sizes.split(',').map(|size| size.parse::<usize>().expect("a number of processes")) {
        let missing = size.saturating_sub(running() + ROOTS);
        grow(missing / ROOTS);
        fixed.compare(&measure(contestants()));
    }
    criterion(&mut Criterion::default().configure_from_args());
}

/// The library alone, in this process.
fn criterion(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("memory");
    group.sample_size(10).throughput(Throughput::Elements(running() as u64));
    for (name, source) in [("query", VmaSource::Query), ("text", VmaSource::Text)] {
        for threads in [1, 2] {
            let name = format!("{name}, {threads} threads");
            group.bench_function(name, |bench| bench.iter(|| look(source, threads)));
        }
    }
    group.finish();
}

fn look(source: VmaSource, threads: usize) {
    let mut options = MemoryOptions::new(host().page_size);
    (options.source, options.threads, options.processes) = (source, threads, false);
    let report = memory(&options, &Silent).expect("look at the processes");
    assert!(report.totals.wasted.0 > 0, "the copies were not found");
}

/// What is measured: a name and a command.
struct Contestant {
    name: &'static str,
    command: Command,
}

/// The ways of the tool first; the others only where they are installed.
fn contestants() -> Vec<Contestant> {
    let own = std::env::current_exe().expect("find this program");
    let by = |source: &str| {
        let mut command = Command::new(&own);
        command.env(LOOK, source);
        command
    };
    let tool = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cbin-audit"));
        command.arg("memory").args(arguments);
        command
    };
    let ours = [
        Contestant { name: QUERY, command: by("query") },
        Contestant { name: "library, text of maps", command: by("text") },
        Contestant { name: ONE, command: tool(&["-j1"]) },
        Contestant { name: TWO, command: tool(&["-j2"]) },
        Contestant { name: "memory --json -j1", command: tool(&["--json", "-j1"]) },
    ];
    let installed = |name: &&str| Command::new(name).arg("--help").output().is_ok();
    let others = OTHERS.into_iter().filter(installed);
    let others = others.map(|name| Contestant { name, command: Command::new(name) });
    ours.into_iter().chain(others).collect()
}

/// Runs each in turn, several times: all of them see the same machine. Each one's least.
fn measure(mut contestants: Vec<Contestant>) -> Vec<(&'static str, Cost)> {
    let mut least: Vec<(&str, Cost)> = Vec::new();
    for round in 0..ROUNDS {
        for (at, one) in contestants.iter_mut().enumerate() {
            let cost = Cost::of(&mut one.command);
            match least.get_mut(at).filter(|_| round > 0) {
                Some(known) => known.1 = known.1.least(cost),
                None => least.push((one.name, cost)),
            }
        }
    }
    least
}

/// What each costs where there is next to nothing to look at.
struct Fixed {
    processes: usize,
    costs: Vec<(&'static str, Cost)>,
}

impl Fixed {
    /// One table, the ratios first.
    fn compare(&self, costs: &[(&'static str, Cost)]) {
        let processes = running();
        let more = (processes - self.processes) as f64;
        let of = |name| costs.iter().find(|cost| cost.0 == name).map(|cost| cost.1);
        let ratio = |a: Duration, b: Duration| a.as_secs_f64() / b.as_secs_f64();
        let (one, two) = (of(ONE).expect("measured"), of(TWO).expect("measured"));
        println!("\n{processes} processes");
        for name in OTHERS {
            match of(name) {
                Some(other) => println!(
                    "{name:7} costs {:5.1} times the CPU of {ONE}, takes {:5.1} times as long",
                    ratio(other.cpu, one.cpu),
                    ratio(other.wall, one.wall)
                ),
                None => println!("{name:7} is not installed: no comparison"),
            }
        }
        println!("two threads are {:.2} times as fast as one", ratio(one.wall, two.wall));
        println!("{:24} {:>9} {:>9} {:>9} {:>9}", "", "CPU ms", "wall ms", "us/proc", "peak MiB");
        for ((name, cost), (_, fixed)) in costs.iter().zip(&self.costs) {
            let each = cost.cpu.saturating_sub(fixed.cpu).as_secs_f64() * 1e6 / more;
            let [cpu, wall] = [cost.cpu, cost.wall].map(|time| time.as_secs_f64() * 1e3);
            let peak = cost.peak_kib as f64 / 1024.0;
            println!("{name:24} {cpu:9.1} {wall:9.1} {each:9.1} {peak:9.1}");
        }
    }
}
