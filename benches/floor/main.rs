//! What a report costs against the least that it has to do: list every directory and look at every
//! file, then hash what could be held twice, with all processors. In pairs, one right after the
//! other: what disturbs the machine disturbs both.
//!
//! The tree is made once, by `testdata/make-trees`, below `target/`; `CBIN_AUDIT_TREE` names another
//! one. Everything was read before, and is in the page cache if it fits. `CBIN_AUDIT_ROUNDS` says
//! how many pairs (5).
//!
//! `CBIN_AUDIT_COLD=1` has the kernel drop its caches before each (root), and the floor ask for
//! some files before the one that it reads.

#![expect(clippy::disallowed_methods, reason = "a script makes the tree")]
#![expect(clippy::print_stdout, reason = "a table is the answer")]

#[expect(dead_code, reason = "the median of pairs is told, not the least")]
#[path = "../farm/cost.rs"]
mod cost;
mod least;
#[path = "../farm/trees.rs"]
mod trees;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use cost::Cost;
use least::What;

fn main() {
    let roots = trees::roots();
    if is_cold() {
        println!("from a cold cache");
    }
    let dir = tempfile::tempdir().expect("make a directory");
    let caches = ["elf", "all"].map(|select| dir.path().join(select));
    let arguments = |select| ["report", "--no-memory", "--select", select].map(Into::into).to_vec();
    let second = |select, cache: &Path| [arguments(select), vec!["--cache".into(), cache.into()]];
    let [elf, all] = &caches;
    let alone = |select| [arguments(select), vec!["--no-trees".into()]].concat();
    let rows: [(Vec<PathBuf>, Option<What>, f64); 8] = [
        (arguments("multicall"), None, 1.5),
        (arguments("elf"), Some(What::Elf), 1.2),
        // Trees are compared by all their files, whatever is selected.
        (arguments("elf"), Some(What::All), 1.2),
        (arguments("all"), Some(What::All), 1.2),
        // The floor compares no trees either.
        (alone("elf"), Some(What::Elf), 1.2),
        (alone("all"), Some(What::All), 1.2),
        (second("elf", elf).concat(), None, 1.3),
        (second("all", all).concat(), None, 1.3),
    ];
    println!("{:>6} {:>8} {:>8} {:>8} {:>8}", "x", "report", "floor", "CPU", "peak");
    for (arguments, what, aim) in rows {
        tell(&arguments, what, aim, &roots);
    }
}

/// Measures one row, after a round that counts for nothing.
fn tell(arguments: &[PathBuf], what: Option<What>, aim: f64, roots: &[PathBuf]) {
    let rounds = std::env::var("CBIN_AUDIT_ROUNDS");
    let rounds: usize = rounds.map_or(5, |rounds| rounds.parse().expect("a number"));
    let pair = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cbin-audit"));
        let floor = floor(what, roots);
        forget();
        (floor, Cost::of(command.args(arguments).args(roots)))
    };
    let pairs: Vec<(Duration, Cost)> = (0..=rounds).map(|_| pair()).skip(1).collect();
    let ratio = |(floor, cost): &(Duration, Cost)| cost.wall.as_secs_f64() / floor.as_secs_f64();
    let floor = median(pairs.iter().map(|(floor, _)| floor.as_secs_f64()));
    let of = |figure: fn(&Cost) -> f64| median(pairs.iter().map(|(_, cost)| figure(cost)));
    println!(
        "{:6.2} {:6.2} s {floor:6.2} s {:6.2} s {:4.0} MiB  {} against {}; aim {aim}",
        median(pairs.iter().map(ratio)),
        of(|cost| cost.wall.as_secs_f64()),
        of(|cost| cost.cpu.as_secs_f64()),
        of(|cost| cost.peak_kib as f64 / 1024.0),
        said(arguments),
        match what {
            None => "the bare walk",
            Some(What::Elf) => "walk and hash of ELF files",
            Some(What::All) => "walk and hash of all files",
        },
    );
}

/// Files that the floor asks for before the one that it reads, on each thread.
const AHEAD: usize = 8;

fn is_cold() -> bool {
    std::env::var_os("CBIN_AUDIT_COLD").is_some()
}

fn forget() {
    if is_cold() {
        rustix::fs::sync();
        std::fs::write("/proc/sys/vm/drop_caches", "3").expect("drop the caches");
    }
}

fn floor(what: Option<What>, roots: &[PathBuf]) -> Duration {
    forget();
    let ahead = if is_cold() { AHEAD } else { 0 };
    let begin = Instant::now();
    let dirs = least::walk(roots);
    if let Some(what) = what {
        assert!(least::hash(&dirs, what, ahead) > 0, "nothing to hash");
    }
    begin.elapsed()
}

/// The options, without where the cache lies.
fn said(arguments: &[PathBuf]) -> String {
    let words = arguments.iter().filter(|word| word.is_relative());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
