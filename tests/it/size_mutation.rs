//! `size` on files with bytes altered: headers, fields of sections, members of archives, cuts.

use std::fs;
use std::path::Path;

use crate::objects::{I386, M68K, S390X, X86_64, archive, core, relocatable, shared};
use crate::size::{Ran, audit_command, binutils_command, equal_but_for_groups};
use crate::suite::{Need, Suite};

/// Seeds, each of them [`CASES`] files.
const SEEDS: u64 = 4;
const CASES: usize = 5000;
/// Operands of one run.
const BATCH: usize = 250;

pub fn tests(suite: &mut Suite) {
    for seed in 1..=SEEDS {
        let needs = &[Need::Program("size")];
        suite.test(&format!("size_of_altered_files_{seed}"), needs, move || altered_files(seed));
    }
}

/// Both programs accept and refuse the same files, and print the same of them.
fn altered_files(seed: u64) {
    let directory = tempfile::tempdir().unwrap();
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let originals = originals();
    let mut accepted = 0;
    for batch in 0..CASES / BATCH {
        let names: Vec<String> = (0..BATCH).map(|at| format!("{batch}-{at}")).collect();
        for name in &names {
            let mut bytes = originals[random.below(originals.len())].clone();
            alter(&mut bytes, &mut random);
            fs::write(directory.path().join(name), bytes).unwrap();
        }
        accepted += compare(directory.path(), &names, seed);
        for name in &names {
            fs::remove_file(directory.path().join(name)).unwrap();
        }
    }
    // Otherwise the alterations are too coarse to show anything.
    assert!(accepted > CASES / 5, "only {accepted} of {CASES} were accepted");
}

fn originals() -> Vec<Vec<u8>> {
    let mut files = Vec::new();
    for of in [X86_64, I386, S390X, M68K] {
        files.extend([relocatable(of).bytes(), relocatable(of).bytes(), shared(of).bytes()]);
    }
    files.push(core(X86_64).bytes());
    files.push(core(I386).bytes());
    let (one, two) = (relocatable(X86_64).bytes(), shared(S390X).bytes());
    let members =
        [("//", b"a_long_name_of_a_member.o/\n".as_slice()), ("one.o/", &one), ("/0", &two)];
    files.push(archive(members));
    for path in ["/usr/lib/x86_64-linux-gnu/crt1.o", "/usr/lib/x86_64-linux-gnu/libutil.so.1"] {
        files.extend(fs::read(path).ok().filter(|bytes| bytes.len() < 1 << 16));
    }
    files
}

/// How many objects were accepted.
fn compare(directory: &Path, names: &[String], seed: u64) -> usize {
    let mut lines = 0;
    for format in ["-B", "-A"] {
        let (theirs, ours) = both(directory, format, names);
        let same = theirs.stdout == ours.stdout && theirs.status == ours.status;
        if !(same && verdicts(&theirs) == verdicts(&ours)) {
            for name in names {
                compare_one(directory, format, name, seed);
            }
        }
        lines =
            ours.stdout.split(|&byte| byte == b'\n').filter(|line| line.ends_with(b":")).count();
    }
    lines
}

fn compare_one(directory: &Path, format: &str, name: &str, seed: u64) {
    let (theirs, ours) = both(directory, format, std::slice::from_ref(&name.to_owned()));
    let [blind_theirs, blind_ours] =
        [&theirs, &ours].map(|ran| Ran { stderr: verdicts(ran).concat(), ..ran.clone() });
    if !equal_but_for_groups(&[format], &blind_theirs, &blind_ours) {
        let kept = std::env::temp_dir().join(format!("size-altered-{seed}-{name}"));
        fs::copy(directory.join(name), &kept).unwrap();
        panic!("seed {seed}, {format} {}\n{theirs:#?}\n{ours:#?}", kept.display());
    }
}

/// The messages about files and members that were not counted. What else BFD remarks on those
/// depends on the targets it tried.
fn verdicts(ran: &Ran) -> Vec<&[u8]> {
    const VERDICTS: [&[u8]; 3] =
        [b": file format not recognized\n", b": malformed archive\n", b": file truncated\n"];
    let lines = ran.stderr.split_inclusive(|&byte| byte == b'\n');
    lines.filter(|line| VERDICTS.iter().any(|verdict| line.ends_with(verdict))).collect()
}

fn both(directory: &Path, format: &str, names: &[String]) -> (Ran, Ran) {
    let [theirs, ours] = [binutils_command(), audit_command()].map(|mut command| {
        command.current_dir(directory).arg(format).args(names).output().unwrap()
    });
    (theirs.into(), ours.into())
}

fn alter(bytes: &mut Vec<u8>, random: &mut Random) {
    match random.below(10) {
        0 => bytes.truncate(random.below(bytes.len())),
        1 => bytes.truncate(bytes.len() - 1 - random.below(200.min(bytes.len() - 1))),
        2 | 3 => (0..=random.below(3)).for_each(|_| alter_byte(bytes, 64, random)),
        4 => (0..=random.below(4)).for_each(|_| alter_byte(bytes, usize::MAX, random)),
        _ => (0..=random.below(3)).for_each(|_| alter_section(bytes, random)),
    }
}

/// One byte among the first `below`.
fn alter_byte(bytes: &mut [u8], below: usize, random: &mut Random) {
    let at = random.below(bytes.len().min(below));
    let flipped = bytes[at] ^ (1 << random.below(8));
    let letter = b"0123456789/ `\n#:-"[random.below(17)];
    bytes[at] = [0, 0xff, letter, flipped, random.next() as u8][random.below(5)];
}

/// One field of one section header; where there is none, one byte.
fn alter_section(bytes: &mut [u8], random: &mut Random) {
    let wide = bytes.get(4) == Some(&2);
    let big = bytes.get(5) == Some(&2);
    let (sections_at, count_at, entry) = if wide { (40, 60, 64) } else { (32, 48, 40) };
    let table = number(bytes, sections_at, if wide { 8 } else { 4 }, big);
    let count = number(bytes, count_at, 2, big);
    let fits = table.zip(count).filter(|(table, count)| {
        *count > 0 && table.checked_add(count * entry).is_some_and(|end| end <= bytes.len() as u64)
    });
    let Some((table, count)) = fits.filter(|_| bytes.starts_with(b"\x7fELF")) else {
        return alter_byte(bytes, usize::MAX, random);
    };
    let field = random.below(10);
    let (offset, width) = if wide {
        [(0, 4), (4, 4), (8, 8), (16, 8), (24, 8), (32, 8), (40, 4), (44, 4), (48, 8), (56, 8)]
            [field]
    } else {
        (field * 4, 4)
    };
    let at = (table + random.below(count as usize) as u64 * entry) as usize + offset;
    let old = number(bytes, at, width, big).unwrap_or(0);
    let new = new_value(field, old, count, bytes.len() as u64, random).to_be_bytes();
    let new = &new[8 - width..];
    for (place, byte) in (0..width).zip(new) {
        bytes[at + if big { place } else { width - 1 - place }] = *byte;
    }
}

/// A value that the field's meaning makes interesting.
fn new_value(field: usize, old: u64, count: u64, len: u64, random: &mut Random) -> u64 {
    const KINDS: [u64; 14] = [
        0x6fff_fff5,
        0x6fff_fff6,
        0x6fff_fffd,
        0x6fff_fffe,
        0x6fff_ffff,
        0x6000_0000,
        0x6000_0004,
        0x6000_0104,
        0x7000_0001,
        0x7000_0003,
        0x8000_0001,
        0xffff_ffff,
        17,
        18,
    ];
    let any = random.next();
    let choices: &[u64] = match field {
        1 => &[any % 20, any % 20, any % 20, KINDS[random.below(14)]],
        2 => &[old ^ (1 << random.below(12)), old ^ (1 << random.below(32))],
        6 | 7 => &[any % count, any % (count + 2), count, 0, old + 1, 0xff00, 0xffff_ffff],
        8 => &[0, 1, 3, 1 << 31, 1 << 63, any % 64],
        9 => &[0, 2, 4, 8, 12, 16, 24, any % 64],
        _ => &[
            0,
            1,
            old + 1,
            old.wrapping_sub(1),
            old << 1,
            u64::MAX,
            1 << 63,
            any % 0x1_0000,
            len,
            any,
        ],
    };
    choices[random.below(choices.len())]
}

fn number(bytes: &[u8], at: usize, width: usize, big: bool) -> Option<u64> {
    let field = bytes.get(at..at + width)?;
    let add = |sum: u64, byte: &u8| (sum << 8) | u64::from(*byte);
    Some(if big { field.iter().fold(0, add) } else { field.iter().rev().fold(0, add) })
}

/// xorshift64: the same cases in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 11
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}
