//! ELF facts against `readelf`, which reads the same headers with code of its own.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use cbin_audit::model::{Bytes, ElfClass, ElfFacts, Endian};
use cbin_audit::scan::{Source, elf_facts, program_in};

use crate::packages;
use crate::suite::{Need, Suite};

/// Packages with programs of every word size and byte order, static and dynamic.
pub const FOREIGN: [&str; 8] =
    ["arm64", "armhf", "armel", "i386", "mips64el", "mipsel", "ppc64el", "s390x"];

pub fn tests(suite: &mut Suite) {
    let readelf = Need::Program("readelf");
    suite.test("elf_readelf_agrees_on_this_machine", &[readelf], || {
        let programs = sample(&["/usr/bin", "/usr/sbin", "/usr/lib"], 400);
        assert!(programs.len() > 100, "only {} programs", programs.len());
        compare(&programs);
    });
    for architecture in FOREIGN {
        let names = ["busybox-static", "busybox", "toybox"];
        let packages = names.map(|name| leak(format!("{name}:{architecture}")));
        let [fixed, dynamic, toybox] = packages.map(Need::Package);
        let name = format!("elf_readelf_agrees_on_{architecture}");
        suite.test(&name, &[readelf, fixed, dynamic, toybox], move || {
            compare(&packages.map(packages::program));
        });
    }
    let native = [Need::Package("busybox")];
    suite.test("elf_facts_need_no_section_headers", &native, facts_need_no_section_headers);
    suite.test("elf_cut_files_have_fewer_facts", &native, cut_files_have_fewer_facts);
    let hostile = ["busybox-static:s390x", "toybox", "toybox:armhf"];
    suite.test("elf_survives_mutations", &hostile.map(Need::Package), move || {
        hostile.into_iter().for_each(survives_mutations);
    });
}

/// A name that lives as long as the suite.
pub fn leak(name: String) -> &'static str {
    name.leak()
}

pub fn facts_of(path: &Path) -> ElfFacts {
    let file = File::open(path).unwrap();
    let source = Source::file(file.as_fd(), file.metadata().unwrap().len());
    elf_facts(&source, Bytes(4096)).unwrap().unwrap()
}

/// ELF files with program headers below the directories, evenly picked.
fn sample(dirs: &[&str], most: usize) -> Vec<PathBuf> {
    let found =
        dirs.iter().flat_map(|dir| walkdir::WalkDir::new(dir).max_depth(2).sort_by_file_name());
    let files = found.flatten().filter(|entry| entry.file_type().is_file());
    let elf: Vec<PathBuf> =
        files.map(|entry| entry.into_path()).filter(|path| loads(path)).collect();
    let step = elf.len().div_ceil(most).max(1);
    elf.into_iter().step_by(step).collect()
}

fn loads(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    let source = Source::file(file.as_fd(), file.metadata().unwrap().len());
    elf_facts(&source, Bytes(4096)).unwrap().is_some_and(|facts| !facts.loads.is_empty())
}

fn compare(programs: &[PathBuf]) {
    for program in programs {
        let said = readelf(program);
        assert_eq!(ours(&facts_of(program)), said, "{}", program.display());
    }
}

/// What both readers say, in the same words.
type Facts = BTreeSet<String>;

fn ours(facts: &ElfFacts) -> Facts {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let class = if facts.class == ElfClass::Elf64 { "ELF64" } else { "ELF32" };
    let endian = if facts.endian == Endian::Big { "big" } else { "little" };
    let mut all = Facts::from([format!("class {class}"), format!("endian {endian}")]);
    all.extend(facts.interpreter.as_deref().map(|path| format!("interpreter {}", text(path))));
    all.extend(facts.needed.iter().map(|name| format!("needed {}", text(name))));
    all.extend(facts.soname.as_deref().map(|name| format!("soname {}", text(name))));
    all.extend(facts.runpath.iter().map(|path| format!("runpath {}", text(path))));
    all.extend(facts.build_id.as_ref().map(|id| {
        let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("build-id {hex}")
    }));
    all.extend(facts.loads.iter().map(|load| {
        let flags = [(4, 'R'), (2, 'W'), (1, 'E')];
        let flags: String =
            flags.iter().filter(|(bit, _)| load.flags & bit != 0).map(|flag| flag.1).collect();
        format!(
            "load {:x} {:x} {:x} {:x} {flags} {:x}",
            load.offset, load.vaddr, load.file_size, load.mem_size, load.align
        )
    }));
    all.insert(format!("relro {:x}", facts.relro.0));
    all.insert(format!("textrel {}", facts.textrel));
    all.insert(format!("linkage {}", facts.linkage.name()));
    all
}

fn readelf(program: &Path) -> Facts {
    // With a section table readelf takes the notes from there, and Go's linker has a
    // build-id in its sections alone.
    let bare = tempfile::NamedTempFile::new().unwrap();
    fs::write(bare.path(), without_section_table(fs::read(program).unwrap())).unwrap();
    let output = Command::new("readelf")
        .args(["-hldnW", "--"])
        .arg(bare.path())
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let mut all: Facts = text.lines().filter_map(|line| said(line.trim())).collect();
    let has = |what: &str| all.iter().any(|fact| fact.starts_with(what));
    let linkage = match (has("type EXEC"), has("interpreter"), has("pie"), has("soname")) {
        (true, false, ..) => "static",
        (true, true, ..) => "dynamic",
        (false, false, true, _) => "static-pie",
        (false, true, true, _) | (false, true, _, false) => "pie",
        (false, ..) => "shared-object",
    };
    all.insert(format!("linkage {linkage}"));
    for (fact, default) in [("relro", "relro 0"), ("textrel", "textrel false")] {
        if !all.iter().any(|known| known.starts_with(fact)) {
            all.insert(default.to_owned());
        }
    }
    all.retain(|fact| !fact.starts_with("type") && fact != "pie");
    all
}

/// The fact in a line of readelf's.
fn said(line: &str) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let bracketed = || line.split_once('[').map_or("", |(_, name)| name.trim_end_matches(']'));
    Some(match &words[..] {
        ["Class:", class] => format!("class {class}"),
        ["Data:", .., endian, "endian"] => format!("endian {endian}"),
        ["Type:", name, ..] => format!("type {name}"),
        ["[Requesting", "program", "interpreter:", path] => {
            format!("interpreter {}", path.trim_end_matches(']'))
        }
        ["LOAD", offset, vaddr, _, file_size, mem_size, flags @ .., align] => {
            let [offset, vaddr, file_size, mem_size, align] =
                [offset, vaddr, file_size, mem_size, align].map(|text| hex(text));
            let flags = flags.concat();
            format!("load {offset:x} {vaddr:x} {file_size:x} {mem_size:x} {flags} {align:x}")
        }
        ["GNU_RELRO", _, _, _, _, size, ..] => format!("relro {:x}", hex(size)),
        [_, "(NEEDED)", ..] => format!("needed {}", bracketed()),
        [_, "(SONAME)", ..] => format!("soname {}", bracketed()),
        [_, "(RUNPATH)" | "(RPATH)", ..] => format!("runpath {}", bracketed()),
        [_, "(TEXTREL)", ..] => "textrel true".to_owned(),
        [_, "(FLAGS)", flags @ ..] if flags.contains(&"TEXTREL") => "textrel true".to_owned(),
        [_, "(FLAGS_1)", flags @ ..] if flags.contains(&"PIE") => "pie".to_owned(),
        [.., "Build", "ID:", id] => format!("build-id {id}"),
        _ => return None,
    })
}

fn hex(text: &str) -> u64 {
    u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap()
}

/// Clears e_shoff, and e_shentsize to e_shstrndx.
fn without_section_table(mut bytes: Vec<u8>) -> Vec<u8> {
    let (offset, counts) = if bytes[4] == 2 { (40..48, 58..64) } else { (32..36, 46..52) };
    bytes[offset].fill(0);
    bytes[counts].fill(0);
    bytes
}

fn facts_need_no_section_headers() {
    let bytes = fs::read(packages::program("busybox")).unwrap();
    let whole = elf_facts(&Source::bytes_of(&bytes), Bytes(4096)).unwrap().unwrap();
    assert!(whole.build_id.is_some() && !whole.needed.is_empty() && whole.interpreter.is_some());
    assert!(whole.sections.is_some());
    let bare = without_section_table(bytes);
    let bare = elf_facts(&Source::bytes_of(&bare), Bytes(4096)).unwrap().unwrap();
    assert_eq!(bare, ElfFacts { sections: None, ..whole });
}

fn cut_files_have_fewer_facts() {
    let bytes = fs::read(packages::program("busybox")).unwrap();
    for len in (0..1200).chain((1200..bytes.len()).step_by(4999)) {
        let cut = &bytes[..len];
        let facts = elf_facts(&Source::bytes_of(cut), Bytes(4096)).unwrap();
        assert_eq!(facts.is_some(), len >= 64, "{len} bytes");
        if let Some(facts) = facts {
            drop(program_in(cut, &facts));
            assert!(facts.segments.ro.0 <= len.div_ceil(4096) as u64);
        }
    }
}

/// Bytes of the headers and of what they lead to are set to values that parsers trip over.
fn survives_mutations(package: &str) {
    let mut bytes = fs::read(packages::program(package)).unwrap();
    let facts = elf_facts(&Source::bytes_of(&bytes), Bytes(4096)).unwrap().unwrap();
    let dynamic = facts.loads.last().map_or(0, |load| load.offset as usize);
    let targets = [0..64, 0..1024, dynamic..dynamic + 8192, 0..bytes.len()];
    let mut random = Random(0x1234_5678_9abc_def1);
    let mut slowest = Duration::ZERO;
    for case in 0..1000 {
        let changes: Vec<(usize, u8)> = (0..1 + random.below(8))
            .map(|_| {
                let target = &targets[random.below(targets.len())];
                let at = target.start + random.below(target.len());
                let value = [0, 1, 0x7f, 0x80, 0xff, random.0 as u8][random.below(6)];
                (at.min(bytes.len() - 1), value)
            })
            .collect();
        let undo: Vec<_> = changes.iter().map(|&(at, _)| (at, bytes[at])).collect();
        changes.iter().for_each(|&(at, value)| bytes[at] = value);
        let started = Instant::now();
        if let Some(facts) = elf_facts(&Source::bytes_of(&bytes), Bytes(4096)).unwrap() {
            let strings: usize = facts.needed.iter().chain(&facts.runpath).map(Vec::len).sum();
            assert!(strings <= 65536 && facts.loads.len() <= 65536 / 32, "case {case}");
            let found = (case % 16 == 0).then(|| program_in(&bytes, &facts)).flatten();
            assert!(found.is_none_or(|program| program.applets.len() <= 4096), "case {case}");
        }
        slowest = slowest.max(started.elapsed());
        undo.iter().rev().for_each(|&(at, value)| bytes[at] = value);
    }
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");
}

/// xorshift64: the same cases in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}
