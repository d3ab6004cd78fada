//! Collects tests, and finds out which of them this machine can run.

use std::collections::HashMap;
use std::path::Path;

use libtest_mimic::{Arguments, Conclusion, Failed, Trial};

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

/// The tests of this run.
#[derive(Default)]
pub struct Suite {
    trials: Vec<Trial>,
    missing: HashMap<Need, Option<String>>,
}

impl Suite {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a test. Tests that need root are named `privileged_*`.
    pub fn test(&mut self, name: &str, needs: &[Need], run: impl FnOnce() + Send + 'static) {
        let why = needs.iter().find_map(|need| self.missing(*need));
        let trial = Trial::test(name, move || {
            run();
            Ok::<(), Failed>(())
        });
        self.trials.push(match why {
            Some(why) => trial.with_kind(format!("skipped: {why}")).with_ignored_flag(true),
            None => trial,
        });
    }

    /// Runs them: two for each processor unless told otherwise, for most wait for others (a container
    /// that starts, a flush).
    pub fn run(self, mut arguments: Arguments) -> Conclusion {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        arguments.test_threads.get_or_insert(2 * processors);
        libtest_mimic::run(&arguments, self.trials)
    }

    fn missing(&mut self, need: Need) -> Option<String> {
        self.missing.entry(need).or_insert_with(|| need.missing()).clone()
    }
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
