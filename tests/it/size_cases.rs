//! `size` on files made for one rule each: output, messages and exit status.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::objects::{
    CORE, EXEC, I386, Kind, M68K, Object, REL, S390X, Section, Segment, X86_64, archive, core,
    member_header, note, relocatable, section, shared,
};
use crate::size::{Ran, audit, audit_command, binutils_command, equal_but_for_groups};
use crate::suite::{Need, Suite};

const KINDS: [(&str, Kind); 4] =
    [("x86_64", X86_64), ("i386", I386), ("s390x", S390X), ("m68k", M68K)];

pub fn tests(suite: &mut Suite) {
    let size = &[Need::Program("size")];
    suite.test("size_of_constructed_objects", size, constructed_objects);
    suite.test("size_of_constructed_archives", size, constructed_archives);
    suite.test("size_of_what_is_no_file", size, what_is_no_file);
    suite.test("size_of_several_operands", size, several_operands);
    suite.test("size_options_are_read_as_binutils_read_them", size, options);
    suite.test("size_many_sections", size, many_sections);
    suite.test("size_full_disk_is_an_error", &[], full_disk);
    suite.test("size_broken_pipe_is_success", &[], broken_pipe);
    suite.test("size_threads_keep_the_order", &[], threads_keep_the_order);
}

/// Compares both programs in `directory`, in every format, one file at a time.
fn compare_each(directory: &Path, names: &[String]) {
    let mut exact = 0;
    for name in names {
        for format in ["-B", "-A", "-G", "-xt", "-o", "--common"] {
            let arguments = [format, name.as_str()];
            let (theirs, ours) = both_in(directory, &arguments);
            let blind = |ran: &Ran| Ran { stderr: Vec::new(), ..ran.clone() };
            let same = equal_but_for_groups(&arguments, &blind(&theirs), &blind(&ours));
            assert!(same, "{arguments:?}\n{theirs:#?}\n{ours:#?}");
            let [theirs, ours] =
                [theirs, ours].map(|ran| Ran { stderr: said(format, &ran), ..ran });
            // What BFD remarks on a file that it refuses depends on the targets it tried last,
            // and with `--common` it remarks on the names of symbols, which are not read here.
            let refused = ours.stderr.ends_with(b": file format not recognized\n");
            let equal = match format {
                "--common" => has_lines(&theirs.stderr, &ours.stderr),
                _ if refused => theirs.stderr.ends_with(&ours.stderr),
                _ => theirs.stderr == ours.stderr,
            };
            assert!(equal, "{arguments:?}\n{theirs:#?}\n{ours:#?}");
            exact += usize::from(theirs == ours);
        }
    }
    assert!(exact > names.len() * 5, "{exact} of {} runs say exactly the same", names.len() * 6);
}

/// What was said. With `--common` binutils say some of it twice, and then with their name again.
fn said(format: &str, ran: &Ran) -> Vec<u8> {
    let mut lines: Vec<&[u8]> = ran.stderr.split_inclusive(|&byte| byte == b'\n').collect();
    if format == "--common" {
        lines.iter_mut().for_each(|line| *line = line.strip_prefix(b"size: ").unwrap_or(line));
        lines.dedup();
    }
    lines.concat()
}

/// Every line of the second is one of the first.
fn has_lines(all: &[u8], some: &[u8]) -> bool {
    let lines: Vec<&[u8]> = all.split(|&byte| byte == b'\n').collect();
    some.split(|&byte| byte == b'\n').all(|line| lines.contains(&line))
}

fn both_in(directory: &Path, arguments: &[&str]) -> (Ran, Ran) {
    let run = |mut command: Command| {
        command.current_dir(directory).args(arguments).output().unwrap().into()
    };
    (run(binutils_command()), run(audit_command()))
}

/// Writes `files` and compares them.
fn compare_files(files: Vec<(String, Vec<u8>)>) {
    let directory = tempfile::tempdir().unwrap();
    let names: Vec<String> = files.iter().map(|(name, _)| name.clone()).collect();
    for (name, bytes) in files {
        fs::write(directory.path().join(name), bytes).unwrap();
    }
    compare_each(directory.path(), &names);
}

fn constructed_objects() {
    let mut files = Vec::new();
    for (name, of) in KINDS {
        let variants = plain(of).into_iter().chain(headers(of)).chain(tables(of)).chain(cores(of));
        files.extend(variants.map(|(variant, bytes)| (format!("{name}-{variant}"), bytes)));
    }
    compare_files(files);
}

type Variants = Vec<(String, Vec<u8>)>;

fn plain(of: Kind) -> Variants {
    let mut files = vec![
        ("relocatable".to_owned(), relocatable(of).bytes()),
        ("shared".to_owned(), shared(of).bytes()),
        ("core".to_owned(), core(of).bytes()),
    ];
    // Flags: alloc, write, exec, merge, strings, TLS, exclude; with and without contents.
    for flags in [0, 1, 2, 3, 4, 6, 7, 0x10, 0x11, 0x21, 0x401, 0x403, 0x8000_0001] {
        for (kind, contents) in [(1, "progbits"), (8, "nobits")] {
            let one = [section(".one", kind, flags, 40), section(".text", 1, 6, 3)];
            let object = Object::new(of, EXEC).with(one);
            files.push((format!("{contents}-{flags:x}"), object.bytes()));
        }
    }
    for name in
        [".debugx", ".stabx", ".linex", ".zdebug", ".gdb_index", ".gnu.linkonce.x", ".note.gnu.x"]
    {
        let object = Object::new(of, EXEC).with([section(name, 8, 1, 40)]);
        files.push((format!("named{name}"), object.bytes()));
    }
    let mut odd = section("", 1, 2, 5);
    odd.name = b"\xff\xfe\t".into();
    let unusual = [
        section("", 1, 6, 1),
        section("", 1, 3, 2),
        odd,
        section(".one", 1, 2, 4),
        section(".one", 1, 2, 8),
    ];
    files.push(("names".to_owned(), Object::new(of, EXEC).with(unusual).bytes()));
    let half = if of.wide { 1 << 63 } else { 1 << 31 };
    let huge = |flags| Section { size: Some(half), ..section(".huge", 8, flags, 0) };
    let huge = [huge(3), huge(3), huge(6), section(".data", 1, 3, 7)];
    files.push(("overflow".to_owned(), Object::new(of, EXEC).with(huge).bytes()));
    files
}

/// A change of one field of the header, by its offset in 64 and 32 bits.
fn headers(of: Kind) -> Variants {
    let whole = shared(of).bytes();
    let field = |wide: usize, narrow: usize| if of.wide { wide } else { narrow };
    let half = |number: u16| if of.big { number.to_be_bytes() } else { number.to_le_bytes() };
    let mut files = Vec::new();
    let mut change = |name: &str, at: usize, bytes: &[u8]| {
        let mut changed = whole.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        files.push((name.to_owned(), changed));
    };
    for (name, at) in [("magic", 0), ("class", 4), ("data", 5), ("ident-version", 6), ("osabi", 7)]
    {
        change(name, at, &[9]);
    }
    change("kind-rel", 16, &half(REL));
    change("kind-core", 16, &half(CORE));
    change("kind-unknown", 16, &half(0xfe12));
    change("machine-unknown", 18, &half(0xabcd));
    change("version", 20, &[7, 7, 7, 7]);
    let sections_at = field(40, 32);
    change("table-at-0", sections_at, &[0; 4]);
    change(
        "table-in-header",
        sections_at,
        &if of.big && of.wide { [0, 0, 0, 0, 0, 0, 0, 8] } else { [0, 0, 0, 8, 0, 0, 0, 0] }
            [..field(8, 4)],
    );
    change("table-beyond", sections_at, &[0x10; 4]);
    change("segments-at-0", field(32, 28), &[0; 4]);
    change("segments-beyond", field(32, 28), &[0x10; 4]);
    change("segment-entry", field(54, 42), &half(1));
    change("segment-count", field(56, 44), &half(0x7fff));
    change("segment-count-extended", field(56, 44), &half(0xffff));
    change("section-entry", field(58, 46), &half(63));
    change("section-count-0", field(60, 48), &half(0));
    change("section-count-1", field(60, 48), &half(1));
    change("section-count-more", field(60, 48), &half(30));
    change("section-count-less", field(60, 48), &half(7));
    change("names-index-0", field(62, 50), &half(0));
    change("names-index-beyond", field(62, 50), &half(99));
    change("names-index-other", field(62, 50), &half(9));
    change("names-index-extended", field(62, 50), &half(0xffff));
    for cut in
        [1, 40, 64, 200, whole.len() - 70, whole.len() - 60, whole.len() - 20, whole.len() - 4]
    {
        files.push((format!("cut-{cut}"), whole[..whole.len() - cut].to_vec()));
    }
    files.push(("trailing".to_owned(), [whole.as_slice(), b"garbage"].concat()));
    files
}

/// A change of one section.
fn tables(of: Kind) -> Variants {
    let mut files = Vec::new();
    let mut add = |name: &str, object: Object| files.push((name.to_owned(), object.bytes()));
    let symbol = if of.wide { 24 } else { 16 };

    let mut bare = Object::new(of, EXEC);
    bare.table = false;
    add("no-sections", bare.clone());
    bare.kind = REL;
    add("no-sections-rel", bare.clone());
    bare.names_index = Some(3);
    add("no-sections-index", bare);

    for (name, first) in
        [("extended", 18), ("extended-0", 0), ("extended-more", 40), ("extended-all", 0xffff_ffff)]
    {
        let mut object = shared(of);
        object.count = Some(0);
        object.names_index = Some(0xffff);
        object.segment_count = Some(0xffff);
        object.first = Section { size: Some(first), link: 18, info: 2, ..Section::default() };
        if first == 18 {
            object.first.size = Some(19);
        }
        add(name, object);
    }
    for kind in [
        0x60,
        10,
        18,
        19,
        20,
        0x6000_0001,
        0x6fff_fff5,
        0x6fff_fff8,
        0x7000_0001,
        0x7000_0003,
        0x8000_0001,
        0xffff_ffff,
    ] {
        for flags in [0, 0x103] {
            add(
                &format!("kind-{kind:x}-{flags:x}"),
                Object::new(of, EXEC)
                    .with([section(".x", kind, flags, 8), section(".text", 1, 6, 3)]),
            );
        }
    }
    let mut one = |name: &str, index: usize, change: &dyn Fn(&mut Section)| {
        for (kind, mut object) in [("rel", relocatable(of)), ("dyn", shared(of))] {
            if let Some(section) = object.sections.get_mut(index) {
                change(section);
                files.push((format!("{kind}-{name}-{index}"), object.bytes()));
            }
        }
    };
    for index in 0..17 {
        one("entry", index, &|section| section.entry = 5);
        one("link-0", index, &|section| section.link = 0);
        one("link-self", index, &|section| section.link = index as u32 + 1);
        one("link-beyond", index, &|section| section.link = 99);
        one("link-solaris", index, &|section| section.link = 0xff01);
        one("info-beyond", index, &|section| section.info = 99);
        one("info-2", index, &|section| section.info = 2);
        one("past-end", index, &|section| section.size = Some(1 << 20));
        one("empty", index, &|section| section.size = Some(0));
        one("align", index, &|section| section.align = if of.wide { 1 << 63 } else { 1 << 31 });
        one("grouped", index, &|section| section.flags |= 0x200);
        one("ordered", index, &|section| section.flags |= 0x80);
        one("info-link", index, &|section| section.flags |= 0x40);
        one("kind-note", index, &|section| section.kind = 7);
        one("kind-symtab", index, &|section| section.kind = 2);
        one("kind-strtab", index, &|section| section.kind = 3);
        one("kind-rela", index, &|section| section.kind = 4);
        one("kind-null", index, &|section| section.kind = 0);
    }
    for (name, contents) in
        [("unterminated", b"\0.text\0.shstrtab".as_slice()), ("short", b"\0.te\0"), ("none", b"")]
    {
        let names = Section { kind: 3, contents: contents.into(), ..Section::default() };
        for count in [1, 2] {
            let mut object = Object::new(of, EXEC).with(vec![section(".text", 1, 6, 3); count]);
            object.names = Some(names.clone());
            files.push((format!("names-{name}-{count}"), object.bytes()));
        }
    }
    let twice = |kind, entry| {
        let mut object = relocatable(of);
        let again =
            Section { link: 9, info: 1, entry, ..section(".again", kind, 0, entry as usize) };
        object.sections.extend([again.clone(), again]);
        object.bytes()
    };
    files.push(("rela-twice".to_owned(), twice(4, symbol.min(if of.wide { 24 } else { 12 }))));
    files.push(("rel-twice".to_owned(), twice(9, if of.wide { 16 } else { 8 })));
    let mut symbols = relocatable(of);
    let second = symbols.sections[8].clone();
    symbols.sections[8].size = Some(7 * symbol);
    files.push(("symbols-7".to_owned(), symbols.bytes()));
    symbols.sections[8] = Section { kind: 1, ..second.clone() };
    symbols.sections.push(second);
    files.push(("symbols-elsewhere".to_owned(), symbols.bytes()));
    files
}

fn cores(of: Kind) -> Variants {
    let mut files = Vec::new();
    let whole = core(of).bytes();
    for cut in [1, 10, 70, 140, 600] {
        files.push((format!("core-cut-{cut}"), whole[..whole.len() - cut].to_vec()));
    }
    let mut notes = |name: &str, contents: Vec<u8>, align: u64| {
        let mut object = core(of);
        object.segments[0] = Segment { kind: 4, contents, align, ..Segment::default() };
        files.push((format!("core-{name}"), object.bytes()));
    };
    notes("notes-garbage", vec![0xff; 100], 4);
    notes("notes-short", vec![0; 10], 4);
    notes("notes-aligned-8", note(of, b"CORE\0\0\0\0", 6, &[0; 32]), 8);
    notes("notes-aligned-16", vec![0xff; 100], 16);
    notes("notes-gnu", note(of, b"GNU\0", 3, &[]), 4);
    notes("notes-unknown", note(of, b"LINUX\0", 0x1234, &[0; 8]), 4);
    for (at, kind) in [1_u32, 2, 3, 5, 6, 0x6474_e550, 0x6474_e551, 0x6474_e552, 0x7000_0000]
        .into_iter()
        .enumerate()
    {
        let mut object = core(of);
        object.segments[1].kind = kind;
        object.segments[2].kind = if at % 2 == 0 { 0 } else { kind };
        files.push((format!("core-kind-{kind:x}"), object.bytes()));
    }
    let mut many = core(of);
    many.table = true;
    many.segment_count = Some(0xffff);
    many.first.info = 5;
    files.push(("core-extended".to_owned(), many.bytes()));
    files
}

fn constructed_archives() {
    let object = relocatable(X86_64).bytes();
    let foreign = relocatable(S390X).bytes();
    let one = || archive([("one.o/", object.as_slice())]);
    let mut files: Vec<(String, Vec<u8>)> = vec![
        ("empty".into(), archive([])),
        ("one".into(), one()),
        (
            "two".into(),
            archive([("one.o/", object.as_slice()), ("two.o/", &foreign), ("one.o/", &object)]),
        ),
        (
            "text".into(),
            archive([("readme/", b"text\n".as_slice()), ("one.o/", &object), ("odd/", b"x")]),
        ),
        ("nested".into(), archive([("inner.a/", one().as_slice()), ("one.o/", &object)])),
        (
            "bsd-short".into(),
            archive([
                ("one.o", object.as_slice()),
                ("sixteen_letters_", &object),
                ("with space", &object),
            ]),
        ),
        ("fifteen".into(), archive([("fifteen_letters/", object.as_slice())])),
        (
            "long".into(),
            archive([
                ("//", b"a_rather_long_name.o/\nback\\slash.o/\n".as_slice()),
                ("/0", &object),
                ("/22", &object),
                ("/99", &object),
            ]),
        ),
        (
            "arfilenames".into(),
            archive([
                ("ARFILENAMES/", b"a_name.o\nother\n".as_slice()),
                (" 0", &object),
                (" 9", &object),
            ]),
        ),
        (
            "index".into(),
            archive([("/", b"\0\0\0\x01\0\0\0\x50f\0".as_slice()), ("one.o/", &object)]),
        ),
        (
            "index-64".into(),
            archive([
                ("/SYM64/", b"\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x50f\0".as_slice()),
                ("one.o/", &object),
            ]),
        ),
        (
            "index-bsd".into(),
            archive([
                ("__.SYMDEF", b"\x08\0\0\0\0\0\0\0\x50\0\0\0\x02\0\0\0f\0".as_slice()),
                ("one.o/", &object),
            ]),
        ),
        (
            "index-damaged".into(),
            archive([("/", b"\0\x01\0\x01\0\0\0\x50f\0".as_slice()), ("one.o/", &object)]),
        ),
        (
            "index-twice".into(),
            archive([("/", b"\0\0\0\0".as_slice()), ("/", b"\0\0\0\0"), ("one.o/", &object)]),
        ),
        (
            "size-negative".into(),
            [b"!<arch>\n".to_vec(), member_header("one.o/", -5), object.clone()].concat(),
        ),
        (
            "size-none".into(),
            [b"!<arch>\n".to_vec(), member_header("one.o/", 0), object.clone()].concat(),
        ),
    ];
    let bsd = [b"a_bsd_name.o\0\0\0\0".as_slice(), &object].concat();
    files.push((
        "bsd-long".into(),
        archive([("#1/16", bsd.as_slice()), ("#1/4", b"abcd"), ("#1/99", b"abcd")]),
    ));
    let mut header = archive([("one.o/", object.as_slice()), ("two.o/", &object)]);
    let second = 8 + 60 + object.len().next_multiple_of(2);
    header[second + 58] = b'x';
    files.push(("header".into(), header.clone()));
    header[second + 58] = b'`';
    header[second + 48] = b'x';
    files.push(("header-size".into(), header));
    for rest in [1, 15, 16, 59] {
        files.push((format!("rest-{rest}"), [b"!<arch>\n".to_vec(), vec![b'x'; rest]].concat()));
        files.push((format!("tail-{rest}"), [one(), vec![b'x'; rest]].concat()));
        files.push((format!("cut-{rest}"), one()[..one().len() - rest].to_vec()));
    }
    compare_files(files);
    thin_archives();
}

fn thin_archives() {
    let directory = tempfile::tempdir().unwrap();
    let below = directory.path().join("below");
    fs::create_dir(&below).unwrap();
    let object = relocatable(X86_64).bytes();
    fs::write(below.join("one.o"), &object).unwrap();
    fs::write(below.join("text"), "text").unwrap();
    fs::write(below.join("inner.a"), archive([("in.o/", object.as_slice())])).unwrap();
    let thin = |names: &str, members: &[&str]| {
        let mut bytes = b"!<thin>\n".to_vec();
        bytes.extend(member_header("//", names.len() as i64));
        bytes.extend(names.as_bytes());
        for member in members {
            bytes.extend(member_header(member, object.len() as i64));
        }
        bytes
    };
    let names = "one.o/\ntext/\ninner.a/\ngone.o/\n";
    let cases: [(&str, &[&str]); 7] = [
        ("one", &["/0", "/0"]),
        ("text", &["/7", "/0"]),
        ("archive", &["/13", "/0"]),
        ("nested", &["/13:8", "/0"]),
        ("nested-astray", &["/13:9", "/0"]),
        ("gone", &["/0", "/22", "/0"]),
        ("beyond", &["/0", "/999"]),
    ];
    for (name, members) in cases {
        fs::write(below.join(format!("{name}.a")), thin(names, members)).unwrap();
    }
    let names = cases.map(|(name, _)| format!("below/{name}.a"));
    compare_each(directory.path(), &names);
}

fn what_is_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    fs::create_dir(path.join("directory")).unwrap();
    fs::write(path.join("empty"), "").unwrap();
    fs::write(path.join("text"), "text\n").unwrap();
    fs::write(path.join("it's"), "text\n").unwrap();
    symlink("loop", path.join("loop")).unwrap();
    symlink("gone", path.join("dangling")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        path.join("fifo"),
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    let long = "x".repeat(300);
    let names = [
        "directory",
        "empty",
        "text",
        "it's",
        "loop",
        "dangling",
        "fifo",
        "gone",
        "text/x",
        "",
        &long,
        "/dev/null",
        "/proc/self/stat",
    ];
    for name in names {
        let (theirs, ours) = both_in(path, &[name]);
        assert_eq!(theirs, ours, "{name}");
    }
    let nothing = both_in(path, &[]);
    assert_eq!(nothing.0, nothing.1, "a.out is missing");
}

/// Files for tests of operands and options.
fn a_directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(directory.path().join(name), bytes).unwrap();
    write("one.o", &relocatable(X86_64).bytes());
    write("two.so", &shared(S390X).bytes());
    write("a.out", &shared(X86_64).bytes());
    write("text", b"text\n");
    write("it's here", &relocatable(I386).bytes());
    write("-t", &relocatable(X86_64).bytes());
    write(
        "lib.a",
        &archive([("one.o/", relocatable(X86_64).bytes().as_slice()), ("text/", b"text")]),
    );
    write("options", b"-x  'one.o'\n\t\"it's here\" two\\.so @more @gone");
    write("more", b"-t --format=gnu");
    write("blank", b" \n");
    directory
}

fn several_operands() {
    let directory = a_directory();
    let runs: [&[&str]; 12] = [
        &["one.o", "two.so", "lib.a"],
        &["text", "missing"],
        &["missing", "text"],
        &["missing", "text", "one.o"],
        &["lib.a", "missing", "one.o"],
        &["-t", "one.o", "text", "two.so", "two.so"],
        &["-A", "one.o", "text", "two.so"],
        &["-tG", "missing"],
        &["-t", "missing"],
        &["-At", "one.o"],
        &["-to", "one.o", "lib.a"],
        &["--common", "-tx", "one.o", "lib.a", "a.out"],
    ];
    for arguments in runs {
        let (theirs, ours) = both_in(directory.path(), arguments);
        assert_eq!(theirs, ours, "{arguments:?}");
    }
}

fn options() {
    let directory = a_directory();
    let runs: [&[&str]; 56] = [
        &[],
        &["-A"],
        &["-B"],
        &["-G"],
        &["-AB"],
        &["-BA"],
        &["-xA"],
        &["-dox"],
        &["-f"],
        &["-ft"],
        &["one.o", "-x"],
        &["one.o", "-x", "two.so", "-t"],
        &["--", "-t"],
        &["-x", "--", "-t", "--"],
        &["--format=sysv"],
        &["--format=s"],
        &["--format=Sxyz"],
        &["--format=Berk"],
        &["--format", "gnu"],
        &["--form=g"],
        &["--f=g"],
        &["--format=zz"],
        &["--format="],
        &["--format"],
        &["--radix=8"],
        &["--radix=16abc"],
        &["--radix= 10"],
        &["--radix=5"],
        &["--radix="],
        &["--rad", "16"],
        &["--totals"],
        &["--to"],
        &["--t"],
        &["--totals=1"],
        &["--common"],
        &["--com"],
        &["--c=1"],
        &["-z"],
        &["-Az"],
        &["-?"],
        &["-h"],
        &["-H"],
        &["--nothing"],
        &["--nothing=1"],
        &["--target=binary", "text", "one.o"],
        &["--target=binary", "-A", "text"],
        &["--target=nothing", "one.o", "missing"],
        &["--target=elf64-x86-64", "one.o"],
        &["--targ=default", "one.o"],
        &["@options"],
        &["@gone"],
        &["@"],
        &["@blank"],
        &["@options", "@more"],
        &["-"],
        &["@."],
    ];
    for arguments in runs {
        let (mut theirs, mut ours) = both_in(directory.path(), arguments);
        for ran in [&mut theirs, &mut ours] {
            cut_usage(&mut ran.stderr);
        }
        assert_eq!(theirs, ours, "{arguments:?}");
    }
    for arguments in [["--help", "one.o"], ["-v", "one.o"], ["-V", "--help"], ["--version", "-x"]] {
        let (theirs, ours) = both_in(directory.path(), &arguments);
        assert_eq!((theirs.status, theirs.stderr), (ours.status, ours.stderr), "{arguments:?}");
        assert!(!ours.stdout.is_empty());
    }
}

/// The usage is in our own words.
fn cut_usage(text: &mut Vec<u8>) {
    if let Some(at) = text.windows(6).position(|window| window == b"Usage:") {
        text.truncate(at);
    }
}

/// More than an index of 16 bits counts.
fn many_sections() {
    let mut object = Object::new(X86_64, REL);
    object.sections = (0..66_000).map(|at| section("", 1, 6, at % 3)).collect();
    object.first = Section { size: Some(66_002), link: 66_001, ..Section::default() };
    object.count = Some(0);
    object.names_index = Some(0xffff);
    compare_files(vec![("many".to_owned(), object.bytes())]);
}

fn full_disk() {
    let directory = a_directory();
    for options in [[].as_slice(), &["-A"], &["--help"], &["--json"]] {
        let mut command = audit_command();
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        command.current_dir(directory.path()).args(options).arg("one.o").stdout(full);
        let ran = command.output().unwrap();
        assert_eq!(ran.status.code(), Some(1), "{options:?}");
        let said = String::from_utf8(ran.stderr).unwrap();
        assert_eq!(said, "size: standard output: No space left on device\n");
    }
}

fn broken_pipe() {
    let directory = a_directory();
    let mut command = audit_command();
    command.current_dir(directory.path()).arg("-A").args(vec!["one.o"; 2000]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(output.stderr, b"");
}

fn threads_keep_the_order() {
    let directory = a_directory();
    let files: Vec<_> = ["one.o", "text", "lib.a", "missing", "two.so"]
        .map(|name| directory.path().join(name))
        .into_iter()
        .cycle()
        .take(3000)
        .collect();
    for format in ["-Bt", "-A"] {
        assert_eq!(audit(&[format], &files), audit(&[format, "-j", "8"], &files));
    }
    assert_eq!(audit(&["-j0"], &files).status, 1);
}
