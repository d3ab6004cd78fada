//! The same for real programs and whole roots: what runs, what is stacked, what a root starts
//! with, and what only the file itself can carry.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use rustix::fs::XattrFlags;

use super::{compile, copy_tree, lay_dynamic, naive_move};
use crate::dedupe_plan::{Roots, busybox, entries, skips};
use crate::loopfs::Mount;
use crate::memory_ground::start;
use crate::packages;
use crate::suite::{Need, Suite};
use crate::world;
use crate::world::{Entry, dir, link};

pub fn tests(suite: &mut Suite) {
    let real = [Need::Root, Need::Package("busybox-static"), Need::Program("chroot")];
    suite.test("privileged_eligibility_running", &real, running);
    suite.test("privileged_eligibility_applets", &real, applets);
    suite.test("privileged_eligibility_overlay", &[Need::Root], overlay);
    let cc = [Need::Root, Need::Program("cc"), Need::Program("setpriv"), Need::Program("chroot")];
    suite.test("privileged_eligibility_setid", &cc, setid);
    suite.test("privileged_eligibility_boot_critical", &cc, boot_critical);
    suite.test("privileged_eligibility_xattrs", &[Need::Root], xattrs);
}

/// Roots with a real busybox and a few links to it.
fn real(names: &[&str]) -> Roots {
    let roots = Roots::new();
    let bytes = fs::read(packages::busybox().unwrap()).unwrap();
    for name in names {
        let at = roots.root(name);
        world! { at,
            "bin/busybox" => Entry::File(bytes.clone(), 0o755),
            "bin/sh" => link("busybox"),
            "bin/sleep" => link("busybox"),
            "proc" => dir(),
        }
    }
    roots
}

fn in_root(root: &Path, command: &[&str]) -> Option<i32> {
    Command::new("chroot").arg(root).args(command).output().unwrap().status.code()
}

/// Moves a program out of a root into a store that the root does not see.
fn move_out_of_sight(roots: &Roots, program: &Path, name: &str) {
    naive_move(program, &roots.store().join(name));
    fs::remove_file(program).unwrap();
    symlink(Path::new("/cbin").join(name), program).unwrap();
}

fn running() {
    let roots = real(&["a", "b", "c", "naive"]);
    let naive = roots.root("naive");
    let container =
        |root: &Path| start(Command::new("chroot").arg(root).args(["/bin/sleep", "1000"]));
    let old = container(&naive);
    assert_eq!(in_root(&naive, &["/bin/sh", "-c", "exit 7"]), Some(7));
    move_out_of_sight(&roots, &naive.join("bin/busybox"), "busybox");
    assert_eq!(
        in_root(&naive, &["/bin/sh", "-c", "exit 7"]),
        Some(127),
        "what runs starts no more"
    );
    drop(old);
    fs::remove_dir_all(&naive).unwrap();
    fs::remove_dir_all(roots.store()).unwrap();
    let container = container(&roots.root("a"));
    let plan = roots.plan(&["--applets", "chain"]);
    assert_eq!(entries(&plan), ["replace b/bin/busybox", "replace c/bin/busybox"]);
    assert_eq!(skips(&plan), ["running a/"]);
    drop(container);
    assert_eq!(entries(&roots.plan(&["--applets", "chain"])).len(), 3);
}

fn applets() {
    let roots = real(&["a", "b"]);
    symlink("busybox", roots.root("a").join("bin/no-such-applet")).unwrap();
    assert_eq!(in_root(&roots.root("a"), &["/bin/no-such-applet"]), Some(127));
    let plan = roots.plan(&["--applets", "rewrite"]);
    let found = skips(&plan);
    assert!(found.contains(&"applet-missing a/bin/no-such-applet".to_owned()), "{found:?}");
    assert!(entries(&plan).contains(&"relink a/bin/sh".to_owned()), "{plan:#}");
}

fn overlay() {
    let roots = Roots::new();
    for name in ["a", "b", "c"] {
        let at = roots.root(name);
        world! { at, "bin/busybox" => busybox() }
    }
    let at = |name: &str| roots.store().with_file_name(name);
    ["upper", "work"].iter().for_each(|name| fs::create_dir(at(name)).unwrap());
    let [upper, work] = ["upper", "work"].map(|name| at(name).display().to_string());
    let lower = roots.root("a").display().to_string();
    let layers = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    let merged = Mount::new("overlay", at("merged"), &layers);
    let (seen, program) = (merged.path().join("bin/busybox"), roots.root("a").join("bin/busybox"));
    let _open = fs::File::open(&seen).unwrap();
    let plan = roots.plan(&[]);
    assert_eq!(entries(&plan), ["replace b/bin/busybox", "replace c/bin/busybox"]);
    assert_eq!(skips(&plan), ["overlay a/"]);
    naive_move(&program, &roots.store().join("busybox"));
    assert!(program.is_symlink() && !seen.is_symlink(), "the container does not see the change");
}

fn setid() {
    let roots = Roots::new();
    let home = roots.all().parent().unwrap();
    fs::set_permissions(home, fs::Permissions::from_mode(0o755)).unwrap();
    let source = "#include <unistd.h>\nint main(void) { return geteuid() == 0 ? 7 : 1; }";
    let program = roots.root("a").join("bin/who");
    compile(&program, source, &[]);
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
    copy_tree(&roots.root("a"), &roots.root("b"));
    let as_nobody = |program: &Path| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--clear-groups"]).arg(program);
        command.output().unwrap().status.code()
    };
    assert_eq!(as_nobody(&program), Some(7));
    let object = roots.all().join("../object");
    fs::copy(&program, &object).unwrap();
    fs::set_permissions(&object, fs::Permissions::from_mode(0o555)).unwrap();
    assert_eq!(as_nobody(&object), Some(1), "an object has no such bit");
    let found = skips(&roots.plan(&["--select", "elf"]));
    assert_eq!(found, ["setid a/bin/who", "setid b/bin/who"]);
}

fn boot_critical() {
    let roots = Roots::new();
    lay_dynamic(&roots.root("a"), super::VALUE);
    copy_tree(&roots.root("a"), &roots.root("naive"));
    let naive = roots.root("naive");
    assert_eq!(in_root(&naive, &["/usr/bin/asks"]), Some(7));
    let entries = walkdir::WalkDir::new(&naive).into_iter().map(|entry| entry.unwrap());
    let is_loader = |name: &str| name.starts_with("ld-") && name.contains(".so");
    let loader = entries.map(|entry| entry.into_path()).find(|path| {
        path.is_file() && is_loader(path.file_name().unwrap().to_str().unwrap_or_default())
    });
    move_out_of_sight(&roots, &loader.unwrap(), "loader");
    assert_eq!(in_root(&naive, &["/usr/bin/asks"]), Some(127), "nothing starts without it");
}

fn xattrs() {
    let dir = tempfile::tempdir().unwrap();
    let (file, link) = (dir.path().join("file"), dir.path().join("link"));
    fs::write(&file, b"").unwrap();
    symlink("file", &link).unwrap();
    let set = |path: &Path| rustix::fs::lsetxattr(path, c"user.note", b"x", XattrFlags::empty());
    set(&file).unwrap();
    assert_eq!(set(&link), Err(rustix::io::Errno::PERM), "a link cannot carry it");
}
