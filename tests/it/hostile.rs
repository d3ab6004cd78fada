//! Roots whose owners mean harm: nothing hangs, nothing ends the run, nothing
//! outside a root is read, and what is left out is said.

mod crowd;
mod files;
mod names;
mod races;
mod shapes;
mod silent;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::command::cbin_audit;
use crate::suite::Suite;

/// No case may take longer, whatever it does.
const DEADLINE: Duration = Duration::from_secs(60);

pub fn tests(suite: &mut Suite) {
    crowd::tests(suite);
    files::tests(suite);
    names::tests(suite);
    races::tests(suite);
    shapes::tests(suite);
    silent::tests(suite);
}

/// Two hostile roots, side by side in one directory.
struct Roots(tempfile::TempDir);

impl Roots {
    fn new() -> Self {
        Self::lay(tempfile::tempdir().unwrap())
    }

    /// Where ten thousands of names cost no disk.
    fn in_memory() -> Self {
        let memory = Path::new("/dev/shm");
        Self::lay(tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir()).unwrap())
    }

    fn lay(dir: tempfile::TempDir) -> Self {
        let roots = Self(dir);
        for root in ["a", "b"] {
            fs::create_dir(roots.at(root)).unwrap();
        }
        roots
    }

    fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(path)
    }

    /// A file of both roots, and its content.
    fn both(&self, path: &str, content: impl AsRef<[u8]>) {
        for root in ["a", "b"] {
            let file = self.at(root).join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, &content).unwrap();
        }
    }

    /// `cbin-audit report --json` on both.
    fn report(&self, options: &[&str]) -> Answer {
        report(options, &[self.at("a"), self.at("b")])
    }
}

/// What a run answered.
pub struct Answer {
    pub status: i32,
    pub json: Value,
    pub stdout: String,
    pub stderr: String,
}

fn report<P: AsRef<OsStr>>(options: &[&str], roots: &[P]) -> Answer {
    let mut command = cbin_audit();
    command.args(["report", "--json", "--no-memory"]).args(options).args(roots);
    finish(command)
}

/// Runs a command until its end, or its deadline.
pub fn finish(mut command: Command) -> Answer {
    let out = tempfile::NamedTempFile::new().unwrap();
    let err = tempfile::NamedTempFile::new().unwrap();
    command.stdout(out.reopen().unwrap()).stderr(err.reopen().unwrap()).stdin(Stdio::null());
    let mut child = command.spawn().unwrap();
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > DEADLINE {
            child.kill().unwrap();
            panic!("hangs: {command:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let text = |file: &tempfile::NamedTempFile| {
        String::from_utf8(fs::read(file.path()).unwrap()).expect("output is UTF-8")
    };
    let (stdout, stderr) = (text(&out), text(&err));
    let status = status.code().unwrap_or_else(|| panic!("{status}: {command:?}\n{stderr}"));
    assert!(!stderr.contains("panicked"), "{stderr}");
    let json = serde_json::from_str(&stdout).unwrap_or(Value::Null);
    Answer { status, json, stdout, stderr }
}

impl Answer {
    /// Nothing is missing from the answer.
    #[track_caller]
    fn complete(self) -> Self {
        assert_eq!(self.status, 0, "{}{}", self.stdout, self.stderr);
        assert_eq!(self.json["complete"], true, "{}", self.stdout);
        self
    }

    /// Something is missing, and the answer says so.
    #[track_caller]
    fn partial(self) -> Self {
        assert_eq!(self.status, 3, "{}{}", self.stdout, self.stderr);
        assert_eq!(self.json["complete"], false, "{}", self.stdout);
        self
    }

    /// Either, but the status and the document agree.
    #[track_caller]
    fn consistent(self) -> Self {
        if self.status == 3 { self.partial() } else { self.complete() }
    }

    /// A notice's path ends so, and its cause says this.
    #[track_caller]
    fn notice(self, path: &str, cause: &str) -> Self {
        let found = self.notices().iter().any(|notice| {
            notice["path"].as_str().unwrap().ends_with(path)
                && notice["cause"].as_str().unwrap().contains(cause)
        });
        assert!(found, "no notice about {path} that says {cause}: {:#}", self.json["notices"]);
        self
    }

    fn notices(&self) -> &[Value] {
        self.json["notices"].as_array().expect("a report has notices")
    }

    /// The group of contents that has a copy of this path.
    fn group(&self, path: &str) -> Option<&Value> {
        self.json["groups"].as_array().unwrap().iter().find(|group| {
            group["copies"].as_array().unwrap().iter().any(|copy| copy["path"] == path)
        })
    }

    /// A file of both roots is found to be the same.
    #[track_caller]
    fn finds(self, path: &str) -> Self {
        let group = self.group(path).unwrap_or_else(|| panic!("no {path}: {}", self.stdout));
        assert_eq!(group["inodes"], 2, "{group:#}");
        self
    }

    /// The names of regular files in all roots together.
    fn files(&self) -> u64 {
        self.json["roots"]
            .as_array()
            .unwrap()
            .iter()
            .map(|root| root["files"].as_u64().unwrap())
            .sum()
    }
}

/// The smallest thing that is an ELF program: a header, and what follows it.
fn elf(rest: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    bytes.extend_from_slice(rest);
    bytes
}

/// The test's own copy of the tool, where every user may run it.
fn tool_for_everyone(dir: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    let tool = dir.join("cbin-audit");
    fs::copy(env!("CARGO_BIN_EXE_cbin-audit"), &tool).unwrap();
    tool
}

/// A command in mounts of its own, after `setup` has run with `root` as `$1`.
fn with_mounts(setup: &str, root: &Path, command: &Command) -> Command {
    let mut outer = Command::new("unshare");
    let script = format!("{setup}\nshift\nexec \"$@\"");
    outer.args(["--mount", "--propagation", "private", "sh", "-ec", &script, "sh"]).arg(root);
    outer.arg(command.get_program()).args(command.get_args());
    outer.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("COLUMNS", "100");
    outer
}

fn open_dir(path: &Path) -> File {
    File::open(path).unwrap()
}
