//! Trees that are too deep, too wide, or go round in circles.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use rustix::fs::{FileType, Mode, OFlags};

use super::{Roots, elf, finish, open_dir, report, with_mounts};
use crate::command::cbin_audit;
use crate::suite::{Need, Suite};

pub fn tests(suite: &mut Suite) {
    suite.test("hostile_ten_thousand_levels", &[], levels);
    suite.test("hostile_more_names_than_allowed", &[], budget);
    suite.test("hostile_two_hundred_thousand_names", &[], many_names);
    suite.test("privileged_hostile_nested_mounts_and_bind_loops", &[Need::Root], nested_mounts);
    suite.test("hostile_a_root_in_a_root_is_walked_once", &[], nested_roots);
}

fn levels() {
    let roots = Roots::in_memory();
    roots.both("bin/tool", elf(b"the same in both"));
    for root in ["a", "b"] {
        dig(&roots.at(root), 10_000);
    }
    let answer = roots.report(&["--select", "all"]);
    // Deeper than a path may be long: rm(1) goes down by directories.
    let removed = Command::new("rm").arg("-rf").args([roots.at("a/d"), roots.at("b/d")]).status();
    assert!(removed.unwrap().success());
    let answer = answer.partial().finds("bin/tool");
    let deep = |notice: &&serde_json::Value| notice["cause"].as_str().unwrap().contains("too deep");
    assert_eq!(answer.notices().iter().filter(deep).count(), 2, "{}", answer.stdout);
}

/// Makes directories in directories.
fn dig(top: &Path, levels: usize) {
    let mut at: OwnedFd = open_dir(top).into();
    for _ in 0..levels {
        rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
        at = rustix::fs::openat(&at, "d", OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
}

fn budget() {
    let roots = Roots::new();
    for root in ["a", "b"] {
        fill(&roots.at(root), 500);
    }
    let answer = roots.report(&["--select", "all", "--max-entries", "100"]).partial();
    assert!(answer.files() <= 200, "{}", answer.stdout);
    answer.notice("/a", "--max-entries").notice("/b", "--max-entries");
    // Exactly as many as there are: nothing is missing.
    let answer = roots.report(&["--select", "all", "--max-entries", "500"]).complete();
    assert_eq!(answer.files(), 1000);
}

fn many_names() {
    let roots = Roots::in_memory();
    fs::create_dir(roots.at("a/wide")).unwrap();
    fill(&roots.at("a/wide"), 200_000);
    roots.both("bin/tool", elf(b"the same in both"));
    let start = Instant::now();
    let answer = roots.report(&[]).complete().finds("bin/tool");
    assert_eq!(answer.files(), 200_002);
    assert!(start.elapsed().as_secs() < 30, "{:?}", start.elapsed());
}

/// Makes empty files.
fn fill(dir: &Path, count: usize) {
    let dir = open_dir(dir);
    for number in 0..count {
        let name = format!("{number}");
        rustix::fs::mknodat(&dir, name, FileType::RegularFile, Mode::RUSR, 0).unwrap();
    }
}

fn nested_mounts() {
    let roots = Roots::new();
    roots.both("bin/tool", elf(b"the same in both"));
    for dir in ["loop", "proc", "tmp", "data", "etc"] {
        fs::create_dir(roots.at("a").join(dir)).unwrap();
    }
    fs::write(roots.at("a/etc/hosts"), "below").unwrap();
    fs::create_dir(roots.at("outside")).unwrap();
    fs::write(roots.at("outside/canary"), elf(b"not in any root")).unwrap();
    // The first on the same file system, with the same device number.
    let setup = r#"
        mount --bind "$1/outside" "$1/a/data"
        mount --bind "$1/a" "$1/a/loop"
        mount -t proc proc "$1/a/proc"
        mount -t tmpfs tmpfs "$1/a/tmp"
        cp "$1/outside/canary" "$1/a/tmp"
        mount --bind "$1/outside/canary" "$1/a/etc/hosts""#;
    let mut command = cbin_audit();
    command.args(["report", "--json", "--no-memory", "--select", "all"]);
    command.args([roots.at("a"), roots.at("b")]);
    let mut answer = finish(with_mounts(setup, roots.0.path(), &command)).complete();
    for mounted in ["loop", "proc", "tmp", "data", "etc/hosts"] {
        answer = answer.notice(&format!("a/{mounted}"), "file system is mounted");
    }
    let answer = answer.finds("bin/tool");
    assert_eq!(answer.files(), 2, "{}", answer.stdout);
    assert!(!answer.stdout.contains("canary"), "{}", answer.stdout);
}

fn nested_roots() {
    let roots = Roots::new();
    roots.both("bin/tool", elf(b"the same in both"));
    let inner = roots.at("a/var/inner");
    fs::create_dir_all(inner.join("bin")).unwrap();
    fs::write(inner.join("bin/tool"), elf(b"the same in both")).unwrap();
    let answer = report(&[], &[roots.at("a"), inner]).complete().finds("bin/tool");
    assert_eq!(answer.files(), 2, "{}", answer.stdout);
}
