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
