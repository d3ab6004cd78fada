//! Ground for tests of memory: programs of their own, mounts, processes that
//! sleep, and a reader of page frames that shares no line with the library's.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use cbin_audit::model::{BinaryMemory, Bytes, MemoryReport, Silent};
use cbin_audit::ops::{MemoryOptions, memory};

use crate::packages;

/// A directory, what is mounted below it, and the name of a program that exists nowhere else.
pub struct Ground {
    dir: tempfile::TempDir,
    mounts: RefCell<Vec<PathBuf>>,
    loops: RefCell<Vec<String>>,
    /// The program's file name. busybox answers to any that begins with its own.
    pub name: String,
}

impl Ground {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self {
            dir: tempfile::tempdir().unwrap(),
            mounts: RefCell::default(),
            loops: RefCell::default(),
            name: format!("busybox-{}-{count}", std::process::id()),
        }
    }

    /// A path below the ground.
    pub fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// A directory below the ground.
    pub fn dir(&self, path: &str) -> PathBuf {
        fs::create_dir_all(self.at(path)).unwrap();
        self.at(path)
    }

    /// Lays the program into a directory: busybox with a tail that no other copy has, so
    /// that what else runs on this machine is never the same content.
    pub fn program_in(&self, dir: &Path) -> PathBuf {
        let place = dir.join(&self.name);
        let mut bytes = fs::read(packages::busybox().unwrap()).unwrap();
        bytes.extend_from_slice(self.name.as_bytes());
        fs::write(&place, bytes).unwrap();
        fs::set_permissions(&place, Permissions::from_mode(0o755)).unwrap();
        place
    }

    /// Mounts, for as long as the ground lives.
    pub fn mount(&self, point: &str, arguments: &[&str]) -> PathBuf {
        let point = self.dir(point);
        done(Command::new("mount").args(arguments).arg(&point));
        self.mounts.borrow_mut().push(point.clone());
        point
    }

    /// What was mounted by other means is taken down, too.
    pub fn mounted(&self, point: &Path) {
        self.mounts.borrow_mut().push(point.to_owned());
    }

    /// Takes a mount down early.
    pub fn unmount(&self, point: &Path) {
        done(Command::new("umount").arg(point));
        self.mounts.borrow_mut().retain(|mounted| mounted != point);
    }

    /// An overlay of lower directories, the upper one first.
    pub fn overlay(&self, point: &str, lower: &[&Path], options: &str) -> PathBuf {
        let lower: Vec<&str> = lower.iter().map(|path| path.to_str().unwrap()).collect();
        let options = format!("lowerdir={}{options}", lower.join(":"));
        self.mount(point, &["-t", "overlay", "-o", &options, "overlay"])
    }

    /// An overlay with an upper directory of its own.
    pub fn overlay_rw(&self, point: &str, lower: &Path, options: &str) -> PathBuf {
        let (upper, work) =
            (self.dir(&format!("{point}.upper")), self.dir(&format!("{point}.work")));
        let upper = format!(",upperdir={},workdir={}{options}", upper.display(), work.display());
        self.overlay(point, &[lower], &upper)
    }

    /// A read-only loop device over an image, new each time.
    pub fn loop_device(&self, image: &Path) -> String {
        let output =
            Command::new("losetup").args(["-f", "--show", "-r"]).arg(image).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let device = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        self.loops.borrow_mut().push(device.clone());
        device
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        for point in self.mounts.borrow().iter().rev() {
            let _busy = Command::new("umount").arg("-l").arg(point).stderr(Stdio::null()).status();
        }
        for device in self.loops.borrow().iter() {
            let _busy = Command::new("losetup").args(["-d", device]).stderr(Stdio::null()).status();
        }
    }
}

/// A child that is killed when it is no longer needed.
pub struct Running(pub Child);

impl Running {
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Starts `PROGRAM sleep 1000` and waits until it sleeps: it touches nothing more then.
pub fn sleeper(program: &Path) -> Running {
    start(Command::new(program).args(["sleep", "1000"]))
}

/// Starts a busybox sleeper from wherever the command leads, and waits until it sleeps.
pub fn start(command: &mut Command) -> Running {
    let running = Running(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap());
    wait_for("a sleeping process", || is_asleep(running.pid()));
    running
}

/// A sleeper from a file without a path.
pub fn sleeper_from(path: &Path) -> Running {
    start(Command::new(path).arg0("busybox").args(["sleep", "1000"]))
}

/// In nanosleep(2) or clock_nanosleep(2), as proc_pid_syscall(5) shows it; the numbers
/// are those of x86-64, i386 and arm64.
pub fn is_asleep(pid: u32) -> bool {
    is_asleep_in(Path::new("/proc"), pid)
}

/// The same below another `/proc`.
pub fn is_asleep_in(proc: &Path, pid: u32) -> bool {
    let call = fs::read_to_string(proc.join(format!("{pid}/syscall"))).unwrap_or_default();
    let number = call.split(' ').next().unwrap_or_default();
    ["35", "230", "162", "267", "407", "115", "101"].contains(&number)
}

/// Waits for something that happens soon, but for a disk that other tests keep busy.
pub fn wait_for(what: &str, mut happened: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !happened() {
        assert!(begin.elapsed() < Duration::from_secs(90), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Runs a command that must succeed.
pub fn done(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// This host's live view.
pub fn look() -> MemoryReport {
    look_with(|_| ())
}

/// The live view with other options.
pub fn look_with(change: impl FnOnce(&mut MemoryOptions)) -> MemoryReport {
    let mut options = MemoryOptions::new(Bytes(4096));
    options.threads = 2;
    change(&mut options);
    memory(&options, &Silent).unwrap()
}

/// The entries of one name.
pub fn named<'a>(report: &'a MemoryReport, name: &str) -> Vec<&'a BinaryMemory> {
    report.binaries.iter().filter(|binary| binary.name == name).collect()
}

/// Page frames by page of the file, of every mapping of the process whose name ends
/// so: the independent reader.
pub fn frames(pid: u32, name: &str) -> BTreeMap<u64, u64> {
    frames_in(Path::new("/proc"), pid, name)
}

/// The same below another `/proc`.
pub fn frames_in(proc: &Path, pid: u32, name: &str) -> BTreeMap<u64, u64> {
    let process = proc.join(pid.to_string());
    let maps = fs::read_to_string(process.join("maps")).unwrap();
    let pagemap = File::open(process.join("pagemap")).unwrap();
    let mut frames = BTreeMap::new();
    for line in maps.lines().filter(|line| line.trim_end_matches(" (deleted)").ends_with(name)) {
        let mut fields = line.split_ascii_whitespace();
        let (range, offset) = (fields.next().unwrap(), fields.nth(1).unwrap());
        let (start, end) = range.split_once('-').unwrap();
        let [start, end, offset] =
            [start, end, offset].map(|hex| u64::from_str_radix(hex, 16).unwrap() / 4096);
        for page in start..end {
            let mut entry = [0; 8];
            pagemap.read_exact_at(&mut entry, page * 8).unwrap();
            let entry = u64::from_ne_bytes(entry);
            if entry >> 63 & 1 == 1 && entry >> 61 & 1 == 1 {
                frames.insert(offset + page - start, entry & ((1 << 55) - 1));
            }
        }
    }
    frames
}

/// Distinct frames, and distinct pages of the file, of several processes.
pub fn distinct(all: &[BTreeMap<u64, u64>]) -> (u64, u64) {
    let frames: BTreeSet<u64> = all.iter().flat_map(BTreeMap::values).copied().collect();
    let pages: BTreeSet<u64> = all.iter().flat_map(BTreeMap::keys).copied().collect();
    (frames.len() as u64, pages.len() as u64)
}
