//! `dedupe` without `--apply`: what it plans, for roots of every layout.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use cbin_audit::render::json::PLAN_SCHEMA;
use serde_json::Value;

use crate::command::{Ran, cbin_audit};
use crate::suite::Suite;
use crate::world;
use crate::world::{Entry, dir, file, hardlink, link, program};

pub fn tests(suite: &mut Suite) {
    suite.test("plan_changes_nothing_and_reads_from_the_top", &[], changes_nothing);
    suite.test("plan_json_is_valid_and_comes_back", &[], json_comes_back);
    suite.test("plan_applets_as_asked", &[], applets_as_asked);
    suite.test("plan_hard_links_become_links", &[], hard_links_become_links);
    suite.test("plan_names_outside_the_root_are_left", &[], names_outside_are_left);
    suite.test("plan_one_copy_is_left", &[], one_copy_is_left);
    suite.test("plan_setid_is_left", &[], setid_is_left);
    suite.test("plan_mount_point_must_be_free", &[], mount_point_must_be_free);
    suite.test("plan_of_what_is_shared_is_empty", &[], plan_of_what_is_shared_is_empty);
    suite.test("plan_usage_errors_are_status_2", &[], usage_errors);
}

/// A busybox that is as long as the least of them: a shorter file is not looked into.
pub fn busybox() -> Entry {
    let names =
        b"\0BusyBox v1.36.1 (Debian)\0[\0[[\0ash\0cat\0chmod\0echo\0ls\0sh\0vi\0wget\0\0\0zz";
    program(&[names.as_slice(), &[0xcc; 20_000]].concat())
}

/// Roots, and a store that is not there yet.
pub struct Roots(tempfile::TempDir, PathBuf);

impl Roots {
    pub fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let all = home.path().join("roots");
        fs::create_dir(&all).unwrap();
        Self(home, all)
    }

    /// The directory that holds them.
    pub fn all(&self) -> &Path {
        &self.1
    }

    pub fn root(&self, name: &str) -> PathBuf {
        self.1.join(name)
    }

    pub fn store(&self) -> PathBuf {
        self.0.path().join("store")
    }

    /// `dedupe OPTIONS` on all of the roots.
    pub fn dedupe(&self, options: &[&str]) -> Ran {
        let mut command = cbin_audit();
        command.arg("dedupe").arg("--store").arg(self.store()).args(options);
        let mut roots: Vec<_> =
            fs::read_dir(self.all()).unwrap().map(|entry| entry.unwrap().path()).collect();
        roots.sort();
        Ran::from(command.args(roots).output().unwrap())
    }

    pub fn plan(&self, options: &[&str]) -> Value {
        let ran = self.dedupe(&[&["--json"], options].concat());
        assert_eq!(ran.status, 0, "{}", ran.stderr);
        let plan: Value = serde_json::from_str(&ran.stdout).unwrap();
        let schema: Value = serde_json::from_str(PLAN_SCHEMA).unwrap();
        let validator = jsonschema::draft202012::new(&schema).unwrap();
        let errors: Vec<_> = validator.iter_errors(&plan).map(|error| error.to_string()).collect();
        assert_eq!(errors, Vec::<String>::new(), "{plan:#}");
        plan
    }
}

/// `action root/path` of every step but those that make objects and mounts.
pub fn entries(plan: &Value) -> Vec<String> {
    let steps = plan["steps"].as_array().unwrap().iter();
    let entry = |step: &Value| {
        let (action, path) = (step["action"].as_str()?, step["path"].as_str()?);
        let root = plan["roots"][step["root"].as_u64()? as usize]["name"].as_str()?;
        (!["store", "mount"].contains(&action)).then(|| format!("{action} {root}/{path}"))
    };
    steps.filter_map(entry).collect()
}

/// `reason root/path` of every skip.
pub fn skips(plan: &Value) -> Vec<String> {
    let skips = plan["skips"].as_array().unwrap().iter();
    let line = |skip: &Value| {
        let root = plan["roots"][skip["root"].as_u64()? as usize]["name"].as_str()?;
        Some(format!("{} {root}/{}", skip["reason"].as_str()?, skip["path"].as_str()?))
    };
    skips.filter_map(line).collect()
}

pub fn actions(plan: &Value) -> Vec<&str> {
    plan["steps"].as_array().unwrap().iter().map(|step| step["action"].as_str().unwrap()).collect()
}

/// Two roots with chains, absolute and relative links, a foreign name and merged `/usr`.
fn two_roots() -> Roots {
    let roots = Roots::new();
    world! { roots.all(),
        "web/usr/bin/busybox" => busybox(),
        "web/bin" => link("usr/bin"),
        "web/usr/bin/ls" => link("busybox"),
        "web/usr/bin/cat" => link("/bin/busybox"),
        "web/usr/bin/frobnicate" => link("busybox"),
        "web/usr/bin/view" => link("vi"),
        "web/usr/bin/vi" => link("/etc/alternatives/vi"),
        "web/etc/alternatives/vi" => link("/bin/busybox"),
        "web/usr/bin/wget" => file("#!/bin/busybox\n"),
        "db/bin/busybox" => busybox(),
        "db/sbin/sh" => link("../bin/busybox"),
        "db/etc/name" => file("db"),
    }
    roots
}

fn snapshot(at: &Path) -> Vec<String> {
    let entries = walkdir::WalkDir::new(at).sort_by_file_name().into_iter();
    entries
        .map(|entry| {
            let entry = entry.unwrap();
            let meta = entry.metadata().unwrap();
            format!("{:?} {} {:o} {}", entry.path(), meta.ino(), meta.mode(), meta.ctime_nsec())
        })
        .collect()
}

fn changes_nothing() {
    let roots = two_roots();
    let before = snapshot(roots.0.path());
    let ran = roots.dedupe(&["--mounts", "none"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (0, ""));
    assert_eq!(snapshot(roots.0.path()), before);
    let places = ["Shared from", "db: ", "web: ", "Left as it is: 1", "Saves", "Next"];
    let found = places.map(|text| ran.stdout.find(text));
    assert!(found.is_sorted() && !found.contains(&None), "{found:?}\n{}", ran.stdout);
    assert!(ran.stdout.contains("dedupe --apply --store"), "{}", ran.stdout);
    assert!(ran.stdout.contains("replace  usr/bin/busybox -> /cbin/busybox-x86_64-"));
}

fn json_comes_back() {
    let roots = two_roots();
    let saved = roots.0.path().join("p.json");
    let first = roots.dedupe(&["--json"]).stdout;
    fs::write(&saved, &first).unwrap();
    let again = cbin_audit().args(["dedupe", "--json", "--plan"]).arg(&saved).output().unwrap();
    assert_eq!(String::from_utf8(again.stdout).unwrap(), first);
    fs::write(&saved, first.replace("\"path\":\"", "\"path\":\"../")).unwrap();
    let refused = Ran::from(cbin_audit().args(["dedupe", "--plan"]).arg(&saved).output().unwrap());
    assert_eq!(refused.status, 1);
    assert!(refused.stderr.contains("cannot take the plan"), "{}", refused.stderr);
}

fn applets_as_asked() {
    let roots = two_roots();
    let chain = ["replace db/bin/busybox", "replace web/usr/bin/busybox"];
    assert_eq!(entries(&roots.plan(&["--applets", "chain"])), chain);
    let rewrite = [
        "replace db/bin/busybox",
        "relink db/sbin/sh",
        "replace web/usr/bin/busybox",
        "relink web/etc/alternatives/vi",
        "relink web/usr/bin/cat",
        "relink web/usr/bin/ls",
    ];
    for how in ["rewrite", "auto"] {
        let plan = roots.plan(&["--applets", how]);
        assert_eq!(entries(&plan), rewrite, "{how}");
        assert_eq!(skips(&plan), ["applet-missing web/usr/bin/frobnicate"]);
        assert_eq!(actions(&plan)[..2], ["store", "mount"]);
    }
    let complete = entries(&roots.plan(&["--applets", "complete"]));
    let added: Vec<_> = complete.iter().filter(|line| line.starts_with("link ")).collect();
    let db = ["[", "[[", "ash", "cat", "chmod", "echo", "ls", "vi", "wget"];
    let web = ["[", "[[", "ash", "chmod", "echo", "sh"];
    let expected: Vec<_> = db
        .iter()
        .map(|name| format!("link db/bin/{name}"))
        .chain(web.iter().map(|name| format!("link web/usr/bin/{name}")))
        .collect();
    assert_eq!(added, expected.iter().collect::<Vec<_>>());
}

fn hard_links_become_links() {
    let roots = Roots::new();
    world! { roots.all(),
        "a/bin/busybox" => busybox(),
        "a/bin/ls" => hardlink("a/bin/busybox"),
        "a/bin/cat" => hardlink("a/bin/busybox"),
        "b/bin/busybox" => busybox(),
    }
    let plan = roots.plan(&["--applets", "chain"]);
    let expected =
        ["replace a/bin/busybox", "replace a/bin/cat", "replace a/bin/ls", "replace b/bin/busybox"];
    assert_eq!(entries(&plan), expected);
    let block = fs::metadata(roots.root("a/bin/busybox")).unwrap().blocks() * 512;
    assert_eq!(plan["saves"]["disk_bytes"], block);
}

fn names_outside_are_left() {
    let roots = Roots::new();
    world! { roots.all(),
        "a/bin/busybox" => busybox(),
        "b/bin/busybox" => hardlink("a/bin/busybox"),
        "c/bin/busybox" => busybox(),
        "d/bin/busybox" => busybox(),
    }
    let plan = roots.plan(&[]);
    assert_eq!(entries(&plan), ["replace c/bin/busybox", "replace d/bin/busybox"]);
    assert_eq!(skips(&plan), ["other-names a/bin/busybox", "other-names b/bin/busybox"]);
}

fn one_copy_is_left() {
    let roots = Roots::new();
    world! { roots.all(), "a/bin/busybox" => busybox(), "b/tmp" => dir() }
    let plan = roots.plan(&[]);
    assert_eq!(actions(&plan), Vec::<&str>::new());
    assert_eq!(skips(&plan), ["only-copy a/bin/busybox"]);
}

fn setid_is_left() {
    let roots = Roots::new();
    world! { roots.all(),
        "a/bin/busybox" => busybox(),
        "b/bin/busybox" => busybox(),
        "c/bin/busybox" => busybox(),
    }
    let suid = roots.root("a/bin/busybox");
    fs::set_permissions(&suid, fs::Permissions::from_mode(0o4755)).unwrap();
    let plan = roots.plan(&[]);
    assert_eq!(entries(&plan), ["replace b/bin/busybox", "replace c/bin/busybox"]);
    assert_eq!(skips(&plan), ["setid a/bin/busybox"]);
    assert_eq!(entries(&roots.plan(&["--include-setid"])).len(), 3);
}

fn mount_point_must_be_free() {
    let roots = Roots::new();
    world! { roots.all(),
        "a/bin/busybox" => busybox(), "a/cbin/own" => file("own"),
        "b/bin/busybox" => busybox(), "b/cbin" => link("/etc"),
        "c/bin/busybox" => busybox(), "c/cbin" => dir(),
        "d/bin/busybox" => busybox(),
    }
    let plan = roots.plan(&[]);
    assert_eq!(entries(&plan), ["replace c/bin/busybox", "replace d/bin/busybox"]);
    assert_eq!(skips(&plan), ["mount-point a/", "mount-point b/"]);
    assert_eq!(entries(&roots.plan(&["--mount-point", "/srv/cbin"])).len(), 4);
}

/// What a run leaves behind, laid by hand: nothing more is planned, but for a new root.
fn plan_of_what_is_shared_is_empty() {
    let roots = two_roots();
    let plan = roots.plan(&[]);
    let object = plan["steps"][0]["object"].as_str().unwrap().to_owned();
    fs::create_dir(roots.store()).unwrap();
    fs::copy(roots.root("db/bin/busybox"), roots.store().join(&object)).unwrap();
    for step in plan["steps"].as_array().unwrap() {
        let Some(target) = step["after"]["target"].as_str() else { continue };
        let root = Path::new(
            plan["roots"][step["root"].as_u64().unwrap() as usize]["path"].as_str().unwrap(),
        );
        let path = root.join(step["path"].as_str().unwrap());
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(target, &path).unwrap();
    }
    assert_eq!(actions(&roots.plan(&[])), Vec::<&str>::new());
    assert!(roots.dedupe(&[]).stdout.starts_with("Nothing to do\n"));
    world! { roots.all(), "new/bin/busybox" => busybox() }
    let plan = roots.plan(&[]);
    assert_eq!(entries(&plan), ["replace new/bin/busybox"]);
    assert_eq!(actions(&plan), ["mount", "replace"]);
}

fn usage_errors() {
    let roots = two_roots();
    for options in [&["--mount-point", "cbin"][..], &["--mounts", "magic"], &["--plan", "x"]] {
        assert_eq!(roots.dedupe(options).status, 2, "{options:?}");
    }
}
