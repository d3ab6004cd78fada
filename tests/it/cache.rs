//! `report --cache`: the same answer, and nothing is read for it that was read before.

mod listings;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::command::{Ran, answer_and_bytes_read, cbin_audit};
use crate::suite::Suite;
use crate::world;
use crate::world::{busybox, file, hardlink, link, program};

pub fn tests(suite: &mut Suite) {
    suite.test("cache_answers_as_the_files_do", &[], answers_as_the_files_do);
    suite.test("cache_knows_what_was_changed", &[], knows_what_was_changed);
    suite.test("cache_that_is_damaged_is_none", &[], damaged_is_none);
    suite.test("cache_is_written_over_nothing_else", &[], written_over_nothing_else);
    suite.test("cache_of_others_is_not_trusted", &[], of_others_is_not_trusted);
    suite.test("cache_is_for_reports_alone", &[], for_reports_alone);
    listings::tests(suite);
}

/// Two roots of files that every way of reading has to do with, last changed long enough ago.
struct Ground(tempfile::TempDir);

impl Ground {
    fn lay() -> Self {
        let home = tempfile::tempdir().unwrap();
        let (long, longer) = (vec![b'x'; 300_000], [vec![b'x'; 299_999], vec![b'y']].concat());
        for root in ["a", "b"] {
            let at = home.path().join("roots").join(root);
            world! { &at,
                "bin/busybox" => busybox(),
                "bin/sh" => hardlink("bin/busybox"),
                "bin/ls" => link("busybox"),
                "bin/tool" => program(&long),
                "bin/script" => crate::world::Entry::File(b"#!/bin/busybox\n".to_vec(), 0o755),
                "etc/passwd" => file("root:x:0:0::/:/bin/sh\n"),
                "etc/of-its-own" => file(root),
                "usr/share/data" => file(long.clone()),
                "usr/share/other" => file(if root == "a" { long.clone() } else { longer.clone() }),
            }
        }
        // What was changed within the last two seconds is not kept.
        std::thread::sleep(Duration::from_millis(2100));
        Self(home)
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    /// The answer, and how much was read for it.
    fn ask(&self, arguments: &[&str]) -> (Value, u64) {
        let roots = self.at("roots");
        let mut command = cbin_audit();
        command.args(["report", "--json", "--no-memory"]).args(arguments).arg(roots);
        answer_and_bytes_read(&mut command)
    }

    fn ask_by(&self, cache: &Path, arguments: &[&str]) -> (Value, u64) {
        self.ask(&[&["--cache", cache.to_str().unwrap()], arguments].concat())
    }

    fn refused(&self, cache: &Path) -> String {
        let mut command = cbin_audit();
        command.args(["report", "--no-memory", "--cache"]).arg(cache).arg(self.at("roots"));
        let ran = Ran::from(command.output().unwrap());
        assert_eq!((ran.status, ran.stdout.as_str()), (1, ""));
        ran.stderr
    }
}

fn answers_as_the_files_do() {
    let ground = Ground::lay();
    for select in ["all", "elf", "multicall"] {
        // The first to be kept in order of what they read, the next in order of what they know.
        for cache in [ground.at("own").with_extension(select), ground.at("common")] {
            let arguments = ["--select", select, "--no-trees"];
            let (plain, read) = ground.ask(&arguments);
            for _ in 0..2 {
                assert_eq!(ground.ask_by(&cache, &arguments).0, plain, "{select}");
            }
            let (again, read_again) = ground.ask_by(&cache, &arguments);
            assert_eq!(again, plain);
            // What a program is, is not kept: one of each content is looked into.
            let contents = if select == "multicall" { 0 } else { 300_000 };
            assert!(read_again + contents <= read, "{select}: {read_again} of {read} bytes");
        }
    }
    let mode = fs::metadata(ground.at("common")).unwrap().mode();
    assert_eq!(mode & 0o777, 0o600);
    let names = fs::read_dir(ground.0.path()).unwrap().count();
    assert_eq!(names, 5, "something was left behind");
}

/// The size is the same, and the time of the last change as well, as far as one can set it.
fn knows_what_was_changed() {
    let (ground, arguments) = (Ground::lay(), ["--select", "all"]);
    let cache = ground.at("cache");
    let (before, _) = ground.ask_by(&cache, &arguments);
    let changed = ground.at("roots/a/etc/passwd");
    let modified = fs::metadata(&changed).unwrap().modified().unwrap();
    fs::write(&changed, "root:x:0:0::/:/bin/xy\n").unwrap();
    fs::File::options().write(true).open(&changed).unwrap().set_modified(modified).unwrap();
    let (after, _) = ground.ask_by(&cache, &arguments);
    assert_eq!(after, ground.ask(&arguments).0);
    let copies = |report: &Value| {
        let groups = report["groups"].as_array().unwrap().iter();
        groups.filter(|group| group["size_bytes"] == 22).count()
    };
    assert_eq!((copies(&before), copies(&after)), (1, 0));
}

fn damaged_is_none() {
    let (ground, arguments) = (Ground::lay(), ["--select", "all", "--no-trees"]);
    let cache = ground.at("cache");
    let (plain, _) = ground.ask_by(&cache, &arguments);
    let whole = fs::read(&cache).unwrap();
    // Of a content that is told for a file, one bit.
    let mut damaged = whole.clone();
    *damaged.last_mut().unwrap() ^= 1;
    for bytes in [damaged, whole[..whole.len() / 2].to_vec(), b"cbin-audit cache 9\n".to_vec()] {
        fs::write(&cache, &bytes).unwrap();
        let (mut answer, _) = ground.ask_by(&cache, &arguments);
        let notices = answer["notices"].take();
        let told = notices
            .as_array()
            .unwrap()
            .iter()
            .find(|notice| notice["path"] == cache.to_str().unwrap());
        let cause = told.unwrap()["cause"].as_str().unwrap();
        assert!(cause.contains("damaged or of another version"), "{cause}");
        assert_eq!(
            (&answer["groups"], &answer["complete"]),
            (&plain["groups"], &Value::Bool(true))
        );
        assert_eq!(fs::read(&cache).unwrap(), whole, "it was not made anew");
    }
}

fn written_over_nothing_else() {
    let ground = Ground::lay();
    let other = ground.at("letter");
    fs::write(&other, "Dear Sir or Madam").unwrap();
    let said = ground.refused(&other);
    assert!(said.contains("letter") && said.contains("no cache of cbin-audit"), "{said}");
    assert!(said.contains("hint: name another file"), "{said}");
    assert_eq!(fs::read_to_string(&other).unwrap(), "Dear Sir or Madam");
    let said = ground.refused(&ground.at("roots"));
    assert!(said.contains("no cache of cbin-audit"), "{said}");
    let said = ground.refused(&ground.at("nowhere/cache"));
    assert!(said.contains("nowhere/cache") && said.contains("No such file"), "{said}");
}

fn of_others_is_not_trusted() {
    let ground = Ground::lay();
    let cache = ground.at("cache");
    ground.ask_by(&cache, &[]);
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o622)).unwrap();
    let said = ground.refused(&cache);
    assert!(said.contains("somebody else may write to it"), "{said}");
}

/// Where something is to be changed, every file is read.
fn for_reports_alone() {
    let mut command = cbin_audit();
    let ran = Ran::from(command.args(["dedupe", "--cache", "/tmp/cache"]).output().unwrap());
    assert_eq!(ran.status, 2, "{}", ran.stderr);
}
