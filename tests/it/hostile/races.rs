//! Roots that change while they are looked at.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, RenameFlags};

use super::{Answer, Roots, elf, report};
use crate::suite::Suite;

/// Runs of a race end after this long, or as many as the test asks for.
const LONG_ENOUGH: Duration = Duration::from_secs(8);

pub fn tests(suite: &mut Suite) {
    suite.test("hostile_files_are_cut_off_while_read", &[], truncated);
    suite.test("hostile_files_change_while_read", &[], changed);
    suite.test("hostile_a_root_is_swapped_for_a_link", &[], root_swapped);
    suite.test("hostile_directories_are_swapped_for_links", &[], directories_swapped);
    suite.test("hostile_names_come_and_go", &[], names_come_and_go);
}

/// Runs `attack` over and over in a thread of its own while `look` is called, until it
/// has been called often enough. Returns how often the attack ran.
fn race(times: usize, attack: impl Fn() + Sync, mut look: impl FnMut()) -> u64 {
    let (done, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                attack();
                rounds.fetch_add(1, Ordering::Relaxed);
            }
        });
        let end = EndOnDrop(&done);
        let start = Instant::now();
        for _ in 0..times {
            look();
            if start.elapsed() > LONG_ENOUGH {
                break;
            }
        }
        drop(end);
    });
    rounds.into_inner()
}

/// Ends the attack also when an assertion has failed.
struct EndOnDrop<'a>(&'a AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn truncated() {
    const LONG: u64 = 4 << 20;
    let roots = Roots::new();
    roots.both("bin/tool", elf(b"the same in both"));
    roots.both("lib/big", elf(&vec![7; LONG as usize]));
    let files = ["a/lib/big", "b/lib/big"]
        .map(|path| OpenOptions::new().write(true).open(roots.at(path)).unwrap());
    let attack = || {
        for length in [0, 10, 100, 5000, LONG] {
            files.iter().for_each(|file| file.set_len(length).unwrap());
            files.iter().for_each(|file| file.write_all_at(b"\x7fELF\x02\x01\x01", 0).unwrap());
        }
    };
    race(200, attack, || {
        let answer = roots.report(&[]).consistent().finds("bin/tool");
        about_it(&answer, "lib/big");
    });
}

/// Whatever makes the answer partial is said of this file.
fn about_it(answer: &Answer, path: &str) {
    if answer.status == 3 {
        let named = |n: &serde_json::Value| n["path"].as_str().unwrap().ends_with(path);
        assert!(answer.notices().iter().any(named), "{}", answer.stdout);
    }
}

fn changed() {
    let roots = Roots::new();
    roots.both("bin/tool", elf(b"the same in both"));
    roots.both("lib/big", elf(&vec![7; 48 << 20]));
    let file = OpenOptions::new().write(true).open(roots.at("a/lib/big")).unwrap();
    let noticed = AtomicU64::new(0);
    let attack = || {
        file.write_all_at(b"changed", 24 << 20).unwrap();
        file.write_all_at(&[7; 7], 24 << 20).unwrap();
        std::thread::sleep(Duration::from_micros(200));
    };
    race(6, attack, || {
        let answer = roots.report(&[]).consistent().finds("bin/tool");
        about_it(&answer, "lib/big");
        noticed.fetch_add(u64::from(answer.status == 3), Ordering::Relaxed);
    });
    assert!(noticed.into_inner() > 0, "a file that never stood still was taken as it was");
}

/// Two names change places, at once.
fn exchange(one: &Path, other: &Path) {
    rustix::fs::renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
}

/// What lies outside the roots: equal to something inside, so that it would be listed.
fn outside(roots: &Roots) {
    fs::create_dir_all(roots.at("outside/bin")).unwrap();
    fs::write(roots.at("outside/bin/canary"), elf(b"the same in both")).unwrap();
    fs::write(roots.at("outside/canary"), elf(b"the same in both")).unwrap();
}

fn saw_nothing_outside(answer: &Answer) {
    assert!(!answer.stdout.contains("canary"), "{}", answer.stdout);
}

fn root_swapped() {
    let roots = Roots::new();
    roots.both("bin/tool", elf(b"the same in both"));
    outside(&roots);
    symlink("outside", roots.at("swap")).unwrap();
    let (root, link) = (roots.at("a"), roots.at("swap"));
    let mut seen = [0; 4];
    let rounds = race(
        150,
        || exchange(&root, &link),
        || {
            let answer = report(&["--select", "all"], &[roots.at("a"), roots.at("b")]);
            saw_nothing_outside(&answer);
            match answer.status {
                1 => assert!(answer.stderr.contains("symbolic link"), "{}", answer.stderr),
                _ => drop(answer.stdout),
            }
            seen[answer.status as usize] += 1;
        },
    );
    assert!(rounds > 1000, "{rounds}");
    assert!(seen[1] > 0 && seen[0] + seen[3] > 0, "both were met: {seen:?}");
}

fn directories_swapped() {
    let roots = Roots::new();
    roots.both("bin/tool", elf(b"the same in both"));
    roots.both("x/y/z/tool", elf(b"the same in both"));
    outside(&roots);
    let out = roots.at("outside");
    let pairs: Vec<_> = ["a/bin", "a/x", "a/x/y", "b/x/y/z"]
        .iter()
        .map(|dir| {
            let link = roots.at(format!("{dir}.link"));
            symlink(&out, &link).unwrap();
            (roots.at(dir), link)
        })
        .collect();
    let attack = || {
        for (dir, link) in &pairs {
            // A directory on the way may be a link at the moment.
            let _moved = rustix::fs::renameat_with(CWD, dir, CWD, link, RenameFlags::EXCHANGE);
        }
    };
    let rounds = race(150, attack, || {
        let answer = roots.report(&["--select", "all"]).consistent();
        saw_nothing_outside(&answer);
    });
    assert!(rounds > 1000, "{rounds}");
}

fn names_come_and_go() {
    let roots = Roots::new();
    roots.both("bin/tool", elf(b"the same in both"));
    fs::create_dir(roots.at("a/d")).unwrap();
    let attack = || {
        for number in 0..50 {
            fs::write(roots.at(format!("a/d/{number}")), elf(b"short-lived")).unwrap();
            fs::create_dir(roots.at(format!("a/d/dir{number}"))).unwrap();
        }
        for number in 0..50 {
            fs::remove_file(roots.at(format!("a/d/{number}"))).unwrap();
            fs::remove_dir(roots.at(format!("a/d/dir{number}"))).unwrap();
        }
    };
    race(60, attack, || {
        roots.report(&["--select", "all"]).consistent().finds("bin/tool");
    });
}
