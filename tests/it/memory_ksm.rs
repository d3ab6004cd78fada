//! Pages that the kernel merges by itself (ksm, Documentation/admin-guide/mm/ksm.rst): never
//! those of the page cache, only those that a process has copied by writing to them. A
//! merged page is no file's any more.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use cbin_audit::model::Pages;

use crate::memory_ground::{Ground, Running, distinct, frames, look, named, start, wait_for};
use crate::suite::{Need, Suite};

const KSM: &str = "/sys/kernel/mm/ksm";

/// Maps a program with leave to be merged, touches its pages in one way or the other, and sleeps.
const MAP: &str = "
import ctypes, mmap, sys, time
path, touch = sys.argv[1:]
PR_SET_MEMORY_MERGE = 67
assert ctypes.CDLL(None).prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0) == 0
prot = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
file = open(path, 'rb')
pages = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=prot)
pages.madvise(mmap.MADV_MERGEABLE)
for at in range(0, len(pages), 4096):
    byte = pages[at]
    if touch == 'write':
        pages[at] = byte
time.sleep(1000)
";

pub fn tests(suite: &mut Suite) {
    let needs = [
        Need::Root,
        Need::Package("busybox-static"),
        Need::Program("python3"),
        Need::File("/sys/kernel/mm/ksm/run"),
    ];
    // One after the other: the switch is the whole machine's.
    suite.test("privileged_memory_sharing_ksm", &needs, || {
        file_pages();
        copied_pages();
    });
}

fn file_pages() {
    let (ground, running, _on) = merged("read");
    let seen = running.each_ref().map(|process| frames(process.pid(), &ground.name));
    let (resident, ideal) = distinct(&seen);
    assert!(ideal > 400 && resident == 2 * ideal, "the kernel does otherwise: {resident}, {ideal}");
    let report = look();
    let binaries = named(&report, &ground.name);
    let [binary] = binaries.as_slice() else { panic!("{binaries:#?}") };
    assert_eq!((binary.objects, binary.file.resident), (2, Pages(resident)), "{binary:#?}");
    assert_eq!(binary.file.wasted(), Pages(ideal), "{binary:#?}");
}

/// The bytes are in memory once, but in no file: there is nothing to be made one.
fn copied_pages() {
    let (ground, running, _on) = merged("write");
    wait_for("the kernel to merge every copied page", || {
        let frames = running.each_ref().map(|process| anonymous(process.pid(), &ground.name));
        let common = frames[0].iter().filter(|(page, frame)| frames[1].get(page) == Some(frame));
        common.count() > 400
    });
    let report = look();
    let binaries = named(&report, &ground.name);
    assert!(!binaries.is_empty());
    for binary in binaries {
        assert_eq!((binary.file.resident, binary.file.wasted()), (Pages(0), Pages(0)));
        assert_eq!(binary.text.mapped, Pages(0), "{binary:#?}");
    }
}

/// Two processes with a copy each, when all has been merged that will be.
fn merged(touch: &str) -> (Ground, [Running; 2], On) {
    let ground = Ground::new();
    let on = On::switch();
    let running = ["a", "b"].map(|dir| {
        let program = ground.program_in(&ground.dir(dir));
        start(Command::new("python3").args(["-c", MAP]).arg(program).arg(touch))
    });
    let scans = number(Path::new(KSM).join("full_scans").as_path());
    wait_for("the kernel to merge", || {
        // The first look at a page notes its checksum, the second one merges.
        number(Path::new(KSM).join("full_scans").as_path()) > scans + 3
    });
    (ground, running, on)
}

/// The frames of present pages that are not the file's.
fn anonymous(pid: u32, name: &str) -> BTreeMap<u64, u64> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let line = maps.lines().find(|line| line.ends_with(name)).unwrap();
    let (start, rest) = line.split_once('-').unwrap();
    let (end, _) = rest.split_once(' ').unwrap();
    let [start, end] = [start, end].map(|hex| u64::from_str_radix(hex, 16).unwrap() / 4096);
    let pagemap = File::open(format!("/proc/{pid}/pagemap")).unwrap();
    let entry = |page: u64| {
        let mut entry = [0; 8];
        pagemap.read_exact_at(&mut entry, page * 8).unwrap();
        u64::from_ne_bytes(entry)
    };
    let pages = (start..end).map(|page| (page - start, entry(page)));
    let pages = pages.filter(|(_, entry)| entry >> 63 == 1 && entry >> 61 & 1 == 0);
    pages.map(|(page, entry)| (page, entry & ((1 << 55) - 1))).collect()
}

fn number(file: &Path) -> u64 {
    fs::read_to_string(file).unwrap().trim().parse().unwrap()
}

/// The kernel merges for as long as this lives, and in large steps.
struct On(Vec<(&'static str, String)>);

impl On {
    fn switch() -> Self {
        let new = [("pages_to_scan", "10000"), ("run", "1")];
        let old = new.map(|(name, value)| {
            let file = Path::new(KSM).join(name);
            let old = fs::read_to_string(&file).unwrap();
            fs::write(file, value).unwrap();
            (name, old)
        });
        Self(old.into())
    }
}

impl Drop for On {
    fn drop(&mut self) {
        for (name, value) in self.0.iter().rev() {
            fs::write(Path::new(KSM).join(name), value).unwrap();
        }
    }
}
