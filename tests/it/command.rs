//! Runs the real binary with nothing of the caller's environment.

use std::ffi::OsStr;
use std::process::{Command, Output, Stdio};

/// What a run printed, and how it ended.
#[must_use = "look at the output or at the status"]
#[derive(Debug)]
pub struct Ran {
    pub stdout: String,
    pub stderr: String,
    pub status: i32,
}

/// The binary under test, ready to be given arguments.
pub fn cbin_audit() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cbin-audit"));
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("COLUMNS", "100");
    command.stdin(Stdio::null());
    command
}

/// Runs `cbin-audit ARGUMENTS`.
pub fn run<S: AsRef<OsStr>>(arguments: &[S]) -> Ran {
    Ran::from(cbin_audit().args(arguments).output().expect("start cbin-audit"))
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            status: output.status.code().expect("ended by a signal"),
        }
    }
}

/// The document that a command prints, and how much it read, as proc_pid_io(5) counts it.
pub fn answer_and_bytes_read(command: &mut Command) -> (serde_json::Value, u64) {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let answer = std::io::read_to_string(child.stdout.take().unwrap()).unwrap();
    let answer = serde_json::from_str(&answer).unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    let ended = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
    rustix::process::waitid(rustix::process::WaitId::Pid(pid), ended).unwrap();
    let io = std::fs::read_to_string(format!("/proc/{}/io", child.id())).unwrap();
    assert!(child.wait().unwrap().success());
    let read = io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap();
    (answer, read.parse().unwrap())
}
