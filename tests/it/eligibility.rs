//! What `dedupe` leaves as it is, and what would break otherwise: first the naive change is
//! made and fails, then the plan is seen to leave it out.

mod roots;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::dedupe_plan::{Roots, busybox, entries, skips};
use crate::loopfs::Mount;
use crate::snapshot::Snapshot;
use crate::suite::{Need, Suite};
use crate::world;
use crate::world::{file, link};

pub fn tests(suite: &mut Suite) {
    roots::tests(suite);
    let cc = &[Need::Program("cc")];
    suite.test("eligibility_origin", cc, origin);
    suite.test("eligibility_proc_self_exe", cc, proc_self_exe);
    suite.test("eligibility_libraries_and_boot", cc, libraries_and_boot);
    suite.test("eligibility_package_owner_decides_applets", &[], owner_decides_applets);
    suite.test("eligibility_package_manager_at_work", &[], package_manager_at_work);
    let root = &[Need::Root, Need::Program("chattr"), Need::Program("setcap")];
    suite.test("privileged_eligibility_flags", root, flags);
    suite.test("privileged_eligibility_capabilities_and_setid", root, capabilities_and_setid);
    suite.test("privileged_eligibility_noexec_and_read_only", &[Need::Root], noexec_and_read_only);
    suite.test("privileged_eligibility_trust_domains", &[Need::Root], trust_domains);
    suite.test("privileged_eligibility_labels", &[Need::Root], labels);
    let reflink = &[Need::Root, Need::Program("mkfs.xfs")];
    suite.test("privileged_eligibility_reflink", reflink, reflink_needs_a_file_system);
    suite.test("eligibility_hardlink_needs_a_domain", &[], hardlink_needs_a_domain);
}

/// Compiles `source` to `at`.
fn compile(at: &Path, source: &str, options: &[&str]) {
    fs::create_dir_all(at.parent().unwrap()).unwrap();
    let text = at.with_extension("c");
    fs::write(&text, source).unwrap();
    let ran = Command::new("cc").arg(&text).arg("-o").arg(at).args(options).output().unwrap();
    fs::remove_file(&text).unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

fn status(program: &Path) -> Option<i32> {
    Command::new(program).output().unwrap().status.code()
}

/// Moves a program out of its root, and puts a link in its place.
fn naive_move(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::rename(from, to).unwrap();
    symlink(to, from).unwrap();
}

const VALUE: &str = "int value(void) { return 7; }";
const ASKS: &str = "int value(void); int main(void) { return value(); }";

/// A program in a root, with a library beside it that it finds by `$ORIGIN`.
fn lay_origin(root: &Path) {
    let lib = root.join("lib/libvalue.so");
    compile(&lib, VALUE, &["-shared", "-nostdlib"]);
    let lib_dir = format!("-L{}", root.join("lib").display());
    let options = [&lib_dir, "-lvalue", "-Wl,-rpath,$ORIGIN/../lib"];
    compile(&root.join("bin/asks"), ASKS, &options);
}

fn copy_tree(from: &Path, to: &Path) {
    let ran = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(ran.success());
}

fn origin() {
    let roots = Roots::new();
    lay_origin(&roots.root("a"));
    for copy in ["b", "naive"] {
        copy_tree(&roots.root("a"), &roots.root(copy));
    }
    let program = roots.root("naive").join("bin/asks");
    assert_eq!(status(&program), Some(7));
    naive_move(&program, &roots.store().join("asks"));
    assert_eq!(status(&program), Some(127), "the naive link breaks it");
    fs::remove_dir_all(roots.root("naive")).unwrap();
    let found = skips(&roots.plan(&["--select", "elf"]));
    assert!(found.contains(&"self-locating a/bin/asks".to_owned()), "{found:?}");
    assert!(found.contains(&"self-locating b/bin/asks".to_owned()), "{found:?}");
}

/// It reads a file beside itself, as interpreters find their libraries.
const BESIDE: &str = r#"
#include <stdio.h>
#include <string.h>
#include <unistd.h>
int main(void) {
    char path[4096] = {0};
    if (readlink("/proc/self/exe", path, 4000) < 0) return 2;
    strcpy(strrchr(path, '/'), "/data");
    return access(path, R_OK) == 0 ? 7 : 1;
}"#;

fn proc_self_exe() {
    let roots = Roots::new();
    let program = roots.root("a").join("bin/beside");
    compile(&program, BESIDE, &[]);
    world! { roots.all(), "a/bin/data" => file("data") }
    for copy in ["b", "naive"] {
        copy_tree(&roots.root("a"), &roots.root(copy));
    }
    let naive = roots.root("naive").join("bin/beside");
    assert_eq!(status(&naive), Some(7));
    naive_move(&naive, &roots.store().join("beside"));
    assert_eq!(status(&naive), Some(1), "the naive link breaks it");
    fs::remove_dir_all(roots.root("naive")).unwrap();
    let found = skips(&roots.plan(&["--select", "elf"]));
    assert!(found.contains(&"self-locating a/bin/beside".to_owned()), "{found:?}");
}

/// The loader and the C library of this machine, and a program with a library of its own.
fn lay_dynamic(root: &Path, value: &str) {
    let lib = root.join("usr/lib/libvalue.so");
    compile(&lib, value, &["-shared", "-nostdlib"]);
    let lib_dir = format!("-L{}", root.join("usr/lib").display());
    compile(
        &root.join("usr/bin/asks"),
        ASKS,
        &[&lib_dir, "-lvalue", "-Wl,--unresolved-symbols=ignore-all"],
    );
    let listed = Command::new("ldd").arg(root.join("usr/bin/asks")).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let paths = listed.split_whitespace().filter(|word| word.starts_with("/lib"));
    for path in paths {
        let to = root.join(&path[1..]);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(path, to).unwrap();
    }
}

fn libraries_and_boot() {
    let roots = Roots::new();
    lay_dynamic(&roots.root("a"), VALUE);
    copy_tree(&roots.root("a"), &roots.root("b"));
    copy_tree(&roots.root("a"), &roots.root("c"));
    copy_tree(&roots.root("a"), &roots.root("d"));
    let other = roots.root("c").join("usr/lib/libvalue.so");
    compile(&other, "int another(void) { return 7; }", &["-shared", "-nostdlib"]);
    fs::remove_file(roots.root("d").join("usr/lib/libvalue.so")).unwrap();
    let with = |root: &str| {
        let mut command = Command::new(roots.root("a").join("usr/bin/asks"));
        command.env("LD_LIBRARY_PATH", roots.root(root).join("usr/lib"));
        command.output().unwrap().status.code()
    };
    assert_eq!((with("a"), with("b")), (Some(7), Some(7)));
    assert_eq!((with("c"), with("d")), (Some(127), Some(127)), "another library breaks it");
    let plan = roots.plan(&["--select", "elf"]);
    let found = skips(&plan);
    for skip in ["libraries-differ c/usr/bin/asks", "libraries-differ d/usr/bin/asks"] {
        assert!(found.contains(&skip.to_owned()), "{skip}: {found:?}");
    }
    let planned = entries(&plan);
    assert!(planned.contains(&"replace a/usr/bin/asks".to_owned()), "{planned:?}");
    let loaders = found.iter().filter(|line| line.starts_with("boot-critical")).count();
    assert!(loaders >= 8, "the loader and the C library of four roots: {found:?}");
    assert!(
        !planned.iter().any(|line| line.contains("/ld-") || line.contains("libc.so")),
        "{planned:?}"
    );
}

fn owner_decides_applets() {
    let roots = Roots::new();
    world! { roots.all(),
        "dpkg/usr/bin/busybox" => busybox(), "dpkg/usr/bin/ls" => link("busybox"),
        "dpkg/var/lib/dpkg/info/busybox.list" => file("/.\n/bin\n/bin/busybox\n"),
        "apk/bin/busybox" => busybox(), "apk/bin/ls" => link("/bin/busybox"),
        "apk/lib/apk/db/installed" => file("P:busybox\nF:bin\nR:busybox\n\n"),
        "other/bin/busybox" => busybox(), "other/bin/ls" => link("busybox"),
        "other/var/lib/dpkg/info/bash.list" => file("/bin/bash\n"),
    }
    let expected = [
        "replace apk/bin/busybox",
        "replace dpkg/usr/bin/busybox",
        "replace other/bin/busybox",
        "relink other/bin/ls",
    ];
    assert_eq!(entries(&roots.plan(&[])), expected);
}

fn package_manager_at_work() {
    use rustix::fs::{FlockOperation, fcntl_lock};
    let roots = Roots::new();
    world! { roots.all(),
        "a/bin/busybox" => busybox(), "a/var/lib/dpkg/lock-frontend" => file(""),
        "b/bin/busybox" => busybox(), "b/var/lib/pacman/db.lck" => file(""),
        "c/bin/busybox" => busybox(), "c/lib/apk/db/lock" => file(""),
        "d/bin/busybox" => busybox(), "d/var/lib/dpkg/lock" => file(""),
        "e/bin/busybox" => busybox(),
    }
    let open = |path: &str| fs::File::options().write(true).open(roots.root(path)).unwrap();
    let dpkg = open("a/var/lib/dpkg/lock-frontend");
    fcntl_lock(&dpkg, FlockOperation::LockExclusive).unwrap();
    let apk = open("c/lib/apk/db/lock");
    rustix::fs::flock(&apk, FlockOperation::LockExclusive).unwrap();
    let plan = roots.plan(&[]);
    assert_eq!(entries(&plan), ["replace d/bin/busybox", "replace e/bin/busybox"]);
    assert_eq!(skips(&plan), ["package-manager a/", "package-manager b/", "package-manager c/"]);
    // A child that another test forks just now may hold the file for a moment longer.
    rustix::fs::flock(&apk, FlockOperation::Unlock).unwrap();
    drop((dpkg, apk));
    assert_eq!(entries(&roots.plan(&[])).len(), 4);
}

/// Five roots with a busybox each.
fn five() -> Roots {
    let roots = Roots::new();
    for root in ["a", "b", "c", "d", "e"] {
        let at = roots.root(root);
        world! { at, "bin/busybox" => busybox() }
    }
    roots
}

fn run(program: &str, arguments: &[&str], path: &Path) {
    let ran = Command::new(program).args(arguments).arg(path).output().unwrap();
    assert!(ran.status.success(), "{program}: {}", String::from_utf8_lossy(&ran.stderr));
}

/// Takes the flags off again, whatever happens: the directory could not be removed.
struct Flags(Vec<PathBuf>);

impl Drop for Flags {
    fn drop(&mut self) {
        self.0.iter().for_each(|path| run("chattr", &["-i", "-a"], path));
    }
}

fn flags() {
    let roots = five();
    let path = |name: &str| roots.root(name);
    let flagged = [path("a/bin/busybox"), path("b/bin"), path("c/bin")];
    run("chattr", &["+i"], &flagged[0]);
    run("chattr", &["+i"], &flagged[1]);
    run("chattr", &["+a"], &flagged[2]);
    let _flags = Flags(flagged.to_vec());
    assert!(fs::rename(path("a/bin/busybox"), path("a/bin/x")).is_err(), "+i keeps its name");
    symlink("x", path("c/bin/temporary")).unwrap();
    assert!(fs::remove_file(path("c/bin/temporary")).is_err(), "+a never gives a name back");
    let plan = roots.plan(&[]);
    assert_eq!(entries(&plan), ["replace d/bin/busybox", "replace e/bin/busybox"]);
    let expected =
        ["immutable a/bin/busybox", "immutable b/bin/busybox", "append-only c/bin/busybox"];
    assert_eq!(skips(&plan), expected);
}

fn capabilities_and_setid() {
    let roots = five();
    let path = |name: &str| roots.root(name).join("bin/busybox");
    run("setcap", &["cap_net_raw+ep"], &path("a"));
    fs::set_permissions(path("b"), fs::Permissions::from_mode(0o4755)).unwrap();
    let name = c"user.note";
    rustix::fs::setxattr(path("c"), name, b"x", rustix::fs::XattrFlags::empty()).unwrap();
    let copy = roots.store().join("copy");
    fs::create_dir_all(roots.store()).unwrap();
    fs::copy(path("a"), &copy).unwrap();
    let listed = rustix::fs::listxattr(&copy, &mut [0_u8; 256][..]).unwrap();
    assert_eq!(listed, 0, "a copy loses the capabilities");
    let plan = roots.plan(&[]);
    assert_eq!(entries(&plan), ["replace d/bin/busybox", "replace e/bin/busybox"]);
    let expected = ["capabilities a/bin/busybox", "setid b/bin/busybox", "xattrs c/bin/busybox"];
    let mut found = skips(&plan);
    found.sort();
    assert_eq!(found, expected);
}

fn noexec_and_read_only() {
    let roots = five();
    let store = Mount::new("tmpfs", roots.store(), "noexec");
    fs::copy("/bin/true", roots.store().join("true")).unwrap();
    let refused = Command::new(roots.store().join("true")).output().unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied, "noexec runs nothing");
    let plan = roots.plan(&[]);
    assert_eq!(entries(&plan), Vec::<String>::new());
    assert!(skips(&plan).iter().all(|line| line.starts_with("store-noexec ")), "{plan:#}");
    drop(store);
    let fixed = Mount::new("tmpfs", roots.root("f"), "mode=755");
    world! { roots.all(), "f/bin/busybox" => busybox() }
    run("mount", &["-o", "remount,ro"], fixed.path());
    assert!(symlink("x", roots.root("f/bin/x")).is_err());
    let plan = roots.plan(&[]);
    assert_eq!((entries(&plan).len(), skips(&plan)), (5, vec!["read-only f/".to_owned()]));
}

/// Where SELinux labels everything, a program may be shared that has the store's own label:
/// the object gets it, too. The original gets its own back.
fn labels() {
    let roots = five();
    let label = |path: &Path, label: &str| {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(path, c"security.selinux", label.as_bytes(), flags).unwrap();
    };
    fs::create_dir_all(roots.store()).unwrap();
    label(&roots.store(), "system_u:object_r:container_file_t:s0\0");
    for root in ["a", "b", "c", "d"] {
        let whose = if root == "a" { "user_u" } else { "system_u" };
        let level = if root == "c" { "s0:c1,c2" } else { "s0" };
        let kind = if root == "d" { "bin_t" } else { "container_file_t" };
        let program = roots.root(root).join("bin/busybox");
        label(&program, &format!("{whose}:object_r:{kind}:{level}\0"));
    }
    let plan = roots.plan(&["--mounts", "none"]);
    assert_eq!(
        entries(&plan),
        ["replace a", "replace b", "replace e"].map(|it| format!("{it}/bin/busybox"))
    );
    assert_eq!(skips(&plan), ["xattrs c/bin/busybox", "xattrs d/bin/busybox"]);
    assert!(plan["skips"][0]["explanation"].as_str().unwrap().contains("chcon --reference="));

    let image = roots.plan(&["--mounts", "none", "--store-format", "erofs"]);
    assert_eq!(entries(&image), [] as [String; 0], "it has no labels");

    let before = Snapshot::of(&roots.root("a"));
    let journal = roots.store().with_file_name("journal");
    let journal = journal.to_str().unwrap();
    let applied = roots.dedupe(&["--apply", "--mounts", "none", "--journal", journal]);
    assert_eq!(applied.status, 0, "{applied:?}");
    let undone = crate::command::run(&["undo", "--journal", journal]);
    assert_eq!(undone.status, 0, "{undone:?}");
    let after = Snapshot::of(&roots.root("a")).without_directory_times();
    assert_eq!(before.without_directory_times().differences(&after), [""; 0]);
}

fn trust_domains() {
    let roots = five();
    std::os::unix::fs::chown(roots.root("a"), Some(100_000), Some(100_000)).unwrap();
    let plan = roots.plan(&[]);
    assert_eq!((entries(&plan).len(), skips(&plan)), (4, vec!["trust-domain a/".to_owned()]));
    for options in [["--store-format", "erofs"], ["--trust-domain", "mine"]] {
        assert_eq!(entries(&roots.plan(&options)).len(), 5, "{options:?}");
    }
    // Users of their own cannot write the store, and share it with each other.
    for (root, user) in [("b", 200_000), ("c", 300_000), ("d", 400_000), ("e", 500_000)] {
        std::os::unix::fs::chown(roots.root(root), Some(user), Some(user)).unwrap();
    }
    assert_eq!(entries(&roots.plan(&[])).len(), 5);
}

fn reflink_needs_a_file_system() {
    let roots = five();
    let plan = roots.plan(&["--method", "reflink"]);
    let plain = skips(&plan);
    let shares = entries(&plan);
    // The temporary directory may itself lie on a file system that can.
    assert!(plain.iter().all(|line| line.starts_with("file-system ")) || shares.len() == 4);
    let xfs = crate::loopfs::LoopFs::make("xfs", 320);
    for root in ["a", "b", "c"] {
        let at = xfs.path().join(root);
        world! { at, "bin/busybox" => busybox() }
    }
    let ran = crate::command::run(&[
        "dedupe".as_ref(),
        "--json".as_ref(),
        "--method".as_ref(),
        "reflink".as_ref(),
        xfs.path().as_os_str(),
    ]);
    let plan: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(entries(&plan), ["reflink b/bin/busybox", "reflink c/bin/busybox"]);
}

fn hardlink_needs_a_domain() {
    let roots = five();
    let plan = roots.plan(&["--method", "hardlink"]);
    assert_eq!(entries(&plan), Vec::<String>::new());
    assert!(skips(&plan).iter().all(|line| line.starts_with("trust-domain ")));
    let trusted = ["--method", "hardlink", "--trust-domain", "mine"];
    assert_eq!(entries(&roots.plan(&trusted)).len(), 4);
}
