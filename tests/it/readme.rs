//! The README's commands are run, and what it shows is what they print.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::command::Ran;
use crate::suite::{Need, Suite};
use crate::usage::commands;

pub fn tests(suite: &mut Suite) {
    let needs = &[Need::Package("busybox-static"), Need::Dropbear];
    suite.test("readme_first_command_reports_on_real_roots", needs, first_command_reports);
    suite.test("readme_names_the_commands_there_are", &[], names_the_commands_there_are);
    suite.test("readme_second_command_runs_the_tests", &[], second_command_runs_the_tests);
}

fn first_command_reports() {
    let readme = readme();
    let dir = tempfile::tempdir().unwrap();
    let roots = dir.path().join("roots");
    // Nothing is built again: the binary under test stands in.
    let script = block(&readme, "sh", "make-roots")
        .replace("/tmp/roots", roots.to_str().unwrap())
        .replace("cargo run --release --", env!("CARGO_BIN_EXE_cbin-audit"));
    assert!(!script.contains("cargo") && !script.contains("/tmp/roots\n"), "{script}");
    let mut shell = Command::new("bash");
    shell.args(["-euc", &script]).current_dir(env!("CARGO_MANIFEST_DIR")).env("COLUMNS", "100");
    shell.env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap());
    let ran = Ran::from(shell.output().unwrap());
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    for program in ["busybox", "dropbear"] {
        let line = ran.stdout.lines().find(|line| line.contains(program)).unwrap_or_default();
        assert!(line.contains(" 5 "), "{program} has no five copies in\n{}", ran.stdout);
    }
    // Versions, sizes and what this user may know of a root's state differ from
    // one machine to the next; the other words do not.
    let shown = block(&readme, "text", "busybox").replace("$ cbin-audit report /tmp/roots", "");
    let mut strange: Vec<&str> = words(&shown).filter(|word| !ran.stdout.contains(word)).collect();
    strange.retain(|word| !["stopped", "unknown", "roots"].contains(word));
    assert!(
        strange.is_empty(),
        "the README shows {strange:?}, but this is printed:\n{}",
        ran.stdout
    );
}

/// The table of commands is that of the help.
fn names_the_commands_there_are() {
    let readme = readme();
    let (_, table) = readme.split_once("| command | does |").unwrap();
    let (table, _) = table.split_once("\n\n").unwrap();
    let named =
        table.split("`cbin-audit ").skip(1).filter_map(|rest| rest.split([' ', '`']).next());
    let mut named: Vec<String> = named.map(str::to_owned).collect();
    named.sort();
    let mut known = commands();
    known.retain(|name| name != "help");
    known.sort();
    assert_eq!(named, known);
}

fn second_command_runs_the_tests() {
    let script = block(&readme(), "sh", "cargo test");
    assert_eq!(script, "testdata/install-test-packages\ncargo test --tests\n");
}

/// Runs of four or more letters.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphabetic()).filter(|word| word.len() >= 4)
}

/// The fenced block of that language that holds `word`.
fn block(readme: &str, language: &str, word: &str) -> String {
    let opening = format!("```{language}\n");
    let mut blocks = readme.split(&opening).skip(1).filter_map(|rest| rest.split("```").next());
    blocks.find(|block| block.contains(word)).expect("the README has such a block").to_owned()
}

fn readme() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap()
}
