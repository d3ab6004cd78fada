//! The whole report on a thousand containers that run, and the disk side on millions of files.
//!
//! Roots with a busybox, a dropbear and 300 links each, ten processes and a mount namespace in each. They
//! are made once, below `target/`: `CBIN_AUDIT_ROOTS` says how many (1,000), `CBIN_AUDIT_ROOTS_DIR` where
//! else. `CBIN_AUDIT_FILES=5000000` asks for as many small files in one root instead, in `CBIN_AUDIT_FILES_DIR`
//! (`/dev/shm`). Both are measured at a quarter, at half and at the whole: what grows, and how.
//!
//! Everything was read before: it is in the page cache, so long as it fits. Needs root.

#![expect(clippy::disallowed_methods, reason = "roots are made")]
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

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cost::Cost;
use processes::{Farm, running};
use roots::Programs;

const LINKS: usize = 300;
/// Beside the shell that starts them.
const SLEEPERS: usize = 9;
const ROUNDS: usize = 5;
/// Files of one directory.
const PER_DIR: usize = 1000;

fn main() {
    match number("CBIN_AUDIT_FILES") {
        Some(files) => many_files(files),
        None => many_containers(number("CBIN_AUDIT_ROOTS").unwrap_or(1000)),
    }
}

fn number(variable: &str) -> Option<usize> {
    std::env::var(variable).ok().map(|value| value.parse().expect("a number"))
}

fn many_containers(count: usize) {
    apart::run_apart();
    let home = place("CBIN_AUDIT_ROOTS_DIR", "target/scale-roots");
    fs::create_dir_all(&home).expect("make a directory");
    let programs = Programs::fetch();
    let roots: Vec<PathBuf> = (0..count).map(|at| home.join(at.to_string())).collect();
    roots.iter().for_each(|root| programs.lay(root, LINKS));
    let mut farm = Farm::default();
    for (from, to) in [(0, count / 4), (count / 4, count / 2), (count / 2, count)] {
        farm.start(&["unshare", "--mount", "chroot"], &roots[from..to], SLEEPERS);
        println!("\n{to} roots, {} processes", running());
        let asked = [&["report"][..], &["report", "--no-memory"], &["memory"]];
        asked.iter().for_each(|arguments| tell(arguments, &roots[..to], to));
    }
}

fn many_files(count: usize) {
    let home = place("CBIN_AUDIT_FILES_DIR", "/dev/shm/scale-files");
    let mut laid = 0;
    for goal in [count / 4, count / 2, count] {
        (laid..goal).for_each(|number| lay_file(&home, number));
        laid = goal;
        println!("\n{goal} files");
        let arguments = ["report", "--select", "all", "--no-memory", "--no-trees"];
        tell(&arguments, std::slice::from_ref(&home), goal);
    }
    fs::remove_dir_all(&home).expect("remove the files");
}

/// Every hundredth file is like another; sizes from one byte to sixty.
fn lay_file(home: &Path, number: usize) {
    let dir = home.join(format!("usr/{}", number / PER_DIR));
    if number.is_multiple_of(PER_DIR) {
        fs::create_dir_all(&dir).expect("make a directory");
    }
    let number = if number.is_multiple_of(100) { number / 200 } else { number };
    let text = format!("{number:0width$}", width = 8 + number % 53);
    fs::write(dir.join((number % PER_DIR).to_string()), text).expect("write a file");
}

fn place(variable: &str, usual: &str) -> PathBuf {
    let usual = || Path::new(env!("CARGO_MANIFEST_DIR")).join(usual);
    std::env::var_os(variable).map_or_else(usual, PathBuf::from)
}

/// The least that a command took in several rounds: what disturbs one only ever adds.
fn tell(arguments: &[&str], roots: &[PathBuf], count: usize) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cbin-audit"));
    command.args(arguments).args(roots);
    let costs = (0..ROUNDS).map(|_| Cost::of(&mut command));
    let cost = costs.reduce(Cost::least).expect("a round");
    println!(
        "{:48} {:6.2} s, CPU {:6.2} s, peak {:6.1} MiB, {:6.1} KiB each",
        arguments.join(" "),
        cost.wall.as_secs_f64(),
        cost.cpu.as_secs_f64(),
        cost.peak_kib as f64 / 1024.0,
        cost.peak_kib as f64 / count as f64,
    );
}
