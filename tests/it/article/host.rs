//! The article's containers on a host of their own.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::booted::Host;
use crate::memory_ground::{Running, done, wait_for};
use crate::packages;
use crate::snapshot::Snapshot;

/// What runs in each container: init, getty, dropbear, telnetd, httpd and two sleeps.
const PROCESSES: u64 = 7;

/// The article's unit, once for all containers. busybox's init ends on SIGUSR2, and not on
/// the signal that systemd-nspawn sends unless it is told.
const UNIT: &str = "\
[Unit]
Description=nifty container %i

[Service]
ExecStart=/usr/bin/systemd-nspawn -bD /home/nifty%i --kill-signal=SIGUSR2
KillMode=process
";

/// busybox's inetd, run from a container's root on the host; it starts telnetd from there.
const INETD: &str = "\
[Unit]
Description=busybox inetd

[Service]
ExecStart=/home/nifty1/bin/inetd -f
KillMode=process
";
const INETD_CONF: &str =
    "12323 stream tcp nowait root /home/nifty1/bin/telnetd telnetd -i -l /home/nifty1/bin/login\n";

/// The same telnetd, started by systemd itself for each connection.
const TELNET_SOCKET: &str = "\
[Unit]
Description=busybox telnetd

[Socket]
ListenStream=127.0.0.1:12324
Accept=yes
";
const TELNET: &str = "\
[Unit]
Description=busybox telnetd for one client

[Service]
ExecStart=-/home/nifty1/bin/telnetd -i -l /home/nifty1/bin/login
StandardInput=socket
";

/// Roots `/home/nifty1` to `/home/niftyN`, and the host that runs them.
pub struct Article {
    pub host: Host,
    count: u16,
    home: tempfile::TempDir,
    keys: tempfile::TempDir,
}

/// Distinct pages of program text that the containers have mapped: how many there are,
/// and how many there would be if no content were there twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text {
    pub resident: u64,
    pub ideal: u64,
}

impl Article {
    /// Lays the roots, boots the host, and starts nothing yet.
    pub fn lay(count: u16) -> Self {
        let (home, keys) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
        packages::article_roots(home.path(), usize::from(count)).unwrap();
        make_key(&keys.path().join("user"));
        for number in 1..=count {
            let root = home.path().join(format!("nifty{number}"));
            allow(&keys.path().join("user"), &root);
            add_inetd(&root);
        }
        let binary = Path::new(env!("CARGO_BIN_EXE_cbin-audit"));
        let zones = packages::package("tzdata").unwrap().join("usr/share/zoneinfo");
        let host = Host::boot(&[
            (home.path(), "/home"),
            (keys.path(), "/root"),
            (binary, "/usr/local/bin/cbin-audit"),
            (&zones, "/usr/share/zoneinfo"),
        ]);
        for (path, text) in [
            ("/etc/systemd/system/nifty@.service", UNIT),
            ("/etc/inetd.conf", INETD_CONF),
            ("/etc/systemd/system/inetd.service", INETD),
            ("/etc/systemd/system/mytelnet.socket", TELNET_SOCKET),
            ("/etc/systemd/system/mytelnet@.service", TELNET),
        ] {
            host.write(path, text);
        }
        host.run("systemctl", &["daemon-reload"]);
        Self { host, count, home, keys }
    }

    /// A root, as it is reached from outside.
    fn root(&self, number: u16) -> PathBuf {
        self.home.path().join(format!("nifty{number}"))
    }

    fn units(&self) -> Vec<String> {
        (1..=self.count).map(|number| format!("nifty@{number}")).collect()
    }

    /// `/home/nifty1` and the others, as the host has them.
    pub fn roots(&self) -> Vec<String> {
        (1..=self.count).map(|number| format!("/home/nifty{number}")).collect()
    }

    /// Every root as it is on disk. A directory's time tells that an entry was replaced, and put back.
    pub fn trees(&self) -> Vec<Snapshot> {
        let tree = |number| Snapshot::of(&self.root(number));
        let tree = |number| tree(number).without_directory_times().without_access_times();
        (1..=self.count).map(tree).collect()
    }

    /// Runs `cbin-audit ARGUMENTS --json ROOTS` in the host, which must end with `status`.
    pub fn audit(&self, arguments: &[&str], status: i32) -> Value {
        let roots = self.roots();
        let all =
            arguments.iter().copied().chain(["--json"]).chain(roots.iter().map(String::as_str));
        let output = self.host.command("cbin-audit", &all.collect::<Vec<_>>()).output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn systemctl(&self, verb: &str) {
        let units = self.units();
        let arguments: Vec<&str> =
            std::iter::once(verb).chain(units.iter().map(String::as_str)).collect();
        self.host.run("systemctl", &arguments);
    }

    /// Puts another unit in the place of the article's.
    pub fn set_unit(&self, text: &str) {
        self.host.write("/etc/systemd/system/nifty@.service", text);
        self.host.run("systemctl", &["daemon-reload"]);
    }

    /// Starts the containers, and waits until all of them serve.
    pub fn start(&self) {
        self.read_programs_anew();
        self.systemctl("start");
        self.wait_until_all_serve();
    }

    /// Restarts the containers that run.
    pub fn restart(&self) {
        self.systemctl("restart");
        self.wait_until_all_serve();
    }

    /// Waits until each service of each container takes connections.
    pub fn wait_until_all_serve(&self) {
        for number in 1..=self.count {
            for port in [8000, 2200, 2300] {
                wait_for("a container's services", || self.host.listens(port + number));
            }
        }
    }

    /// A page fault maps neighbours, too: as many as lie together in the cache, which is a
    /// matter of how the file came there. All programs come there the same way: read from
    /// the front to the back.
    fn read_programs_anew(&self) {
        let mut dirs: Vec<PathBuf> = (1..=self.count).map(|n| self.root(n).join("bin")).collect();
        dirs.push(self.home.path().join("cbin"));
        for entry in dirs.iter().flat_map(fs::read_dir).flatten() {
            let path = entry.unwrap().path();
            if fs::symlink_metadata(&path).unwrap().is_file() {
                let file = fs::File::open(&path).unwrap();
                file.sync_all().unwrap();
                rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
                fs::read(&path).unwrap();
            }
        }
    }

    /// Stops the containers.
    pub fn stop(&self) {
        self.systemctl("stop");
        assert_eq!(self.host.run("machinectl", &["list", "--no-legend"]), "");
    }

    /// Starts the host's own services that run programs of the first root.
    pub fn serve_from_the_host(&self) {
        self.host.run("systemctl", &["start", "inetd.service", "mytelnet.socket"]);
        wait_for("inetd", || self.host.listens(12323));
    }

    /// Stops them, and what they started.
    pub fn stop_serving_from_the_host(&self) {
        self.host.run("systemctl", &["stop", "inetd.service", "mytelnet.socket"]);
    }

    /// Uses them, from the host's own network.
    pub fn use_from_the_host(&self) {
        for port in [12323, 12324] {
            self.telnet(port);
        }
    }

    /// Uses each container from outside: by http, ssh and telnet.
    pub fn use_all(&self) {
        for number in 1..=self.count {
            assert_eq!(self.http(number), format!("nifty{number}\n"));
            assert_eq!(
                self.ssh(number, "hostname; echo $SHELL"),
                format!("nifty{number}\n/bin/sh\n")
            );
            let banner = self.telnet(2300 + number);
            assert!(banner.contains(&format!("nifty{number} login:")), "{banner}");
        }
    }

    fn http(&self, number: u16) -> String {
        let mut stream = self.host.connect(8000 + number).unwrap();
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer}")).1.to_owned()
    }

    /// What a telnet server says until it asks who is there.
    pub fn telnet(&self, port: u16) -> String {
        let mut stream = self.host.connect(port).unwrap();
        let mut said = Vec::new();
        while !said.ends_with(b"login: ") {
            let mut byte = [0];
            let read = stream.read_exact(&mut byte);
            assert!(read.is_ok(), "{read:?} after {}", String::from_utf8_lossy(&said));
            said.extend(byte);
        }
        String::from_utf8_lossy(&said).into_owned()
    }

    /// Logs in with the key and runs a command.
    pub fn ssh(&self, number: u16, command: &str) -> String {
        let output = self.ssh_command(number, command).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// An ssh client, ready to be started. It runs outside of the host's mounts: it is no part of it.
    pub fn ssh_command(&self, number: u16, command: &str) -> Command {
        let mut client = self.host.outside(&packages::dropbear_multi().unwrap());
        client.args(["dbclient", "-y", "-y", "-i"]).arg(self.keys.path().join("user"));
        client.args(["-p", &(2200 + number).to_string(), "root@127.0.0.1", command]);
        client
    }

    /// A session that goes on until its value ends.
    pub fn ssh_session(&self, number: u16) -> Session {
        let mut client = self.ssh_command(number, "exec sh");
        client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        Session(Running(client.spawn().unwrap()))
    }

    /// Distinct text pages of all containers, once nothing but their services runs.
    pub fn text(&self) -> Text {
        let mut found = Value::Null;
        wait_for("the last session to end", || {
            found = self.audit(&["memory"], 0);
            let containers = found["containers"].as_array().unwrap();
            let idle = |row: &Value| row["processes"].as_u64() == Some(PROCESSES);
            containers.len() == usize::from(self.count) && containers.iter().all(idle)
        });
        Text::of(&found)
    }
}

impl Text {
    /// Asserts that these are the pages, but for one in a hundred: around a fault the kernel maps
    /// what nobody else has locked at that moment (`filemap_map_pages()` in its mm/filemap.c).
    #[track_caller]
    pub fn assert_about(self, resident: u64, ideal: u64) {
        let is_about = |page: u64, expected: u64| page.abs_diff(expected) * 100 <= expected;
        let all = is_about(self.resident, resident) && is_about(self.ideal, ideal);
        assert!(all, "{self:?}, expected {resident} and {ideal}");
    }

    /// The pages that a document tells of.
    pub fn of(memory: &Value) -> Self {
        let sum = |key: &str| {
            let binaries = memory["binaries"].as_array().unwrap();
            binaries.iter().filter_map(|binary| binary["text"][key].as_u64()).sum()
        };
        assert_eq!(memory["method"], "pfn");
        Self { resident: sum("resident_pages"), ideal: sum("ideal_pages") }
    }
}

/// A shell at the other end of an ssh connection.
pub struct Session(Running);

impl Session {
    /// Has the shell do something: the line that it answers.
    pub fn ask(&mut self, command: &str) -> String {
        let client = &mut self.0.0;
        client.stdin.as_mut().unwrap().write_all(format!("{command}\n").as_bytes()).unwrap();
        let (mut line, out) = (Vec::new(), client.stdout.as_mut().unwrap());
        while !line.ends_with(b"\n") {
            let mut byte = [0];
            out.read_exact(&mut byte).unwrap_or_else(|error| panic!("{error} after {line:?}"));
            line.extend(byte);
        }
        String::from_utf8(line).unwrap().trim_end().to_owned()
    }
}

/// The programs are those of Debian 12, and the kernel maps as many pages at a fault as that
/// with which the containers were counted by hand.
pub fn is_measured() -> bool {
    let length = |program: PathBuf| fs::metadata(program).unwrap().len();
    let programs = (packages::busybox().unwrap(), packages::dropbear_multi().unwrap());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    (length(programs.0), length(programs.1)) == (1_982_256, 1_716_208)
        && kernel.starts_with("6.18.")
}

/// Debian's busybox has no inetd: it comes in a second one, as Alpine's busybox-extras brings it.
fn add_inetd(root: &Path) {
    let name = format!("busybox-extras-{}", std::env::consts::ARCH);
    let program = packages::musl_busybox().unwrap().join("static");
    fs::copy(program, root.join("bin").join(&name)).unwrap();
    symlink(name, root.join("bin/inetd")).unwrap();
}

/// A key of dropbear's own format.
fn make_key(path: &Path) {
    let mut dropbearkey = Command::new(packages::dropbear_multi().unwrap());
    done(dropbearkey.args(["dropbearkey", "-t", "ed25519", "-f"]).arg(path));
}

/// Lets the key log in, and gives the root a host key of its own.
fn allow(key: &Path, root: &Path) {
    let mut dropbearkey = Command::new(packages::dropbear_multi().unwrap());
    let output = dropbearkey.args(["dropbearkey", "-y", "-f"]).arg(key).output().unwrap();
    let public = String::from_utf8(output.stdout).unwrap();
    let line = public.lines().find(|line| line.starts_with("ssh-ed25519 ")).unwrap();
    let dir = root.join("root/.ssh");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("authorized_keys"), format!("{line}\n")).unwrap();
    make_key(&root.join("etc/dropbear/dropbear_ed25519_host_key"));
}
