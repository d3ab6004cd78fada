//! Names that would speak to a terminal, or are no text at all.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{CWD, FileType, Mode};

use super::{Roots, elf, finish};
use crate::command::cbin_audit;
use crate::suite::Suite;

pub fn tests(suite: &mut Suite) {
    suite.test("hostile_names_reach_no_terminal", &[], names_reach_no_terminal);
    suite.test("hostile_names_are_exact_in_json", &[], names_are_exact_in_json);
}

/// Newline, tab, carriage return, ESC, OSC, bell, DEL, C1, bidi, zero width, tags, no UTF-8.
const NAMES: [&[u8]; 14] = [
    b"new\nline",
    b"tab\tstop",
    b"carriage\rreturn",
    b"\x1b[2J\x1b[31mred",
    b"\x1b]0;title\x07",
    b"del\x7f",
    "c1\u{9b}31m".as_bytes(),
    "\u{202e}gnp.exe".as_bytes(),
    "\u{2066}isolate\u{2069}".as_bytes(),
    "zero\u{200b}width".as_bytes(),
    "\u{feff}mark".as_bytes(),
    "tag\u{e0041}".as_bytes(),
    "line\u{2028}separator".as_bytes(),
    b"not\xffutf8\xfe",
];

/// Programs, directories and FIFOs of these names, in roots of such a name.
fn hostile_names() -> Roots {
    let roots = Roots::new();
    for root in ["a\u{1b}[7m\u{202e}", "b"] {
        let root = roots.at(root);
        fs::create_dir_all(root.join("trees")).unwrap();
        for name in NAMES {
            let name = OsStr::from_bytes(name);
            fs::write(root.join(name), elf(name.as_bytes())).unwrap();
            let dir = root.join("trees").join(name);
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join(name), [name.as_bytes(); 700].concat()).unwrap();
            let fifo = dir.join(OsStr::from_bytes(&[b"fifo-", name.as_bytes()].concat()));
            rustix::fs::mknodat(CWD, fifo, FileType::Fifo, Mode::RUSR, 0).unwrap();
        }
    }
    roots
}

fn names_reach_no_terminal() {
    let roots = hostile_names();
    for options in [&["--select", "all"][..], &["--select", "elf", "--max-entries", "3"], &["-v"]] {
        let mut command = cbin_audit();
        command.args(["report", "--no-memory", "--color", "never"]).args(options);
        command.args([roots.at("a\u{1b}[7m\u{202e}"), roots.at("b")]);
        let answer = finish(command);
        for text in [&answer.stdout, &answer.stderr] {
            let bad: Vec<char> = text.chars().filter(|&c| c != '\n' && speaks(c)).collect();
            assert!(bad.is_empty(), "{bad:?} in {text:?}");
        }
        assert!(answer.stdout.contains("isolate"), "{}", answer.stdout);
    }
    // An error about a root names it, too.
    let mut command = cbin_audit();
    command.args(["report", "--no-memory"]).arg(roots.at("no\u{1b}[7m\u{202e}"));
    let answer = finish(command);
    assert_eq!(answer.status, 1);
    assert!(!answer.stderr.chars().any(|c| c != '\n' && speaks(c)), "{:?}", answer.stderr);
}

/// A character that a terminal obeys, or that cannot be seen.
pub fn speaks(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(c, '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

fn names_are_exact_in_json() {
    let roots = hostile_names();
    let answer =
        super::report(&["--select", "all"], &[roots.at("a\u{1b}[7m\u{202e}"), roots.at("b")]);
    let mut answer = answer.complete();
    for name in NAMES {
        match std::str::from_utf8(name) {
            Ok(name) => answer = answer.finds(name),
            Err(_) => {
                let lossy = String::from_utf8_lossy(name).into_owned();
                let group = answer.group(&lossy).expect("its lossy name stands for it");
                let copy = &group["copies"][0];
                assert_eq!(copy["path_base64"], "bm90/3V0Zjj+", "{copy:#}");
            }
        }
    }
    let fifos = answer.notices().iter().filter(|n| n["path"].as_str().unwrap().contains("fifo-"));
    assert_eq!(fifos.count(), 2 * NAMES.len());
    let exact = answer.notices().iter().filter(|n| n["path_base64"].is_string()).count();
    assert_eq!(exact, 2, "only what is no UTF-8 has its bytes beside it");
}
