//! Multi-call programs: what they say of themselves when they are run, against
//! what is read from their bytes; and every way a root leads to one.

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use cbin_audit::analyze::links::{Names, RootLinks, links_of, parse_wrapper};
use cbin_audit::model::{Bytes, Family, FileId, HostPath, Inventory, Program, Silent};
use cbin_audit::scan::dir::RootDir;
use cbin_audit::scan::walk::{WalkLimits, walk};
use cbin_audit::scan::{Listings, Source, elf_facts, program, program_in};

use crate::elf::{FOREIGN, facts_of, leak};
use crate::packages;
use crate::suite::{Need, Suite};

pub fn tests(suite: &mut Suite) {
    for name in ["busybox-static", "busybox"] {
        let test = format!("multicall_{name}_lists_what_is_extracted");
        suite.test(&test, &[Need::Package(name)], move || lists_what_is_extracted(name));
    }
    suite.test("multicall_toybox_lists_what_is_extracted", &[Need::Package("toybox")], toybox);
    for architecture in FOREIGN {
        for name in ["busybox-static", "busybox", "toybox"] {
            let package = leak(format!("{name}:{architecture}"));
            let test = format!("multicall_{name}_on_{architecture}");
            let needs = [Need::Package(name), Need::Package(package)];
            suite.test(&test, &needs, move || same_names_as_native(name, package));
        }
    }
    suite.test("multicall_dropbear_names", &[Need::Dropbear], dropbear);
    suite.test("multicall_constructed_toy_lists", &[Need::Program("cc")], constructed_toy_lists);
    suite.test("multicall_constructed_libbusybox", &[Need::Program("cc")], constructed_libbusybox);
    suite.test("multicall_other_programs_are_none", &[], other_programs_are_none);
    suite.test("multicall_segments_that_lie_cost_no_time", &[], segments_that_lie_cost_no_time);
    let busybox = [Need::Package("busybox-static")];
    suite.test("multicall_link_layouts", &busybox, link_layouts);
    suite.test("multicall_split_by_set_id", &busybox, split_by_set_id);
    let both = [Need::Package("busybox-static"), Need::Dropbear];
    suite.test("multicall_links_of_the_articles_roots", &both, links_of_the_articles_roots);
}

fn read(path: &Path) -> Option<Program> {
    let file = File::open(path).unwrap();
    let source = Source::file(file.as_fd(), file.metadata().unwrap().len());
    let found = program(&source, &facts_of(path)).unwrap();
    assert_eq!(found, program_in(&fs::read(path).unwrap(), &facts_of(path)));
    found
}

fn sorted(names: impl IntoIterator<Item = String>) -> Vec<String> {
    names.into_iter().collect::<BTreeSet<_>>().into_iter().collect()
}

/// What a program of Debian's prints, as words.
fn printed(program: &Path, argument: Option<&str>) -> Vec<String> {
    let output = Command::new(program).args(argument).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split_whitespace().map(str::to_owned).collect()
}

fn lists_what_is_extracted(package: &str) {
    let path = packages::program(package);
    let found = read(&path).unwrap();
    assert_eq!(found.family, Family::Busybox);
    assert_eq!(found.applets, sorted(printed(&path, Some("--list"))));
    let banner = printed(&path, None);
    assert_eq!(banner[1], format!("v{}", found.version.clone().unwrap()));
    if found.version.as_deref() == Some("1.35.0") {
        assert_eq!(found.applets.len(), if package == "busybox" { 258 } else { 269 });
    }
}

fn toybox() {
    let path = packages::program("toybox");
    let found = read(&path).unwrap();
    assert_eq!(found.family, Family::Toybox);
    assert_eq!(found.applets, sorted(printed(&path, None)));
    assert_eq!(printed(&path, Some("--version")), ["toybox", &found.version.unwrap()]);
}

fn same_names_as_native(native: &str, foreign: &str) {
    let [native, foreign] = [native, foreign].map(|name| read(&packages::program(name)).unwrap());
    assert_eq!(foreign, native);
}

fn dropbear() {
    let path = packages::dropbear_multi().unwrap();
    let found = read(&path).unwrap();
    assert_eq!(found.family, Family::Dropbear);
    let names = ["dbclient", "dropbear", "dropbearconvert", "dropbearkey", "scp", "ssh"];
    assert_eq!(found.applets, names);
    let output = Command::new(&path).args(["dropbear", "-V"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(said.trim(), format!("Dropbear v{}", found.version.unwrap()));
}

/// Debian has toybox as a position-independent program alone: the others are built
/// from the array's declaration.
fn constructed_toy_lists() {
    let source = r#"
        #include <stdio.h>
        static void run(void) {}
        struct toy_list { char *name; void (*run)(void); char *options; unsigned flags; }
        toy_list[] = { {"toybox", run, 0, 0}, {"-sh", run, 0, 4}, {"[", run, 0, 3}, {"acpi", run, "abc", 3},
            {"cd", run, ">1", 8}, {"ls", run, "x", 2}, {"reboot", run, 0, 6}, };
        int main(int argc, char **argv) {
            printf("Toybox %s multicall binary\n%s", "0.8.11", toy_list[argc].name);
        }"#;
    let dir = tempfile::tempdir().unwrap();
    for flags in [&["-no-pie"][..], &["-no-pie", "-static"], &["-static-pie"], &["-pie", "-O2"]] {
        let path = build(dir.path(), "toybox", source, flags);
        let found = read(&path).unwrap_or_else(|| panic!("{flags:?}"));
        assert_eq!(found.applets, ["-sh", "[", "acpi", "ls", "reboot"], "{flags:?}");
    }
}

/// A library as BUILD_LIBBUSYBOX lays it out, and a program that loads it; the real
/// thing takes a build of busybox.
fn constructed_libbusybox() {
    let library = r#"
        const char banner[] = "BusyBox v1.35.0 (2022-01-01 00:00:00 UTC)";
        const char applet_names[] = "[\0[[\0acpid\0ash\0cat\0ls\0zcip\0";
        int lbb_main(void) { return banner[0] + applet_names[0]; }"#;
    let dir = tempfile::tempdir().unwrap();
    let soname = "-Wl,-soname,libbusybox.so.1.35.0";
    let library = build(dir.path(), "libbusybox.so.1.35.0", library, &["-shared", "-fPIC", soname]);
    let found = read(&library).unwrap();
    assert_eq!(found.version.as_deref(), Some("1.35.0"));
    assert_eq!(found.applets, ["[", "[[", "acpid", "ash", "cat", "ls", "zcip"]);
    let stub = "int lbb_main(void); int main(void) { return lbb_main(); }";
    let stub = build(dir.path(), "ls", stub, &[library.to_str().unwrap()]);
    assert_eq!(read(&stub), None);
    assert_eq!(facts_of(&stub).needed[0], b"libbusybox.so.1.35.0");
}

fn build(dir: &Path, name: &str, source: &str, flags: &[&str]) -> PathBuf {
    let (input, output) = (dir.join("source.c"), dir.join(name));
    fs::write(&input, source).unwrap();
    let mut cc = Command::new("cc");
    let status = cc.arg("-o").arg(&output).arg(&input).args(flags).status().unwrap();
    assert!(status.success(), "{flags:?}");
    output
}

fn other_programs_are_none() {
    let mut seen = 0;
    for entry in fs::read_dir("/usr/bin").unwrap().chain(fs::read_dir("/usr/sbin").unwrap()) {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let multicall = ["busybox", "toybox", "dropbear", "coreutils"];
        if !path.is_file() || path.is_symlink() || multicall.iter().any(|own| name.contains(own)) {
            continue;
        }
        let file = File::open(&path).unwrap();
        let source = Source::file(file.as_fd(), file.metadata().unwrap().len());
        let Some(facts) = elf_facts(&source, Bytes(4096)).unwrap() else { continue };
        assert_eq!(program(&source, &facts).unwrap(), None, "{name}");
        seen += 1;
    }
    assert!(seen > 50, "only {seen} programs");
}

/// As many program headers as Linux takes, each of which names the whole file.
fn segments_that_lie_cost_no_time() {
    let count = 65536 / 56;
    let word = |number: u64| number.to_le_bytes();
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    bytes.extend([word(0), word(64), word(0)].concat());
    bytes.extend(b"\0\0\0\0\x40\0\x38\0");
    bytes.extend((count as u16).to_le_bytes());
    bytes.resize(64, 0);
    let len = 16 << 20;
    for at in 0..count {
        bytes.extend([1, 0, 0, 0, if at % 2 == 0 { 4 } else { 6 }, 0, 0, 0]);
        bytes.extend([word(0), word(at), word(at), word(len), word(len), word(1)].concat());
    }
    let pattern =
        b" multicall binary\0toybox\0BusyBox v1 cat\0ls\0Dropbear SSH multi-purpose v'a' - \n";
    while bytes.len() < len as usize {
        bytes.extend(pattern);
    }
    let started = Instant::now();
    let source = Source::bytes_of(&bytes);
    let facts = elf_facts(&source, Bytes(4096)).unwrap().unwrap();
    assert_eq!(facts.loads.len(), count as usize);
    drop(program(&source, &facts).unwrap());
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

fn survey(root: &Path) -> Inventory {
    let dir = RootDir::open(&HostPath(root.into())).unwrap();
    let (mut found, notices) =
        walk(&[dir], WalkLimits { entries: 100_000 }, &Listings::default(), &Silent);
    assert!(notices.complete());
    found.remove(0)
}

/// The links of every multi-call program in a root, found as the audit finds them.
fn links(root: &Path) -> (RootLinks, BTreeSet<String>) {
    let inventory = survey(root);
    let (mut wanted, mut wrappers, mut applets) = (HashSet::new(), Vec::new(), BTreeSet::new());
    let mut read_once = HashSet::new();
    for (file, meta) in inventory.files().filter(|(_, meta)| read_once.insert(meta.inode)) {
        let path = root.join(inventory.file_path(file).as_path());
        if meta.size.0 <= 128 {
            let script = fs::read(&path).unwrap();
            wrappers.extend(parse_wrapper(&script).map(|to| (file, to.to_vec())));
        } else if is_elf(&path)
            && let Some(found) = read(&path)
        {
            wanted.insert(file);
            applets.extend(found.applets);
        }
    }
    let wanted: HashSet<FileId> = wanted;
    let names: HashSet<&[u8]> = applets.iter().map(String::as_bytes).collect();
    (links_of(&inventory, &wanted, &wrappers, &names), applets)
}

fn is_elf(path: &Path) -> bool {
    fs::read(path).unwrap().starts_with(b"\x7fELF")
}

fn only(found: &RootLinks) -> &Names {
    assert_eq!(found.names.len(), 1);
    found.names.values().next().unwrap()
}

/// The file names of a program's links.
fn linked(names: &Names) -> BTreeSet<String> {
    names.links.iter().map(|path| String::from_utf8(path.file_name().into()).unwrap()).collect()
}

fn link_layouts() {
    type Lay = fn(&Path, &str);
    let layouts: [(&str, Lay); 6] = [
        ("absolute", |root, name| {
            symlink("/bin/busybox", root.join("usr/bin").join(name)).unwrap();
        }),
        ("relative", |root, name| symlink("busybox", root.join("usr/bin").join(name)).unwrap()),
        ("outside", |root, name| {
            symlink("../../../../bin/busybox", root.join("usr/bin").join(name)).unwrap();
        }),
        ("hard", |root, name| {
            let bin = root.join("usr/bin");
            fs::hard_link(bin.join("busybox"), bin.join(name)).unwrap();
        }),
        ("alternatives", |root, name| {
            symlink("/bin/busybox", root.join("etc/alternatives").join(name)).unwrap();
            let alternative = Path::new("/etc/alternatives").join(name);
            symlink(alternative, root.join("usr/bin").join(name)).unwrap();
        }),
        ("wrappers", |root, name| {
            fs::write(root.join("usr/bin").join(name), "#!/bin/busybox\n").unwrap();
        }),
    ];
    for (layout, lay) in layouts {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let applets = lay_busybox(root);
        for name in applets.iter().filter(|name| *name != "busybox") {
            lay(root, name);
        }
        symlink("/bin/gone", root.join("usr/bin/cat.off")).unwrap();
        symlink("busybox.gone", root.join("usr/bin/old")).unwrap();
        let (found, known) = links(root);
        let names = only(&found);
        let mut all = linked(names);
        all.insert(String::from_utf8(names.path.file_name().into()).unwrap());
        let with_own_name = applets.iter().cloned().chain(["busybox".into()]);
        assert_eq!(all, with_own_name.collect(), "{layout}");
        assert!(applets.iter().all(|name| known.contains(name)));
        let dangling: Vec<_> = found.dangling.iter().map(|path| path.as_bytes()).collect();
        assert_eq!(dangling, [b"usr/bin/old"], "{layout}");
    }
}

/// A merged-/usr root with busybox in it, and its applets' names.
fn lay_busybox(root: &Path) -> Vec<String> {
    for dir in ["usr/bin", "etc/alternatives"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    symlink("usr/bin", root.join("bin")).unwrap();
    let busybox = packages::program("busybox-static");
    fs::copy(&busybox, root.join("usr/bin/busybox")).unwrap();
    read(&busybox).unwrap().applets
}

fn split_by_set_id() {
    let dir = tempfile::tempdir().unwrap();
    let bin = dir.path().join("bin");
    fs::create_dir(&bin).unwrap();
    for (program, applets) in [("busybox.suid", ["su", "ping"]), ("busybox.nosuid", ["ls", "cat"])]
    {
        fs::copy(packages::program("busybox-static"), bin.join(program)).unwrap();
        for applet in applets {
            symlink(format!("/bin/{program}"), bin.join(applet)).unwrap();
        }
    }
    let (found, _) = links(dir.path());
    let all: Vec<_> =
        found.names.values().map(|names| (names.path.file_name(), linked(names))).collect();
    assert_eq!(all.len(), 2);
    for (program, links) in all {
        let expected = if program == b"busybox.suid" { ["ping", "su"] } else { ["cat", "ls"] };
        assert_eq!(links, BTreeSet::from(expected.map(str::to_owned)));
    }
}

fn links_of_the_articles_roots() {
    let dir = tempfile::tempdir().unwrap();
    packages::article_roots(dir.path(), 1).unwrap();
    let (found, applets) = links(&dir.path().join("nifty1"));
    assert_eq!(found.names.len(), 2);
    assert_eq!(found.dangling, []);
    let linked: BTreeSet<String> = found.names.values().flat_map(linked).collect();
    assert!(linked.len() > 200 && linked.is_subset(&applets), "{linked:?}");
}
