//! One root as each kind of distribution lays it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::packages;

/// Absolute links to a dynamic busybox, with musl as its loader and library.
pub fn alpine(root: &Path) {
    directories(root);
    let built = packages::musl_busybox().unwrap();
    program(&built.join("dynamic"), &root.join("bin/busybox"));
    let loader = format!("ld-musl-{}.so.1", std::env::consts::ARCH);
    program(&Path::new("/lib").join(&loader), &root.join("lib").join(&loader));
    symlink(&loader, root.join("lib/libc.so")).unwrap();
    for name in applets(&built.join("static")) {
        symlink("/bin/busybox", root.join("bin").join(name)).unwrap();
    }
}

/// Every name in `/bin` is one inode, as `busybox --install` makes them.
pub fn docker(root: &Path) {
    directories(root);
    let busybox = root.join("bin/busybox");
    program(&packages::busybox().unwrap(), &busybox);
    for name in applets(&busybox) {
        fs::hard_link(&busybox, root.join("bin").join(name)).unwrap();
    }
    symlink("../../bin/env", root.join("usr/bin/env")).unwrap();
}

/// Relative links from where each applet belongs, as `make install` lays them.
pub fn buildroot(root: &Path) {
    directories(root);
    let busybox = root.join("bin/busybox");
    program(&packages::busybox().unwrap(), &busybox);
    let list = Command::new(&busybox).arg("--list-full").output().unwrap().stdout;
    for path in String::from_utf8(list).unwrap().lines().filter(|path| *path != "bin/busybox") {
        let link = root.join(path);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        let target = match path.split_once('/') {
            None => "bin/busybox",
            Some(("bin", _)) => "busybox",
            Some(("usr", _)) => "../../bin/busybox",
            Some(_) => "../bin/busybox",
        };
        symlink(target, link).unwrap();
    }
}

fn directories(root: &Path) {
    let inner = ["bin", "dev", "etc", "lib", "proc", "run", "sbin", "sys", "tmp", "usr/bin", "var"];
    inner.iter().for_each(|dir| fs::create_dir_all(root.join(dir)).unwrap());
}

fn program(from: &Path, to: &Path) {
    fs::write(to, fs::read(from).unwrap()).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).unwrap();
}

/// What it answers to, but for its own name.
fn applets(busybox: &Path) -> Vec<String> {
    let list = Command::new(busybox).arg0("busybox").arg("--list").output().unwrap().stdout;
    let names = String::from_utf8(list).unwrap();
    names.lines().filter(|name| *name != "busybox").map(str::to_owned).collect()
}
