//! Roots as the Linux Journal article "Infinite BusyBox with systemd" has them, but for the
//! time zones: a static busybox and a multi-call dropbear, copied for real, and links to them.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What every root holds.
pub struct Programs {
    busybox: PathBuf,
    dropbear: PathBuf,
}

impl Programs {
    /// Debian's busybox and its dropbear in one program, fetched and built once.
    pub fn fetch() -> Self {
        let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/packages");
        let package = script("fetch-deb", &[cache.as_os_str(), "busybox-static".as_ref()]);
        let places = ["bin/busybox", "usr/bin/busybox"].map(|path| package.join(path));
        let busybox = places.into_iter().find(|path| path.exists()).expect("busybox");
        Self { busybox, dropbear: script("build-dropbear", &[cache.as_os_str()]) }
    }

    /// One root, whole or not at all, with so many links. One that is there already is left.
    pub fn lay(&self, root: &Path, links: usize) {
        if root.exists() {
            return;
        }
        let part = root.with_extension("part");
        let _gone = fs::remove_dir_all(&part);
        for dir in ["bin", "sbin", "dev", "etc", "proc", "sys", "tmp", "usr"] {
            fs::create_dir_all(part.join(dir)).expect("make a directory");
        }
        // What runs in the background reads from it.
        fs::write(part.join("dev/null"), "").expect("make a file");
        for (program, name) in [(&self.busybox, "busybox"), (&self.dropbear, "dropbearmulti")] {
            let at = part.join("bin").join(name);
            fs::write(&at, fs::read(program).expect("read a program")).expect("write a program");
            fs::set_permissions(&at, fs::Permissions::from_mode(0o755)).expect("chmod");
        }
        self.link(&part, links);
        fs::rename(&part, root).expect("rename");
    }

    /// The applets in `bin`; in `sbin` as many of them again as are wanted beyond.
    fn link(&self, root: &Path, links: usize) {
        const DROPBEARS: [&str; 5] = ["dropbear", "ssh", "scp", "dropbearkey", "dropbearconvert"];
        for name in DROPBEARS {
            symlink("dropbearmulti", root.join("bin").join(name)).expect("link");
        }
        let listed = Command::new(&self.busybox).arg("--list").output().expect("list the applets");
        let listed = String::from_utf8(listed.stdout).expect("applets");
        let applets = listed.lines().filter(|name| *name != "busybox" && !DROPBEARS.contains(name));
        let places = ["bin", "sbin"].into_iter().zip(["busybox", "../bin/busybox"]);
        let all = places.flat_map(|place| applets.clone().map(move |name| (place, name)));
        for ((dir, target), name) in all.take(links - DROPBEARS.len()) {
            symlink(target, root.join(dir).join(name)).expect("link");
        }
    }
}

/// Runs a script of `testdata`, and reads the path that it prints.
fn script(name: &str, arguments: &[&std::ffi::OsStr]) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
    let ran = Command::new(script).args(arguments).output().expect("start a script");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    PathBuf::from(String::from_utf8(ran.stdout).expect("a path").trim())
}
