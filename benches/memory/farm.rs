//! Processes to look at: busybox, asleep, in roots that each have a copy of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const ROOTS: usize = 20;

/// The roots and what runs in them. Everything ends with the pid namespace.
pub struct Farm {
    dir: tempfile::TempDir,
    shells: Vec<Child>,
}

impl Farm {
    /// Roots with a shell each.
    pub fn new() -> Self {
        let mut farm = Self { dir: tempfile::tempdir().expect("make a directory"), shells: vec![] };
        let busybox = busybox();
        for root in (0..ROOTS).map(|at| farm.root(at)) {
            fs::create_dir_all(root.join("bin")).expect("make a root");
            fs::copy(&busybox, root.join("bin/busybox")).expect("copy busybox");
            // What runs in the background reads from it.
            fs::create_dir_all(root.join("dev")).expect("make a root");
            fs::write(root.join("dev/null"), "").expect("make a root");
        }
        farm.start(1);
        farm
    }

    /// Starts sleepers until there are as many processes, shells and sleepers together.
    pub fn grow(&mut self, processes: usize) {
        let missing = processes.saturating_sub(running() + ROOTS);
        self.start(missing / ROOTS);
    }

    fn start(&mut self, each: usize) {
        let before = running();
        for at in 0..ROOTS {
            let line = format!(
                "i=0; while [ $i -lt {each} ]; do /bin/busybox sleep 1000000 & i=$((i+1)); done; wait"
            );
            let mut shell = Command::new("chroot");
            shell.arg(self.root(at)).args(["/bin/busybox", "sh", "-c", &line]).stdin(Stdio::null());
            self.shells.push(shell.spawn().expect("start a shell"));
        }
        let begin = Instant::now();
        while running() < before + ROOTS * (each + 1) {
            assert!(begin.elapsed() < Duration::from_secs(120), "the farm does not grow");
            std::thread::sleep(Duration::from_millis(50));
        }
        // The last ones are still on their way to sleep.
        std::thread::sleep(Duration::from_secs(1));
    }

    fn root(&self, at: usize) -> PathBuf {
        self.dir.path().join(format!("root{at}"))
    }
}

/// How many processes there are in this pid namespace.
pub fn running() -> usize {
    let names = fs::read_dir("/proc").expect("list processes").flatten();
    names.filter(|entry| entry.file_name().as_encoded_bytes()[0].is_ascii_digit()).count()
}

/// Debian's static busybox, fetched once.
fn busybox() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let fetched = Command::new(package.join("testdata/fetch-deb"))
        .args([&package.join("target/packages"), Path::new("busybox-static")])
        .output()
        .expect("start testdata/fetch-deb");
    assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
    let dir = PathBuf::from(String::from_utf8_lossy(&fetched.stdout).trim());
    let places = ["bin/busybox", "usr/bin/busybox"].map(|path| dir.join(path));
    places.into_iter().find(|path| path.exists()).expect("a busybox in the package")
}
