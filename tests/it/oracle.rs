//! An oracle that knows nothing of our code: it hashes every file with
//! `sha256sum`, and asks `filefrag` where the blocks lie.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use cbin_audit::model::{Bytes, Select, Silent};
use cbin_audit::ops::{AuditOptions, Limits, audit};
use cbin_audit::scan::Cache;

use crate::command::{answer_and_bytes_read, cbin_audit};
use crate::loopfs::LoopFs;
use crate::suite::{Need, Suite};

pub fn tests(suite: &mut Suite) {
    suite.test("oracle_agrees_on_this_file_system", &[], agrees_on_this_file_system);
    let needs = |mkfs| [Need::Root, Need::Program(mkfs), Need::Program("filefrag")];
    suite.test("privileged_oracle_agrees_on_ext4", &needs("mkfs.ext4"), || agrees_on("ext4"));
    suite.test("privileged_oracle_agrees_on_xfs", &needs("mkfs.xfs"), || agrees_on("xfs"));
    suite.test("privileged_oracle_agrees_on_btrfs", &needs("mkfs.btrfs"), || agrees_on("btrfs"));
    let compressed = || agrees_on_mounted("btrfs", "loop,compress-force=zstd");
    suite.test("privileged_oracle_agrees_on_btrfs_compressed", &needs("mkfs.btrfs"), compressed);
    suite.test("oracle_trees_are_read_once", &[], trees_are_read_once);
    suite.test("oracle_few_descriptors", &[Need::Program("prlimit")], few_descriptors);
    suite.test("oracle_answer_is_the_same_for_any_number_of_threads", &[], same_for_any_threads);
}

fn agrees_on_this_file_system() {
    let dir = tempfile::tempdir().unwrap();
    let roots = lay_roots(dir.path(), Reflinks::None);
    compare(&roots, &HashMap::new());
}

fn agrees_on(kind: &str) {
    agrees_on_mounted(kind, "loop");
}

fn agrees_on_mounted(kind: &str, options: &str) {
    let mounted = LoopFs::make_with(kind, 512, options);
    let reflinks = if kind == "ext4" { Reflinks::None } else { Reflinks::Some };
    let roots = lay_roots(mounted.path(), reflinks);
    rustix::fs::sync();
    let blocks = blocks_of(&roots);
    let packed = blocks.values().any(|blocks| blocks.encoded);
    assert_eq!(
        packed,
        options.contains("compress"),
        "what is on the disk is not what was asked for"
    );
    if kind != "ext4" {
        assert!(
            blocks.values().any(|blocks| blocks.shared),
            "no reflink was made: nothing is tested"
        );
    }
    compare(&roots, &blocks);
}

#[derive(Clone, Copy, PartialEq)]
enum Reflinks {
    None,
    Some,
}

/// Four roots that agree and differ in every way that matters.
fn lay_roots(dir: &Path, reflinks: Reflinks) -> Vec<PathBuf> {
    let roots: Vec<PathBuf> = (0..4).map(|at| dir.join(format!("root{at}"))).collect();
    for (at, root) in roots.iter().enumerate() {
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::create_dir_all(root.join("usr/lib/deep/er")).unwrap();
        for file in 0..40u32 {
            let size = 1 + 977 * file as usize;
            fs::write(root.join(format!("usr/lib/same{file}")), noise(file, size)).unwrap();
            fs::write(
                root.join(format!("usr/lib/own{file}")),
                noise(1000 * (at as u32 + 1) + file, size),
            )
            .unwrap();
        }
        fs::write(root.join("empty"), b"").unwrap();
        fs::write(root.join("usr/lib/of-one-letter"), vec![b'a'; 1_500_000]).unwrap();
        fs::write(root.join("bin/big"), noise(7, 700_000)).unwrap();
        let mut altered = noise(7, 700_000);
        altered[699_000 + at] ^= 1;
        fs::write(root.join("bin/altered-near-the-end"), altered).unwrap();
        fs::write(root.join("bin/exactly-one-block"), noise(8, 16 * 1024)).unwrap();
        fs::write(root.join("bin/exactly-one-piece"), noise(9, 128 * 1024)).unwrap();
        fs::hard_link(root.join("usr/lib/same3"), root.join("usr/lib/deep/hard3")).unwrap();
        let sparse = fs::File::create(root.join("usr/lib/sparse")).unwrap();
        sparse.set_len(3_000_000).unwrap();
        std::os::unix::fs::symlink("same1", root.join("usr/lib/link")).unwrap();
    }
    fs::hard_link(roots[0].join("bin/big"), roots[1].join("bin/big-of-0")).unwrap();
    if reflinks == Reflinks::Some {
        for (from, to) in [(0, "usr/lib/clone"), (1, "usr/lib/clone"), (2, "bin/clone")] {
            reflink(&roots[from].join("bin/big"), &roots[3].join(format!("{to}{from}")));
        }
        for at in 1..4 {
            reflink(&roots[0].join("usr/lib/same30"), &roots[at].join("usr/lib/clone30"));
        }
    }
    roots
}

fn reflink(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("--reflink=always").args([from, to]).status().unwrap();
    assert!(done.success());
}

/// Bytes that no two seeds have in common.
fn noise(seed: u32, size: usize) -> Vec<u8> {
    let mut state = u64::from(seed) * 2 + 1;
    let step = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(step).take(size).collect()
}

/// An inode as both sides name it.
type Inode = (u64, u64);

/// Where one file's blocks lie, as `filefrag -v` has it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Blocks {
    extents: Vec<(u64, u64)>,
    shared: bool,
    /// Compressed.
    encoded: bool,
}

fn compare(roots: &[PathBuf], blocks: &HashMap<Inode, Blocks>) {
    let options = AuditOptions {
        roots: roots.to_vec(),
        select: Select::All,
        trees: false,
        memory: false,
        limits: Limits::default(),
    };
    let report = audit(&options, &mut Cache::none(), &Silent).unwrap();
    assert!(report.notices.complete(), "{:?}", report.notices);
    let ours: BTreeSet<BTreeSet<Inode>> = report
        .groups
        .iter()
        .map(|group| group.copies.iter().map(|copy| (copy.inode.dev, copy.inode.ino)).collect())
        .collect();
    let files = hashed(roots);
    let theirs = groups_of(&files);
    assert_eq!(ours, theirs.iter().map(|group| group.keys().copied().collect()).collect());
    let wasted: u64 = theirs.iter().map(|group| waste_of(group, blocks)).sum();
    assert_eq!(report.totals.wasted_disk, Bytes(wasted));
    assert!(wasted > 0);
}

/// The hash of every file, by `sha256sum`.
fn hashed(roots: &[PathBuf]) -> Vec<(String, PathBuf)> {
    let listed = Command::new("find")
        .args(roots)
        .args(["-type", "f", "-exec", "sha256sum", "{}", "+"])
        .output();
    let text = String::from_utf8(listed.unwrap().stdout).unwrap();
    text.lines().map(|line| (line[..64].to_owned(), PathBuf::from(&line[66..]))).collect()
}

/// Inodes by content, two or more of them, with their allocated bytes.
fn groups_of(files: &[(String, PathBuf)]) -> Vec<BTreeMap<Inode, u64>> {
    let mut groups: BTreeMap<&str, BTreeMap<Inode, u64>> = BTreeMap::new();
    for (hash, path) in files {
        let stat = fs::metadata(path).unwrap();
        groups.entry(hash).or_default().insert((stat.dev(), stat.ino()), stat.blocks() * 512);
    }
    groups.into_values().filter(|group| group.len() > 1).collect()
}

/// What the inodes take beyond one of them, blocks that they share once.
fn waste_of(group: &BTreeMap<Inode, u64>, blocks: &HashMap<Inode, Blocks>) -> u64 {
    let mut seen: Vec<&Blocks> = Vec::new();
    let mut all = 0;
    for (inode, allocated) in group {
        if let Some(blocks) = blocks.get(inode).filter(|blocks| blocks.shared) {
            if seen.contains(&blocks) {
                continue;
            }
            seen.push(blocks);
        }
        all += allocated;
    }
    all - group.values().max().unwrap()
}

fn blocks_of(roots: &[PathBuf]) -> HashMap<Inode, Blocks> {
    let mut blocks = HashMap::new();
    for (_, path) in hashed(roots) {
        let stat = fs::metadata(&path).unwrap();
        let output = Command::new("filefrag").args(["-v", "-b1"]).arg(&path).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        blocks.insert((stat.dev(), stat.ino()), parse_filefrag(&text));
    }
    blocks
}

/// Lines such as `0:  0..  4095:  123..  4218:  4096:  last,shared,eof`.
fn parse_filefrag(text: &str) -> Blocks {
    let mut extents = Vec::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split(':').map(str::trim).collect();
        let Some(physical) = fields.get(2).and_then(|field| field.split_once("..")) else {
            continue;
        };
        if let (Ok(start), Ok(end)) = (physical.0.trim().parse(), physical.1.trim().parse()) {
            extents.push((start, end));
        }
    }
    Blocks { extents, shared: text.contains("shared"), encoded: text.contains("encoded") }
}

fn same_for_any_threads() {
    let dir = tempfile::tempdir().unwrap();
    let roots = lay_roots(dir.path(), Reflinks::None);
    let ask = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let options = AuditOptions {
            roots: roots.clone(),
            select: Select::All,
            trees: true,
            memory: false,
            limits: Limits::default(),
        };
        pool.install(|| audit(&options, &mut Cache::none(), &Silent).unwrap())
    };
    let one = ask(1);
    for threads in [2, 7] {
        assert_eq!(one, ask(threads));
    }
}

/// Two roots of 100,000 files each: what is read to compare programs, to compare every file and to
/// compare trees is each file's bytes once.
fn trees_are_read_once() {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let roots = ["a", "b"].map(|root| dir.path().join(root));
    let mut bytes = 0;
    for root in &roots {
        for (directory, file) in (0..1000).flat_map(|dir| (0..100).map(move |file| (dir, file))) {
            let at = root.join(format!("usr/share/d{directory}"));
            if file == 0 {
                fs::create_dir_all(&at).unwrap();
            }
            // Most are read in one piece, of some the first block is compared before the rest.
            let long = file == 7 && directory % 20 == 0;
            let text = noise(directory * 100 + file, if long { 150_000 } else { 300 });
            bytes += text.len() as u64;
            fs::write(at.join(format!("f{file}")), text).unwrap();
        }
    }
    let (report, read) = answer_and_bytes_read(
        cbin_audit().args(["report", "--json", "--no-memory", "--select", "all"]).args(&roots),
    );
    assert_eq!(report["trees"][0]["path"], "usr");
    assert_eq!(report["trees"][0]["files"], 100_000);
    // First blocks are read again; its own start and the tables in /proc are read besides.
    let allowed = bytes + bytes / 10;
    assert!((bytes..allowed).contains(&read), "{read} bytes were read of {bytes}");
}

/// Large files are read side by side, but no more of them than may be open.
fn few_descriptors() {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let roots: Vec<PathBuf> = (0..20).map(|root| dir.path().join(format!("root{root}"))).collect();
    for root in &roots {
        fs::create_dir(root).unwrap();
        for file in 0..40 {
            fs::write(root.join(format!("f{file}")), noise(file, 300_000)).unwrap();
        }
    }
    let program = cbin_audit();
    let mut limited = Command::new("prlimit");
    limited.args(["--nofile=160:160".as_ref(), program.get_program()]);
    limited.args(["report", "--json", "--no-memory", "--select", "all"]).args(&roots);
    let answer = limited.output().unwrap();
    let told = String::from_utf8_lossy(&answer.stderr);
    assert!(answer.status.success(), "{told}");
    let report: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap();
    let groups = report["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 40);
    assert!(groups.iter().all(|group| group["inodes"] == 20));
}
