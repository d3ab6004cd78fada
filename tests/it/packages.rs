//! Debian packages, a multi-call dropbear and the article's roots: real input,
//! fetched by name and kept under the target directory.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::suite::{Need, Suite};

pub fn tests(suite: &mut Suite) {
    let needs = &[Need::Package("busybox-static"), Need::Dropbear];
    suite.test("packages_the_articles_roots_are_copies", needs, the_articles_roots_are_copies);
}

fn the_articles_roots_are_copies() {
    let dir = tempfile::tempdir().unwrap();
    article_roots(dir.path(), 2).unwrap();
    let machine = std::env::consts::ARCH;
    let [one, two] = ["nifty1", "nifty2"].map(|root| dir.path().join(root));
    for name in [format!("bin/busybox-{machine}"), format!("bin/dropbearmulti-{machine}")] {
        let [a, b] = [&one, &two].map(|root| fs::symlink_metadata(root.join(&name)).unwrap());
        assert!(
            a.is_file() && a.len() == b.len() && a.nlink() == 1 && a.ino() != b.ino(),
            "{name}"
        );
    }
    let applet = fs::read_link(one.join("bin/ls")).unwrap();
    assert_eq!(applet, Path::new(&format!("busybox-{machine}")));
    assert!(fs::symlink_metadata(one.join("usr/share/zoneinfo/Europe/Berlin")).unwrap().is_file());
    assert_eq!(fs::read_to_string(two.join("etc/hostname")).unwrap(), "nifty2\n");
}

/// The directory that a package is unpacked in. `name_arch` is `NAME` or
/// `NAME:ARCH`; an architecture of its own needs nothing on this machine.
///
/// # Errors
/// What the script said: no network, no such package.
pub fn package(name_arch: &str) -> Result<PathBuf, String> {
    script("fetch-deb", &[cache().as_path(), Path::new(name_arch)]).map(PathBuf::from)
}

/// The same from another suite, such as `sid`.
///
/// # Errors
/// As [`package`].
#[allow(dead_code, reason = "the tests of multi-call programs come next")]
pub fn package_from(name_arch: &str, suite: &str) -> Result<PathBuf, String> {
    script("fetch-deb", &[cache().as_path(), Path::new(name_arch), Path::new(suite)])
        .map(PathBuf::from)
}

/// This machine's static busybox.
///
/// # Errors
/// As [`package`].
#[allow(dead_code, reason = "the tests of multi-call programs come next")]
pub fn busybox() -> Result<PathBuf, String> {
    let package = package("busybox-static")?;
    ["bin/busybox", "usr/bin/busybox"]
        .map(|path| package.join(path))
        .into_iter()
        .find(|path| path.exists())
        .ok_or_else(|| format!("{} holds no busybox", package.display()))
}

/// A static multi-call dropbear, built once.
///
/// # Errors
/// What the script said: no network, no compiler.
pub fn dropbear_multi() -> Result<PathBuf, String> {
    script("build-dropbear", &[cache().as_path()]).map(PathBuf::from)
}

/// The directory that holds a busybox built against musl: `dynamic` and `static`.
///
/// # Errors
/// What the script said: no network, no compiler.
pub fn musl_busybox() -> Result<PathBuf, String> {
    script("build-busybox", &[cache().as_path()]).map(PathBuf::from)
}

/// What starts the services of a Compose file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compose {
    Docker,
    Podman,
}

impl Compose {
    /// It, ready to be given arguments.
    ///
    /// # Errors
    /// As [`package`]; or what it says when it does not start.
    pub fn command(self) -> Result<Command, String> {
        const COMMON: [&str; 2] = ["python3-dotenv", "python3-yaml"];
        const DOCKER: [&str; 15] = [
            "python3-texttable",
            "python3-dockerpty",
            "python3-docopt",
            "python3-websocket",
            "python3-docker",
            "python3-jsonschema",
            "python3-requests",
            "python3-distro",
            "python3-urllib3",
            "python3-chardet",
            "python3-idna",
            "python3-certifi",
            "python3-attr",
            "python3-pyrsistent",
            "python3-six",
        ];
        let (name, more) = match self {
            Self::Docker => ("docker-compose", &DOCKER[..]),
            Self::Podman => ("podman-compose", &[][..]),
        };
        let own = package(name)?;
        let unpacked: Result<Vec<PathBuf>, String> =
            COMMON.iter().chain(more).map(|it| package(it)).collect();
        let libraries = unpacked?.into_iter().chain([own.clone()]);
        let libraries = libraries.map(|it| it.join("usr/lib/python3/dist-packages"));
        let ready = |arguments: &[&str]| {
            let mut command = Command::new("/usr/bin/python3");
            command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
            command.env("PYTHONPATH", std::env::join_paths(libraries.clone()).unwrap());
            command.arg(own.join("usr/bin").join(name)).args(arguments);
            command
        };
        let output = ready(&["version"]).output().map_err(|error| format!("python3: {error}"))?;
        match output.status.success() {
            true => Ok(ready(&[])),
            false => Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim())),
        }
    }
}

/// Podman's generator of units from quadlets: podman-systemd.unit(5). That of a suite whose Podman
/// has one, where the host's has none.
///
/// # Errors
/// As [`package_from`]; or what it says when it does not start.
pub fn quadlet() -> Result<PathBuf, String> {
    let own = [
        "/usr/lib/systemd/system-generators/podman-system-generator",
        "/usr/libexec/podman/quadlet",
    ];
    let own = own.map(PathBuf::from).into_iter().find(|path| path.exists());
    let program = match own {
        Some(program) => program,
        None => package_from("podman", "sid")?.join("usr/libexec/podman/quadlet"),
    };
    let output = Command::new(&program).arg("-version").output();
    match output.map_err(|error| format!("quadlet: {error}"))? {
        output if output.status.success() => Ok(program),
        output => Err(format!("quadlet: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

/// Lays the article's roots `dir/nifty1` to `dir/niftyN`.
///
/// # Errors
/// As [`package`] and [`dropbear_multi`].
pub fn article_roots(dir: &Path, n: usize) -> Result<(), String> {
    let n = n.to_string();
    script("make-roots", &[dir, Path::new(&n), &cache()]).map(drop)
}

/// The directory of the scripts and fixtures.
pub fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata")
}

/// Where the scripts themselves keep packages when they are told nothing.
fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("packages")
}

fn script(name: &str, arguments: &[&Path]) -> Result<String, String> {
    let mut command = Command::new(testdata().join(name));
    let output = command.args(arguments).output().map_err(|error| format!("{name}: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

/// The program of a package that ships one of the package's own name, such as
/// busybox-static and toybox.
pub fn program(name_arch: &str) -> PathBuf {
    let package = package(name_arch).unwrap();
    let name = name_arch.split([':', '-']).next().unwrap();
    let paths = ["bin", "usr/bin"].map(|dir| package.join(dir).join(name));
    paths.into_iter().find(|path| path.exists()).unwrap()
}
