//! Collects tests, and finds out which of them this machine can run.

use std::collections::HashMap;
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::process::Command;

use libtest_mimic::{Arguments, Failed, Trial};

use crate::packages;

/// What a test cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(dead_code, reason = "not every need has a test yet")]
pub enum Need {
    /// Effective user 0, with CAP_SYS_ADMIN: namespaces, mounts, loop devices.
    Root,
    /// A program on the `PATH`.
    Program(&'static str),
    /// Compose for Docker, or for Podman: fetched once, and Python to run it.
    Compose(packages::Compose),
    /// Podman's generator of units: the host's, or fetched once.
    Quadlet,
    /// A path that must exist, such as a kernel interface.
    File(&'static str),
    /// A version of Linux, or a later one.
    Linux(u32, u32),
    /// A Debian package, as `NAME` or `NAME:ARCH`: fetched once.
    Package(&'static str),
    /// The multi-call dropbear: built once.
    Dropbear,
    /// A busybox against musl: built once.
    MuslBusybox,
}

fn linux() -> (u32, u32) {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release.split(|it: char| !it.is_ascii_digit());
    let mut number = || numbers.next().and_then(|it| it.parse().ok()).unwrap_or(0);
    (number(), number())
}

impl Need {
    /// Why this machine lacks it.
    fn missing(self) -> Option<String> {
        match self {
            Self::Root => (!is_privileged()).then(|| "needs root with CAP_SYS_ADMIN".to_owned()),
            Self::Linux(major, minor) => {
                (linux() < (major, minor)).then(|| format!("needs Linux {major}.{minor}"))
            }
            Self::Program(name) => (!on_path(name)).then(|| format!("needs the program {name}")),
            Self::Package(name) => packages::package(name).err(),
            Self::Compose(which) => which.command().err(),
            Self::Quadlet => packages::quadlet().err(),
            Self::Dropbear => packages::dropbear_multi().err(),
            Self::MuslBusybox => packages::musl_busybox().err(),
            Self::File(path) => (!Path::new(path).exists()).then(|| format!("needs {path}")),
        }
    }
}

/// The argument before the name of the one test that a process is started for.
const ALONE: &str = "alone";

/// The tests of this run.
#[derive(Default)]
pub struct Suite {
    /// The one test that this process is for, and whether it has run.
    only: Option<String>,
    ran: bool,
    trials: Vec<Trial>,
    missing: HashMap<Need, Option<String>>,
}

impl Suite {
    pub fn new() -> Self {
        let mut arguments = std::env::args().skip(1);
        let only = arguments.next().filter(|first| first == ALONE).and_then(|_| arguments.next());
        Self { only, ..Self::default() }
    }

    /// Adds a test. Tests that need root are named `privileged_*`.
    pub fn test(&mut self, name: &str, needs: &[Need], run: impl FnOnce()) {
        match &self.only {
            Some(only) if only == name => {
                run();
                self.ran = true;
            }
            Some(_) => {}
            None => self.add(name, needs),
        }
    }

    fn add(&mut self, name: &str, needs: &[Need]) {
        let why = needs.iter().find_map(|need| self.missing(*need));
        let of = name.to_owned();
        let trial = Trial::test(name, move || run_alone(&of));
        self.trials.push(match why {
            Some(why) => trial.with_kind(format!("skipped: {why}")).with_ignored_flag(true),
            None => trial,
        });
    }

    /// Runs them: two for each processor unless told otherwise, for most wait for others (a container
    /// that starts, a flush). The process of one test has run it by now.
    pub fn run(self) {
        if let Some(only) = self.only {
            return assert!(self.ran, "there is no test {only}");
        }
        let mut arguments = Arguments::from_args();
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        arguments.test_threads.get_or_insert(2 * processors);
        libtest_mimic::run(&arguments, self.trials).exit();
    }

    fn missing(&mut self, need: Need) -> Option<String> {
        self.missing.entry(need).or_insert_with(|| need.missing()).clone()
    }
}

/// In a process of its own: what a test has open, a program that another test starts would have open,
/// too, until it is executed, and a file that somebody writes cannot be executed or leased.
fn run_alone(name: &str) -> Result<(), Failed> {
    // Not a pipe: who outlives the test would hold it open.
    let mut said = tempfile::tempfile()?;
    let mut test = Command::new(std::env::current_exe()?);
    let status = test.args([ALONE, name]).stderr(said.try_clone()?).status()?;
    let mut text = Vec::new();
    said.rewind()?;
    said.read_to_end(&mut text)?;
    if !status.success() {
        return Err(format!("{status}\n{}", String::from_utf8_lossy(&text)).into());
    }
    Ok(std::io::stderr().write_all(&text)?)
}

fn is_privileged() -> bool {
    const CAP_SYS_ADMIN: u64 = 1 << 21;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .is_some_and(|caps| caps & CAP_SYS_ADMIN != 0)
}

fn on_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(name).is_file())
}
