//! A host of its own: this machine's systemd as PID 1 of new namespaces, over a copy of
//! `/` that is gone with it (`testdata/boot-systemd`).

use std::fs;
use std::io;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::memory_ground::{done, wait_for};
use crate::packages;
use crate::suite::Need;

/// What it takes to boot one and to run containers in it.
pub const NEEDS: [Need; 5] = [
    Need::Root,
    Need::Program("systemd-nspawn"),
    Need::Program("dbus-daemon"),
    Need::Program("ip"),
    Need::File("/lib/systemd/systemd"),
];

/// The host. All that runs in it ends with the value.
pub struct Host {
    unshare: Child,
    systemd: u32,
    name: String,
    binds: Vec<(PathBuf, String)>,
    /// The disk is a mount of its own, which outlives what runs on it.
    kept: bool,
    scratch: tempfile::TempDir,
}

impl Host {
    /// Boots, and waits until all is up. Each source is seen at its point.
    pub fn boot(binds: &[(&Path, &str)]) -> Self {
        Self::boot_on(binds, false)
    }

    /// The same, on a disk that can be booted again.
    pub fn boot_on_a_disk(binds: &[(&Path, &str)]) -> Self {
        Self::boot_on(binds, true)
    }

    fn boot_on(binds: &[(&Path, &str)], kept: bool) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("cbin-audit-{}-{count}", std::process::id());
        let scratch = tempfile::tempdir().unwrap();
        let disk = scratch.path().join("host");
        fs::create_dir(&disk).unwrap();
        if kept {
            done(Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&disk));
        }
        let binds = binds.iter().map(|(source, point)| (source.to_path_buf(), (*point).to_owned()));
        let binds: Vec<_> = binds.collect();
        let unshare = start(&name, scratch.path(), &binds);
        let mut host = Self { unshare, systemd: 0, name, binds, kept, scratch };
        host.wait_until_up();
        host
    }

    /// Cuts the power, and boots from the same disk.
    pub fn reboot(&mut self) {
        assert!(self.kept, "its disk is gone with it");
        self.end();
        self.unshare = start(&self.name, self.scratch.path(), &self.binds);
        self.systemd = 0;
        self.wait_until_up();
    }

    fn wait_until_up(&mut self) {
        self.wait_for_systemd();
        let state = self.try_run("systemctl", &["is-system-running", "--wait"]);
        let failed = || self.try_run("systemctl", &["--failed", "--plain", "--no-legend"]);
        assert_eq!(state.as_deref(), Ok("running\n"), "{} {:?}", self.log(), failed());
    }

    fn end(&mut self) {
        let _ended = self.unshare.kill();
        let _reaped = self.unshare.wait();
        // A group goes once its last process is gone.
        let gone = std::panic::catch_unwind(|| {
            wait_for("the host's processes to end", || remove_groups(&self.name));
        });
        assert!(gone.is_ok() || std::thread::panicking(), "control groups are left behind");
    }

    fn wait_for_systemd(&mut self) {
        let pid = self.unshare.id();
        wait_for("systemd", || {
            assert!(self.unshare.try_wait().unwrap().is_none(), "{}", self.log());
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
            self.systemd = children.unwrap_or_default().trim().parse().unwrap_or(0);
            let comm = fs::read_to_string(format!("/proc/{}/comm", self.systemd));
            // Where its socket is, it may not listen yet.
            comm.is_ok_and(|comm| comm == "systemd\n")
                && UnixStream::connect(self.path("/run/systemd/private")).is_ok()
        });
    }

    fn log(&self) -> String {
        fs::read_to_string(self.scratch.path().join("log")).unwrap_or_default()
    }

    /// A path of the host, as it is reached from outside.
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.systemd))
    }

    /// Writes a file of the host.
    pub fn write(&self, path: &str, text: &str) {
        fs::write(self.path(path), text).unwrap();
    }

    /// A command that runs in the host.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-m", "-p", "-u", "-i", "-n", "-C", "-t", &self.systemd.to_string(), "--"]);
        command.env_clear().env("PATH", "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("COLUMNS", "100").arg(program).args(arguments).stdin(Stdio::null());
        command
    }

    /// A command that runs outside of the host, and sees its network.
    pub fn outside(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-n", "-t", &self.systemd.to_string(), "--"]).arg(program);
        command.env_clear().env("HOME", "/nonexistent").stdin(Stdio::null());
        command
    }

    /// Runs a command in the host: what it printed, when it succeeded.
    pub fn try_run(&self, program: &str, arguments: &[&str]) -> Result<String, String> {
        let output = self.command(program, arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(text);
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        Err(format!("{program} {arguments:?}: {}\n{stderr}{text}", output.status))
    }

    /// Runs a command in the host that must succeed.
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        self.try_run(program, arguments).unwrap_or_else(|why| panic!("{why}"))
    }

    /// Something listens at a TCP port. No server notices that it was asked: one that is
    /// connected to, and left at once, may take another way through its code each time.
    pub fn listens(&self, port: u16) -> bool {
        let table = fs::read_to_string(format!("/proc/{}/net/tcp", self.systemd)).unwrap();
        let (local, listening) = (format!(":{port:04X}"), "0A");
        table.lines().any(|line| {
            let mut fields = line.split_ascii_whitespace().skip(1);
            fields.next().is_some_and(|it| it.ends_with(&local)) && fields.nth(1) == Some(listening)
        })
    }

    /// Connects to a port of the host's loopback interface, from outside its mounts.
    pub fn connect(&self, port: u16) -> io::Result<TcpStream> {
        let network = fs::File::open(format!("/proc/{}/ns/net", self.systemd))?;
        // A network namespace is the thread's own: this one ends with the call.
        let connecting = std::thread::spawn(move || {
            move_into_link_name_space(
                std::os::fd::AsFd::as_fd(&network),
                Some(LinkNameSpaceType::Network),
            )?;
            TcpStream::connect(("127.0.0.1", port))
        });
        let stream = connecting.join().unwrap()?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(stream)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.end();
        if self.kept {
            let disk = self.scratch.path().join("host");
            let _busy = Command::new("umount").arg("-l").arg(disk).status();
        }
    }
}

fn start(name: &str, scratch: &Path, binds: &[(PathBuf, String)]) -> Child {
    let log = fs::File::create(scratch.join("log")).unwrap();
    let inside = scratch.join("host");
    let mut command = Command::new("setpriv");
    // Should the tests themselves be killed, nothing of it is left.
    command.args(["--pdeathsig", "KILL"]).arg(packages::testdata().join("boot-systemd"));
    command.arg(name).arg(inside);
    for (source, point) in binds {
        command.arg(format!("{}:{point}", source.display()));
    }
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    command.spawn().unwrap()
}

/// Removes the control groups of that name, the innermost first. False while one is in use.
fn remove_groups(name: &str) -> bool {
    let all = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let hierarchies = all
        .lines()
        .filter(|line| line.split_once(" - ").is_some_and(|(_, rest)| rest.starts_with("cgroup")));
    let roots = hierarchies.filter_map(|line| line.split(' ').nth(4));
    let groups = roots.map(|root| Path::new(root).join(name)).filter(|group| group.exists());
    let removed: Vec<bool> = groups.map(|group| remove_group(&group)).collect();
    removed.into_iter().all(|removed| removed)
}

fn remove_group(group: &Path) -> bool {
    // Files of a group are the kernel's: its directories are all there is to remove.
    let inner = fs::read_dir(group).into_iter().flatten().flatten();
    let inner = inner.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    for entry in inner {
        remove_group(&entry.path());
    }
    fs::remove_dir(group).is_ok()
}
