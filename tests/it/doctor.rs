//! `doctor`: its document against its schema, and the words of its table.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use cbin_audit::render::json::DOCTOR_SCHEMA;
use serde_json::Value;

use crate::command::run;
use crate::loopfs::LoopFs;
use crate::memory_ground::{Running, done, wait_for};
use crate::suite::{Need, Suite};
use crate::world::{busybox, file, link};
use crate::{packages, world};

pub fn tests(suite: &mut Suite) {
    suite.test("doctor_tells_of_the_host_and_a_stopped_root", &[], a_stopped_root);
    suite.test("doctor_a_table_says_what_would_change_it", &[], a_table);
    let loops = &[Need::Root, Need::Program("mkfs.btrfs")];
    suite.test("privileged_doctor_file_systems", loops, file_systems);
    let busybox = &[Need::Root, Need::Package("busybox-static"), Need::Program("unshare")];
    suite.test("privileged_doctor_a_running_container", busybox, a_running_container);
}

fn lay(dir: &Path, name: &str) -> String {
    world! { dir,
        format!("{name}/bin/busybox") => busybox(),
        format!("{name}/bin/sh") => link("busybox"),
        format!("{name}/etc/os-release") => file("ID=test\n"),
    }
    dir.join(name).to_str().unwrap().to_owned()
}

fn document(arguments: &[&str]) -> Value {
    let ran = run(&[&["doctor", "--json"], arguments].concat());
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let document: Value = serde_json::from_str(&ran.stdout).unwrap();
    let schema: Value = serde_json::from_str(DOCTOR_SCHEMA).unwrap();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    let errors: Vec<String> = validator.iter_errors(&document).map(|it| it.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}\n{document:#}");
    document
}

fn ability<'a>(list: &'a Value, what: &str) -> &'a Value {
    let found = list["abilities"].as_array().unwrap().iter().find(|it| it["what"] == what);
    found.unwrap_or_else(|| panic!("no {what} in {list:#}"))
}

fn a_stopped_root() {
    let dir = tempfile::tempdir().unwrap();
    let root = lay(dir.path(), "web");
    let store = dir.path().join("not/yet");
    let document = document(&["--store", store.to_str().unwrap(), &root]);
    assert_eq!(ability(&document, "openat2")["allowed"], true);
    assert_eq!(document["store"]["exists"], false);
    assert_eq!(document["roots"][0]["name"], "web");
    assert_eq!(ability(&document["roots"][0], "change_entries")["allowed"], true);
    assert_eq!(document["containers"], serde_json::json!([]));
    assert!(!dir.path().join("not").exists(), "nothing is made");
}

fn a_table() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let root = lay(dir.path(), "we\u{1b}b");
    let store = dir.path().join("store");
    let ran = run(&["doctor", "--store", store.to_str().unwrap(), &root]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let told = ran.stdout.split_whitespace().collect::<Vec<&str>>().join(" ");
    assert!(told.contains("we\\u{1b}b stopped"), "{told}");
    assert!(told.contains("others than root may change"), "{told}");
    assert!(told.contains("To change it: chown root and chmod go-w"), "{told}");
}

fn file_systems() {
    let btrfs = LoopFs::make("btrfs", 128);
    let on_btrfs = lay(btrfs.path(), "one");
    let document = document(&[&on_btrfs]);
    let root = &document["roots"][0];
    assert_eq!(root["file_system"], "btrfs");
    assert_eq!(root["quota"], Value::Null);
    assert_eq!(ability(root, "reflink")["allowed"], true);
    done(Command::new("btrfs").args(["quota", "enable"]).arg(btrfs.path()));
    assert_eq!(self::document(&[&on_btrfs])["roots"][0]["quota"], "qgroups");
    done(Command::new("mount").args(["-o", "remount,ro"]).arg(btrfs.path()));
    let entries = self::document(&[&on_btrfs]);
    let entries = ability(&entries["roots"][0], "change_entries");
    assert_eq!(entries["allowed"], false);
    assert!(entries["change"].as_str().unwrap().contains("read-write"), "{entries}");
}

fn a_running_container() {
    let dir = tempfile::tempdir().unwrap();
    let root = lay(dir.path(), "web");
    fs::copy(packages::busybox().unwrap(), dir.path().join("web/bin/busybox")).unwrap();
    let mut command = Command::new("unshare");
    command.args(["-m", "-p", "--fork", "--kill-child", "chroot", &root, "/bin/busybox", "sleep"]);
    let running = Running(command.arg("1000").stdin(Stdio::null()).spawn().unwrap());
    let mut found = Value::Null;
    wait_for("the container", || {
        found = document(&[&root]);
        // The roots are asked before the containers are.
        let running = found["roots"][0]["state"] == "running";
        running && found["containers"].as_array().is_some_and(|all| !all.is_empty())
    });
    let container = &found["containers"][0];
    assert_eq!(container["privileged"], true);
    assert_eq!(container["trust_domain"], "host");
    let store = ability(container, "directory_store");
    assert!(store["why"].as_str().unwrap().contains("CAP_SYS_ADMIN"), "{store}");
    assert!(store["change"].as_str().unwrap().contains("erofs"), "{store}");
    let mounted = ability(container, "mounted");
    assert!(mounted["why"].as_str().unwrap().contains("nothing is mounted at /cbin"), "{mounted}");
    drop(running);
}
