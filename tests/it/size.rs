//! `cbin-audit size` beside the installed `size`.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::command::cbin_audit;
use crate::packages;
use crate::suite::{Need, Suite};

/// The formats that are compared.
const FORMATS: [&[&str]; 6] =
    [&["-B"], &["-A"], &["-G"], &["-x", "-t"], &["-o", "--common"], &["-A", "--common", "-x"]];
/// Operands of one run.
const BATCH: usize = 400;
/// From this version on, a group stands where its header does in format `sysv`. Before, the first
/// member brought all groups forward.
const GROUPS_STAY: (u32, u32) = (2, 43);

/// Foreign architectures: word size and byte order in all combinations.
const FOREIGN: [&str; 8] = [
    "libc6-s390x-cross:all",
    "libc6-powerpc-cross:all",
    "libc6-ppc64-cross:all",
    "libc6-mips-cross:all",
    "libc6-m68k-cross:all",
    "libc6-hppa-cross:all",
    "libc6-arm64-cross:all",
    "libc6-dev-s390x-cross:all",
];

pub fn tests(suite: &mut Suite) {
    let size = Need::Program("size");
    suite
        .test("size_equals_binutils_on_programs", &[size], || on_trees(&["/usr/bin", "/usr/sbin"]));
    suite.test("size_equals_binutils_on_libraries", &[size], || on_trees(&["/usr/lib"]));
    suite.test("size_equals_binutils_on_the_rust_toolchain", &[size], on_the_rust_toolchain);
    for package in FOREIGN {
        let name = format!("size_equals_binutils_on_{}", package.trim_end_matches(":all"));
        suite.test(&name, &[size, Need::Package(package)], move || {
            let directory = packages::package(package).unwrap();
            on_trees(&[directory.to_str().unwrap()]);
        });
    }
}

fn on_the_rust_toolchain() {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| OsString::from("rustc"));
    let output = Command::new(rustc).args(["--print", "sysroot"]).output().unwrap();
    on_trees(&[String::from_utf8(output.stdout).unwrap().trim()]);
}

/// Every ELF file and archive below `trees`, in every format.
fn on_trees(trees: &[&str]) {
    let files: Vec<PathBuf> =
        trees.iter().flat_map(|tree| objects_below(Path::new(tree))).collect();
    assert!(files.len() > 3, "{trees:?} holds nothing to compare");
    for format in FORMATS {
        for batch in files.chunks(BATCH) {
            compare(format, batch);
        }
    }
}

fn compare(format: &[&str], batch: &[PathBuf]) {
    let (theirs, ours) = (binutils(format, batch), audit(format, batch));
    if theirs == ours {
        return;
    }
    for file in batch {
        let one = std::slice::from_ref(file);
        let (theirs, ours) = (binutils(format, one), audit(format, one));
        assert!(
            equal_but_for_groups(format, &theirs, &ours),
            "{format:?} {}\n{theirs:#?}\n{ours:#?}",
            file.display()
        );
    }
}

/// Equal; with an older `size` in format `sysv` also equal if, object by object, the same lines
/// stand in another order and one of them is a group.
pub fn equal_but_for_groups(format: &[&str], theirs: &Ran, ours: &Ran) -> bool {
    if theirs == ours {
        return true;
    }
    let groups = theirs.stdout.windows(6).any(|window| window == b".group");
    let reordered = format.contains(&"-A") && groups && installed() < GROUPS_STAY;
    reordered
        && (theirs.status, &theirs.stderr) == (ours.status, &ours.stderr)
        && sorted_blocks(&theirs.stdout) == sorted_blocks(&ours.stdout)
}

fn sorted_blocks(text: &[u8]) -> Vec<Vec<Vec<u8>>> {
    let lines: Vec<Vec<u8>> = text.split(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect();
    let mut blocks: Vec<Vec<Vec<u8>>> = lines.split(Vec::is_empty).map(<[_]>::to_vec).collect();
    blocks.iter_mut().for_each(|block| block.sort());
    blocks
}

/// The version of the installed binutils.
fn installed() -> (u32, u32) {
    let output = Command::new("size").arg("--version").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.lines().next().unwrap().rsplit(' ').next().unwrap().to_owned();
    let mut parts = version.split('.').map(|part| part.parse().unwrap());
    (parts.next().unwrap(), parts.next().unwrap())
}

/// ELF files and archives, links not followed.
fn objects_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![directory.to_path_buf()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                waiting.push(entry.path());
            } else if kind.is_file() && is_object(&entry.path()) {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

fn is_object(path: &Path) -> bool {
    let mut magic = [0; 8];
    let got = File::open(path).and_then(|mut file| file.read(&mut magic)).unwrap_or(0);
    got == 8 && (magic.starts_with(b"\x7fELF") || &magic == b"!<arch>\n" || &magic == b"!<thin>\n")
}

/// What a run came to, byte for byte.
#[derive(PartialEq, Eq, Clone)]
pub struct Ran {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub status: i32,
}

impl std::fmt::Debug for Ran {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (stdout, stderr) = (self.stdout.escape_ascii(), self.stderr.escape_ascii());
        let stdout = stdout.to_string().replace("\\n", "\n");
        write!(out, "status {}\nstdout:\n{stdout}\nstderr:\n{stderr}", self.status)
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let status = output.status.code().expect("ended by a signal");
        Self { stdout: output.stdout, stderr: output.stderr, status }
    }
}

/// The installed `size`.
pub fn binutils_command() -> Command {
    let mut command = Command::new("size");
    command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C").stdin(Stdio::null());
    command
}

/// Ours.
pub fn audit_command() -> Command {
    let mut command = cbin_audit();
    command.arg("size");
    command
}

pub fn binutils<S: AsRef<OsStr>>(options: &[&str], files: &[S]) -> Ran {
    binutils_command().args(options).args(files).output().unwrap().into()
}

pub fn audit<S: AsRef<OsStr>>(options: &[&str], files: &[S]) -> Ran {
    audit_command().args(options).args(files).output().unwrap().into()
}
